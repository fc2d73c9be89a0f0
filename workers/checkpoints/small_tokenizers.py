"""Tokenizers of the checkpoint `random`: CLIP's byte-pair encoding and XLM-R's unigram pieces, with small vocabularies.

Any text can be encoded: CLIP's falls back to bytes, XLM-R's to single characters and then <unk>. Common words are one
token each, so that prompts reach about as far into the 77 tokens as with the real vocabularies.
"""

from __future__ import annotations

import functools
import itertools
import json
import string
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

#: Words that captions are made of, commonest first; order fixes the merges, so append only.
_WORD_LIST = (
    "a the of in on with and at an to by from for over under near very photo photograph painting drawing "
    "portrait landscape picture image art digital oil watercolor sketch cat dog bird horse frog fox bear owl "
    "lion fish man woman child girl boy person people robot dragon castle house city street car boat train "
    "bridge tower mountain lake river sea beach forest tree flower garden field sky cloud sun moon star night "
    "day morning evening sunset sunrise winter summer spring autumn snow rain fog storm fire water light "
    "shadow red green blue yellow orange purple pink black white brown grey gold silver bright dark warm cold "
    "old new small large big tiny giant beautiful detailed realistic abstract style high quality low "
    "resolution blurry hat dress coat eyes face hand hair wearing sitting standing running flying sleeping "
    "looking holding cup coffee tea table chair window door room kitchen book lamp glass wood stone metal "
    "paper cinematic dramatic soft studio lighting background foreground close wide angle view shot hd "
    "cartoon anime comic pixel cyberpunk fantasy vintage modern minimal japanese chinese medieval space "
    "rocket planet galaxy astronaut ship island desert jungle waterfall cliff road path market temple church "
    "ruins statue one two three four some many "
)
WORDS = _WORD_LIST.split()

CLIP_SPECIALS = ("<|startoftext|>", "<|endoftext|>")
XLMR_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
XLMR_BOS_ID, XLMR_PAD_ID, XLMR_EOS_ID, XLMR_UNK_ID = range(4)
_WORD_START = "▁"


@functools.cache
def _byte_symbols() -> list[str]:
    """CLIP's 256 printable stand-ins for bytes, in the tokenizer library's own order."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _apply_merges(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one word: the earliest known merge first, until none applies."""
    while len(symbols) > 1:
        rank, i = min((ranks.get(pair, len(ranks)), i) for i, pair in enumerate(itertools.pairwise(symbols)))
        if rank == len(ranks):
            break
        symbols = [*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :]]
    return symbols


@functools.cache
def clip_merges() -> list[tuple[str, str]]:
    """Merges that make each word one token: what earlier words left apart is joined from left to right."""
    ranks: dict[tuple[str, str], int] = {}
    for word in WORDS:
        symbols = _apply_merges([*word[:-1], word[-1] + "</w>"], ranks)
        while len(symbols) > 1:
            ranks.setdefault((symbols[0], symbols[1]), len(ranks))
            symbols = [symbols[0] + symbols[1], *symbols[2:]]
    return list(ranks)


@functools.cache
def clip_vocabulary() -> dict[str, int]:
    """Token -> id: bytes, bytes that end a word, merged pieces, then the two specials."""
    pieces = [*_byte_symbols(), *(s + "</w>" for s in _byte_symbols()), *(a + b for a, b in clip_merges())]
    return {token: i for i, token in enumerate(dict.fromkeys([*pieces, *CLIP_SPECIALS]))}


CLIP_BOS_ID, CLIP_EOS_ID = (clip_vocabulary()[token] for token in CLIP_SPECIALS)


def write_clip(folder: Path) -> None:
    """`vocab.json`, `merges.txt` and the tokenizer's config, as `transformers.CLIPTokenizer` reads them."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(clip_vocabulary(), ensure_ascii=False))
    merges = "".join(f"{a} {b}\n" for a, b in clip_merges())
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges)
    start, end = CLIP_SPECIALS
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        "bos_token": start,
        "eos_token": end,
        "unk_token": end,
        "pad_token": end,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "special_tokens_map.json").write_text(
        json.dumps({key: value for key, value in config.items() if key.endswith("_token")}, indent=2)
    )


@functools.cache
def _xlmr_pieces() -> list[tuple[str, float]]:
    """Pieces with log-probabilities: whole words are likelier than their characters."""
    characters = string.ascii_letters + string.digits + string.punctuation
    pieces = [(token, 0.0) for token in XLMR_SPECIALS]
    pieces += [(_WORD_START + word, -3.0 - 0.001 * i) for i, word in enumerate(WORDS)]
    singles = dict.fromkeys([_WORD_START, *characters])
    return pieces + [(character, -8.0) for character in singles]


def xlmr_vocabulary_size() -> int:
    """Number of XLM-R pieces with the specials; `<mask>` comes last."""
    return len(_xlmr_pieces()) + 1


def write_xlmr(folder: Path) -> None:
    """`tokenizer.json` and its config, as `transformers.XLMRobertaTokenizerFast` reads them."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.Unigram([*_xlmr_pieces(), ("<mask>", 0.0)], unk_id=XLMR_UNK_ID))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    # As XLM-R's SentencePiece does: a run of white space counts as one, and none is a token of its own.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=_WORD_START, prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=_WORD_START, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", XLMR_BOS_ID), ("</s>", XLMR_EOS_ID)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    specials = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>"}
    specials |= {"pad_token": "<pad>", "mask_token": "<mask>"}
    config = {"tokenizer_class": "XLMRobertaTokenizerFast", "model_max_length": 512, **specials}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(specials, indent=2))
