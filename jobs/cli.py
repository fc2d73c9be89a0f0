"""The command line of every script: options made from `RunConfig`'s fields, readable errors, exit codes.

    python jobs/generate.py --manifest A.parquet --output OUT --batch-size 8 --config run.toml

An option is a field's name in kebab-case; a key of the TOML file is the field's name. The command line wins
over the file. `run_script` wraps a script's main function, so that all of them end alike.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from manifests import storage
from manifests.config import NO_EMBEDDINGS, RunConfig
from manifests.errors import KandinskyBatchError, UsageError
from workers.checkpoints import hub_store

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXIT_OK = 0
EXIT_INCOMPLETE = 1
EXIT_USAGE = 2
EXIT_FAILED_ROWS = 3
EXIT_INTERRUPTED = 130

#: Fields that hold locations; relative ones count from where the person stands, and workers stand elsewhere.
PATH_FIELDS = ("manifest", "output")

#: Ray sets this in the driver of `ray job submit`, which may run in a temporary copy of a folder.
SUBMITTED_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def parse_config(arguments: Sequence[str] | None, description: str, fields: Sequence[str] | None = None) -> RunConfig:
    """The config that a command line asks for.

    Args:
        arguments: the words after the script's name; None takes them from the process.
        description: what the script does, first paragraph of its `--help`.
        fields: names of the fields this script has options for; None means all.

    Raises:
        UsageError: an option or a key of the TOML file is unknown, missing or of no use.
    """
    return parse_command(arguments, description, fields)[0]


def parse_command(
    arguments: Sequence[str] | None,
    description: str,
    fields: Sequence[str] | None = None,
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> tuple[RunConfig, argparse.Namespace]:
    """Like `parse_config`, for a script with options of its own; these come back beside the config.

    Args:
        add_options: adds them to the parser.
    """
    names = list(fields if fields is not None else RunConfig.model_fields)
    parser = _parser(description, names)
    add_options(parser)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        options = [_option(name) for name in vars(known)]
        raise UsageError(f"unknown argument {unknown[0]!r}{_nearest(unknown[0].split('=')[0], options)}")
    given = {name: value for name, value in vars(known).items() if name in names and value is not None}
    from_file = _read_file(known.config) if known.config is not None else {}
    config = _validate({**from_file, **given}, {name: known.config for name in from_file if name not in given})
    return config, known


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script's main function and leave the process with the exit code the README lists.

    An error raised on purpose becomes the last line on stderr, without a traceback; anything else is a defect
    of ours and keeps its traceback.
    """
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


def _parser(description: str, names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for name in names:
        field = RunConfig.model_fields[name]
        if field.annotation is bool:
            switch = argparse.BooleanOptionalAction
            parser.add_argument(_option(name), help=_help(field), action=switch, default=None)
            continue
        shape: dict[str, Any] = {"metavar": _metavar(field)}
        if get_origin(field.annotation) is tuple:
            shape["nargs"] = "+"
        parser.add_argument(_option(name), help=_help(field), default=None, **shape)
    parser.add_argument("--config", metavar="FILE", help="TOML file, its keys named as the options, with '_'")
    return parser


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    if field.is_required():
        text += " (required)"
    elif field.default is not None:
        text += f" (default: {field.default})"
    # argparse formats help texts with %.
    return text.replace("%", "%%")


def _metavar(field: FieldInfo) -> str:
    kinds = get_args(field.annotation)
    if kinds and all(isinstance(kind, str) for kind in kinds):
        return "{" + ",".join(kinds) + "}"
    if int in (field.annotation, *kinds):
        return "N"
    return "X" if float in (field.annotation, *kinds) else "VALUE"


def _read_file(path: str) -> dict[str, Any]:
    """The keys of a TOML file, each of which must be a field."""
    try:
        values = tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8"))
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
        "checkpoint": _checkpoint(config.checkpoint),
    }
    if config.embeddings not in (None, NO_EMBEDDINGS):
        update["embeddings"] = _absolute(str(config.embeddings))
    return config.model_copy(update=update)


def _readable(detail: ErrorDetails, files: Mapping[str, str]) -> str:
    """One line for one pydantic error: which option, what is wrong with it, what was given."""
    name = str(detail["loc"][0])
    where = f"{files[name]}: {name}" if name in files else f"option {_option(name)}"
    if detail["type"] == "missing":
        return f"{where}: is required"
    if detail["type"] == "string_pattern_mismatch":
        reason = f"should be the {RunConfig.model_fields[name].description}"
    else:
        reason = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{where}: {reason}; got {detail['input']!r}"


def _absolute(location: str) -> str:
    """The location as any working directory understands it; remote ones stay as they are."""
    return location if storage.is_remote(location) else os.path.abspath(storage.local_path(location))


def _checkpoint(name: str) -> str:
    """A checkpoint's name in the one spelling that a run keeps: going on asks whether it is the same."""
    prefix = hub_store.parse(name)
    if name == "demo":
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
