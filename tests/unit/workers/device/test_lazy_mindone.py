"""mindone's model families come when they are asked for, and are the same objects as ever."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from workers.device.device import PROCESS_ENVIRONMENT
from workers.device.lazy_mindone import PACKAGES, _imported_names

ROOT = Path(__file__).resolve().parents[4]

SCRIPT = """
import sys
from workers.device import device, lazy_transformers
device.take("cpu")
from workers.kandinsky import pipelines
assert not lazy_transformers.was_run()
families = {name.split(".")[3] for name in sys.modules if name.startswith("mindone.transformers.models.")}
assert "clip" in families and "llama" not in families, families
import mindone.transformers
from mindone.transformers.models.clip.modeling_clip import CLIPTextModel
assert mindone.transformers.CLIPTextModel is CLIPTextModel
assert mindone.transformers.models.clip is sys.modules["mindone.transformers.models.clip"]
assert "mindone.diffusers.models.transformers.transformer_flux" not in sys.modules
assert "scipy.stats._distn_infrastructure" not in sys.modules
assert not {"scipy.optimize._minimize", "scipy.ndimage._filters", "scipy.integrate._ode"} & set(sys.modules)
assert "mindone.peft.peft_model" not in sys.modules
import scipy.ndimage, scipy.stats
from scipy.integrate import quad
assert round(scipy.stats.norm.cdf(0.0), 3) == 0.5
assert round(quad(lambda x: x, 0, 1)[0], 3) == 0.5
from mindspore.train.metrics.hausdorff_distance import morphology
assert morphology.binary_erosion([[True]]).tolist() == [[False]]
assert scipy.ndimage.morphology is morphology
from mindone.transformers.loss.loss_for_object_detection import linear_sum_assignment
import scipy.optimize
assert [list(side) for side in linear_sum_assignment([[0, 1], [1, 0]])] == [[0, 1], [0, 1]]
assert [list(side) for side in scipy.optimize.linear_sum_assignment([[1, 0], [0, 1]])] == [[0, 1], [1, 0]]
import importlib.metadata
assert "numpy" in importlib.metadata.packages_distributions()
assert "T5EncoderModel" in dir(mindone.transformers)
assert not hasattr(mindone.transformers, "NoSuchModel")
assert mindone.transformers.__version__ == "4.57.1"
print(len(families), "families")
"""


@pytest.mark.models
def test_only_what_the_pipelines_use_is_imported() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.split()[-2]) <= 10


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_of_the_package_leads_to_a_file_that_is_there(name: str) -> None:
    origin = importlib.util.find_spec("mindone")
    assert origin is not None
    assert origin.origin is not None
    folder = Path(origin.origin).parent.joinpath(*name.split(".")[1:])
    source = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    places = dict(_imported_names(source))
    assert len(places) > 4
    for module, _ in places.values():
        path = folder.joinpath(*module.lstrip(".").split("."))
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), module
    # Reading instead of running leaves nothing out: there is nothing but imports, constants and version checks.
    kinds = {type(node) for node in source.body}
    assert kinds <= {ast.ImportFrom, ast.Import, ast.If, ast.Assign, ast.Expr}


def test_it_needs_no_mindspore() -> None:
    code = "import sys, workers.device.lazy_mindone; assert not {'mindspore', 'mindone'} & set(sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**PROCESS_ENVIRONMENT}, capture_output=True)
    assert ended.returncode == 0, ended.stderr
