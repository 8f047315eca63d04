#!/usr/bin/env python3
"""Write a full-size checkpoint with random weights, to measure time and memory without a download.

    make-random-checkpoint.py DIR --model m9 --tokenizer tests/golden/tokenizer
    make-random-checkpoint.py DIR --model sd21 --tokenizer tests/golden/conditioners/sd2/tokenizer

`--model tiny` is as small as the GPU kernels' shapes allow, with the head dimensions of the large models. Other models
have the layout and the shapes of BAAI/AltDiffusion, -m9 or -m18, of Stable Diffusion 1.5 or 2.1, or of
Taiyi-Stable-Diffusion, without the safety checker: 6.0 GB in f32 for AltDiffusion, half of that in f16. The configurations are like those of Stable Diffusion 1.4 and 2.1-base, so they lack fields that later versions of
diffusers added (`scaling_factor`, `prediction_type` …), and the VAE's attention has its old names (`query`, `key`, `value`,
`proj_attn`; `--vae-names new` writes `to_q` …). The embedding has all 250 002 rows, whatever the size of the tokenizer.

Names and shapes come from the reference classes, built without memory on torch's meta device; see
`scripts/golden/make.py` for the environment. Weights are made and written a few million values at a time, so this
needs less than 1 GB (mostly for torch itself); `--format bin` also needs the size of the largest part.
"""

import argparse
import json
import math
import shutil
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesConfig,
    RobertaSeriesModelWithTransformation,
)
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel

#: The number of values made at a time.
CHUNK = 1 << 22
FORMATS = {"f32": ("F32", np.float32, torch.float32), "f16": ("F16", np.float16, torch.float16)}

UNET_SD1 = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
UNET_SD2 = UNET_SD1 | {
    "_diffusers_version": "0.10.0.dev0",
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "use_linear_projection": True,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT_ENCODER = {
    "architectures": ["RobertaSeriesModelWithTransformation"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "classifier_dropout": None,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-05,
    "learn_encoder": False,
    "max_position_embeddings": 514,
    "model_type": "xlm-roberta",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "output_past": True,
    "pad_token_id": 1,
    "pooler_fn": "cls",
    "position_embedding_type": "absolute",
    "project_dim": 768,
    "type_vocab_size": 1,
    "use_cache": True,
    "vocab_size": 250002,
}
CLIP_L = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}
CLIP_H = CLIP_L | {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
BERT = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 21128,
}
#: The classes of text encoders and tokenizers in diffusers, by the class in the configuration.
CLASSES = {
    "RobertaSeriesModelWithTransformation": (
        RobertaSeriesModelWithTransformation, RobertaSeriesConfig, "alt_diffusion", "XLMRobertaTokenizer"
    ),
    "CLIPTextModel": (CLIPTextModel, CLIPTextConfig, "transformers", "CLIPTokenizer"),
    "BertModel": (BertModel, BertConfig, "transformers", "BertTokenizer"),
}
SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "trained_betas": None,
}
PNDM = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.7.0", "skip_prk_steps": True} | SCHEDULER
DDIM = {"_class_name": "DDIMScheduler", "_diffusers_version": "0.10.0.dev0", "prediction_type": "epsilon"} | SCHEDULER

TINY_UNET = UNET_SD1 | {
    "attention_head_dim": 2,
    "block_out_channels": [80, 160, 320],
    "cross_attention_dim": 64,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 8,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
TINY_TEXT_ENCODER = TEXT_ENCODER | {
    "has_pre_transformation": True,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "project_dim": 64,
    "vocab_size": 3002,
}
TINY_VAE = VAE | {
    "block_out_channels": [32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 16,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}

MODELS = {
    "tiny": {"text_encoder": TINY_TEXT_ENCODER, "unet": TINY_UNET, "vae": TINY_VAE, "scheduler": PNDM},
    "altdiffusion": {"text_encoder": TEXT_ENCODER, "unet": UNET_SD1, "scheduler": PNDM},
    "m9": {"text_encoder": TEXT_ENCODER | {"has_pre_transformation": True}, "unet": UNET_SD1, "scheduler": PNDM},
    "m18": {
        "text_encoder": TEXT_ENCODER | {"has_pre_transformation": True, "project_dim": 1024},
        "unet": UNET_SD2,
        "scheduler": DDIM,
    },
    "sd15": {"text_encoder": CLIP_L, "unet": UNET_SD1, "scheduler": PNDM},
    "sd21": {
        "text_encoder": CLIP_H,
        "unet": UNET_SD2 | {"sample_size": 96},
        "scheduler": DDIM | {"prediction_type": "v_prediction"},
    },
    "taiyi": {"text_encoder": BERT, "unet": UNET_SD1, "scheduler": PNDM},
}

#: The files of tokenizers, of which a model has some.
TOKENIZER_FILES = (
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
)

#: The names of the VAE's attention before diffusers 0.17.
OLD_ATTENTION = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def shapes(model: torch.nn.Module) -> "OrderedDict[str, tuple[int, ...]]":
    return OrderedDict((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items())


def parts(model: dict, vae_names: str):
    """Return (folder, config, tensor shapes, base name of the weights, extra tensors) of each part with weights."""
    with torch.device("meta"):
        name = model["text_encoder"]["architectures"][0]
        text_class, config_class, *_ = CLASSES[name]
        text_encoder = text_class(config_class(**model["text_encoder"]))
        unet = UNet2DConditionModel.from_config(model["unet"])
        vae_config = model.get("vae", VAE)
        vae = AutoencoderKL.from_config(vae_config)
    vae_shapes = shapes(vae)
    if vae_names == "old":
        for new, old in OLD_ATTENTION.items():
            vae_shapes = OrderedDict((name.replace(new, old), shape) for name, shape in vae_shapes.items())
    positions = np.arange(model["text_encoder"]["max_position_embeddings"], dtype=np.int64)[None]
    prefix = {"CLIPTextModel": "text_model.", "BertModel": ""}.get(name, "roberta.")
    extra = {f"{prefix}embeddings.position_ids": positions}
    yield "text_encoder", model["text_encoder"], shapes(text_encoder), ("model.safetensors", "pytorch_model.bin"), extra
    names = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    yield "unet", model["unet"], shapes(unet), names, {}
    yield "vae", vae_config, vae_shapes, names, {}


def values(name: str, shape: tuple[int, ...], generator: np.random.Generator):
    """Yield the values of a tensor in chunks of f32, scaled to keep activations near 1 in a deep model."""
    count = math.prod(shape)
    mean = 1.0 if name.endswith("weight") and len(shape) == 1 else 0.0
    deviation = 0.02 if len(shape) < 2 or "embeddings" in name else 0.7 * math.prod(shape[1:]) ** -0.5
    for start in range(0, count, CHUNK):
        chunk = generator.standard_normal(min(CHUNK, count - start), dtype=np.float32)
        chunk *= np.float32(deviation)
        chunk += np.float32(mean)
        yield chunk


def write_safetensors(path: Path, tensors, extra, dtype: str, generator: np.random.Generator) -> None:
    name_in_file, numpy_type, _ = FORMATS[dtype]
    header, offset = {}, 0
    for name, array in extra.items():
        header[name] = {"dtype": "I64", "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    for name, shape in tensors.items():
        size = math.prod(shape) * np.dtype(numpy_type).itemsize
        header[name] = {"dtype": name_in_file, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    header["__metadata__"] = {"format": "pt"}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in extra.values():
            file.write(array.tobytes())
        for name, shape in tensors.items():
            for chunk in values(name, shape, generator):
                file.write(chunk.astype(numpy_type, copy=False).data)


def write_bin(path: Path, tensors, extra, dtype: str, generator: np.random.Generator) -> None:
    state = OrderedDict((name, torch.from_numpy(array)) for name, array in extra.items())
    for name, shape in tensors.items():
        tensor = torch.empty(math.prod(shape), dtype=FORMATS[dtype][2])
        start = 0
        for chunk in values(name, shape, generator):
            tensor[start : start + len(chunk)] = torch.from_numpy(chunk)
            start += len(chunk)
        state[name] = tensor.reshape(shape)
    torch.save(state, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR", help="what to write; must not exist")
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a directory with the files of a tokenizer")
    parser.add_argument("--dtype", choices=FORMATS, default="f32")
    parser.add_argument("--format", choices=("safetensors", "bin"), default="safetensors")
    parser.add_argument("--vae-names", choices=("old", "new"), default="old")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not any((arguments.tokenizer / name).is_file() for name in TOKENIZER_FILES[:3]):
        parser.error(f"--tokenizer {arguments.tokenizer}: expected a directory with one of {', '.join(TOKENIZER_FILES[:3])}")
    if arguments.directory.exists():
        parser.error(f"{arguments.directory} exists")

    model = MODELS[arguments.model]
    generator = np.random.Generator(np.random.PCG64(arguments.seed))

    def write_json(path: Path, content: dict) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")

    tokenizer = arguments.directory / "tokenizer"
    tokenizer.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (arguments.tokenizer / name).is_file():
            shutil.copyfile(arguments.tokenizer / name, tokenizer / name)
    write_json(arguments.directory / "scheduler" / "scheduler_config.json", model["scheduler"])
    text_class = model["text_encoder"]["architectures"][0]
    _, _, library, tokenizer_class = CLASSES[text_class]
    is_alt = library == "alt_diffusion"
    write_json(
        arguments.directory / "model_index.json",
        {
            "_class_name": "AltDiffusionPipeline" if is_alt else "StableDiffusionPipeline",
            "_diffusers_version": model["scheduler"]["_diffusers_version"],
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", model["scheduler"]["_class_name"]],
            "text_encoder": [library, text_class],
            "tokenizer": ["transformers", tokenizer_class],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    for folder, config, tensors, names, extra in parts(model, arguments.vae_names):
        write_json(arguments.directory / folder / "config.json", config)
        write = write_safetensors if arguments.format == "safetensors" else write_bin
        path = arguments.directory / folder / names[arguments.format == "bin"]
        write(path, tensors, extra, arguments.dtype, generator)
        count = sum(math.prod(shape) for shape in tensors.values())
        print(f"{path}: {count:,} parameters, {path.stat().st_size / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
