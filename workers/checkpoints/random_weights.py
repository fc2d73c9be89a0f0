"""The checkpoint `random`: Kandinsky 2.1 in small, with random weights, laid out as on the Hugging Face Hub.

Three folders (`kandinsky-2-1-prior`, `kandinsky-2-1`, `kandinsky-2-1-inpaint`) with the true block types and
conditioning paths, 9 million parameters where the real ones have billions. Each parameter is drawn from a generator
seeded with its name, so every machine builds the same bytes, and is stored under its Hugging Face name, which both
mindone and PyTorch diffusers read. Its images are abstract textures: for tests and measurements, not for looking at.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from workers.checkpoints import small_tokenizers

#: Name and shape of every parameter of a component, under Hugging Face names (`workers.kandinsky.pipelines` has them).
ParameterShapes = Callable[[str, Mapping[str, Any]], dict[str, tuple[int, ...]]]

#: Changes whenever the files below would, so that an older cache is not taken for the present one.
REVISION = "2"

EMBEDDING = 64
TEXT_HIDDEN = 64
#: Gain of the last convolution of MoVQ: keeps the pixels of a random decoder inside [-1, 1] for the most part.
PIXEL_GAIN = 0.35
#: A random UNet predicts no useful noise, so DDIM's division by sqrt(alpha_bar_T) = 0.068 leaves latents some 15 times
#: too large; MoVQ takes them in (and gives them out) at that scale.
LATENT_SCALE = 16.0

_CLIP_COMMON = {"projection_dim": EMBEDDING, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_UNET = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 8,
    "center_input_sample": False,
    "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
    "block_out_channels": [32, 64, 64, 96],
    "layers_per_block": 1,
    "attention_head_dim": 16,
    "cross_attention_dim": EMBEDDING,
    "encoder_hid_dim": TEXT_HIDDEN,
    "encoder_hid_dim_type": "text_image_proj",
    "addition_embed_type": "text_image",
    "addition_embed_type_num_heads": 8,
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}

#: Model components: diffusers or transformers class name -> config, with the real checkpoint's keys.
CONFIGS: dict[str, dict[str, Any]] = {
    "PriorTransformer": {
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "num_layers": 2,
        "embedding_dim": EMBEDDING,
        "num_embeddings": 77,
        "additional_embeddings": 4,
        "dropout": 0.0,
    },
    "CLIPTextModelWithProjection": {
        **_CLIP_COMMON,
        "model_type": "clip_text_model",
        "vocab_size": len(small_tokenizers.clip_vocabulary()),
        "hidden_size": EMBEDDING,
        "intermediate_size": 2 * EMBEDDING,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "bos_token_id": small_tokenizers.CLIP_BOS_ID,
        "eos_token_id": small_tokenizers.CLIP_EOS_ID,
        "pad_token_id": small_tokenizers.CLIP_EOS_ID,
    },
    "CLIPVisionModelWithProjection": {
        **_CLIP_COMMON,
        "model_type": "clip_vision_model",
        "hidden_size": EMBEDDING,
        "intermediate_size": 2 * EMBEDDING,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 224,
        "patch_size": 28,
    },
    "MultilingualCLIP": {
        "model_type": "M-CLIP",
        "transformerDimSize": TEXT_HIDDEN,
        "imageDimSize": EMBEDDING,
        "vocab_size": small_tokenizers.xlmr_vocabulary_size(),
        "hidden_size": TEXT_HIDDEN,
        "intermediate_size": 2 * TEXT_HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": small_tokenizers.XLMR_PAD_ID,
        "bos_token_id": small_tokenizers.XLMR_BOS_ID,
        "eos_token_id": small_tokenizers.XLMR_EOS_ID,
        "layer_norm_eps": 1e-5,
    },
    "UNet2DConditionModel": _UNET,
    "VQModel": {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
        "up_block_types": ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3,
        "block_out_channels": [32, 32, 64, 64],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 32,
        "norm_type": "spatial",
        "num_vq_embeddings": 64,
        "vq_embed_dim": 4,
        "sample_size": 32,
    },
}
INPAINT_UNET = {**_UNET, "in_channels": 9}

_UNCLIP = {
    "_class_name": "UnCLIPScheduler",
    "clip_sample": True,
    "clip_sample_range": 10.0,
    "num_train_timesteps": 1000,
    "prediction_type": "sample",
    "variance_type": "fixed_small_log",
}
_DDIM = {
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
_CLIP_IMAGES = {
    "image_processor_type": "CLIPImageProcessor",
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Initial value of one parameter, float32, drawn from a generator seeded with its name.

    Matrices and convolutions get a standard deviation of 1/sqrt(fan_in), so that signals keep their size through the
    layers; norms start as the identity. The prior's `clip_std` is one: zero, its default, would erase every embedding.
    """
    if name.endswith("conv_y.bias"):
        return np.ones(shape, np.float32)  # MoVQ's spatial norm scales by 1 + what it reads from the latents
    if name.endswith("clip_mean") or (name.endswith("bias") and "embedding" not in name):
        return np.zeros(shape, np.float32)
    if name.endswith("clip_std") or ("norm" in name and len(shape) == 1):
        return np.ones(shape, np.float32)
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else shape[0]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if "embedding" in name and "proj" not in name:
        fan_in = 1  # tables of vectors are looked up, not multiplied
    values = rng.standard_normal(shape) / math.sqrt(fan_in)
    if name == "decoder.conv_out.weight":
        # Activations after SiLU are positive on average; without this every image would have one colour cast.
        values -= values.mean(axis=(1, 2, 3), keepdims=True)
    if "conv_y.weight" in name or "conv_b.weight" in name:
        return (values / LATENT_SCALE).astype(np.float32)
    gain = {
        "decoder.conv_out.weight": PIXEL_GAIN,
        "quant_conv.weight": LATENT_SCALE,
        "post_quant_conv.weight": 1 / LATENT_SCALE,
    }
    return (values * gain.get(name, 1.0)).astype(np.float32)


def config_of(repository: str, component: str) -> Mapping[str, Any]:
    """The settings of a component of the checkpoint."""
    is_prior = repository.endswith("-prior")
    classes = {
        "prior": "PriorTransformer",
        "image_encoder": "CLIPVisionModelWithProjection",
        "text_encoder": "CLIPTextModelWithProjection" if is_prior else "MultilingualCLIP",
        "unet": "UNet2DConditionModel",
        "movq": "VQModel",
    }
    if component == "unet" and repository.endswith("-inpaint"):
        return INPAINT_UNET
    return CONFIGS[classes[component]]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _write_model(folder: Path, class_name: str, config: Mapping[str, Any], shapes: ParameterShapes) -> None:
    is_diffusers = class_name in {"PriorTransformer", "UNet2DConditionModel", "VQModel"}
    label = {"_class_name": class_name} if is_diffusers else {"architectures": [class_name]}
    _write_json(folder / "config.json", {**label, **config})
    weights = {name: weight(name, shape) for name, shape in shapes(class_name, config).items()}
    file = "diffusion_pytorch_model.safetensors" if is_diffusers else "model.safetensors"
    save_file(weights, folder / file, metadata={"format": "pt"})


def _write_decoder(folder: Path, pipeline: str, unet: Mapping[str, Any], shapes: ParameterShapes) -> None:
    index = {
        "_class_name": pipeline,
        "movq": ["diffusers", "VQModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["kandinsky", "MultilingualCLIP"],
        "tokenizer": ["transformers", "XLMRobertaTokenizerFast"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    _write_json(folder / "model_index.json", index)
    _write_json(folder / "scheduler" / "scheduler_config.json", _DDIM)
    small_tokenizers.write_xlmr(folder / "tokenizer")
    _write_model(folder / "text_encoder", "MultilingualCLIP", CONFIGS["MultilingualCLIP"], shapes)
    _write_model(folder / "unet", "UNet2DConditionModel", unet, shapes)
    _write_model(folder / "movq", "VQModel", CONFIGS["VQModel"], shapes)


def write(folder: Path, shapes: ParameterShapes) -> None:
    """Write the whole checkpoint (some 10 MB) into an existing empty folder.

    Args:
        folder: receives the three repositories.
        shapes: names and shapes of a component's parameters, given its class name and config.
    """
    prior = folder / "kandinsky-2-1-prior"
    index = {
        "_class_name": "KandinskyPriorPipeline",
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "image_processor": ["transformers", "CLIPImageProcessor"],
        "prior": ["diffusers", "PriorTransformer"],
        "scheduler": ["diffusers", "UnCLIPScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    _write_json(prior / "model_index.json", index)
    _write_json(prior / "scheduler" / "scheduler_config.json", _UNCLIP)
    _write_json(prior / "image_processor" / "preprocessor_config.json", _CLIP_IMAGES)
    small_tokenizers.write_clip(prior / "tokenizer")
    for component, class_name in (("prior", "PriorTransformer"), ("image_encoder", "CLIPVisionModelWithProjection")):
        _write_model(prior / component, class_name, CONFIGS[class_name], shapes)
    _write_model(prior / "text_encoder", "CLIPTextModelWithProjection", CONFIGS["CLIPTextModelWithProjection"], shapes)
    _write_decoder(folder / "kandinsky-2-1", "KandinskyPipeline", _UNET, shapes)
    # The real inpainting repository names KandinskyPipeline too, so the loader must not trust it; neither does ours.
    _write_decoder(folder / "kandinsky-2-1-inpaint", "KandinskyPipeline", INPAINT_UNET, shapes)
