"""Python imports this at its start, in every process of a job that has this folder on PYTHONPATH.

It records what each of them does below RECORD_ROOT into RECORD_TO (tests/faults/simulation/recorder.py).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

_file = Path(__file__).resolve().parents[1] / "simulation" / "recorder.py"
_spec = importlib.util.spec_from_file_location("_operations_recorder", _file)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
_module.Recorder(os.environ["RECORD_ROOT"], os.environ["RECORD_TO"]).install()
