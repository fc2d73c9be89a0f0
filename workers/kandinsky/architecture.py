"""Shapes of Kandinsky 2.1: the published checkpoints' component configs, and a middle size for measuring.

From the `config.json` files of kandinsky-community/kandinsky-2-1, -prior and -inpaint. Pure data: the keys are those of
diffusers and transformers, so both mindone and PyTorch build the same models from them.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

_UNET: Config = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 8,
    "center_input_sample": False,
    "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
    "block_out_channels": [384, 768, 1152, 1536],
    "layers_per_block": 3,
    "attention_head_dim": 64,
    "cross_attention_dim": 768,
    "encoder_hid_dim": 1024,
    "encoder_hid_dim_type": "text_image_proj",
    "addition_embed_type": "text_image",
    "addition_embed_type_num_heads": 64,
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
_MOVQ: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [128, 256, 256, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "norm_type": "spatial",
    "num_vq_embeddings": 16384,
    "vq_embed_dim": 4,
    "sample_size": 32,
}
_PRIOR: Config = {
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "num_layers": 20,
    "embedding_dim": 768,
    "num_embeddings": 77,
    "additional_embeddings": 4,
    "dropout": 0.0,
}
_CLIP_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_IMAGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_XLMR = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}

#: The published size: diffusers or transformers class name -> config; of texts and image encoder what sizes hang on.
FULL: dict[str, Config] = {
    "PriorTransformer": _PRIOR,
    "UNet2DConditionModel": _UNET,
    "VQModel": _MOVQ,
    "CLIPTextModelWithProjection": {
        **_CLIP_TEXT,
        "projection_dim": 768,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
    },
    "CLIPVisionModelWithProjection": {**_CLIP_IMAGE, "projection_dim": 768, "image_size": 224, "patch_size": 14},
    "MultilingualCLIP": {**_XLMR, "vocab_size": 250002, "transformerDimSize": 1024, "imageDimSize": 768},
}

#: The inpainting repository's UNet also sees the masked latents (4) and the mask (1).
FULL_INPAINT_UNET: Config = {**_UNET, "in_channels": 9}

_MIDDLE_TRANSFORMER = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
}
#: Large enough that arithmetic and not dispatch is measured, small enough for two CPU cores.
MIDDLE: dict[str, Config] = {
    "PriorTransformer": {**_PRIOR, "num_attention_heads": 8, "num_layers": 8, "embedding_dim": 512},
    "UNet2DConditionModel": {
        **_UNET,
        "sample_size": 32,
        "block_out_channels": [128, 256, 384, 512],
        "layers_per_block": 2,
        "attention_head_dim": 64,
        "cross_attention_dim": 512,
        "encoder_hid_dim": 512,
        "addition_embed_type_num_heads": 8,
    },
    "VQModel": {**_MOVQ, "block_out_channels": [64, 128, 128, 256], "num_vq_embeddings": 1024},
    "CLIPTextModelWithProjection": {**_MIDDLE_TRANSFORMER, "projection_dim": 512},
    "CLIPVisionModelWithProjection": {**_MIDDLE_TRANSFORMER, "projection_dim": 512, "patch_size": 14},
    "MultilingualCLIP": {**_MIDDLE_TRANSFORMER, "transformerDimSize": 512, "imageDimSize": 512},
}
