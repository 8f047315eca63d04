#!/usr/bin/env python3
"""Write `open_clip_own/`: tiny OpenCLIPs with CLIP's text tower, in OpenCLIP's layout, and their outputs.

Usage::

    open_clip_own_files.py --output tests/golden

Runs separately, with torch 2.15.0 and `pip install ftfy regex`, then with `--no-deps` open_clip_torch 3.3.0, timm 1.0.31 and
torchvision, after `dual_encoders.py`, whose merges of CLIP's tokenizer it uses. `base/` has the layout of LAION's ViT-B-32,
`quick/` that of `custom_text` with `quick_gelu`. Weights are exact in f16, and saved as such.
"""

import argparse
import gzip
import json
import shutil
import tempfile
from pathlib import Path

import ftfy
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import image_transform
from PIL import Image

from common import normal, randomise, save_json, save_tensors
from tokenizer_cases import PROMPTS

#: The tokenizer's files, in transformers' names.
TOKENIZER = ("merges.txt", "tokenizer_config.json", "vocab.json")
#: What texts are padded and cut to.
TOKENS = 24
LONG = "two cats, one dog! " * 8
MODELS = {
    "base": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 20, "layers": 2, "width": 16, "head_width": 8, "patch_size": 5},
        "text_cfg": {"context_length": TOKENS, "width": 18, "heads": 3, "layers": 2},
    },
    "quick": {
        "embed_dim": 12,
        "quick_gelu": True,
        "custom_text": True,
        "vision_cfg": {"image_size": 20, "layers": 2, "width": 16, "head_width": 8, "patch_size": 5, "mlp_ratio": 2.5},
        "text_cfg": {"context_length": TOKENS, "width": 16, "heads": 2, "layers": 3, "mlp_ratio": 2.5},
    },
}
PREPROCESS = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


def golden(folder: Path, name: str, model, ids: torch.Tensor) -> None:
    pixels = normal(f"open_clip_own/{name}.pixels", 2, 3, 20, 20)
    text, image = model.encode_text(ids), model.encode_image(pixels)
    tower = getattr(model, "text", model)
    hidden = tower.token_embedding(ids) + tower.positional_embedding
    hidden = tower.ln_final(tower.transformer(hidden, attn_mask=tower.attn_mask))
    # The end token has the largest id; what follows it is padding.
    mask = (torch.arange(TOKENS) <= ids.argmax(dim=-1, keepdim=True)).long()
    logits = model.get_logits(pixels, ids)[0]
    double = [model.double().encode_text(ids), model.encode_image(pixels.double())]
    error = max(((a.double() - b).norm() / b.norm()).item() for a, b in zip((text, image), double))
    print(f"  {name}: logits {[round(x, 2) for x in logits[0].tolist()]}, f32 to f64 {error:.1e}")
    colours = (normal("open_clip_own.image", 30, 44, 3) * 50 + 128).clamp(0, 255).byte()
    transform = image_transform(20, is_train=False, **PREPROCESS)
    save_tensors(
        folder / "golden.safetensors",
        {
            "input_ids": ids,
            "attention_mask": mask,
            "hidden_states": hidden.masked_fill(mask[..., None] == 0, 0.0),
            "pixel_values": pixels,
            "text_embeds": text,
            "image_embeds": image,
            "logits_per_image": logits,
            "probabilities": logits.softmax(-1),
            "image": colours,
            "prepared": transform(Image.fromarray(colours.numpy())),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the directory tests/golden")
    golden_folder = parser.parse_args().output
    output, clip = golden_folder / "open_clip_own", golden_folder / "dual_encoders/clip"
    if output.exists():
        shutil.rmtree(output)
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    texts = [*json.loads((clip / "texts.json").read_text()), LONG]
    with tempfile.TemporaryDirectory() as folder:
        merges = Path(folder) / "merges.txt.gz"
        merges.write_bytes(gzip.compress((clip / "merges.txt").read_bytes().rstrip(b"\n")))
        tokenizer = SimpleTokenizer(str(merges), context_length=TOKENS)
    assert tokenizer.vocab_size == len(json.loads((clip / "vocab.json").read_text()))
    ids = tokenizer(texts)
    for name, config in MODELS.items():
        config = json.loads(json.dumps(config))
        config["text_cfg"]["vocab_size"] = tokenizer.vocab_size
        local = json.loads(json.dumps(config))
        build = open_clip.CustomTextCLIP if local.pop("custom_text", False) else open_clip.CLIP
        model = build(**local)
        randomise(model, f"open_clip_own/{name}", f16_exact=True)
        for weight, parameter in model.named_parameters():
            if weight.endswith(("visual.proj", "text_projection")):
                parameter.copy_((0.25 * normal(f"open_clip_own/{name}/{weight}", *parameter.shape)).half())
            if weight.endswith(("positional_embedding", "class_embedding")):
                parameter.copy_((0.6 * normal(f"open_clip_own/{name}/{weight}", *parameter.shape)).half())
        model.logit_scale.fill_(4.5)
        folder = output / name
        save_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": PREPROCESS})
        state = {key: tensor.half() for key, tensor in model.state_dict().items()}
        if name == "base":
            save_tensors(folder / "open_clip_model.safetensors", state)
            for file in TOKENIZER:
                shutil.copy(clip / file, folder / file)
        else:
            torch.save(state, folder / "open_clip_pytorch_model.bin")
        golden(folder, name, model.eval(), ids)
    save_json(output / "texts.json", texts)
    # transformers' tokenizers, and ours, do not make full-width characters narrow.
    ids_of = lambda text: [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
    cases = [{"text": text, "ids": ids_of(text)} for text in PROMPTS if ftfy.fix_text(text) == text]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    (output / "cases.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"  cases.json: {len(cases)} of {len(PROMPTS)} texts")


if __name__ == "__main__":
    main()
