"""The demo checkpoint's tokenizers: words of captions are one token, and any text can be encoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.demo_checkpoint.world.tokens import LENGTH, Tokens


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return Tokens(tmp_path_factory.mktemp("tokenizers"), made_of=4000)


@pytest.mark.parametrize(
    "text", ["a cat on a red background", "eine Katze auf rotem Hintergrund", "кот на красном фоне"]
)
def test_the_words_of_captions_are_one_token_each(tokens: Tokens, text: str) -> None:
    words = len(text.split())
    assert len(tokens.clip.tokenize(text)) == words
    assert len(tokens.xlmr.tokenize(text)) == words


@pytest.mark.parametrize("text", ["", "zyx qwrt!", "кошечка?", "ßäöü", "Größe 4k, 8k.", "x" * 500])
def test_any_text_is_encoded_without_unknown_tokens(tokens: Tokens, text: str) -> None:
    batch = tokens([text])
    assert batch["clip"].shape == batch["xlmr"].shape == (1, LENGTH)
    assert tokens.xlmr.unk_token_id not in batch["xlmr"]
    # CLIP's unknown token is its end, which must come once and last.
    ids = batch["clip"][0][batch["clip_mask"][0] == 1]
    assert (ids == tokens.clip.eos_token_id).tolist() == [False] * (len(ids) - 1) + [True]


def test_a_script_that_the_captions_lack_is_bytes_for_clip(tokens: Tokens) -> None:
    ids = tokens.clip("漢字").input_ids
    assert len(ids) > 4
    assert tokens.clip.decode(ids, skip_special_tokens=True).replace(" ", "") == "漢字"


def test_capitals_change_nothing(tokens: Tokens) -> None:
    upper, lower = tokens(["Ein KATER, Кот"]), tokens(["ein kater, кот"])
    assert all((upper[name] == lower[name]).all() for name in upper)


def test_what_is_made_is_read_again(tokens: Tokens, tmp_path: Path) -> None:
    Tokens(tmp_path, made_of=500)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")}
    Tokens(tmp_path, made_of=500)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")} == written
