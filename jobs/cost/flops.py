"""How many FLOPs each model of Kandinsky 2.1 takes, from its config: matrix products and convolutions, 2 per
multiply-add; what is done element by element is left out, as PyTorch's counter does.

The keys are those of a checkpoint's `config.json` files. `tests/data/flops.json` holds what that counter says of the
same models; a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

Config = Mapping[str, Any]

#: Tokens of a text, in both text encoders.
TEXT_TOKENS = 77

#: Tokens that the UNet makes of an image embedding (`TextImageProjection`).
IMAGE_TOKENS = 10


def linear(inputs: int, outputs: int, rows: int = 1) -> int:
    """A matrix product with a layer's weights."""
    return 2 * inputs * outputs * rows


def conv(inputs: int, outputs: int, edge: int, pixels: int) -> int:
    """A convolution with so many pixels in its result."""
    return 2 * inputs * outputs * edge * edge * pixels


def attention(queries: int, keys: int, width: int) -> int:
    """Scores and the sums they weigh, over all heads."""
    return 4 * queries * keys * width


def encoder(config: Config, tokens: int) -> int:
    """The layers of a transformer such as CLIP's and XLM-R's."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    layer = 4 * linear(width, width, tokens) + 2 * linear(width, inner, tokens) + attention(tokens, tokens, width)
    return int(config["num_hidden_layers"]) * layer


def clip_text(config: Config) -> int:
    """CLIP's text encoder, per text."""
    return encoder(config, TEXT_TOKENS) + linear(config["hidden_size"], config["projection_dim"])


def clip_image(config: Config) -> int:
    """CLIP's image encoder, per image."""
    patches = (config["image_size"] // config["patch_size"]) ** 2
    width = config["hidden_size"]
    pixels = conv(3, width, config["patch_size"], patches)
    return pixels + encoder(config, patches + 1) + linear(width, config["projection_dim"])


def multilingual_text(config: Config) -> int:
    """The decoder's text encoder, per text."""
    return encoder(config, TEXT_TOKENS) + linear(config["transformerDimSize"], config["imageDimSize"])


def prior_step(config: Config) -> int:
    """The prior, per row and step."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    embedding, texts = config["embedding_dim"], config["num_embeddings"]
    tokens = texts + config["additional_embeddings"]
    layer = 4 * linear(width, width, tokens) + 2 * linear(width, 4 * width, tokens) + attention(tokens, tokens, width)
    around = 2 * linear(width, width) + 3 * linear(embedding, width) + linear(embedding, width, texts)
    return int(config["num_layers"]) * layer + around


def unet_step(config: Config, height: int, width: int) -> int:
    """The decoder's UNet, per row and step.

    Args:
        height, width: of the latents.
    """
    return _UNet(config, height * width).flops()


class _UNet:
    """Counts block by block; a resolution is the number of its pixels."""

    def __init__(self, config: Config, pixels: int) -> None:
        self._config, self._pixels = config, pixels
        self._channels: list[int] = list(config["block_out_channels"])
        self._time = 4 * self._channels[0]
        self._cross: int = config["cross_attention_dim"]

    def flops(self) -> int:
        """All of it."""
        config, first, pixels = self._config, self._channels[0], self._pixels
        total = conv(config["in_channels"], first, 3, pixels) + conv(first, config["out_channels"], 3, pixels)
        total += linear(first, self._time) + linear(self._time, self._time) + 2 * linear(self._cross, self._time)
        total += linear(self._cross, IMAGE_TOKENS * self._cross)
        total += linear(config["encoder_hid_dim"], self._cross, TEXT_TOKENS)
        return total + self._down() + self._up()

    def _down(self) -> int:
        """The down blocks, and the middle one."""
        total, pixels = 0, self._pixels
        last = len(self._channels) - 1
        inputs = [self._channels[0], *self._channels[:-1]]
        for number, kind in enumerate(self._config["down_block_types"]):
            into, out = inputs[number], self._channels[number]
            for layer in range(self._config["layers_per_block"]):
                total += self._layer(kind, into if layer == 0 else out, out, pixels)
            if number < last:
                pixels //= 4
                total += self._resnet(out, out, pixels)
        middle = self._channels[-1]
        return total + 2 * self._resnet(middle, middle, pixels) + self._attention(middle, pixels)

    def _up(self) -> int:
        total, pixels = 0, self._pixels // 4 ** (len(self._channels) - 1)
        channels = self._channels[::-1]
        last = len(channels) - 1
        before = channels[0]
        for number, kind in enumerate(self._config["up_block_types"]):
            out, below = channels[number], channels[min(number + 1, last)]
            layers = self._config["layers_per_block"] + 1
            for layer in range(layers):
                skip = below if layer == layers - 1 else out
                total += self._layer(kind, (before if layer == 0 else out) + skip, out, pixels)
            if number < last:
                pixels *= 4
                total += self._resnet(out, out, pixels)
            before = out
        return total

    def _layer(self, kind: str, into: int, out: int, pixels: int) -> int:
        return self._resnet(into, out, pixels) + (self._attention(out, pixels) if "CrossAttn" in kind else 0)

    def _resnet(self, into: int, out: int, pixels: int) -> int:
        parts = 2 if self._config["resnet_time_scale_shift"] == "scale_shift" else 1
        return resnet(into, out, pixels) + linear(self._time, parts * out)

    def _attention(self, channels: int, pixels: int) -> int:
        """With added keys: of the texts, and of the image embedding."""
        tokens = TEXT_TOKENS + IMAGE_TOKENS
        projections = 4 * linear(channels, channels, pixels) + 2 * linear(self._cross, channels, tokens)
        return projections + attention(pixels, pixels + tokens, channels)


def resnet(into: int, out: int, pixels: int) -> int:
    """Two convolutions, and a third where the width changes."""
    return conv(into, out, 3, pixels) + conv(out, out, 3, pixels) + (conv(into, out, 1, pixels) if into != out else 0)


def movq_decode(config: Config, height: int, width: int) -> int:
    """Latents to pixels, per image.

    Args:
        height, width: of the latents.
    """
    channels: list[int] = list(config["block_out_channels"])[::-1]
    latent, pixels = config["latent_channels"], height * width
    spatial = config["norm_type"] == "spatial"

    def norm(width: int, pixels: int) -> int:
        return 2 * conv(latent, width, 1, pixels) if spatial else 0

    def block(into: int, out: int, pixels: int) -> int:
        return resnet(into, out, pixels) + norm(into, pixels) + norm(out, pixels)

    def attended(width: int, pixels: int) -> int:
        return 4 * linear(width, width, pixels) + attention(pixels, pixels, width) + norm(width, pixels)

    total = conv(config.get("vq_embed_dim") or latent, latent, 1, pixels) + conv(latent, channels[0], 3, pixels)
    total += 2 * block(channels[0], channels[0], pixels) + attended(channels[0], pixels)
    before = channels[0]
    for number, kind in enumerate(config["up_block_types"]):
        out = channels[number]
        for layer in range(config["layers_per_block"] + 1):
            total += block(before if layer == 0 else out, out, pixels)
            total += attended(out, pixels) if kind.startswith("Attn") else 0
        if number < len(channels) - 1:
            pixels *= 4
            total += conv(out, out, 3, pixels)
        before = out
    return total + norm(before, pixels) + conv(before, config["out_channels"], 3, pixels)


def movq_encode(config: Config, height: int, width: int) -> int:
    """Pixels to latents, per image.

    Args:
        height, width: of the latents.
    """
    channels: Sequence[int] = config["block_out_channels"]
    latent, layers = config["latent_channels"], config["layers_per_block"]
    pixels = height * width * 4 ** (len(channels) - 1)
    total = conv(config["in_channels"], channels[0], 3, pixels)
    for number, (into, out) in enumerate(pairwise([channels[0], *channels])):
        total += resnet(into, out, pixels) + (layers - 1) * resnet(out, out, pixels)
        if config["down_block_types"][number].startswith("Attn"):
            total += layers * _plain_attention(out, pixels)
        if number < len(channels) - 1:
            pixels //= 4
            total += conv(out, out, 3, pixels)
    last = channels[-1]
    total += 2 * resnet(last, last, pixels) + _plain_attention(last, pixels)
    quant = config.get("vq_embed_dim") or latent
    return total + conv(last, latent, 3, pixels) + conv(latent, quant, 1, pixels)


def _plain_attention(width: int, pixels: int) -> int:
    return 4 * linear(width, width, pixels) + attention(pixels, pixels, width)
