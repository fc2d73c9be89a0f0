"""Configs of the demo checkpoint's models, the published checkpoints' keys at toy width, and how long they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]

EMBEDDING = 96
#: Group norms of 8 groups, not 32: on so few channels those remove absolute colour, and nothing learns.
GROUPS = 8

MOVQ: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [32, 32, 64, 64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": GROUPS,
    "norm_type": "spatial",
    "num_vq_embeddings": 64,
    "vq_embed_dim": 4,
    "sample_size": 32,
}
UNET: Config = {
    "sample_size": 16,
    "in_channels": 9,
    "out_channels": 8,
    "center_input_sample": False,
    "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
    "block_out_channels": [64, 96, 96, 96],
    "layers_per_block": 1,
    "attention_head_dim": 32,
    "cross_attention_dim": EMBEDDING,
    "encoder_hid_dim": EMBEDDING,
    "encoder_hid_dim_type": "text_image_proj",
    "addition_embed_type": "text_image",
    "addition_embed_type_num_heads": 8,
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "silu",
    "norm_num_groups": GROUPS,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
PRIOR: Config = {
    "num_attention_heads": 4,
    "attention_head_dim": EMBEDDING // 4,
    "num_layers": 3,
    "embedding_dim": EMBEDDING,
    "num_embeddings": 77,
    "additional_embeddings": 4,
    "dropout": 0.0,
}
_CLIP: Config = {
    "projection_dim": EMBEDDING,
    "hidden_size": EMBEDDING,
    "intermediate_size": 2 * EMBEDDING,
    "num_attention_heads": 4,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def clip_text(vocabulary: int, bos: int, eos: int) -> Config:
    """Config of CLIPTextModelWithProjection for a vocabulary and its two special ids."""
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": eos}
    sizes = {"vocab_size": vocabulary, "num_hidden_layers": 2, "max_position_embeddings": 77}
    return {**_CLIP, **sizes, **ids, "model_type": "clip_text_model"}


CLIP_VISION: Config = {
    **_CLIP,
    "model_type": "clip_vision_model",
    "num_hidden_layers": 3,
    "image_size": 224,
    "patch_size": 32,
}


def mclip(vocabulary: int) -> Config:
    """Config of MultilingualCLIP for a vocabulary whose first ids are <s>, <pad> and </s>."""
    return {
        "model_type": "M-CLIP",
        "transformerDimSize": EMBEDDING,
        "imageDimSize": EMBEDDING,
        "vocab_size": vocabulary,
        "hidden_size": EMBEDDING,
        "intermediate_size": 2 * EMBEDDING,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "layer_norm_eps": 1e-5,
    }


DDIM: Config = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "thresholding": False,
}


@dataclass(frozen=True)
class Budget:
    """How much each stage learns, with two processes.

    Attributes:
        movq: steps of 2 x 4 crops.
        clip: steps of 2 x 64 pictures.
        prior: steps of 2 x 96 captions.
        prior_pictures: whose embeddings each process makes once.
        unet: steps of 2 x 16 latents.
        square, wide, repaint: examples that each process encodes once for the UNet.
        measured: pictures that a measure of the whole looks at.
        told: steps between measures.
    """

    movq: int = 5_500
    clip: int = 2_500
    prior: int = 1_500
    prior_pictures: int = 6_000
    unet: int = 9_000
    square: int = 14_000
    wide: int = 1_000
    repaint: int = 3_000
    measured: int = 48
    told: int = 250


#: The recipe, and one that shows in minutes that every stage runs.
BUDGETS = {
    "full": Budget(),
    "smoke": Budget(4, 4, 4, 96, 8, 32, 16, 16, 8, 4),
}
