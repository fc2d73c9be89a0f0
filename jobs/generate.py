# PYTHON_ARGCOMPLETE_OK
"""Make the images of a Parquet manifest: the job of this project.

    python jobs/generate.py --manifest requests.parquet --output images

Starting it again with the same manifest and settings goes on where it stopped. Exit code 0: every image was
written. 3: every request is accounted for, some failed. 1: the run is incomplete, or too many rows failed. 2: it
cannot start so. 130, 143: it was asked to stop (SIGINT, SIGTERM).
"""

from __future__ import annotations

import sys
from pathlib import Path

# The script must run from any folder, installed or not, so this source tree comes first. Its own folder goes,
# because a module there could hide one of the same name that others import.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from jobs.cli import EXIT_FAILED_ROWS, EXIT_OK, parse_config, run_script  # noqa: E402
from jobs.monitoring.progress import RunProgress  # noqa: E402
from manifests.config import RunConfig  # noqa: E402
from manifests.errors import UsageError, first_line  # noqa: E402


def main() -> int:
    """Parse, run, tell."""
    config = parse_config(None, __doc__ or "")
    with RunProgress() as progress:
        progress.phase("loading")
        # Ray takes a second or two to import; a person with a mistyped option should not wait for it.
        from jobs.run.job import describe, run_job

        try:
            report = run_job(config, progress)
        finally:
            page = _report_page(config, progress)
    print(describe(report))
    if page is not None:
        print(f"report: {page}")
    return EXIT_FAILED_ROWS if report.failed else EXIT_OK


def _report_page(config: RunConfig, progress: RunProgress) -> str | None:
    """Where the page of the output is, of what is committed; the end of a run does not hang on it."""
    # A second signal, or a usage error before anything was begun, leaves nothing to look at.
    if not config.report or config.stage == "prior" or isinstance(sys.exc_info()[1], (UsageError, KeyboardInterrupt)):
        return None
    from jobs.reporting.report import make_report

    progress.phase("making the report")
    try:
        return make_report(config.output)
    except Exception as error:
        progress.note(f"no report page: {first_line(error)}; python jobs/report.py makes it later")
        return None


if __name__ == "__main__":
    run_script(main)
