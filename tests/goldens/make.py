"""Make the goldens anew: images and latents of PyTorch diffusers for the golden manifest.

    python tests/goldens/make.py [--environment FOLDER]

One command, Python 3.11 alone: it makes an environment of its own (PyTorch for the CPU, diffusers and the libraries at
the versions that mindone is a port of; 1.5 GB) outside the project, then runs `reference.py` there. The project itself
never needs PyTorch. The same versions give the same files. (PIP_EXTRA_INDEX_URL can name PyTorch's index of wheels
without CUDA, which are a tenth of the size.)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = (
    "torch==2.13.0",
    "diffusers==0.35.1",
    "transformers==4.57.1",
    "numpy>=1.26,<2",
    "pillow>=11",
    "pyarrow>=17,<26",
)


def python_of(environment: Path) -> Path:
    """The interpreter of the environment, which is made where it is missing."""
    python = environment / "bin" / "python"
    ready = environment / ".ready"
    if not ready.exists():
        venv.create(environment, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        ready.touch()
    return python


def main() -> None:
    """Make the environment, lay the checkpoints out in a temporary folder, write the goldens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(tempfile.gettempdir()) / "kandinsky-goldens"
    parser.add_argument("--environment", type=Path, default=default, help=f"made if missing (default: {default})")
    python = python_of(parser.parse_args().environment.resolve())
    with tempfile.TemporaryDirectory() as checkpoint:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        command = [python, "-m", "tests.goldens.reference", checkpoint]
        subprocess.run(command, check=True, cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main())
