#!/usr/bin/env python3
"""Compare full-size dual encoders with transformers: random weights, the same texts and images through both.

    cargo build --release -p altclip-encoder --example embed
    compare-encoders.py --program target/release/examples/embed [MODEL ...]
    compare-encoders.py --make DIR MODEL

Each model is made with random weights in a temporary folder (up to 5 GB, in `--scratch`), in the layout of its published
checkpoint with the small tokenizers of `tests/golden`, and run through transformers and the program. The output is
‖a − b‖ / ‖b‖ of the embeddings; the exit code is 1 if one is above the tolerance. It also has the reference's own distance
from the same model in f64, as a lower bound (`--no-floor` skips this to save time).

See `scripts/golden/make.py` for the environment.
"""

import argparse
import gc
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizerFast,
    XLMRobertaTokenizer,
)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts/golden"))
from common import randomise  # noqa: E402

TEXTS = ["一只戴帽子的小狗", "a red apple", "猫", "Größere Straßenbahn fährt über die Brücke", "two cats, one dog! " * 4]
VIT_L = dict(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14
)
VIT_H = dict(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=16,
    patch_size=14,
    hidden_act="gelu",
)
XLM_R = dict(vocab_size=250002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
#: Name: class, configuration, tokenizer and its folder, the tokenizer's files.
MODELS = {
    "altclip": (
        AltCLIPModel,
        lambda: AltCLIPConfig(text_config=dict(XLM_R, project_dim=768), vision_config=VIT_L, projection_dim=768),
        XLMRobertaTokenizer,
        "tokenizer",
        ("sentencepiece.bpe.model",),
    ),
    "altclip-base": (
        AltCLIPModel,
        lambda: AltCLIPConfig(
            text_config=dict(
                XLM_R, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, project_dim=512
            ),
            vision_config=dict(patch_size=16),
            projection_dim=512,
        ),
        XLMRobertaTokenizer,
        "tokenizer",
        ("sentencepiece.bpe.model",),
    ),
    "altclip-m18": (
        AltCLIPModel,
        lambda: AltCLIPConfig(text_config=dict(XLM_R, project_dim=1024), vision_config=VIT_H, projection_dim=1024),
        XLMRobertaTokenizer,
        "tokenizer",
        ("sentencepiece.bpe.model",),
    ),
    "clip-vit-b-32": (
        CLIPModel,
        # By the length here, a server made with transformers would otherwise cut texts to 20 tokens.
        lambda: CLIPConfig(text_config=dict(eos_token_id=2), projection_dim=512, max_length=77),
        CLIPTokenizerFast,
        "dual_encoders/clip",
        ("vocab.json", "merges.txt"),
    ),
    "clip-vit-l-14": (
        CLIPModel,
        lambda: CLIPConfig(
            text_config=dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, eos_token_id=2),
            vision_config=VIT_L,
            projection_dim=768,
        ),
        CLIPTokenizerFast,
        "dual_encoders/clip",
        ("vocab.json", "merges.txt"),
    ),
    "chinese-clip-base": (
        ChineseCLIPModel,
        lambda: ChineseCLIPConfig(
            text_config=dict(vocab_size=21128), vision_config=dict(patch_size=16), projection_dim=512
        ),
        BertTokenizer,
        "dual_encoders/chinese_clip",
        ("vocab.txt",),
    ),
}


def images(folder: Path) -> list[Path]:
    """Images of exactly the models' input size, so that resizing is not part of the comparison."""
    generator = np.random.Generator(np.random.PCG64(1))
    paths = []
    for index in range(2):
        small = generator.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        path = folder / f"{index}.png"
        Image.fromarray(small).resize((224, 224), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


def reference(model, tokenizer, processor, paths: list[Path], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=77, return_tensors="pt")
    pixels = processor([Image.open(path) for path in paths], return_tensors="pt").pixel_values
    return {
        "text_embeds": model.get_text_features(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask),
        "image_embeds": model.get_image_features(pixel_values=pixels.to(dtype)),
    }


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def make(name: str, folder: Path, dtype: torch.dtype = torch.float32):
    """Save a checkpoint with random weights in the published layout; return its model, tokenizer and image processor."""
    kind, config, tokenizer_kind, tokenizer_folder, files = MODELS[name]
    model = randomise(kind(config()), name).to(dtype)
    print(f"{name}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters", flush=True)
    model.save_pretrained(folder, max_shard_size="2GB")
    processor = CLIPImageProcessor()
    processor.save_pretrained(folder)
    for file in files:
        shutil.copy(ROOT / "tests/golden" / tokenizer_folder / file, folder)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 77}')
    return model, tokenizer_kind.from_pretrained(folder), processor


def compare(name: str, program: Path, folder: Path, floor: bool) -> dict[str, float]:
    model, tokenizer, processor = make(name, folder)
    paths = images(folder)

    start = time.time()
    expected = reference(model, tokenizer, processor, paths, torch.float32)
    print(f"  transformers: {len(TEXTS)} texts and {len(paths)} images in {time.time() - start:.1f} s", flush=True)
    floors = {}
    if floor:
        torch.set_default_dtype(torch.float64)  # CLIP's causal mask is made in the default type
        exact = reference(model.double(), tokenizer, processor, paths, torch.float64)
        torch.set_default_dtype(torch.float32)
        floors = {key: distance(value, exact[key]) for key, value in expected.items()}
    del model
    gc.collect()

    texts, output = folder / "texts.txt", folder / "vectors.safetensors"
    texts.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    found = subprocess.run([program, folder, output, texts, *paths], check=True, capture_output=True, text=True)
    print("  " + found.stdout.strip().replace("\n", "\n  "))
    found = load_file(output)
    errors = {key: distance(found[key], value) for key, value in expected.items()}
    for key, error in errors.items():
        of_floor = f" (the reference itself from f64: {floors[key]:.1e})" if key in floors else ""
        print(f"  {key}: {error:.1e}{of_floor}", flush=True)
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--program", type=Path, help="the built example `embed`")
    parser.add_argument("--make", type=Path, metavar="DIR", help="only write the model here, in f16")
    parser.add_argument("--scratch", type=Path, help="where the models are made (default: the system's)")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest relative error (default: 1e-5)")
    parser.add_argument("--no-floor", action="store_true", help="leave out the reference in f64")
    arguments = parser.parse_args()
    names = arguments.models or list(MODELS)
    for name in names:
        if name not in MODELS:
            parser.error(f"unknown model {name!r}: expected one of {', '.join(MODELS)}")
    torch.set_grad_enabled(False)
    if arguments.make:
        if arguments.make.exists() or len(names) != 1:
            parser.error("--make: expected a directory that does not exist, and one model")
        make(names[0], arguments.make, torch.float16)
        return
    if not arguments.program:
        parser.error("expected --program or --make")
    worst = 0.0
    for name in names:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            worst = max(worst, *compare(name, arguments.program, Path(folder), not arguments.no_floor).values())
    sys.exit(1 if worst > arguments.tolerance else 0)


if __name__ == "__main__":
    main()
