"""Every command of the READMEs: run on small inputs, or, where it needs a cluster or a model, read by its parser.

The commands of a README are run in their order, in one folder that has what they read. A run is dry: `plan.py` gets the
options of `generate.py`, then a finished output is put there without a model. What a README says that a command prints
is held against what it prints.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.run.job import RunReport, describe
from jobs.run.outcome import count_outcome
from manifests import storage
from manifests.config import RunConfig
from manifests.planning.ids import derive_seed
from tests.unit import finished_run, readme_inputs, readmes
from tests.unit.readmes import READMES, ROOT, Command
from workers.kandinsky import noise

#: Programs that are not here: files of this repository that they are given must be there.
FOREIGN = ("kubectl", "docker", "prometheus", "npu-smi")

#: Run as they stand. What is not listed needs a model or takes minutes, and its words are read by its own parser.
RUN = (
    *("jobs/plan.py", "jobs/status.py", "jobs/verify.py", "jobs/make_manifest.py", "jobs/embeddings.py"),
    "jobs/export.py",
    *("infra/demo_manifest.py", "infra/documents_manifest.py"),
)

#: Run where none of these options is given, which need a model.
RUN_WITHOUT = {
    "jobs/score.py": {"--scores", "--keep-clip"},
    "jobs/evaluate.py": {"--reference", "--save-statistics"},
}

#: A file of the cluster, and the one here that shows what it looks like.
ON_THE_CLUSTER = {"/shared/run.toml": str(ROOT / "infra" / "run.example.toml")}


class Parsed(BaseException):
    """A program has read its words and would begin now; no `except Exception` of it takes this for a failure."""


@contextlib.contextmanager
def only_parsing() -> Iterator[None]:
    """Programs end where `argparse` has read their words, whichever of its ways they ask."""
    parse, depth = argparse.ArgumentParser.parse_known_args, 0

    def stop(parser: argparse.ArgumentParser, *given: Any) -> Any:
        nonlocal depth
        depth += 1
        found = parse(parser, *given)
        depth -= 1
        if depth:
            return found  # Of a sub-command.
        if found[1]:
            parser.error(f"unrecognized arguments: {found[1]}")
        raise Parsed

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Parsed):
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        yield
        raise AssertionError("it has not asked argparse, so it was run")


@contextlib.contextmanager
def words_are(*words: str) -> Iterator[None]:
    """A program finds these words, and leaves the import path as it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(words))
        patch.setattr(sys, "path", list(sys.path))
        yield


def run_script(script: str, *words: str) -> None:
    """Run a script as a person would, in this process."""
    with words_are(script, *words), pytest.raises(SystemExit) as end:
        sys.exit(runpy.run_path(str(ROOT / script), run_name="__main__") and cli.EXIT_OK)
    # 3: some rows cannot be made, which is what such an example shows.
    assert end.value.code in (cli.EXIT_OK, cli.EXIT_FAILED_ROWS), f"{script} ended with {end.value.code}"


def generate(words: Sequence[str]) -> None:
    """What can be done of a run without its models: it is planned, then a finished output stands there."""
    if words == ["--help"]:
        return run_script("jobs/generate.py", *words)
    if storage.is_remote(cli.parse_config(words, "").output):
        return None
    # A dry run looks at the checkpoint too, which may be on the Hub.
    words = [*words, "--checkpoint", "demo"]
    config = cli.parse_config(words, "")
    run_script("jobs/plan.py", *words)
    if config.share != (0, 1):
        return None
    _first_rows_only(config)
    planned = finished_run.run(config)
    outcome = count_outcome(config.output, planned)
    report = RunReport.model_construct(
        output=config.output,
        written=outcome.written,
        failed=sum(outcome.failed.values()),
        failed_by_status=outcome.failed,
        failure_examples=outcome.examples,
        shards=len(planned.shards),
        open_shards=0,
        made=outcome.written,
        seconds=60.0,
        images_per_second=1.0,
    )
    return print(describe(report))


def _first_rows_only(config: RunConfig) -> None:
    """Of a manifest of thousands of rows some are enough for what follows."""
    for path in config.manifest:
        rows = pq.read_table(path) if path.endswith("coco30k.parquet") else None
        if rows is not None:
            pq.write_table(rows.slice(0, 4), path)


def run_python(words: Sequence[str], dry: bool) -> None:
    first, *rest = words
    if first == "-c":
        return run_program(rest[0])
    if first == "-m":
        # From the repository's root, as the READMEs' reader does.
        sys.modules.pop(f"{rest[0]}.__main__", None)
        with words_are(*rest), only_parsing():
            runpy.run_module(rest[0], run_name="__main__", alter_sys=False)
        return None
    assert (ROOT / first).is_file(), first
    if first == "jobs/generate.py":
        return generate(rest)
    if (first in RUN or (first in RUN_WITHOUT and RUN_WITHOUT[first].isdisjoint(rest))) and not dry:
        return run_script(first, *rest)
    with words_are(first, *rest), only_parsing():
        runpy.run_path(str(ROOT / first), run_name="__main__")
    return None


def run_program(program: str) -> None:
    """A program of one line; one that would try a device is only compiled."""
    compile(program, "-c", "exec")
    if "mindspore" not in program:
        exec(program, {})
        return
    spec = find_spec("mindspore")
    assert spec is not None
    assert spec.origin is not None
    assert "run_check" in Path(spec.origin).read_text(encoding="utf-8")


def run_make(target: str, dry: bool) -> None:
    """What `make demo` makes and says; of the others only that make knows the way."""
    steps = subprocess.run(
        ["make", "--dry-run", "--directory", ROOT, target, "DEMO_OUTPUT=demo-output"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if target != "demo" or dry:
        return
    for words in (readmes.words_of(line) or [] for line in steps.splitlines()):
        if "jobs/generate.py" in words:
            generate(words[words.index("jobs/generate.py") + 1 :])
        elif "jobs/report.py" in words:
            run_script("jobs/report.py", *words[words.index("jobs/report.py") + 1 :])
        elif words[:1] == ["echo"]:
            print(*words[1:])


def run_ray(words: Sequence[str]) -> None:
    """Ray's own command line reads the words; the job's part of them goes to the job's."""
    from ray.scripts.scripts import cli as ray

    command: click.Command = ray
    context, rest = click.Context(ray), list(words)
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, click.Context(found, parent=context)
    if not rest:
        return  # Only named.
    given = command.make_context(command.name, rest).params
    if command.name == "submit" and "entrypoint" in given:
        program, *job = given["entrypoint"]
        assert (program, given["working_dir"]) == ("python", ".")
    elif command.name == "submit":
        assert Path(given["cluster_config_file"]).is_file()
        job = [given["script"], *given["script_args"]]
    else:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cli.SUBMITTED_JOB_VARIABLE, "{}")
        run_python([ON_THE_CLUSTER.get(word, word) for word in job], dry=True)


def run_pip(words: Sequence[str]) -> None:
    from pip._internal.commands import create_command

    command, *rest = words
    _, wanted = create_command(command).parse_args(rest)
    for extra in re.findall(r"^\.\[(\w+)\]$", "\n".join(wanted), re.MULTILINE):
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all((ROOT / word).exists() for word in rest if word.startswith("infra/"))


def run_command(command: Command, dry: bool = False) -> None:
    """Do what a person's shell would do, as far as this machine can."""
    program, *words = command.words
    name = Path(program).name
    if name == "cat" and command.stdin is not None:
        print(command.stdin, end="")
    elif re.fullmatch(r"python[\d.]*", name):
        run_python(words, dry)
    elif name == "make":
        run_make(*words, dry=dry)
    elif name == "ray":
        run_ray(words)
    elif name == "pip":
        run_pip(words)
    elif name == "export":
        assert re.fullmatch(r"\w+=\S+", *words)
    elif name == "source":
        assert words == [".venv/bin/activate"]
    elif name in FOREIGN:
        paths = [word.rpartition("=")[2] for word in words if "infra/" in word]
        assert all((ROOT / path).exists() for path in paths), paths
    else:
        (script,) = entry_points(group="console_scripts", name=name)
        with words_are(name, *words), only_parsing():
            script.load()()


def is_printed(block: str, printed: str) -> bool:
    """Whether these lines stand together in what was printed; … is anything within a line."""
    pattern = r" *\n".join(re.escape(line).replace("…", ".*") for line in block.splitlines())
    return re.search(rf"^{pattern} *$", printed, re.MULTILINE) is not None


def run_lines(text: str) -> None:
    """A `python` block, with what a reader of it has at hand."""
    names: dict[str, Any] = {"s": 7, "k": 1, "c": 2, "job_seed": 3, "id": "cat"}
    exec(text, names)
    if "prior_generator" in names:
        assert names["prior_generator"].random() == noise.prior_generator(7, 1, 2).random()
        assert names["decoder_generator"].random() == noise.decoder_generator(7, 1).random()
    if "seed" in names:
        assert names["seed"] == derive_seed(3, "cat")


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_commands_of_a_readme_do_what_it_says(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme_inputs.prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    printed, ran = io.StringIO(), 0
    for block in readmes.blocks(path):
        if block.language == "text":
            assert is_printed(block.text, printed.getvalue()), f"line {block.line} is not in:\n{printed.getvalue()}"
            printed = io.StringIO()
        if block.language == "python":
            run_lines(block.text)
        for command in readmes.commands(block) if block.language == "bash" else ():
            with contextlib.redirect_stdout(printed if command.stdout is None else Path(command.stdout).open("w")):
                try:
                    run_command(command)
                except (Exception, SystemExit) as error:
                    raise AssertionError(f"line {command.line}: {' '.join(command.words)}") from error
            ran += 1
    assert ran > 0 or path.parent.name == "workers"


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_that_are_named_in_a_sentence_are_some_that_their_programs_take(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for code in readmes.inline_code(path):
        words = tuple(readmes.words_of(code) or ())
        if words[:1] and words[0] in ("python", "make", "ray", *FOREIGN) and len(words) > 1:
            with contextlib.redirect_stdout(io.StringIO()):
                run_command(Command(words, 0), dry=True)


@pytest.mark.parametrize(
    "line",
    [
        "python jobs/generate.py --manifest s3://BUCKET/m.parquet --output s3://BUCKET/out --batchsize 8",
        "python jobs/plan.py --manifest missing.parquet --output out",
        "python jobs/gone.py",
        "python jobs/benchmark.py plan --count 3",
        "python -m tests.goldens.compare --graphs",
        "make everything",
        "ray job submit --workingdir . -- python jobs/generate.py",
        "ray job submit --working-dir . -- python jobs/generate.py --manifest m.parquet --output relative",
        "hf download",
        "pip install --limits infra/constraints.txt .",
        "kubectl apply -f infra/gone.yaml",
        "nothing --help",
    ],
)
def test_a_command_that_is_wrong_is_noticed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((Exception, SystemExit)):
        run_command(Command(tuple(line.split()), 0))
