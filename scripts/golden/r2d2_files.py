#!/usr/bin/env python3
"""Write `r2d2/`: a tiny R2D2 and a tiny PRD2 as their authors publish them, and what their own code makes of texts and images.

Usage::

    r2d2_files.py --r2d2 R2D2 --output tests/golden

Runs separately, in the environment of `make.py` with torchvision (`--no-deps`). R2D2 is a checkout of
https://github.com/yuxie11/R2D2; its classes compute everything. They have fixed widths, so that only their constructors
are replaced, by ones that build the same parts smaller. Weights are exact in f16, and saved as such.
"""

import argparse
import contextlib
import copy
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from PIL import Image
from torch import nn
from transformers import BertConfig, BertTokenizer, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPVisionTransformer

from common import normal, randomise, save_json, save_tensors
from dual_encoders import TEXTS, write_vocabulary

#: Heads of 64 channels in every part, as the published models have, since their files do not tell.
HEAD = 64
IMAGE = 20
#: Texts of the reference are cut to 64 tokens.
LONG = "一只戴帽子的小狗，" * 9


def vision(width: int, layers: int) -> CLIPVisionTransformer:
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=40, num_hidden_layers=layers, num_attention_heads=width // HEAD,
        image_size=IMAGE, patch_size=5, hidden_act="quick_gelu")
    return CLIPVisionTransformer(config)


def bert(**more) -> BertConfig:
    return BertConfig(
        hidden_size=HEAD, intermediate_size=24, num_hidden_layers=2, num_attention_heads=1, max_position_embeddings=70,
        layer_norm_eps=1e-12, **more)


def common_parts(model, tokenizer: BertTokenizer, vision_width: int, layers: int, dim: int) -> None:
    """What both constructors build."""
    nn.Module.__init__(model)
    model.visual_encoder = vision(vision_width, layers)
    model.tokenizer = tokenizer
    model.text_encoder = transformers.BertModel(bert(vocab_size=len(tokenizer)))
    model.vision_proj = nn.Linear(vision_width, dim)
    model.text_proj = nn.Linear(HEAD, dim)
    model.temp = nn.Parameter(0.07 * torch.ones([]))


def tiny(kind, joint_layer, tokenizer: BertTokenizer):
    """A small one of R2D2's class `kind`, with joint layers of the class `joint_layer`, if any."""

    class Tiny(kind):
        def __init__(self) -> None:
            if joint_layer is None:
                return common_parts(self, tokenizer, HEAD, 1, 12)
            width = 2 * HEAD
            common_parts(self, tokenizer, width, 1, 12)
            # Their own word embeddings are never read.
            shape = bert(vocab_size=3, add_cross_attention=True)
            shape.encoder_width = width
            self.text_joint_layer = joint_layer(config=shape, add_pooling_layer=False)
            shape = copy.copy(shape)
            shape.encoder_width = HEAD
            self.img_joint_layer = joint_layer(config=shape, add_pooling_layer=False)
            self.img_joint_proj = nn.Linear(width, HEAD)
            self.itm_head = nn.Linear(HEAD, 2)
            self.itm_head_i = nn.Linear(HEAD, 2)

    return Tiny()


def publish(folder: Path, file: str, model) -> None:
    """As the training code saves it; everything else it holds is not read."""
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()}
    torch.save({"model": state, "config": {"image_size": 224}, "epoch": 3}, folder / file)


def pictures() -> list[torch.Tensor]:
    """Two pictures of different shapes, as bytes."""
    shapes = ((30, 44, 3), (25, 20, 3))
    return [(normal(f"r2d2.image.{i}", *shape) * 50 + 128).clamp(0, 255).byte() for i, shape in enumerate(shapes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--r2d2", type=Path, required=True, help="a checkout of yuxie11/R2D2")
    parser.add_argument("--output", type=Path, required=True, help="the directory tests/golden")
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.r2d2))
    from models.bert import BertModel as JointLayer
    from models.prd2 import PRD2
    from models.r2d2 import R2D2
    from r2d2_inference_demo import evaluation, preprocess

    output = arguments.output / "r2d2"
    if output.exists():
        shutil.rmtree(output)
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    texts = [*TEXTS, LONG]
    images = pictures()
    prepared = torch.stack([preprocess(Image.fromarray(image.numpy()), IMAGE) for image in images])
    for name, kind, joint_layer in (("r2d2", R2D2, JointLayer), ("prd2", PRD2, None)):
        folder = output / name
        write_vocabulary(folder, do_lower_case=True)
        tokenizer = BertTokenizer.from_pretrained(folder)
        # The published folder has a file without content.
        save_json(folder / "tokenizer_config.json", {"init_inputs": []})
        model = randomise(tiny(kind, joint_layer, tokenizer), f"r2d2/{name}", f16_exact=True)
        model.temp.fill_(0.07)
        model.temp.copy_(model.temp.half())
        publish(folder, f"{name}_pretrain_250m.pth", model)

        tokens = model.tokenize_text(texts)
        text, image = model.encode_text(tokens), model.encode_image(prepared)
        tensors = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask, "pixel_values": prepared}
        hidden = model.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        tensors["hidden_states"] = hidden.masked_fill(tokens.attention_mask[..., None] == 0, 0.0)
        if joint_layer is not None:
            (text_states, text), (image_states, image) = text, image
            tensors["image_hidden_states"] = image_states
            rows = []
            for number, picture in enumerate(images):
                with tempfile.NamedTemporaryFile(suffix=".png") as file, contextlib.redirect_stdout(None):
                    Image.fromarray(picture.numpy()).save(file.name)
                    rows.append(torch.from_numpy(evaluation(model, texts, file.name, IMAGE, "cpu")))
            tensors["scores"] = torch.stack(rows)
            # What its evaluation of retrieval sorts by, among the best by cosine.
            tensors["ranking_scores"] = tensors["scores"] + image @ text.T
            print(f"  scores {[round(x, 3) for x in tensors['scores'].flatten().tolist()]}")
        # Both are of length 1, as the reference returns them.
        tensors |= {"text_embeds": text, "image_embeds": image, "logits_per_image": image @ text.T / model.temp}
        tensors["probabilities"] = tensors["logits_per_image"].softmax(-1)
        print(f"  {name}: logits {[round(x, 2) for x in tensors['logits_per_image'][0].tolist()]}")
        save_tensors(folder / "golden.safetensors", tensors)
    save_json(output / "texts.json", texts)
    save_tensors(output / "images.safetensors", {f"{i}": image for i, image in enumerate(images)})


if __name__ == "__main__":
    main()
