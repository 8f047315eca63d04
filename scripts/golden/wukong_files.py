#!/usr/bin/env python3
"""Write `wukong/`: a tiny Wukong of each form, and what its authors' code makes of texts and images.

Usage::

    wukong_files.py --models MODELS --output tests/golden

Runs separately, with `pip install mindspore==2.10.0 "numpy<2" safetensors ftfy regex` in a Python 3.11 of its own, after
`dual_encoders`, whose vocabulary it uses. MODELS is a checkout of https://github.com/mindspore-ai/models; the tokenizer,
the towers, the loading of weights and the token-wise similarity are its own (`research/mm/wukong`).

The published files are pickles of a dictionary of numpy arrays, with names in PyTorch's style. They have no configuration:
`clip/` compares one vector per text, and its joint space is as wide as its text tower; `filip/` compares all tokens; and
`reduced/` does so too, with fewer tokens of an image. Weights are exact in f16, and saved as such.
"""

import argparse
import gzip
import json
import pickle
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import mindspore
import numpy as np
from mindspore import Tensor
from safetensors.numpy import save_file

from tokenizer_cases import ODD, PROMPTS

TEXTS = ["一只戴帽子的小狗", "a red apple", "猫", "", "Größere Straßenbahn fährt über die Brücke", "two cats, one dog!", "一只小狗，" * 9]
#: Texts that this tokenizer reads in a way of its own.
OWN = ("[CLS] a [MASK] [SEP]", "a [SEP] b", "a[SEP]b", "[UNK]x [UNK] y", "<|endoftext|> a", "[cls]", "[PAD] a")
CONTEXT, WIDTH, IMAGE, PATCH = 32, 64, 20, 5
#: Width of the joint space, layers of both towers, and the image's tokens after reduction.
FORMS = {"clip": (WIDTH, 2, None), "filip": (24, 1, None), "reduced": (32, 1, 3)}
GROUPS = 8


def normal(name: str, *shape: int) -> np.ndarray:
    """As in `common.py`, which needs torch."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return generator.standard_normal(shape, dtype=np.float32)


def layer(prefix: str) -> dict[str, tuple[int, ...]]:
    shapes = {
        "attn.in_proj_weight": (3 * WIDTH, WIDTH),
        "attn.in_proj_bias": (3 * WIDTH,),
        "attn.out_proj.weight": (WIDTH, WIDTH),
        "attn.out_proj.bias": (WIDTH,),
        "ln_1.weight": (WIDTH,),
        "ln_1.bias": (WIDTH,),
        "mlp.c_fc.weight": (4 * WIDTH, WIDTH),
        "mlp.c_fc.bias": (4 * WIDTH,),
        "mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
        "mlp.c_proj.bias": (WIDTH,),
        "ln_2.weight": (WIDTH,),
        "ln_2.bias": (WIDTH,),
    }
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def weights(form: str, vocab_size: int) -> dict[str, np.ndarray]:
    """Random weights under the published names."""
    dim, layers, tokens = FORMS[form]
    patches = (IMAGE // PATCH) ** 2
    shapes = {
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (patches + 1, WIDTH),
        "visual.proj": (WIDTH, dim),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "transformer.token_embedding.weight": (vocab_size, WIDTH),
        "transformer.positional_embedding": (CONTEXT, WIDTH),
        "transformer.text_projection": (WIDTH, dim),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "transformer.ln_final"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for number in range(layers):
        shapes |= layer(f"visual.transformer.resblocks.{number}") | layer(f"transformer.resblocks.{number}")
    if tokens is not None:
        shapes |= {
            "visual.token_learner.norm.weight": (dim,),
            "visual.token_learner.norm.bias": (dim,),
            "visual.token_learner.attention_maps.0.weight": (dim, dim // GROUPS, 1, 1),
            "visual.token_learner.attention_maps.1.weight": (tokens, dim, 1, 1),
            "visual.token_learner.feat_conv.weight": (dim, dim // GROUPS, 1, 1),
        }
    tensors = {}
    for name, shape in shapes.items():
        noise = normal(f"wukong/{form}/{name}", *shape)
        if name.endswith("weight") and len(shape) == 1:
            noise = 1 + 0.2 * noise
        elif len(shape) == 1:
            noise = 0.15 * noise
        elif "embedding" in name:
            noise = 0.6 * noise
        elif "attention_maps" in name:
            noise = 2.5 * noise * np.prod(shape[1:]) ** -0.5  # so that the maps differ
        elif name.endswith(("proj", "projection")):
            noise = noise * shape[0] ** -0.5
        else:
            # Larger queries and keys: nearly uniform attention would hide a wrong scale or mask.
            noise = noise * np.prod(shape[1:]) ** -0.5
            if name.endswith("in_proj_weight"):
                noise[: 2 * WIDTH] *= 1.6
        tensors[name] = noise.astype(np.float16)
    tensors["loss.logit_scale"] = np.float16(np.log(np.float32(60))).reshape(())
    return tensors


def save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    kinds = {name: np.int64 if tensor.dtype == np.int64 else np.float32 for name, tensor in tensors.items()}
    save_file({name: np.ascontiguousarray(tensor, kinds[name]) for name, tensor in tensors.items()}, str(path))
    path.chmod(0o644)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def write_cases(path: Path, tokenizer, around: tuple[int, int]) -> None:
    texts = [text for text in dict.fromkeys((*TEXTS, *OWN, *PROMPTS, *ODD)) if len(text) < 400]
    cases = [{"text": text, "ids": [around[0], *tokenizer.encode(text), around[1]]} for text in texts]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"  {path.name}: {len(cases)} texts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="a checkout of mindspore-ai/models")
    parser.add_argument("--output", type=Path, required=True, help="the directory tests/golden")
    arguments = parser.parse_args()
    output = arguments.output / "wukong"
    vocabulary = arguments.output / "dual_encoders/chinese_clip/vocab.txt"
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True)
    mindspore.set_context(device_target="CPU", mode=mindspore.PYNATIVE_MODE)
    # Its MindSpore returned the values without their places.
    values_and_places = Tensor.max
    Tensor.max = lambda tensor, axis: values_and_places(tensor, axis)[0]

    with tempfile.TemporaryDirectory() as folder:
        # Its tokenizer reads both vocabularies from its own folder; English is not used.
        shutil.copytree(arguments.models / "research/mm/wukong/src", f"{folder}/src")
        shutil.copyfile(vocabulary, f"{folder}/src/tools/vocab_zh.txt")
        with gzip.open(f"{folder}/src/tools/bpe_simple_vocab_16e6.txt.gz", "wt") as file:
            file.write("#version\na b\n")
        sys.path.insert(0, folder)
        from src.model import FilipEval
        from src.tools import model_utils, simple_tokenizer

        simple_tokenizer.set_tokenizer_lang("zh", CONTEXT)
        tokenizer = simple_tokenizer._tokenizer
        ids = simple_tokenizer.tokenize(TEXTS)
        around = simple_tokenizer.get_sot_token(), simple_tokenizer.get_eot_token()
        write_cases(output / "cases.json", tokenizer, around)
        pixels = normal("wukong.pixels", 2, 3, IMAGE, IMAGE)
        shown = ids > 0

        for form, (dim, layers, tokens) in FORMS.items():
            (output / form).mkdir()
            file = output / form / f"wukong_{form}.pkl"
            state = weights(form, len(tokenizer.encoder))
            file.write_bytes(pickle.dumps(state, protocol=4))
            shutil.copyfile(vocabulary, output / form / "vocab_zh.txt")
            whole = {"return_full_embed": form != "clip"}
            visual = {
                "type": "VisionTransformer", "input_resolution": IMAGE, "layers": layers, "width": WIDTH, "patch_size": PATCH,
                "output_dim": dim, **whole,
            }
            if tokens is not None:
                visual["token_learner"] = {"num_tokens": tokens, "num_groups": GROUPS, "dropout_rate": 0.0}
            text = {
                "type": "TextTransformer", "context_length": CONTEXT, "vocab_size": len(tokenizer.encoder), "width": WIDTH,
                "heads": WIDTH // 64, "layers": layers, "output_dim": dim, **whole,
            }
            text_model = model_utils.load_text_model(text, file).set_train(False)
            image_model = model_utils.load_visual_model(visual, file).set_train(False)
            texts, images = text_model(Tensor(ids.astype(np.int32))).asnumpy(), image_model(Tensor(pixels)).asnumpy()
            tensors = {"input_ids": ids.astype(np.int64), "attention_mask": shown.astype(np.int64), "pixel_values": pixels}
            if form == "clip":
                logits = np.exp(state["loss.logit_scale"].astype(np.float32)) * (unit(images) @ unit(texts).T)
                tensors |= {"text_embeds": texts, "image_embeds": images, "logits_per_image": logits}
            else:
                # As its classes for evaluation prepare them: without the class token, and padding is zero.
                texts_of, images_of = unit(texts) * shown[..., None], unit(images[:, 1:])
                similarity = FilipEval(None, 1, None, None).sim_func
                tensors |= {"text_tokens": texts * shown[..., None], "image_tokens": images[:, 1:]}
                tensors["image_to_text"] = similarity(Tensor(images_of), Tensor(texts_of)).asnumpy()
                # The other direction, for retrieval: the mean over a text's tokens, not its padding.
                most = similarity(Tensor(texts_of.astype(np.float32)), Tensor(images_of)).asnumpy() * CONTEXT
                tensors["text_to_image"] = most / shown.sum(1, keepdims=True)
                logits = tensors["image_to_text"]
            print(f"  {form}: {[round(float(x), 3) for x in logits[0]]}, {file.stat().st_size} bytes")
            save(output / form / "golden.safetensors", tensors)
    (output / "texts.json").write_text(json.dumps(TEXTS, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
