"""Validation of manifest rows: whole columns at once, and a sentence for every row that cannot be made.

A row is never dropped and never raises: its errors are collected, joined with "; ", and the row travels on as
a failed record. A message names the column, shows the value and says what to do. Columns that belong to
another task are not looked at, so that one table may hold requests of all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.requests import casting
from manifests.requests.columns import Given, cast_requests
from manifests.requests.schema import (
    MASK_POLARITIES,
    RULES,
    SETTINGS,
    TASK_DEFAULTS,
    TASKS,
    complaint,
    strength_complaint,
)

Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[Any]


@dataclass(frozen=True)
class Resolved:
    """A table fragment after validation, with defaults filled in.

    Attributes:
        given: the columns as the manifest gives them.
        tasks: int8 index into `TASKS`, -1 where the task is unusable.
        settings: `SETTINGS` as int64 or float64 arrays; `strength` is NaN outside img2img.
        num_images: int64, at least 1.
        errors: row -> why it cannot be made; rows that are not in it are valid.
        unusable: column -> rows whose value was the reason, for blanking them in the record.
        reasons: (column, what is wrong in general) -> row -> its message of that; rows in no order.
    """

    given: Given
    tasks: npt.NDArray[np.int8]
    settings: Mapping[str, Column]
    num_images: npt.NDArray[np.int64]
    errors: Mapping[int, str]
    unusable: Mapping[str, frozenset[int]]
    reasons: Mapping[tuple[str, str], Mapping[int, str]]

    @property
    def rows(self) -> int:
        """Number of rows, valid and not."""
        return self.given.rows


@dataclass
class _Findings:
    """Collects what is wrong: row -> messages, column -> rows, reason -> row -> message."""

    given: Given
    messages: dict[int, list[str]] = field(default_factory=dict)
    unusable: dict[str, set[int]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], dict[int, str]] = field(default_factory=dict)

    def add(self, column: str, rows: Iterable[int], tell: Callable[[int], str], reason: str) -> None:
        """Fail these rows because of a column, each with its own message; `reason` is what these have in common."""
        for row in map(int, rows):
            message = tell(row)
            self.messages.setdefault(row, []).append(message)
            self.unusable.setdefault(column, set()).add(row)
            self.reasons.setdefault((column, reason), {})[row] = message

    def say(self, column: str, rows: Iterable[int], reason: str) -> None:
        """Fail these rows with the column's name, the value, and a reason that all of them share."""
        self.add(column, rows, lambda row: f"{column}: {self.given.show(column, row)} {reason}", reason.split("; ")[0])

    def misfits(self, column: str) -> Mask:
        """True where the column's type cannot hold the value."""
        flags = np.zeros(self.given.rows, bool)
        flags[self.given.misfits[column]] = True
        return flags


def check_defaults(config: RunConfig) -> None:
    """Check the config's request settings once, so that no row has to.

    Raises:
        UsageError: a setting is outside what the schema allows.
    """
    for name in SETTINGS:
        value = getattr(config, name)
        if value is not None and not RULES[name].holds(value):
            raise UsageError(f"the job's {complaint(name, repr(value), value)}")
    if config.strength is not None:
        steps = config.steps if config.steps is not None else int(TASK_DEFAULTS["img2img"]["steps"])
        problem = strength_complaint(steps, config.strength)
        if problem:
            raise UsageError(f"the job's {problem}")


def resolve(tables: Sequence[pa.Table], config: RunConfig) -> Resolved:
    """Validate a fragment of the manifest and fill in what its rows leave to the job or the task.

    Args:
        tables: at least one table; the request columns among theirs may have any type, or be absent.
        config: gives the job's request settings, which `check_defaults` has approved.
    """
    given = cast_requests(tables)
    found = _Findings(given)
    _check_ids(given, found)
    tasks = _read_tasks(given, found)
    of_task = {task: tasks == index for index, task in enumerate(TASKS)}
    _check_texts(given, tasks, of_task, found)
    _check_images(given, of_task, found)
    _check_conditions(given, of_task["interpolate"], found)
    _check_seeds(given, found)
    settings = {name: _read_setting(given, name, tasks, config, of_task["img2img"], found) for name in SETTINGS}
    _check_strength(settings, of_task["img2img"], found)
    num_images = _read_number(given, "num_images", np.ones(given.rows, bool), np.int64(1), found)
    return Resolved(
        given=given,
        tasks=tasks,
        settings=settings,
        num_images=num_images.astype(np.int64),
        errors={row: "; ".join(texts) for row, texts in sorted(found.messages.items())},
        unusable={column: frozenset(rows) for column, rows in found.unusable.items()},
        reasons=found.reasons,
    )


def _check_ids(given: Given, found: _Findings) -> None:
    found.say("id", given.misfits["id"], "is not text; use a string in UTF-8")
    empty = pc.fill_null(pc.equal(given.columns["id"], ""), False)
    found.say("id", casting.positions(empty), "is empty; use a unique name, or leave it null")


def _read_tasks(given: Given, found: _Findings) -> npt.NDArray[np.int8]:
    told = given.columns["task"]
    # A null among tasks is a mistake; a table without the column is how people begin.
    untold = np.concatenate([np.full(table.num_rows, "task" not in table.column_names) for table in given.raw])
    if untold.any():
        told = pc.if_else(pa.array(untold), fitting_tasks(given), told)
    index = pc.index_in(tidy(told), value_set=pa.array(TASKS))
    tasks = index.fill_null(-1).to_numpy().astype(np.int8)
    found.say("task", np.flatnonzero(tasks < 0), f"is not a task; use one of {', '.join(TASKS)}")
    return tasks


def fitting_tasks(given: Given) -> pa.Array:
    """The task that each row's inputs are for: conditions interpolate, else a mask inpaint, else an image img2img.

    Without any of them it is text2img. What does not fit its column counts as given, so that it is told.
    """
    has = {"conditions": casting.present(given.columns["conditions"])}
    has |= {name: has_image(given.columns[name]) for name in ("mask", "image")}
    for name, rows in has.items():
        rows[given.misfits[name]] = True
    tasks = np.select([*has.values()], ["interpolate", "inpaint", "img2img"], "text2img")
    return pa.array(tasks.tolist(), pa.string())


def _check_texts(given: Given, tasks: npt.NDArray[np.int8], of_task: Mapping[str, Mask], found: _Findings) -> None:
    for column in ("prompt", "negative_prompt"):
        found.say(column, given.misfits[column], "is not text; use a string in UTF-8")
    missing = ~casting.present(given.columns["prompt"]) & (tasks >= 0) & ~of_task["interpolate"]
    missing &= ~found.misfits("prompt")
    found.say("prompt", np.flatnonzero(missing), "is missing, but this task needs one; use a text, '' for none")
    column = given.columns["mask_polarity"]
    known = pc.is_in(tidy(column), value_set=pa.array(MASK_POLARITIES))
    wrong = (~casting.truth(known) & casting.present(column)) | found.misfits("mask_polarity")
    reason = "is not a polarity; use 'white' or 'black', the colour that is repainted"
    found.say("mask_polarity", np.flatnonzero(wrong & of_task["inpaint"]), reason)


def tidy(text: pa.Array) -> pa.Array:
    """Text in lower case without blanks around it."""
    return pc.utf8_lower(pc.utf8_trim_whitespace(text))


def _check_images(given: Given, of_task: Mapping[str, Mask], found: _Findings) -> None:
    uses = {"image": of_task["img2img"] | of_task["inpaint"], "mask": of_task["inpaint"]}
    for column, needed in uses.items():
        if not needed.any():
            continue
        misfit = found.misfits(column)
        reason = "is neither a location nor an inline image; use a string, or struct<bytes, path>"
        found.say(column, np.flatnonzero(misfit & needed), reason)
        missing = needed & ~misfit & ~has_image(given.columns[column])
        reason = f"holds no {column}, but this task needs one; give a location or bytes"
        found.say(column, np.flatnonzero(missing), reason)


def has_image(images: pa.Array) -> Mask:
    """True where a struct<bytes, path> has either."""
    return casting.present(images.field("bytes")) | casting.present(images.field("path"))


def _check_conditions(given: Given, needed: Mask, found: _Findings) -> None:
    if not needed.any():
        return
    misfit = found.misfits("conditions")
    reason = "is not a list of conditions; use list<struct<text, image, weight>>"
    found.say("conditions", np.flatnonzero(misfit & needed), reason)
    needed = needed & ~misfit
    lengths = list_lengths(given.columns["conditions"])
    reason = "names nothing to interpolate; list at least one text or image"
    found.say("conditions", np.flatnonzero(needed & (lengths == 0)), reason)
    parents = np.repeat(np.arange(given.rows), lengths)
    values = given.columns["conditions"].flatten()
    weight = values.field("weight")
    unclear = casting.present(values.field("text")) == has_image(values.field("image"))
    infinite = casting.present(weight) & ~np.isfinite(weight.fill_null(0.0).to_numpy())
    for flags, reason in (
        (unclear, "has a condition with both or neither of text and image; give each exactly one"),
        (infinite, "has an infinite weight; use finite numbers"),
    ):
        found.say("conditions", np.unique(parents[flags & needed[parents]]), reason)
    nulls = np.bincount(parents, weights=~casting.present(weight), minlength=given.rows)
    partly = needed & (nulls > 0) & (nulls < lengths)
    found.say("conditions", np.flatnonzero(partly), "lacks some weights; give all, or none for equal ones")


def list_lengths(lists: pa.Array) -> npt.NDArray[np.int64]:
    """Elements of each list, 0 for a null."""
    return pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)


def _check_seeds(given: Given, found: _Findings) -> None:
    found.add(
        "seed",
        given.misfits["seed"],
        lambda row: complaint("seed", given.show("seed", row), None),
        f"is not {RULES['seed'].what}",
    )


def _read_number(given: Given, name: str, needed: Mask, default: Any, found: _Findings) -> Column:
    """A numeric column with `default` for nulls; values that break its rule are told and replaced too.

    Args:
        needed: bool (rows,), rows whose task looks at this column; the others take the default.
        default: one value, or one per row.
    """
    rule, array = RULES[name], given.columns[name]
    misfits = given.misfits[name]
    found.add(
        name,
        misfits[needed[misfits]],
        lambda row: complaint(name, given.show(name, row), array[row].as_py()),
        f"is not {rule.what}",
    )
    if array.null_count == len(array):
        return np.array(np.broadcast_to(default, given.rows))
    values = array.fill_null(0).to_numpy()
    there = casting.present(array) & needed
    low = values <= rule.low if rule.above_low else values < rule.low
    wrong = there & (low | (values > rule.high) | ((values % rule.step != 0) if rule.step > 1 else False))
    found.add(
        name,
        np.flatnonzero(wrong),
        lambda row: complaint(name, given.show(name, row), array[row].as_py()),
        f"is not {rule.what}",
    )
    return np.where(there & ~wrong, values, default)


def _read_setting(
    given: Given, name: str, tasks: npt.NDArray[np.int8], config: RunConfig, img2img: Mask, found: _Findings
) -> Column:
    """A setting of each row: its own value, else the config's, else its task's default."""
    kind = np.int64 if pa.types.is_integer(RULES[name].kind) else np.float64
    job = getattr(config, name)
    by_task = np.array([TASK_DEFAULTS[task][name] if job is None else job for task in TASKS])
    needed = np.ones(given.rows, bool)
    if name == "strength":
        needed = img2img
        by_task[np.array(TASKS) != "img2img"] = np.nan
    # A row without a usable task reads the first task's defaults; it is never made.
    default = by_task[np.maximum(tasks, 0)].astype(kind)
    return _read_number(given, name, needed, default, found).astype(kind)


def _check_strength(settings: Mapping[str, Column], img2img: Mask, found: _Findings) -> None:
    steps, strength = settings["steps"], settings["strength"]
    usable = np.where(img2img, strength, 1.0)
    idle = img2img & (((steps * usable).astype(np.int64) < 1) | ((1000 * usable).astype(np.int64) < 2))
    found.add(
        "strength",
        np.flatnonzero(idle),
        lambda row: strength_complaint(int(steps[row]), float(strength[row])) or "strength: unusable",
        "leaves no step to run",
    )
