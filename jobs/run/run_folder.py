"""The files of a run under `_run/`, and `_SUCCESS`: what it was started with, what it plans, what came of it.

_run/config.json   the settings of the last start
_run/plan.json     the plan's fingerprint and counts; written once, and every later start must agree with it
_run/run.json      the report of the last start that made something and went to its end
_run/times.json    how long the last start that made something took for batches of each bucket (jobs/cost/step_times.py)
_run/timeline.json when the devices of that start were in calls (workers/fault_tolerance/timeline.py)
_run/prior.json    the report of the last start with `--stage prior`
_run/graphs-cpu.json, graphs-ascend.json   what --graph auto compiles, as the first start has chosen
                   (jobs/schedule/graphs.py)
_run/status.json   how the run goes on, renewed every few seconds (jobs/monitoring/status_file.py)
_run/aesthetic.json  the predictor of the aesthetic score (workers/scoring/aesthetic.py)
_run/error.log     what the engine said where it stopped early
_SUCCESS           every planned row is written or failed, counted
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from jobs.cost.step_times import StepTimes
from jobs.run import ownership
from manifests import scores, storage
from manifests.commit import sealed_shards, staged_parts
from manifests.config import NO_EMBEDDINGS, RunConfig, on_or_off
from manifests.embeddings.store import check_owned
from manifests.errors import UsageError
from manifests.planning.plan import Plan
from workers.fault_tolerance.timeline import Timeline
from workers.scoring import aesthetic

FOLDER = "_run"
SUCCESS_NAME = "_SUCCESS"
TIMES = "times.json"
TIMELINE = "timeline.json"

#: Settings that may change between two starts of one output: they reach no image and no name.
FREE_FIELDS = frozenset(
    {"manifest", "output", "device", "prior_actors", "decoder_actors", "device_timeout", "embeddings", "stage"}
    | {"append", "grace", "input_timeout", "into_existing", "max_failed", "retry_errors"}
    | {"shards", "times_of", "report", "schedule", "scores", "keep_clip", "aesthetic_weights"}
)

#: What an output that an earlier version has begun was made with, where its record does not say.
EARLIER = {"mark": False, "batch_pixels": None, "graph": False}


def as_begun(config: RunConfig) -> RunConfig:
    """The config, with marks, scores and graphs as the output has them, where nobody asks for others.

    Raises:
        UsageError: the record of a plan cannot be read.
    """
    known = read(config.output, "plan.json")
    if known is None:
        return config
    settings = _settings_of(known)
    last = {"mark": settings["mark"], **_scored_at(config.output)}
    update = {name: value for name, value in last.items() if name not in config.model_fields_set}
    if config.graph == "auto":
        update["graph"] = settings["graph"]
    return config.model_copy(update=update)


def _scored_at(output: str) -> dict[str, Any]:
    """The settings of an output that say how its images are scored."""
    stored = read(output, "config.json") or {}
    unscored = {"scores": scores.NONE, "keep_clip": False, "aesthetic_weights": None}
    return {name: stored.get(name, value) for name, value in unscored.items()}


def set_scores(config: RunConfig) -> None:
    """Shards of an output are scored like this from now on.

    Raises:
        UsageError: no run was begun there.
    """
    stored, _ = begun(config.output)
    scored = {"keep_clip": config.keep_clip, "aesthetic_weights": config.aesthetic_weights}
    _write_at(config.output, "config.json", {**stored, **scored, "scores": scores.spelled(config.score_names)})


def _refuse_scores(config: RunConfig, plan: Plan) -> None:
    """Make sure that all indexes of an output have the same columns, each once, and all shards embeddings, or none."""
    there = _scored_at(config.output)
    keeps, by_weights = there["keep_clip"], there["aesthetic_weights"] is not None
    if sealed_shards(config.output) or staged_parts(config.output):
        if scores.parse(there["scores"], by_weights) != config.score_names:
            raise UsageError(
                f"option --scores: {config.output} was begun with {there['scores']} and not with {config.scores}; go "
                "on as it was begun, and add scores when it is finished"
            )
        if keeps != config.keep_clip:
            raise UsageError(
                f"option --keep-clip: {config.output} was begun with{'' if keeps else 'out'} it; go on as it was begun"
                f"{'' if keeps else ', and have jobs/score.py add the embeddings when it is finished'}"
            )
    extras = plan.windows[0].extras.names if plan.windows and config.score_names else []
    taken = [name for name in extras if name in scores.COLUMNS]
    if taken:
        raise UsageError(
            f"option --scores: the manifest has a column {taken[0]!r}, which is also the name of a score; rename it "
            "there, or leave that score out"
        )


def ends_of(config: RunConfig) -> tuple[int, ...]:
    """Where the manifest of this output ended before rows were appended; with `--append` also where it ends so far.

    Raises:
        UsageError: the record of the plan cannot be read.
    """
    known = read(config.output, "plan.json") or {}
    ends = tuple(known.get("ends", ()))
    return (*ends, known["requests"]) if config.append and known.get("requests") else ends


def begin(config: RunConfig, plan: Plan) -> None:
    """Write what is started, after making sure that the output belongs to it.

    Raises:
        UsageError: the output holds another run's work; the text says what differs and what to do.
    """
    storage.sweep(config.output)
    known = check(config, plan)
    if known is not None and known.get("fingerprint") != plan.fingerprint:
        unfinish(config)
        known = None
    settings = config.model_dump(mode="json")
    aesthetic.keep(aesthetic.settled(config), config)
    _write(config, "config.json", settings)
    if known is None:
        record = {**_counts(plan), "ends": plan.ends, "fingerprint": plan.fingerprint, "settings": settings}
        _write(config, "plan.json", record)


def check(config: RunConfig, plan: Plan) -> dict[str, Any] | None:
    """Make sure that this plan can be begun in the output, or gone on with; writes nothing.

    Returns:
        The record of the plan that the output was begun with, None for a new output. With `append` it may be that of
        the plan before rows were added.

    Raises:
        UsageError: the output holds another run's work; the text says what differs and what to do.
    """
    settings = config.model_dump(mode="json")
    known = _known(config, plan)
    ownership.refuse_manifest(config.output, plan)
    _refuse_scores(config, plan)
    aesthetic.settled(config)
    if known is None:
        return None
    if known.get("fingerprint") != plan.fingerprint:
        if not config.append:
            raise UsageError(_difference(config.output, known, plan, settings))
        if plan.fingerprint_at.get(known["requests"]) != known.get("fingerprint"):
            raise UsageError(_not_appended(config.output, known, plan, settings))
    return known


def _known(config: RunConfig, plan: Plan) -> dict[str, Any] | None:
    """The record of the plan that the output was begun with; None for a new output that holds nobody's work."""
    known = read(config.output, "plan.json")
    if known is None:
        others = ownership.others(config.output)
        # Of several jobs of one output another one may have begun it between the two looks.
        known = read(config.output, "plan.json") if others else None
        if known is None:
            ownership.refuse_others(config, plan, others)
    if known is not None and not {"fingerprint", "requests"} <= known.keys():
        raise UsageError(
            f"{config.output}/{FOLDER}/plan.json is not of this program, so the folder is somebody else's; "
            "use another --output"
        )
    if config.embeddings not in (None, NO_EMBEDDINGS) and not config.into_existing:
        check_owned(str(config.embeddings), "--into-existing")
    return known


def unfinish(config: RunConfig) -> None:
    """Take the marker away: shards of a finished output are about to change."""
    storage.remove(storage.join(config.output, SUCCESS_NAME), lasting=True)


def finish(config: RunConfig, report: dict[str, Any], anew: bool, whole: bool = True) -> None:
    """Write the report, then the marker that says that nothing is missing.

    Args:
        anew: also over an earlier report; a start that found nothing to do leaves that alone.
        whole: nothing is missing; else this was one share, and others are not done yet.
    """
    name = "run.json" if whole else "run-{:05d}-of-{:05d}.json".format(*config.share)
    if anew or read(config.output, name) is None:
        _write(config, name, report)
    if not whole:
        return
    storage.write_atomic(storage.join(config.output, SUCCESS_NAME), b"")


def write_report(config: RunConfig, name: str, report: dict[str, Any]) -> None:
    """Keep the report of a stage that makes no images."""
    _write(config, name, report)


def write_error(config: RunConfig, text: str) -> str:
    """Keep what the engine said; returns where."""
    url = storage.join(config.output, FOLDER, "error.log")
    storage.write_atomic(url, text.encode())
    return url


def write_times(config: RunConfig, times: StepTimes) -> None:
    """Keep what a start has measured; one that measured nothing leaves the last one's."""
    if times.buckets:
        _write(config, TIMES, times.model_dump(mode="json"))


def write_timeline(config: RunConfig, timeline: Timeline | None) -> None:
    """Keep when the devices worked; a start in which none did leaves the last one's."""
    if timeline is not None and timeline.lanes:
        _write(config, TIMELINE, timeline.model_dump(mode="json"))


def known_times(config: RunConfig) -> tuple[str, StepTimes] | None:
    """What was measured last at the output that `--times-of` names, else at the job's own, and where that stands.

    Returns:
        None where the job's own output has no record, or one that cannot be used.

    Raises:
        UsageError: the output that was named has none, or one that cannot be read.
    """
    output = config.times_of or config.output
    place, trouble = f"{output}/{FOLDER}/{TIMES}", "no run has measured anything there"
    try:
        known = read(output, TIMES)
        if known is not None:
            return place, StepTimes.model_validate(known)
    except ValidationError:
        trouble = "it is not of this version"
    except UsageError as error:
        trouble = str(error)
    if config.times_of is not None:
        raise UsageError(f"option --times-of: {output} has no {FOLDER}/{TIMES} that can be used: {trouble}")
    return None


def _settings_of(known: dict[str, Any]) -> dict[str, Any]:
    """Settings that the record of a plan has, or had by default in the version that wrote it."""
    settings = {**EARLIER, **known.get("settings", {})}
    return {**settings, "graph": on_or_off(settings["graph"])}


def _counts(plan: Plan) -> dict[str, Any]:
    return {
        "requests": plan.requests,
        "rejected": plan.rejected,
        "images": plan.samples,
        "images_by_task": dict(plan.samples_by_task),
        "batches": plan.batches,
        "shards": len(plan.shards),
    }


def _difference(output: str, known: dict[str, Any], plan: Plan, settings: dict[str, Any]) -> str:
    """What a person changed since the output was begun, and the ways out."""
    before = _settings_of(known)
    changed = [
        f"--{name.replace('_', '-')} was {before[name]!r} and is {value!r}"
        for name, value in settings.items()
        if name not in FREE_FIELDS and name in before and before[name] != value
    ]
    if not changed:
        rows = [f"{plan_['requests']} requests, {plan_['images']} images" for plan_ in (known, _counts(plan))]
        counts = f" (it had {rows[0]}; now {rows[1]})" if rows[0] != rows[1] else ""
        changed = [f"the manifest has other content{counts}; rows that were added at its end are made with --append"]
    return (
        f"{output} was begun with something else: {'; '.join(changed)}. Use another --output, or start with "
        "what it was begun with, or remove the folder to begin anew"
    )


def _not_appended(output: str, known: dict[str, Any], plan: Plan, settings: dict[str, Any]) -> str:
    """Why `--append` cannot go on with what is there."""
    before, rows = _settings_of(known), known["requests"]
    if any(name not in FREE_FIELDS and before.get(name) != value for name, value in settings.items()):
        return _difference(output, known, plan, settings)
    if plan.requests < rows:
        return f"--append: the manifest has {plan.requests} rows, and {output} was made of {rows}; none may go"
    return (
        f"--append: the first {rows} rows of the manifest are not those that {output} was made of. New rows must come "
        "behind the old ones: in files that sort after them or are named after them, with no new columns, and with "
        "inline images in files of their own. Use another --output for a manifest that changed"
    )


def begun(output: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run was begun with at an output: the settings of the last start, and the record of the plan.

    Raises:
        UsageError: no run was begun there.
    """
    stored, planned = read(output, "config.json"), read(output, "plan.json")
    if stored is None or planned is None:
        raise UsageError(f"{output} has no {FOLDER}/plan.json, so no run was begun there; check --output")
    return stored, planned


def settings(output: str, **given: Any) -> RunConfig:
    """The settings of the last start at an output.

    Args:
        given: fields that are to be otherwise.

    Raises:
        UsageError: no run was begun there, or another version has written them.
    """
    stored, _ = begun(output)
    try:
        return RunConfig.model_validate({**EARLIER, **stored, "output": output, "append": False, **given})
    except ValidationError as error:
        detail = error.errors()[0]
        if (name := str(detail["loc"][0])) in given:
            raise UsageError(
                f"option --{name.replace('_', '-')}: should be the {RunConfig.model_fields[name].description}; got "
                f"{given[name]!r}"
            ) from error
        raise UsageError(
            f"{output}/{FOLDER}/config.json is not of this version: {detail['loc'][0]}: {detail['msg']}"
        ) from error


def is_finished(output: str) -> bool:
    """True where every planned row is written or failed."""
    return storage.exists(storage.join(output, SUCCESS_NAME))


def read(output: str, name: str) -> dict[str, Any] | None:
    """A JSON file of the run; None where there is none.

    Raises:
        UsageError: it is not JSON.
    """
    url = storage.join(output, FOLDER, name)
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(url))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UsageError(f"{url} cannot be read ({error}); use another --output") from error
    return content


def _write(config: RunConfig, name: str, content: dict[str, Any]) -> None:
    _write_at(config.output, name, content)


def _write_at(output: str, name: str, content: dict[str, Any]) -> None:
    data = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
    storage.write_atomic(storage.join(output, FOLDER, name), data)
