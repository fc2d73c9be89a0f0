"""The report as one HTML file, everything inline, so that it opens without a network; and the page of the server."""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from pydantic import ValidationError

from jobs.limits.disk_space import in_units
from jobs.monitoring.pace import duration
from jobs.output.catalog import Catalog
from jobs.output.sample import BucketSample, Sample
from jobs.output.scores import Tally
from jobs.output.summary import Summary
from jobs.reporting.charts import bars, count, course_lines, file_sizes, score_charts, step_times, timeline_lines
from jobs.reporting.comparison import Against
from jobs.reporting.grids import Grids
from jobs.reporting.pictures import Picture
from manifests.config import RunConfig
from manifests.errors import SUCCESS
from manifests.scores import COLUMNS

#: Both extend `page.html.j2`.
TEMPLATE, SERVED_TEMPLATE = "report.html.j2", "served.html.j2"

#: Columns of a record that its details show, in this order; `apart` is there beside another output only.
SHOWN = (
    ("key", "key"),
    ("id", "id"),
    ("image_index", "image"),
    ("task", "task"),
    ("width", "width"),
    ("height", "height"),
    ("prompt", "prompt"),
    ("negative_prompt", "negative prompt"),
    ("seed", "seed"),
    ("steps", "steps"),
    ("guidance_scale", "guidance"),
    ("prior_steps", "prior steps"),
    ("prior_guidance_scale", "prior guidance"),
    ("strength", "strength"),
    ("image_path", "source"),
    ("mask_path", "mask"),
    ("mask_polarity", "mask polarity"),
    ("sha256", "SHA-256"),
    ("error_message", "why it failed"),
    *((name, name.replace("_", " ")) for name in sorted(COLUMNS)),
    ("apart", "otherwise there"),
)


def render(
    summary: Summary,
    sample: Sample,
    pictures: Mapping[str, Sequence[Picture]],
    made_at: float,
    grids: Grids | None = None,
    against: Against | None = None,
) -> str:
    """The page.

    Args:
        pictures: key -> pictures of the rows of the sample and of the grids.
        made_at: seconds since 1970.
        grids: of a manifest that is a product.
        against: the output that stands beside this one.
    """
    buckets = [_bucket(summary.output, bucket, pictures) for bucket in sample.buckets if bucket.rows]
    return _template(TEMPLATE).render(
        **_head(summary, made_at, against),
        grids=grids and _grids(summary.output, grids, pictures),
        buckets=[*buckets, *_failed(summary.output, sample, pictures)],
        scores=[_score(summary.output, tally, pictures) for tally in sample.scores],
        hidden=sum(not bucket.rows for bucket in sample.buckets),
        reasons=bars([(f"{reason} ({status})", n, count(n)) for (status, reason), n in sample.reasons.most_common(20)]),
        failures=[row for rows in sample.failures.values() for row in rows],
        unreadable=sample.unreadable,
    )


def render_served(catalog: Catalog, made_at: float, against: Against | None = None) -> str:
    """The page of the server, which asks that for its rows; arguments as of `render`."""
    head = _head(catalog.summary, made_at, against)
    return _template(SERVED_TEMPLATE).render(**head, tasks=catalog.tasks, statuses=catalog.statuses)


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=count, duration=duration)
    return environment.get_template(name)


def _head(summary: Summary, made_at: float, against: Against | None) -> dict[str, Any]:
    """What both pages show."""
    return {
        "summary": summary,
        "against": against,
        "command": command(summary.settings),
        "facts": facts(summary),
        "times": bars(step_times(summary)),
        "course": course_lines(summary.course),
        "timeline": timeline_lines(summary.timeline),
        "sizes": file_sizes(summary),
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(made_at)),
    }


def facts(summary: Summary) -> list[tuple[str, str]]:
    """The head's lines: name and value."""
    report = summary.report
    lines = [
        ("rows left", count(summary.left)),
        ("shards", f"{count(len(summary.stats))} of {count(summary.planned.get('shards', 0))}"),
        ("image files", in_units(summary.bytes)),
    ]
    if report.get("made"):
        lines.append(("last start", f"{count(report['made'])} rows in {duration(report['seconds'])}"))
    if report.get("images_per_second"):
        lines.append(("images per second", f"{report['images_per_second']:.2f}"))
    if report.get("device"):
        actors = (
            {stage: report["pools"][stage]["most"] for stage in ("prior", "decoder")} if report.get("pools") else {}
        )
        pools = ", ".join(f"{n} {stage}" for stage, n in actors.items())
        lines.append(("device", f"{report['device']} ({pools})" if pools else report["device"]))
    lines.append(("checkpoint", str(summary.settings.get("checkpoint"))))
    versions = report.get("versions", {})
    lines += [("versions", ", ".join(f"{name} {number}" for name, number in versions.items()))] if versions else []
    return lines


def command(settings: Mapping[str, Any]) -> str:
    """The command that goes on with the output or repeats it: what differs from the defaults."""
    try:
        config = RunConfig.model_validate(settings)
    except ValidationError:
        return "python jobs/generate.py --config …"
    words = ["python", "jobs/generate.py", "--manifest", *config.manifest, "--output", config.output]
    for name, field in RunConfig.model_fields.items():
        value = getattr(config, name)
        if name in ("manifest", "output") or value == field.default:
            continue
        option = name.replace("_", "-")
        words += (
            [f"--{option}" if value else f"--no-{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
        )
    return shlex.join(words)


def redo_command(output: str, key: str) -> str:
    """The command that makes one image again."""
    return shlex.join(["python", "jobs/redo.py", "--output", output, "--key", key])


def _bucket(output: str, bucket: BucketSample, pictures: Mapping[str, Sequence[Picture]]) -> dict[str, Any]:
    return {
        "name": bucket.name,
        "images": bucket.images,
        "rows": [_figure(output, row, pictures[row["key"]]) for row in bucket.rows],
    }


def _failed(output: str, sample: Sample, pictures: Mapping[str, Sequence[Picture]]) -> list[dict[str, Any]]:
    """The failed rows as buckets, one of each status."""
    counts: Counter[str] = Counter()
    for (status, _), rows in sample.reasons.items():
        counts[status] += rows
    return [
        {
            "name": status,
            "images": counts[status],
            "rows": [_figure(output, row, pictures[row["key"]]) for row in rows],
        }
        for status, rows in sample.failures.items()
    ]


def _score(output: str, tally: Tally, pictures: Mapping[str, Sequence[Picture]]) -> dict[str, Any]:
    """A score with its charts, and the rows at both ends; of few images each is at one end only."""
    rows = len({row["key"] for row in [*tally.best, *tally.worst]})
    each = min(len(tally.best), max(1, rows // 2))
    ends = [("highest", tally.best[:each]), ("lowest", tally.worst[:each])]
    return {
        "column": tally.column,
        "meaning": tally.meaning,
        "charts": score_charts(tally),
        "ends": [
            (name, [_figure(output, row, pictures[row["key"]], f"{row[tally.column]:.3f}") for row in found])
            for name, found in ends
        ],
    }


def _figure(output: str, row: Mapping[str, Any], pictures: Sequence[Picture], lead: str = "") -> dict[str, Any]:
    """A row as a figure of the page; of a failed one the reason stands where the image would be.

    Args:
        lead: what stands before its caption.
    """
    is_made = row["status"] == SUCCESS
    return {
        "key": row["key"],
        "task": row["task"] or "",
        "size": f"{row['width']} x {row['height']}" if row["width"] and row["height"] else "",
        "status": row["status"],
        "lead": lead,
        "caption": row["caption"] or "",
        "words": f"{row['key']} {row['id']} {row['caption'] or ''}".lower(),
        "pictures": pictures if is_made else [*pictures, Picture(row["status"], None, row["error_message"] or "")],
        "command": redo_command(output, row["key"]),
        "details": shown_columns(row),
    }


def _grids(output: str, grids: Grids, pictures: Mapping[str, Sequence[Picture]]) -> dict[str, Any]:
    shown = [
        {
            "title": grid.title,
            "columns": grid.columns,
            "rows": [
                (name, [row and _figure(output, row, pictures[row["key"]]) for row in line])
                for name, line in zip(grid.rows, grid.cells, strict=True)
            ],
        }
        for grid in grids.grids
    ]
    return {
        "factors": " x ".join(f"{name} ({size:,})" for name, size in grids.factors),
        "across": grids.across,
        "down": grids.down,
        "shown": shown,
        "is_whole": grids.is_whole,
    }


def shown_columns(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the details of a row say: label and value."""
    return [(label, _shown(row[column])) for column, label in SHOWN if row.get(column) is not None]


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
