"""The command line: options from the config's fields, one readable line per mistake, exit codes."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from jobs import (
    benchmark,
    cli,
    embeddings,
    evaluate,
    export,
    generate,
    make_manifest,
    plan,
    redo,
    report,
    score,
    status,
    verify,
)
from manifests.config import OptionGroup, RunConfig
from manifests.errors import CheckpointError, IncompleteRunError, KandinskyBatchError, UsageError

NEEDED = ["--manifest", "m.parquet", "--output", "out"]


def refused(*arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        cli.parse_config(arguments, "test")
    return str(caught.value)


def test_every_field_has_an_option_with_its_description_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parse_config(["--help"], "Make images.")
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Make images." in shown
    for name, field in RunConfig.model_fields.items():
        assert f"--{'no-' if field.default is True else ''}{name.replace('_', '-')}" in shown
        assert field.description is not None
        assert field.description in shown
    assert "samples per device call (default: 4)" in shown


#: Every `--help` there is: a script, the words before it, and what starts the script.
HELPS: dict[str, Callable[[], int]] = {
    "generate.py": generate.main,
    "plan.py": plan.main,
    "verify.py": verify.main,
    "report.py": report.main,
    "status.py": status.main,
    "redo.py": redo.main,
    "evaluate.py": evaluate.main,
    "export.py": export.main,
    "score.py": score.main,
    "make_manifest.py": make_manifest.main,
    "embeddings.py": embeddings.main,
    **{f"embeddings.py {name}": embeddings.main for name in ("list", "export", "import", "prune")},
    "benchmark.py": benchmark.main,
    **{f"benchmark.py {one.NAME}": benchmark.main for one in benchmark.BENCHMARKS},
}


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> cli.Parser:
    """The parser whose help a command prints."""
    parsers: list[cli.Parser] = []
    monkeypatch.setattr(cli.Parser, "print_help", lambda parser: parsers.append(parser))
    monkeypatch.setattr("sys.argv", [*command.split(), "--help"])
    with pytest.raises(SystemExit) as ended:
        HELPS[command]()
    assert ended.value.code == 0
    (parser,) = parsers
    return parser


def groups(parser: cli.Parser) -> dict[str, list[argparse.Action]]:
    """The options under each heading of `--help`, in its order."""
    parser.format_help()
    found = {str(group.title): group._group_actions for group in parser._action_groups}
    return {title: actions for title, actions in found.items() if actions}


def test_every_script_is_among_those_whose_help_is_looked_at() -> None:
    shared = {"cli.py", "terminal.py", "__init__.py"}
    scripts = {path.name for path in (Path(cli.__file__).parent).glob("*.py")} - shared
    assert {command.split()[0] for command in HELPS} == scripts


@pytest.mark.parametrize("command", HELPS)
def test_every_option_has_a_heading_a_meaning_and_a_word_for_what_is_wanted(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headings = groups(parser_of(command, monkeypatch))
    assert list(headings)[-1] == "help"
    assert not {"options", "positional arguments"} & set(headings)
    for action in itertools.chain.from_iterable(headings.values()):
        name = "/".join(action.option_strings) or action.dest
        if action.nargs == 0:
            assert action.help, name
            continue
        wanted = action.metavar or "{" + ",".join(map(str, action.choices or ())) + "}"
        assert wanted not in ("{}", "VALUE", "X"), f"{name} does not say what is wanted"
        assert action.help or isinstance(action.choices, dict), name


@pytest.mark.parametrize("command", HELPS)
def test_help_fits_a_terminal_of_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = parser_of(command, monkeypatch).format_help().splitlines()
    assert len(lines) > 5
    assert [line for line in lines if len(line) > 80] == []


def test_an_option_is_not_torn_at_the_end_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in range(60, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        for line in parser_of("generate.py", monkeypatch).format_help().splitlines():
            assert not re.search(r"(^| )--[a-z-]*-$", line), line


def test_a_dry_run_shows_its_own_options_first(monkeypatch: pytest.MonkeyPatch) -> None:
    own, *others = groups(parser_of("plan.py", monkeypatch)).items()
    assert [action.dest for action in own[1]] == ["check_inputs", "probe", "chip", "peak", "utilization", "json"]
    run = groups(parser_of("generate.py", monkeypatch))
    assert [title for title, _ in others] == list(run)
    assert list(run) == [*get_args(OptionGroup), "settings from a file", "help"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("generate.py --prior-", {"--prior-actors", "--prior-guidance-scale", "--prior-steps"}),
        ("generate.py --device ", {"auto", "ascend", "cpu"}),
        ("embeddings.py p", {"prune"}),
        ("embeddings.py prune S --", {"--keep", "--check", "--help"}),
    ],
)
def test_a_shell_is_told_what_may_follow(line: str, offered: set[str], tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }
    script = Path(cli.__file__).parent / line.split()[0]
    subprocess.run([sys.executable, script], env=environment, capture_output=True, check=True)
    assert {word.strip() for word in answer.read_text().split("\n")} == offered


def test_every_script_says_that_it_answers_a_shell() -> None:
    for script in {command.split()[0] for command in HELPS}:
        assert "PYTHON_ARGCOMPLETE_OK" in (Path(cli.__file__).parent / script).read_text()[:1024], script


def test_a_flag_is_shown_once_and_without_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = parser_of("generate.py", monkeypatch).format_help()
    assert "--append" in shown
    assert "--no-dump-latents" not in shown
    assert "--no-report" in shown
    assert "--report" not in shown.replace("--no-report", "")
    assert "False" not in shown
    assert "True" not in shown
    assert "(default: 60)" in shown


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["generate.py", "--output"],
            "argument --output: expected one argument (generate.py --help lists all options)",
        ),
        (["embeddings.py", "export", "S", "F", "--chekpoint=x"], "unknown argument '--chekpoint=x'; did you mean '--c"),
        (["make_manifest.py", "--csv", "a.csv"], "the following arguments are required: --output (make_manifest.py -"),
        (
            ["benchmark.py", "plan", "--rows", "many"],
            "argument --rows: invalid int value: 'many' (benchmark.py plan --h",
        ),
    ],
)
def test_a_mistake_in_the_words_is_one_line_as_well(
    arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(UsageError) as caught:
        HELPS[arguments[0]]()
    assert str(caught.value).startswith(line)


def test_options_become_typed_fields() -> None:
    config = cli.parse_config([*NEEDED, "--batch-size", "8", "--guidance-scale", "1.5", "--image-format=webp"], "t")
    assert (config.batch_size, config.guidance_scale, config.image_format) == (8, 1.5, "webp")
    assert config.steps is None


def test_a_yes_or_no_setting_is_a_flag_that_can_be_taken_back(tmp_path: Path) -> None:
    assert cli.parse_config([*NEEDED, "--dump-latents"], "t").dump_latents is True
    assert cli.parse_config(NEEDED, "t").dump_latents is False
    file = tmp_path / "run.toml"
    file.write_text("dump_latents = true")
    assert cli.parse_config([*NEEDED, "--config", str(file)], "t").dump_latents is True
    assert cli.parse_config([*NEEDED, "--config", str(file), "--no-dump-latents"], "t").dump_latents is False


def test_graphs_are_on_where_the_option_stands_alone(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("graph = true")
    for words, graph in (
        ([], "auto"),
        (["--graph"], "on"),
        (["--graph", "auto"], "auto"),
        (["--graph=off"], "off"),
        (["--no-graph"], "off"),
        (["--config", str(file)], "on"),
        (["--config", str(file), "--no-graph"], "off"),
    ):
        assert cli.parse_config([*NEEDED, *words], "t").graph == graph
    assert refused(*NEEDED, "--graph", "maybe").startswith("option --graph: ")


def test_manifest_takes_several_values_and_relative_paths_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = cli.parse_config(["--manifest", "a.parquet", "sub/*.parquet", "/b", "--output", "../out"], "t")
    assert config.manifest == (f"{tmp_path}/a.parquet", f"{tmp_path}/sub/*.parquet", "/b")
    assert config.output == str(tmp_path.parent / "out")


def test_the_embedding_store_is_the_outputs_own_another_one_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.parse_config(NEEDED, "t").embeddings_url == f"{tmp_path}/out/_run/embeddings"
    assert cli.parse_config([*NEEDED, "--embeddings", "store"], "t").embeddings_url == f"{tmp_path}/store"
    assert cli.parse_config([*NEEDED, "--embeddings", "s3://b/store"], "t").embeddings_url == "s3://b/store"
    assert cli.parse_config([*NEEDED, "--embeddings", "none"], "t").embeddings_url is None


@pytest.mark.parametrize("url", ["s3://bucket/x", "memory://m", "simplecache::s3://bucket/x"])
def test_urls_are_left_alone(url: str) -> None:
    config = cli.parse_config(["--manifest", url, "--output", url], "t")
    assert config.manifest == (url,)
    assert config.output == url


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("demo", "demo"),
        ("random", "random"),
        ("weights/", "{here}/weights"),
        ("./weights", "{here}/weights"),
        ("file:///data/weights/", "/data/weights"),
        ("not-there/deeper", "{here}/not-there/deeper"),
        ("s3://bucket/weights/", "s3://bucket/weights"),
        ("kandinsky-community/", "kandinsky-community/"),
        ("kandinsky-community/@v1", "kandinsky-community@v1/"),
        ("kandinsky-community@v1", "kandinsky-community@v1/"),
        ("kandinsky-community@refs/pr/1/", "kandinsky-community@refs/pr/1/"),
    ],
)
def test_a_checkpoint_has_one_spelling(given: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    config = cli.parse_config([*NEEDED, "--checkpoint", given], "t")
    assert config.checkpoint == kept.format(here=tmp_path)
    # Stages in other processes parse what is kept.
    assert cli.parse_config([*NEEDED, "--checkpoint", config.checkpoint], "t").checkpoint == config.checkpoint


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('manifest = "/m.parquet"\noutput = "/out"\nbatch_size = 2\nsteps = 7\n')
    config = cli.parse_config(["--config", str(file), "--batch-size", "16"], "t")
    assert (config.manifest, config.output, config.batch_size, config.steps) == (
        ("/m.parquet",),
        "/out",
        16,
        7,
    )


def test_a_mistake_in_the_file_names_the_file_and_the_nearest_key(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("batch_sice = 2")
    assert refused("--config", str(file)) == f"{file}: unknown key 'batch_sice'; did you mean 'batch_size'?"
    file.write_text("batch_size = 0")
    assert refused(*NEEDED, "--config", str(file)).startswith(f"{file}: batch_size: input should be greater")
    file.write_text("batch_size = ")
    assert f"cannot read {file}" in refused("--config", str(file))
    assert "cannot read /no/such.toml" in refused("--config", "/no/such.toml")


def test_every_mistake_becomes_one_line_that_names_its_option() -> None:
    lines = refused("--manifest", "m", "--batch-size", "0", "--device", "gpu", "--decoder-actors", "0").splitlines()
    assert lines == [
        "option --output: is required",
        "option --device: input should be 'auto', 'ascend' or 'cpu'; got 'gpu'",
        "option --batch-size: input should be greater than or equal to 1; got '0'",
        "option --decoder-actors: should be the size of the decoder pool: auto, N or MIN:MAX; got '0'",
    ]


def test_a_name_that_is_not_utf8_is_told_with_what_to_do() -> None:
    said = refused("--manifest", "m", "--output", os.fsdecode("café".encode("latin-1")))
    assert said.startswith("option --output: is not UTF-8; rename it")


def test_an_unknown_option_names_the_nearest() -> None:
    assert refused(*NEEDED, "--batchsize", "4") == "unknown argument '--batchsize'; did you mean '--batch-size'?"
    assert refused(*NEEDED, "--outptu=x") == "unknown argument '--outptu=x'; did you mean '--output'?"


def test_a_script_may_offer_some_options_only() -> None:
    config = cli.parse_config(NEEDED, "t", fields=("manifest", "output"))
    assert config.batch_size == RunConfig.model_fields["batch_size"].default
    with pytest.raises(UsageError, match="unknown argument '--batch-size'"):
        cli.parse_config([*NEEDED, "--batch-size", "4"], "t", fields=("manifest", "output"))


def test_a_relative_output_is_refused_where_it_would_land_in_a_temporary_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(cli.SUBMITTED_JOB_VARIABLE, "{}")
    assert "give an absolute path or a URL" in refused(*NEEDED)
    assert cli.parse_config(["--manifest", "m", "--output", "/out/"], "t").output == "/out"
    assert cli.parse_config(["--manifest", "m", "--output", "s3://b/o"], "t").output == "s3://b/o"


def ending(main: Callable[[], int]) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.run_script(main)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("why"), 2),
        (CheckpointError("why"), 2),
        (IncompleteRunError("why"), 1),
        (KandinskyBatchError("why"), 1),
    ],
)
def test_our_errors_are_the_last_line_without_a_traceback(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise error

    assert ending(main) == code
    assert capsys.readouterr().err == "error: why\n"


def test_the_exit_code_is_what_main_returns_and_130_on_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert ending(lambda: 0) == 0
    assert ending(lambda: cli.EXIT_FAILED_ROWS) == 3
    assert ending(interrupted) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_defect_of_ours_keeps_its_traceback() -> None:
    def main() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run_script(main)


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(b"\xef\xbb\xbfsteps = 2\n")
    config = cli.parse_config(["--manifest", "m.parquet", "--output", "out", "--config", str(file)], "Make images.")
    assert config.steps == 2
