#!/usr/bin/env python3
"""Write `open_clip/`: a tiny OpenCLIP with XLM-R as its text tower, in its own layout, and its outputs.

Usage::

    open_clip_files.py --output tests/golden

Runs separately, in the environment of `make.py` with open_clip_torch 3.3.0, timm and torchvision (`--no-deps`).
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import open_clip
import torch
from open_clip.transform import image_transform
from PIL import Image
from transformers import XLMRobertaConfig

from common import normal, randomise, save_json, save_tensors

#: Widths of 64 per head, from which the number of heads is told.
XLM_R = dict(
    vocab_size=97,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=1,
    intermediate_size=72,
    max_position_embeddings=40,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
)
MODEL = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 20, "layers": 2, "width": 16, "head_width": 8, "patch_size": 5},
    "text_cfg": {"hf_model_name": "xlm-roberta-base", "hf_tokenizer_name": "xlm-roberta-base", "hf_pooler_type": "mean_pooler"},
}
PREPROCESS = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


def texts(name: str) -> torch.Tensor:
    """Texts of 13, 6 and 2 tokens in `<s> … </s> <pad>*`."""
    ids = (normal(f"{name}.input_ids", 3, 13).abs() * 40).long() % (XLM_R["vocab_size"] - 4) + 4
    ids[:, 0] = 0
    for row, length in enumerate((13, 6, 2)):
        ids[row, length - 1] = 2
        ids[row, length:] = 1
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the directory tests/golden")
    output = parser.parse_args().output / "open_clip"
    if output.exists():
        shutil.rmtree(output)
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    for name, quick_gelu, projection in (("mlp", False, {}), ("linear", True, {"hf_proj_type": "linear"})):
        model_config = json.loads(json.dumps(MODEL)) | ({"quick_gelu": True} if quick_gelu else {})
        model_config["text_cfg"] |= projection
        with tempfile.TemporaryDirectory() as folder:
            XLMRobertaConfig(**XLM_R).save_pretrained(folder)
            local = json.loads(json.dumps(model_config))
            local["text_cfg"] |= {"hf_model_name": folder, "hf_model_pretrained": False}
            model = open_clip.CustomTextCLIP(**local)
        randomise(model, f"open_clip/{name}")
        model.visual.proj.copy_(0.25 * normal(f"open_clip/{name}/proj", *model.visual.proj.shape))
        model.logit_scale.fill_(4.6052)
        folder = output / name
        save_json(folder / "open_clip_config.json", {"model_cfg": model_config, "preprocess_cfg": PREPROCESS})
        state = model.state_dict()
        if name == "mlp":
            save_tensors(folder / "open_clip_model.safetensors", state)
        else:
            torch.save(state, folder / "open_clip_pytorch_model.bin")
        ids = texts(name)
        pixels = normal(f"open_clip/{name}.pixels", 2, 3, 20, 20)
        text, image = model.encode_text(ids), model.encode_image(pixels)
        unit = [x / x.norm(dim=-1, keepdim=True) for x in (image, text)]
        tensors = {
            "input_ids": ids,
            "attention_mask": (ids != 1).long(),
            "hidden_states": model.text.transformer(input_ids=ids, attention_mask=(ids != 1).long()).last_hidden_state,
            "pixel_values": pixels,
            "text_embeds": text,
            "image_embeds": image,
            "logits_per_image": model.logit_scale.exp() * unit[0] @ unit[1].T,
        }
        colours = (normal("open_clip.image", 30, 44, 3) * 50 + 128).clamp(0, 255).byte()
        transform = image_transform(20, is_train=False, mean=PREPROCESS["mean"], std=PREPROCESS["std"])
        tensors |= {"image": colours, "prepared": transform(Image.fromarray(colours.numpy()))}
        print(f"  {name}: logits {[round(x, 2) for x in tensors['logits_per_image'][0].tolist()]}")
        save_tensors(folder / "golden.safetensors", tensors)


if __name__ == "__main__":
    main()
