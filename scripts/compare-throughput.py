#!/usr/bin/env python3
"""Compare the time of embedding texts and images with PyTorch: one checkpoint, one run, taking turns.

    cargo build --release -p altclip-encoder --example throughput
    compare-throughput.py --program target/release/examples/throughput [--model altclip]

A full-size checkpoint with random weights is made in a temporary folder (in `--scratch`), as by `compare-encoders.py`.
Both sides hold it in f32, use every core, and turn strings and image files into vectors, so tokenizing and decoding are
included. PyTorch pads texts to 77 tokens, as AltCLIP's model card does; for mixed lengths it is also timed with padding to
the longest of each batch of 32, the best that a few lines of Python can do. After a warm-up round, rounds alternate, and
medians are printed.

Mixed lengths are those of image captions (`captions.py`). See `scripts/golden/make.py` for the environment.
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import random
import statistics
import tempfile
from pathlib import Path

import torch
from captions import caption, mixed
from PIL import Image
from turns import Program, timed

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("compare_encoders", ROOT / "scripts/compare-encoders.py")
encoders = importlib.util.module_from_spec(spec)
spec.loader.exec_module(encoders)

BATCHES = (1, 8, 32, 128)


def images(folder: Path, count: int) -> list[str]:
    """JPEG images as large and as expensive to decode as photos, but cheap to make."""
    generator = random.Random(1)
    paths = []
    for index in range(count):
        small = Image.frombytes("RGB", (16, 12), generator.randbytes(16 * 12 * 3))
        path = folder / f"{index}.jpg"
        small.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    return paths


class Reference:
    """PyTorch's side."""

    def __init__(self, model, tokenizer, processor):
        self.model, self.tokenizer, self.processor = model, tokenizer, processor

    def tokens(self, texts: list[str], padding: str) -> dict[str, torch.Tensor]:
        tokens = self.tokenizer(texts, padding=padding, truncation=True, max_length=77, return_tensors="pt")
        return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}

    def padded(self, texts: list[str]) -> None:
        self.model.get_text_features(**self.tokens(texts, "max_length"))

    def to_longest(self, texts: list[str]) -> None:
        for first in range(0, len(texts), 32):
            self.model.get_text_features(**self.tokens(texts[first : first + 32], "longest"))

    def images(self, paths: list[str]) -> None:
        for first in range(0, len(paths), 16):
            images = [Image.open(path) for path in paths[first : first + 16]]
            self.model.get_image_features(self.processor(images, return_tensors="pt").pixel_values)


def compare(works: dict, rounds: int) -> list[tuple[str, list[float], int]]:
    """The name of each work item, the median time of each side, and its number of texts or images."""
    results = []
    for name, (count, sides) in works.items():
        # One warm-up turn each; long work needs only a few rounds.
        first = [side() for side in sides]
        turns = rounds if max(first) < 20 else 1
        times = [[side() for side in sides] for _ in range(turns)]
        medians = [statistics.median(column) for column in zip(*times)]
        results.append((name, medians, count))
        print(f"  {name}: " + ", ".join(f"{count / median:.2f}" for median in medians) + " per second", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True, help="the built example `throughput`")
    parser.add_argument("--model", default="altclip", choices=list(encoders.MODELS))
    parser.add_argument("--scratch", type=Path, help="where the model is made (default: the system's)")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of each work (default: 3)")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)

    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        folder = Path(folder)
        reference = Reference(*encoders.make(arguments.model, folder))
        program = Program(arguments.program, folder)
        generator = random.Random(0)
        works = {}
        for batch in arguments.batches:
            texts = [caption(generator, 10) for _ in range(batch)]
            works[f"texts of 10 words, batch {batch}"] = (
                batch,
                [
                    lambda texts=texts: program.run(json.dumps({"texts": texts})),
                    lambda texts=texts: timed(reference.padded, texts),
                ],
            )
        texts = mixed(generator, 128)
        works["128 texts of mixed lengths"] = (
            len(texts),
            [
                lambda: program.run(json.dumps({"texts": texts})),
                lambda: timed(reference.padded, texts),
                lambda: timed(reference.to_longest, texts),
            ],
        )
        paths = images(folder, max(arguments.batches))
        for batch in arguments.batches:
            few = paths[:batch]
            works[f"images, batch {batch}"] = (
                batch,
                [
                    lambda few=few: program.run(json.dumps({"images": few})),
                    lambda few=few: timed(reference.images, few),
                ],
            )
        results = compare(works, arguments.rounds)

    print(f"\n| {arguments.model}, f32, per second | altclip-encoder | PyTorch {torch.__version__.split('+')[0]} | ratio |")
    print("|---|---|---|---|")
    for name, (ours, theirs, *best), count in results:
        print(f"| {name} | {count / ours:.2f} | {count / theirs:.2f} | {theirs / ours:.2f} × |")
        if best:
            print(f"| the same, beside padding to the longest of 32 | | {count / best[0]:.2f} | {best[0] / ours:.2f} × |")
    date = datetime.date.today().isoformat()
    print(f"\n({date}, {os.cpu_count()} cores of {processor_name()}; by `scripts/compare-throughput.py`, medians.)")


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


if __name__ == "__main__":
    main()
