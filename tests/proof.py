"""Proof that an output is right: what `jobs/verify.py` finds, without the start of a process."""

from __future__ import annotations

from pathlib import Path

from jobs.verification.findings import Finding
from jobs.verification.output import verify
from manifests.config import RunConfig


def wrong_with(output: Path | str, manifest: Path | str) -> list[Finding]:
    """Everything that is wrong with an output; nothing where it is proved to be right."""
    return verify(RunConfig(manifest=(str(manifest),), output=str(output))).findings
