"""Fused attention on the demo checkpoint's models, the operator replaced by a NumPy reference of its documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from manifests.errors import UsageError
from workers.checkpoints.locations import local_folder
from workers.kandinsky.noise import prior_generator

pytestmark = pytest.mark.models

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def folder(kandinsky: ModuleType) -> Path:
    return local_folder("demo", kandinsky.parameter_shapes)


@pytest.fixture
def attention(kandinsky: ModuleType) -> ModuleType:
    from workers.kandinsky import attention

    return attention


@pytest.fixture
def operator(attention: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    from tests.unit.workers.kandinsky.documented_operator import DocumentedOperator

    operator = DocumentedOperator(any_dtype=True)
    monkeypatch.setattr(attention.ops, "flash_attention_score", operator)
    return operator


def unet_step(decoder: Any, task: str = "text2img") -> Array:
    """Both rows differ in everything, so that rows, heads and tokens cannot be mixed up unseen."""
    import mindspore as ms

    unet = decoder._pipelines[task].unet
    random = np.random.default_rng(3)

    def normal(*shape: int) -> Any:
        return ms.tensor(random.standard_normal(shape, np.float32)).to(unet.dtype)

    width = unet.config.encoder_hid_dim
    added = {"text_embeds": normal(2, width), "image_embeds": normal(2, width)}
    (result,) = unet(
        sample=normal(2, unet.config.in_channels, 16, 24),
        timestep=ms.tensor(400),
        encoder_hidden_states=normal(2, 77, width),
        added_cond_kwargs=added,
        return_dict=False,
    )
    step: Array = result.to(ms.float32).asnumpy()
    return step


def decoded(decoder: Any) -> Array:
    import mindspore as ms

    movq = decoder._pipelines["text2img"].movq
    latents = ms.tensor(np.random.default_rng(5).standard_normal((2, 4, 16, 24), np.float32))
    pixels: Array = movq.decode(latents, force_not_quantize=True)[0].asnumpy()
    return pixels


def relative(one: Array, other: Array) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


def decoder_of(kandinsky: ModuleType, folder: Path, dtype: Any, switch: Any = None) -> Any:
    model = kandinsky.DecoderModel(folder, dtype, attention=switch)
    model.load("text2img")
    return model


def test_unet_and_movq_of_the_demo_compute_the_same_with_the_fused_operator(
    kandinsky: ModuleType, attention: ModuleType, folder: Path, operator: Any
) -> None:
    import mindspore as ms

    plain = decoder_of(kandinsky, folder, ms.float32)
    switch = attention.AttentionSwitch("fused", "ascend")
    fused = decoder_of(kandinsky, folder, ms.float32, switch)
    decisions = switch.record
    assert [(each["of"], each["chosen"]) for each in decisions] == [
        ("unet, heads of 32", "fused"),
        ("movq, heads of 64", "fused"),
    ]
    assert all(each["difference"] < each["tolerance"] for each in decisions)
    for compute, layers in ((unet_step, 10), (decoded, 3)):
        expected = compute(plain)
        operator.calls.clear()
        assert relative(expected, compute(fused)) < 1e-5
        assert len(operator.calls) == layers


def test_the_prior_computes_the_same_with_the_fused_operator_its_masks_included(
    kandinsky: ModuleType, attention: ModuleType, folder: Path, operator: Any
) -> None:
    import mindspore as ms

    from tests.unit.workers.kandinsky.test_pipelines import _bucket

    switch = attention.AttentionSwitch("fused", "ascend")
    models = [
        kandinsky.PriorModel(folder, ms.float32),
        kandinsky.PriorModel(folder, ms.float32, attention=switch),
    ]
    assert [(each["of"], each["chosen"]) for each in switch.record] == [("prior, heads of 24", "fused")]
    operator.calls.clear()
    prompts = ["a", "a red cat on a blue sofa beside a window, 4k photo"]
    for negatives in (None, ["", "blurry"]):
        plain, fused = (
            model.embed(prompts, negatives, [prior_generator(1, 0), prior_generator(2, 0)], _bucket())
            for model in models
        )
        assert relative(plain[0], fused[0]) < 1e-5
        assert relative(plain[1], fused[1]) < 1e-5
    assert operator.calls


def faulty(operator: Any, fault: str) -> Callable[..., Any]:
    """The operator with something wrong in it, or called wrongly."""

    def call(query: Any, key: Any, value: Any, heads: int, **named: Any) -> Any:
        if fault == "the last key is left out":
            key, value = key[:, :-1], value[:, :-1]
            mask = named["attn_mask"]
            named["attn_mask"] = None if mask is None else mask[..., :-1]
        elif fault == "the scale of padded heads":
            named["scalar_value"] = (query.shape[-1] // heads) ** -0.5
        elif fault == "no mask":
            named["attn_mask"] = None
        elif fault == "the mask's other meaning":
            named["attn_mask"] = ~named["attn_mask"]
        elif fault == "rows mixed up":
            value = value[::-1] if isinstance(value, np.ndarray) else value.flip((0,))
        return operator(query, key, value, heads, **named)

    return call


MASKED_ONLY = ("no mask", "the mask's other meaning")


@pytest.mark.parametrize("model", ["unet", "prior"])
def test_the_self_check_passes_the_operator_in_float16_and_finds_each_fault(
    kandinsky: ModuleType,
    attention: ModuleType,
    folder: Path,
    operator: Any,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
) -> None:
    import mindspore as ms

    operator.any_dtype = False
    if model == "unet":
        network = decoder_of(kandinsky, folder, ms.float16)._pipelines["text2img"].unet
    else:
        network = kandinsky.PriorModel(folder, ms.float16)._pipeline.prior

    def record() -> dict[str, Any]:
        switch = attention.AttentionSwitch("auto", "ascend")
        switch.apply(network, model, masked=model == "prior")
        (decision,) = switch.record
        return dict(decision)

    processors = [type(layer.processor) for layer in attention.attention_layers(network)]
    for fault in ("the last key is left out", "the scale of padded heads", "rows mixed up", *MASKED_ONLY):
        if model == "prior" or fault not in MASKED_ONLY:
            with monkeypatch.context() as patch:
                patch.setattr(attention.ops, "flash_attention_score", faulty(operator, fault))
                found = record()
            assert (found["chosen"], found["fell_back"]) == ("plain", True), fault
            # Far from the limit, so that rounding on another device will not decide.
            assert found["difference"] is None or found["difference"] > 4 * found["tolerance"], fault
    assert [type(layer.processor) for layer in attention.attention_layers(network)] == processors
    right = record()
    assert (right["chosen"], right["fell_back"]) == ("fused", False)
    assert right["difference"] < right["tolerance"] / 4
    assert {type(layer.processor) for layer in attention.attention_layers(network)} == {
        attention.FusedAddedKeys if model == "unet" else attention.FusedAttention
    }


def test_a_device_without_the_operator_falls_back_under_auto_and_refuses_fused(
    kandinsky: ModuleType, attention: ModuleType, folder: Path
) -> None:
    import mindspore as ms

    switch = attention.AttentionSwitch("auto", "ascend")
    model = decoder_of(kandinsky, folder, ms.float32, switch)
    assert [each["chosen"] for each in switch.record] == ["plain", "plain"]
    assert all(each["fell_back"] and "does not run" in each["why"] for each in switch.record)
    assert np.isfinite(unet_step(model)).all()
    with pytest.raises(UsageError, match="--attention fused fails its check on this device, for unet, heads of 32"):
        decoder_of(kandinsky, folder, ms.float32, attention.AttentionSwitch("fused", "ascend"))


def test_on_the_cpu_auto_is_plain_without_a_trial(
    kandinsky: ModuleType, attention: ModuleType, folder: Path, operator: Any
) -> None:
    import mindspore as ms

    switch = attention.AttentionSwitch("auto", "cpu")
    model = decoder_of(kandinsky, folder, ms.float32, switch)
    assert not operator.calls
    assert [(each["of"], each["chosen"], each["fell_back"]) for each in switch.record] == [
        ("unet", "plain", False),
        ("movq", "plain", False),
    ]
    assert np.array_equal(unet_step(model), unet_step(decoder_of(kandinsky, folder, ms.float32)))


def test_plain_on_ascend_is_plain_where_mindone_would_take_the_fused_operator_unasked(
    kandinsky: ModuleType, attention: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mindspore as ms

    monkeypatch.setattr(kandinsky.Attention, "flash_attention_op", lambda *_, **__: pytest.fail("the fused operator"))
    model = decoder_of(kandinsky, folder, ms.float32, attention.AttentionSwitch("plain", "ascend"))
    expected = decoded(model)
    for layer in attention.attention_layers(model._pipelines["text2img"].movq):
        layer.fa_op_available = True  # as mindone finds it on Ascend
    assert np.array_equal(decoded(model), expected)


def test_the_trials_cover_heads_up_to_the_operators_largest(attention: ModuleType) -> None:
    assert [attention.padded_size(size) for size in (8, 64, 65, 128, 129, 512)] == [64, 64, 80, 128, 256, 512]
    with pytest.raises(ValueError, match="heads of 513"):
        attention.padded_size(513)


def test_in_compiled_graphs_the_operator_is_tried_as_one_and_the_models_compute_the_same(
    kandinsky: ModuleType, attention: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mindspore as ms

    from tests.unit.workers.kandinsky import composed_operator
    from tests.unit.workers.kandinsky.test_pipelines import _bucket
    from workers.kandinsky.graph import Graphs

    monkeypatch.setattr(attention.ops, "flash_attention_score", composed_operator.composed_operator)
    switch, graphs = attention.AttentionSwitch("auto", "ascend", graph=True), Graphs()
    decoder = kandinsky.DecoderModel(folder, ms.float32, graphs=graphs, attention=switch)
    decoder.load("text2img")
    prior = kandinsky.PriorModel(folder, ms.float32, graphs=graphs, attention=switch)
    assert [each["why"] for each in switch.record] == [None] * 3
    assert relative(unet_step(decoder_of(kandinsky, folder, ms.float32)), unet_step(decoder)) < 1e-4
    plain, fused = (
        model.embed(["a", "a red cat"], None, [prior_generator(1, 0), prior_generator(2, 0)], _bucket())[0]
        for model in (kandinsky.PriorModel(folder, ms.float32), prior)
    )
    assert relative(plain, fused) < 1e-4
    assert [(one.part, one.why) for one in graphs.compilations] == [("unet", None), ("prior", None)]


def test_in_compiled_graphs_a_wrong_operator_is_found_as_well(
    kandinsky: ModuleType, attention: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mindspore as ms

    from tests.unit.workers.kandinsky import composed_operator

    monkeypatch.setattr(attention.ops, "flash_attention_score", composed_operator.without_scale)
    switch = attention.AttentionSwitch("auto", "ascend", graph=True)
    switch.apply(decoder_of(kandinsky, folder, ms.float32)._pipelines["text2img"].unet, "unet")
    (found,) = switch.record
    assert (found["chosen"], found["fell_back"]) == ("plain", True)
    assert "its result differs by" in found["why"]
