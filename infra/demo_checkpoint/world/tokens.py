"""The tokenizers, made of the captions: CLIP's byte-pair encoding and XLM-R's unigram pieces, written as on the Hub.

Any text can be encoded: CLIP's falls back to bytes, XLM-R's to single characters and then <unk>.
"""

from __future__ import annotations

import itertools
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, XLMRobertaTokenizerFast

from infra.demo_checkpoint.world import captions, scenes

Array = np.ndarray[Any, Any]

#: How many captions the vocabularies come from, and in what share of them a word must be to become a token.
CAPTIONS, OFTEN = 40_000, 1 / 3000
CLIP_SPECIALS = ("<|startoftext|>", "<|endoftext|>")
XLMR_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
CYRILLIC = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
#: Tokens in training; longer captions are cut. The models take 77.
LENGTH = 32


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False))


def _write_clip(folder: Path, texts: list[str]) -> None:
    """`vocab.json`, `merges.txt` and the config, as `transformers.CLIPTokenizer` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=6000,
        min_frequency=max(2, round(OFTEN * len(texts))),
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator((t.lower() for t in texts), trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(a + "</w>" for a in alphabet), *(a + b for a, b in merges), *CLIP_SPECIALS]
    _write(folder / "vocab.json", {token: i for i, token in enumerate(dict.fromkeys(pieces))})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    start, end = CLIP_SPECIALS
    specials = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "errors": "replace"}
    _write(folder / "tokenizer_config.json", config | specials)
    _write(folder / "special_tokens_map.json", specials)


def _write_xlmr(folder: Path, texts: list[str]) -> None:
    """`tokenizer.json` and the config, as `transformers.XLMRobertaTokenizerFast` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for word in itertools.chain.from_iterable(t.lower().replace(",", " , ").replace(".", " . ").split() for t in texts):
        counts[word] = counts.get(word, 0) + 1
    words = sorted((w for w, n in counts.items() if n >= max(2, OFTEN * len(texts))), key=lambda w: (-counts[w], w))
    total = sum(counts.values())
    pieces = [(token, 0.0) for token in XLMR_SPECIALS]
    pieces += [("▁" + word, float(np.log(counts[word] / total))) for word in words]
    singles = ["▁", *string.ascii_lowercase, *string.digits, *string.punctuation, *"äöüß", *CYRILLIC]
    # A word costs less than its letters, however rare it is.
    pieces += [(character, -14.0) for character in singles]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("<mask>", 0.0)], unk_id=XLMR_SPECIALS.index("<unk>")))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[,.:]"), behavior="isolated"),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    special = [(t, XLMR_SPECIALS.index(t)) for t in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=special
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    specials = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>"}
    specials |= {"pad_token": "<pad>", "mask_token": "<mask>"}
    _write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "XLMRobertaTokenizerFast", "model_max_length": 512, **specials},
    )
    _write(folder / "special_tokens_map.json", specials)


class Tokens:
    """Both tokenizers, from a folder in which they are made where they are missing.

    Args:
        folder: holds `tokenizer_clip` and `tokenizer_xlmr`.
        made_of: how many captions they are made of.
    """

    def __init__(self, folder: Path, made_of: int = CAPTIONS) -> None:
        clip, xlmr = folder / "tokenizer_clip", folder / "tokenizer_xlmr"
        if not (xlmr / "special_tokens_map.json").exists():
            rng = np.random.default_rng(7)
            texts = [captions.caption(scenes.sample(rng), rng) for _ in range(made_of)]
            texts += [captions.says_nothing(rng) for _ in range(made_of // 20)]
            _write_clip(clip, texts)
            _write_xlmr(xlmr, texts)
        self.clip = CLIPTokenizer.from_pretrained(clip)
        self.xlmr = XLMRobertaTokenizerFast.from_pretrained(xlmr)

    def __call__(self, texts: list[str], length: int = LENGTH) -> dict[str, Array]:
        """Ids and masks of both, int64 (n, length): `clip`, `clip_mask`, `xlmr`, `xlmr_mask`."""
        padded = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "np"}
        a, b = self.clip(texts, **padded), self.xlmr(texts, **padded)
        return {"clip": a.input_ids, "clip_mask": a.attention_mask, "xlmr": b.input_ids, "xlmr_mask": b.attention_mask}
