#!/usr/bin/env python3
"""Compare two builds of the program: the time to open checkpoints and tokenizers, and to decode images.

    compare-loading.py target/before/altdiffusion target/release/altdiffusion [--rounds 15] [--only images]

Makes a text encoder of 100 MB in three formats, tokenizers of 250 000 pieces in two, and 200 images in each of four kinds,
with the same content each time. The builds take turns, and which begins changes from round to round. Loading is what
`encode --timings` says; decoding is the processor's time of `embed --image` on all images with a tiny model, less that on
one of them. Files are in the page cache. The output is a table of medians, and the ratio of the least times, which other
work on the machine disturbs less. See `scripts/golden/make.py` for the environment; Pillow is needed too.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from sentencepiece import sentencepiece_model_pb2

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
PIECES = 250_000
#: Of the large text encoder.
WIDTH, INNER, LAYERS = 256, 1024, 32
IMAGES, IMAGE_SIZE = 200, (1024, 768)
TEXT = "一只猫 a cat"


def model(folder: Path, config: dict) -> Path:
    """A copy of the golden model with another text encoder, whose weights are random."""
    shutil.copytree(GOLDEN / "alt_diffusion", folder)
    encoder = folder / "text_encoder"
    config = json.loads((encoder / "config.json").read_text()) | config
    (encoder / "config.json").write_text(json.dumps(config))
    golden = load_file(encoder / "model.safetensors")
    old = {16: config["hidden_size"], 40: config["intermediate_size"], 3002: config["vocab_size"]}
    random = np.random.default_rng(0)
    tensors = {}
    for name, tensor in golden.items():
        shape = [old.get(size, size) for size in tensor.shape]
        first = ".layer.0." in name
        if ".layer." in name and not first:
            continue
        for layer in range(config["num_hidden_layers"] if first else 1):
            values = 0.02 * random.standard_normal(shape, dtype=np.float32)
            tensors[name.replace(".layer.0.", f".layer.{layer}.")] = values
    save_file(tensors, encoder / "model.safetensors")
    return folder


def checkpoints(folder: Path, program: Path) -> dict[str, Path]:
    """The same weights in every format."""
    config = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS}
    safetensors = model(folder / "safetensors", config)
    pickle = folder / "pickle"
    shutil.copytree(safetensors, pickle)
    weights = load_file(pickle / "text_encoder" / "model.safetensors")
    weights = {name: torch.from_numpy(tensor) for name, tensor in weights.items()}
    torch.save(weights, pickle / "text_encoder" / "pytorch_model.bin")
    (pickle / "text_encoder" / "model.safetensors").unlink()
    gguf = folder / "gguf"
    run([program, "convert", safetensors, gguf, "--dtype", "q8_0", "--skip-loss"])
    return {"safetensors": safetensors, "pickle": pickle, "GGUF, q8_0": gguf}


def tokenizers(folder: Path) -> dict[str, Path]:
    """Models with a tiny text encoder and a large tokenizer."""
    wide = {"vocab_size": PIECES + 100}
    pieces = [f"▁{number:x}猫" for number in range(PIECES)]
    sentencepiece = model(folder / "sentencepiece", wide)
    path = sentencepiece / "tokenizer" / "sentencepiece.bpe.model"
    proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    for number, piece in enumerate(pieces[len(proto.pieces) :]):
        proto.pieces.add(piece=piece, score=-20 - number / PIECES)
    path.write_bytes(proto.SerializeToString())

    in_json = model(folder / "tokenizer_json", wide)
    shutil.rmtree(in_json / "tokenizer")
    (in_json / "tokenizer").mkdir()
    tokenizer = json.loads((GOLDEN / "tokenizer_json" / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary += [[piece, -20 - number / PIECES] for number, piece in enumerate(pieces[len(vocabulary) :])]
    (in_json / "tokenizer" / "tokenizer.json").write_text(json.dumps(tokenizer))
    return {"SentencePiece": sentencepiece, "tokenizer.json": in_json}


def images(folder: Path) -> dict[str, Path]:
    """Folders of images between noise and one colour, as photographs are."""
    random = np.random.default_rng(1)
    kinds = {
        "JPEG": ("jpg", {"quality": 90}),
        "JPEG, progressive": ("jpg", {"quality": 90, "progressive": True}),
        "PNG": ("png", {}),
        "PNG, transparent": ("png", {}),
    }
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
    for number in range(IMAGES):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        picture = np.asarray(small.resize(IMAGE_SIZE, Image.Resampling.BICUBIC)).astype(np.int16)
        picture = np.clip(picture + random.integers(-4, 5, picture.shape), 0, 255).astype(np.uint8)
        for kind, (ending, options) in kinds.items():
            image = Image.fromarray(picture)
            if kind == "PNG, transparent":
                image.putalpha(Image.fromarray(picture[..., 0]))
            image.save(folder / kind / f"{number:03}.{ending}", **options)
    return {kind: folder / kind for kind in kinds}


def run(command: list) -> float:
    """The processor's seconds of a command."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: {' '.join(map(str, command))}: {message.strip()}")
    return usage.ru_utime + usage.ru_stime


def loading(program: Path, source: Path, scratch: Path) -> float:
    times = scratch / "times.json"
    run([program, "encode", TEXT, "--model", source, "--output", scratch / "states.safetensors", "--timings", times])
    return json.loads(times.read_text())["load_s"]


def decoding(program: Path, source: Path, scratch: Path) -> float:
    def embed(path: Path) -> float:
        model = GOLDEN / "dual_encoders" / "clip"
        return run([program, "embed", "--model", model, "--image", path, "--output", scratch / "vectors.npy"])

    return embed(source) - embed(min(source.iterdir()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a build of the program")
    parser.add_argument("after", type=Path, help="the build to compare with it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=("checkpoints", "tokenizers", "images"), help="by default all")
    arguments = parser.parse_args()
    programs = [arguments.before.resolve(), arguments.after.resolve()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = {}
        if arguments.only in (None, "checkpoints"):
            made = checkpoints(folder / "checkpoints", programs[0])
            cases |= {f"load {what}": (loading, path) for what, path in made.items()}
        if arguments.only in (None, "tokenizers"):
            made = tokenizers(folder / "tokenizers")
            cases |= {f"load {what}": (loading, path) for what, path in made.items()}
        if arguments.only in (None, "images"):
            made = images(folder / "images")
            cases |= {f"decode {IMAGES} {what}": (decoding, path) for what, path in made.items()}
        times = {what: ([], []) for what in cases}
        # The first round fills caches, and does not count.
        for turn in range(arguments.rounds + 1):
            for what, (measure, path) in cases.items():
                for side in (0, 1) if turn % 2 else (1, 0):
                    seconds = measure(programs[side], path, folder)
                    if turn:
                        times[what][side].append(seconds)
    print("| | before | after | after / before | of the least |\n|---|--:|--:|--:|--:|")
    for what, sides in times.items():
        before, after = map(statistics.median, sides)
        least = min(sides[1]) / min(sides[0])
        print(f"| {what} | {1000 * before:.1f} ms | {1000 * after:.1f} ms | {after / before:.3f} | {least:.3f} |")


if __name__ == "__main__":
    main()
