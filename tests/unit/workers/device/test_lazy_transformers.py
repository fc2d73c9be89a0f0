"""transformers comes without a look at all its models, and its names are the same objects as ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]

SCRIPT = """
import sys
from workers.device import lazy_transformers
lazy_transformers.install()
import transformers
from transformers import AutoTokenizer, CLIPTokenizer, PretrainedConfig, XLMRobertaConfig, logging
assert transformers.__version__ == "4.57.1"
for family in ("clip.tokenization_clip", "xlm_roberta.configuration_xlm_roberta", "auto.tokenization_auto"):
    assert f"transformers.models.{family}" in sys.modules, family
assert transformers.utils.logging is logging
assert not lazy_transformers.was_run()
"""

SAME_OBJECTS = """
before = CLIPTokenizer, XLMRobertaConfig, PretrainedConfig
from transformers import BertConfig
import transformers.models
assert lazy_transformers.was_run()
from transformers import CLIPTokenizer, XLMRobertaConfig, PretrainedConfig
assert before == (CLIPTokenizer, XLMRobertaConfig, PretrainedConfig)
assert transformers.models.bert.BertConfig is BertConfig is transformers.BertConfig
assert not hasattr(transformers, "NoSuchModel")
assert {"BertConfig", "CLIPTokenizer", "logging"} <= set(dir(transformers))
"""


@pytest.mark.parametrize("script", [SCRIPT, SCRIPT + SAME_OBJECTS])
def test_the_package_runs_when_a_name_is_asked_for_that_is_not_at_hand(script: str) -> None:
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_process_that_has_it_already_keeps_it() -> None:
    script = """
import transformers
from workers.device import lazy_transformers
lazy_transformers.install()
import sys
assert sys.modules["transformers"] is transformers and lazy_transformers.was_run()
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
