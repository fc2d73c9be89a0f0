"""The command line of every script: options made from `RunConfig`'s fields, readable errors, exit codes.

    python jobs/generate.py --manifest A.parquet --output OUT --batch-size 8 --config run.toml

An option is a field's name in kebab-case; a key of the TOML file is the field's name. The command line wins
over the file. `run_script` wraps a script's main function, so that all of them end alike.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from jobs.terminal import steady_streams
from manifests import storage
from manifests.config import NO_EMBEDDINGS, Option, OptionGroup, RunConfig
from manifests.errors import KandinskyBatchError, UsageError
from workers.checkpoints import hub_store, locations

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXIT_OK = 0
EXIT_INCOMPLETE = 1
EXIT_USAGE = 2
EXIT_FAILED_ROWS = 3
EXIT_INTERRUPTED = 130

#: Lines of `--help` are no longer than this in a terminal of any width.
MAX_HELP_COLUMNS = 100

#: Ray sets this in the driver of `ray job submit`, which may run in a temporary copy of a folder.
SUBMITTED_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class HelpFormatter(argparse.HelpFormatter):
    """Paragraphs flow to the terminal's width, indented lines (examples) stay as they are, options are not torn."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, MAX_HELP_COLUMNS) - 2
        super().__init__(prog, max_help_position=30, width=width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(
            paragraph if paragraph.startswith(" ") else textwrap.fill(paragraph, width, break_on_hyphens=False)
            for paragraph in paragraphs
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        one, *_ = self._metavar_formatter(action, default_metavar)(1)
        return f"{one} ..." if action.nargs == "+" else super()._format_args(action, default_metavar)

    def _get_help_string(self, action: argparse.Action) -> str:
        values = action.default if isinstance(action.default, list) else [action.default]
        told = " ".join(str(value) for value in values if value not in (None, False, argparse.SUPPRESS))
        return (action.help or "") + (f" (default: {told})" if told else "")


class Parser(argparse.ArgumentParser):
    """The parser of every script: `--help` is the last option it shows, and a mistake is a `UsageError` of one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": HelpFormatter, "allow_abbrev": False, **settings})
        self._optionals.title = "help"

    def add_model_options(self) -> None:
        """`--checkpoint` and `--device` of the scripts that use a finished run's models in their own process."""
        model = self.add_argument_group("model and device")
        model.add_argument(
            "--checkpoint",
            metavar="FOLDER_URL_OR_OWNER",
            help="where the run's checkpoint lies now (default: where the run had it)",
        )
        model.add_argument(
            "--device",
            choices=("auto", "ascend", "cpu"),
            default="auto",
            help="auto takes Ascend where this machine has a card (default: auto)",
        )

    def format_help(self) -> str:
        """The whole text of `--help`."""
        self._action_groups.sort(key=lambda group: group is self._optionals)
        return super().format_help()

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """The values of the options; None as arguments takes them from the process.

        Raises:
            UsageError: an argument is unknown, missing or of no use.
        """
        if "_ARGCOMPLETE" in os.environ:
            # A shell asks what may follow (infra/adr/0015-libraries.md); this answers and ends the process.
            import argcomplete

            argcomplete.autocomplete(self)
        known, unknown = self.parse_known_args(arguments)
        if unknown:
            options = [option for action in self._actions for option in _options(action, known)]
            raise UsageError(f"unknown argument {unknown[0]!r}{_nearest(unknown[0].split('=')[0], options)}")
        return known

    def error(self, message: str) -> NoReturn:
        """What argparse calls on a mistake."""
        raise UsageError(f"{message} ({self.prog} --help lists all options)")


def parse_config(
    arguments: Sequence[str] | None, description: str, fields: Sequence[str] | None = None, title: str | None = None
) -> RunConfig:
    """The config that a command line asks for.

    Args:
        arguments: the words after the script's name; None takes them from the process.
        description: what the script does, first paragraph of its `--help`.
        fields: names of the fields this script has options for; None means all.
        title: heading of these options, where that of their groups would say something else.

    Raises:
        UsageError: an option or a key of the TOML file is unknown, missing or of no use.
    """
    return _parse(arguments, description, fields or list(RunConfig.model_fields), title)[0]


def parse_command(
    arguments: Sequence[str] | None,
    description: str,
    add_options: Callable[[argparse.ArgumentParser], None],
    fields: Sequence[str] | None = None,
    title: str | None = None,
) -> tuple[RunConfig, argparse.Namespace]:
    """Like `parse_config`, for a script with options of its own; these come back beside the config.

    Args:
        add_options: adds them to the parser, in groups of theirs, which `--help` shows first.
    """
    return _parse(arguments, description, fields or list(RunConfig.model_fields), title, add_options)


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script's main function and leave the process with the exit code that jobs/README.md lists.

    An error raised on purpose becomes the last line on stderr, without a traceback; anything else is a defect
    of ours and keeps its traceback.
    """
    steady_streams()
    try:
        code = main()
    except KandinskyBatchError as error:
        code = EXIT_USAGE if isinstance(error, UsageError) else EXIT_INCOMPLETE
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr, flush=True)
    except KeyboardInterrupt as interrupt:
        code = getattr(interrupt, "exit_code", EXIT_INTERRUPTED)
        sys.stdout.flush()
        print(f"interrupted ({str(interrupt) or 'SIGINT'}); the same command goes on from here", file=sys.stderr)
        sys.stderr.flush()
        if hasattr(interrupt, "exit_code"):
            # Threads of the engine may still wait for answers that will not come, and the interpreter for them.
            os._exit(code)
    sys.exit(code)


def _parse(
    arguments: Sequence[str] | None,
    description: str,
    names: Sequence[str],
    title: str | None,
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> tuple[RunConfig, argparse.Namespace]:
    required = [name for name in names if RunConfig.model_fields[name].is_required()]
    usage = " ".join(f"{_option(name)} {_declared(name).metavar}" for name in required)
    parser = Parser(description=description, usage=f"%(prog)s {usage} [options]")
    add_options(parser)
    _add_fields(parser, names, title)
    known = parser.parse(arguments)
    given = {name: value for name, value in vars(known).items() if name in names and value is not None}
    from_file = _read_file(known.config) if known.config is not None else {}
    config = _validate({**from_file, **given}, {name: known.config for name in from_file if name not in given})
    return config, known


def _add_fields(parser: argparse.ArgumentParser, names: Sequence[str], title: str | None) -> None:
    """An option for each field, under its group's heading or all under one title, and `--config`."""
    for heading in get_args(OptionGroup) if title is None else (title,):
        members = [name for name in names if title is not None or _declared(name).group == heading]
        # A group without options is not shown.
        group = parser.add_argument_group(heading)
        for name in members:
            field = RunConfig.model_fields[name]
            if field.annotation is bool:
                # The other one takes back what the file says; a line for each would only fill the screen.
                yes, no = (
                    (argparse.SUPPRESS, f"do not {_help(field)}")
                    if field.default
                    else (_help(field), argparse.SUPPRESS)
                )
                group.add_argument(_option(name), help=yes, action="store_true", default=None)
                group.add_argument("--no-" + _option(name)[2:], help=no, action="store_false", dest=name, default=None)
            else:
                several: dict[str, Any] = {"nargs": "+"} if get_origin(field.annotation) is tuple else {}
                metavar = "{" + ",".join(choices) + "}" if (choices := _choices(field)) else _declared(name).metavar
                if (flag := _declared(name).flag) is not None:
                    several = {"nargs": "?", "const": flag}
                    no = "--no-" + _option(name)[2:]
                    group.add_argument(no, help=argparse.SUPPRESS, action="store_const", const="off", dest=name)
                action = group.add_argument(_option(name), help=_help(field), metavar=metavar, default=None, **several)
                if choices:
                    # For the shell only: the model says what is wrong, in the same words for a file's value.
                    setattr(action, "completer", functools.partial(_offered, choices))  # noqa: B010
    flag = next((name for name in names if RunConfig.model_fields[name].default is False), None)
    taken_back = f", with --no-{flag.replace('_', '-')} over {flag} = true" if flag is not None else ""
    parser.add_argument_group("settings from a file").add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML file whose keys are options with '_' for '-'; the command line wins over it{taken_back}",
    )


def _options(action: argparse.Action, known: argparse.Namespace) -> Sequence[str]:
    """Options of an action that can be meant; where it is a choice of sub-commands, those of the chosen one."""
    if isinstance(action.choices, Mapping):
        return [_option(name) for name in vars(known)]
    return action.option_strings


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _declared(name: str) -> Option:
    return next(item for item in RunConfig.model_fields[name].metadata if isinstance(item, Option))


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    if field.is_required():
        text += " (required)"
    elif field.default is not None and not isinstance(field.default, bool):
        default = f"{field.default:g}" if isinstance(field.default, float) else field.default
        text += f" (default: {default})"
    # argparse formats help texts with %.
    return text.replace("%", "%%")


def _choices(field: FieldInfo) -> tuple[str, ...]:
    """The words that a field takes; none where it takes others."""
    words = get_args(field.annotation)
    return words if all(isinstance(word, str) for word in words) else ()


def _offered(choices: tuple[str, ...], **_: object) -> tuple[str, ...]:
    return choices


def _read_file(path: str) -> dict[str, Any]:
    """The keys of a TOML file, each of which must be a field."""
    try:
        values = tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"option --config: cannot read {path}: {error}") from error
    for key in values:
        if key not in RunConfig.model_fields:
            raise UsageError(f"{path}: unknown key {key!r}{_nearest(key, list(RunConfig.model_fields))}")
    if isinstance(values.get("manifest"), str):
        values["manifest"] = [values["manifest"]]
    return values


def _nearest(word: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else ""


def _validate(values: Mapping[str, Any], files: Mapping[str, str]) -> RunConfig:
    """Build the config; `files` names the file of each value that did not come from the command line."""
    try:
        config = RunConfig.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError("\n".join(_readable(detail, files) for detail in error.errors())) from error
    _refuse_lost_output(config.output)
    if config.share[0] >= config.share[1]:
        raise UsageError(f"option --shards: {config.shards!r} asks for a share beyond the last; use 1/N … N/N")
    update: dict[str, Any] = {
        "manifest": tuple(_absolute(path) for path in config.manifest),
        "output": _absolute(config.output),
        "checkpoint": one_spelling(config.checkpoint),
    }
    if config.embeddings not in (None, NO_EMBEDDINGS):
        update["embeddings"] = _absolute(str(config.embeddings))
    if config.aesthetic_weights is not None:
        update["aesthetic_weights"] = _absolute(config.aesthetic_weights)
    return config.model_copy(update=update)


def _readable(detail: ErrorDetails, files: Mapping[str, str]) -> str:
    """One line for one pydantic error: which option, what is wrong with it, what was given."""
    name = str(detail["loc"][0])
    where = f"{files[name]}: {name}" if name in files else f"option {_option(name)}"
    if detail["type"] == "missing":
        return f"{where}: is required"
    if detail["type"] == "string_pattern_mismatch":
        reason = f"should be the {RunConfig.model_fields[name].description}"
    elif detail["type"] == "string_unicode":
        reason = "is not UTF-8; rename it (convmv -f latin1 -t utf8 does whole folders), or set LC_ALL=C.UTF-8"
    else:
        reason = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{where}: {reason}; got {detail['input']!r}"


def _absolute(location: str) -> str:
    """The location as any working directory understands it; remote ones stay as they are."""
    return location if storage.is_remote(location) else os.path.abspath(storage.local_path(location))


def one_spelling(name: str) -> str:
    """A checkpoint's name in the one spelling that a run keeps: going on asks whether it is the same."""
    prefix = hub_store.parse(name)
    if name in locations.OWN:
        return name
    if prefix and not os.path.isdir(os.path.expanduser(name)):
        return hub_store.one_spelling(*prefix)
    return name.rstrip("/") if storage.is_remote(name) else _absolute(name)


def _refuse_lost_output(output: str) -> None:
    if SUBMITTED_JOB_VARIABLE in os.environ and not storage.is_remote(output) and not os.path.isabs(output):
        raise UsageError(
            f"option --output: {output!r} is relative, and under `ray job submit` that is a place "
            "in a temporary copy of the folder; give an absolute path or a URL"
        )
