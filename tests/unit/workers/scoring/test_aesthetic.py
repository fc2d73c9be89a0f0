"""The predictor is what PyTorch makes of its layers, from whichever file, and no file gets anything run.

predictor/*.pth were saved by PyTorch 2.14 from the model class of LAION's improved-aesthetic-predictor with narrow
layers, and answers.npz has what it gave for some embeddings in float64.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from manifests import storage
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.scores import AESTHETIC
from workers.scoring import aesthetic
from workers.scoring.torch_file import read_torch

FILES = Path(__file__).parent / "predictor"
LINEAR = str(FILES / "linear.pth")


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FILES / "answers.npz") as stored:
        return stored["embeddings"], stored["scores"]


def tensors() -> dict[str, np.ndarray]:
    return read_torch((FILES / "linear.pth").read_bytes())


@pytest.mark.parametrize("kind", ["pth", "safetensors", "npz"])
def test_folded_it_gives_what_pytorch_gave_for_the_layers(
    kind: str, answers: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / f"weights.{kind}"
    if kind == "pth":
        path.write_bytes((FILES / "linear.pth").read_bytes())
    elif kind == "npz":
        np.savez(path, **tensors())
    else:
        safetensors.numpy.save_file(tensors(), path)
    predictor = aesthetic.read_weights(str(path))
    embeddings, scores = answers
    assert np.ptp(scores) > 1e-3
    # Of any length, because it takes the direction alone.
    found = [predictor(3 * one) for one in embeddings]
    assert found == [pytest.approx(score, abs=1e-12) for score in scores]


def test_folded_it_gives_what_the_layers_give_one_after_the_other_at_the_real_widths() -> None:
    rng = np.random.default_rng(3)
    widths, numbers = (768, 1024, 128, 64, 16, 1), (0, 2, 4, 6, 7)
    layers = [(rng.normal(0, n**-0.5, (m, n)), rng.normal(0, 1, m)) for n, m in itertools.pairwise(widths)]
    named = {}
    for number, (weight, bias) in zip(numbers, layers, strict=True):
        named |= {f"layers.{number}.weight": weight, f"layers.{number}.bias": bias}
    predictor = aesthetic.fold(named)
    for embedding in rng.normal(size=(20, 768)):
        value = embedding / np.linalg.norm(embedding)
        for weight, bias in layers:
            value = weight @ value + bias
        assert predictor(embedding) == pytest.approx(float(value[0]), abs=1e-12)
    assert predictor(np.zeros(768)) is None
    assert predictor(np.full(768, np.nan)) is None


def test_one_linear_layer_alone_is_a_predictor_too() -> None:
    predictor = aesthetic.fold({"weight": np.array([[1.0, 2.0]]), "bias": np.array([5.0])})
    assert predictor(np.array([0.0, 4.0])) == pytest.approx(7.0)


def test_bfloat16_within_a_state_dict_is_read() -> None:
    for name, tensor in read_torch((FILES / "bfloat16.pth").read_bytes()).items():
        assert np.abs(tensor - tensors()[name]).max() <= 2**-8 * np.abs(tensors()[name]).max()


def test_tensors_that_share_their_numbers_are_cut_as_they_were() -> None:
    found = read_torch((FILES / "views.pth").read_bytes())
    assert found.keys() == {"a"}
    assert found["a"].tolist() == np.arange(2.0, 14).reshape(3, 4).T.tolist()


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


def test_what_a_file_wants_run_is_refused_and_not_run(tmp_path: Path) -> None:
    sink, witness = io.BytesIO(), tmp_path / "was-here"
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"layers.0.weight": Evil(f"touch {witness}")}))
    path = tmp_path / "evil.pth"
    path.write_bytes(sink.getvalue())
    with pytest.raises(UsageError, match=r"asks for posix\.system to be called"):
        aesthetic.read_weights(str(path))
    assert not witness.exists()
    pickle.loads(pickle.dumps(Evil(f"touch {witness}")))
    assert witness.exists(), "the command would have run"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.pth", None, "there is no file"),
        ("weights.bin", b"", r"should end in \.safetensors, \.npz, \.pth, \.pt"),
        ("text.pth", b"hello", "is not a zip"),
        ("text.npz", b"hello", "is not an aesthetic predictor"),
        ("text.safetensors", b"hello", "is not an aesthetic predictor"),
        ("relu.pth", (FILES / "relu.pth").read_bytes(), "leave room for activations"),
        ("legacy.pth", (FILES / "legacy.pth").read_bytes(), r"since 1\.6; load it there and save it again"),
        ("cut.pth", (FILES / "linear.pth").read_bytes()[:-400], "is not a zip"),
    ],
)
def test_other_files_are_told_in_a_sentence(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        aesthetic.read_weights(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"layers.4.weight": np.ones((4, 9))}, r"layer 2 is .* does not fit"),
        ({"layers.7.weight": np.ones((2, 3)), "layers.7.bias": np.ones(2)}, "last layer gives 2 numbers"),
        ({"layers.0.bias": np.full(6, np.nan)}, "not finite"),
        ({"layers.9.weight": np.ones((1, 1))}, "a weight and a bias each"),
        ({"scale": np.ones(1)}, "'scale' is not the weight or bias"),
    ],
)
def test_layers_that_are_no_such_chain_are_refused(changed: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        aesthetic.fold({**tensors(), **changed})


def config(output: Path, weights: str | None, scores: str = AESTHETIC) -> RunConfig:
    return RunConfig(manifest=("m",), output=str(output), scores=scores, aesthetic_weights=weights)


def fitting(folder: Path, name: str, seed: int) -> str:
    """Weights for the demo checkpoint's CLIP."""
    vector = np.random.default_rng(seed).normal(size=(1, width()))
    np.savez(folder / name, weight=vector, bias=np.ones(1))
    return str(folder / f"{name}.npz")


def width() -> int:
    return int(aesthetic.prior_setting("demo", "image_encoder", "projection_dim"))


def test_weights_of_another_width_are_refused_with_both_widths(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"embeddings of 8 numbers, and the CLIP of demo gives {width()}"):
        aesthetic.settled(config(tmp_path / "out", LINEAR))


def test_without_weights_the_score_is_refused_and_where_it_is_not_asked_for_nothing_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="aesthetic_score needs --aesthetic-weights"):
        aesthetic.settled(config(tmp_path / "out", None))
    assert aesthetic.settled(config(tmp_path / "out", "gone.pth", "image_phash")) is None


def test_an_output_keeps_its_predictor_and_goes_on_without_the_file(tmp_path: Path) -> None:
    weights, other = fitting(tmp_path, "one", 1), fitting(tmp_path, "two", 2)
    asked = config(tmp_path / "out", weights)
    predictor = aesthetic.settled(asked)
    assert predictor is not None
    aesthetic.keep(predictor, asked)
    Path(weights).rename(tmp_path / "moved.npz")
    for again in (weights, None, str(tmp_path / "moved.npz")):
        found = aesthetic.settled(config(tmp_path / "out", again))
        assert found is not None
        assert found.vector.tolist() == predictor.vector.tolist()
        assert found.bias == predictor.bias
    # As long as nothing was scored, others can still take its place.
    changed = config(tmp_path / "out", other)
    aesthetic.keep(aesthetic.settled(changed), changed)
    kept = aesthetic.kept(str(tmp_path / "out"))
    assert kept is not None
    assert kept.vector.tolist() != predictor.vector.tolist()
    storage.write_atomic(f"{tmp_path}/out/00000_stats.json", b"{}")
    with pytest.raises(UsageError, match=r"has scores by other weights, those of .*two\.npz"):
        aesthetic.settled(config(tmp_path / "out", str(tmp_path / "moved.npz")))
