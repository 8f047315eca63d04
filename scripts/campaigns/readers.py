#!/usr/bin/env python3
"""Gives the same damaged files to this program and to others that read them, and counts how each ends.

    scripts/campaigns/readers.py --program PATH --python PATH [--candle PATH] [--sdcpp PATH] [--count N] [FORMAT …]

The Python of --python has the packages that scripts/peers/reader.py names; what it lacks is left out. --candle is the program
`reader` of scripts/peers/candle, --sdcpp `sd-cli` of stable-diffusion.cpp. Every file is read in a process of its own, with 10
seconds of the processor and 4 GiB of addresses. A reader is over its memory if it takes more than twice the file and 64 MB beside
the most that valid files of the format took, or says that memory is short. `--seed N --count 1 FORMAT` makes the same file again;
`--keep` keeps files with which something is wrong.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from claimed_sizes import claim
from common import GOLDEN, MEMORY_BESIDE_FILES, ROOT, chip
from mutate import bytes_changed, text_changed
from mutate_inside import inside_changed
from hostile_pickles import hostile
from read_with import OurProgram, PythonReader, candle, stable_diffusion_cpp

COLUMNS = ["tried", "accepted", "refused", "crash", "hang", "memory", "executed", "other"]
# The files of one kind of fault that are kept of a reader of others.
KEPT = 5
PICTURES = [GOLDEN / "image_processor/pictures", GOLDEN / "image_formats", ROOT / "fuzz/seeds/image"]
CHECKPOINTS = [ROOT / "crates/model-files/tests/data", ROOT / "fuzz/seeds"]
TEXT = "a cat 一只猫"


def found(folders, *endings):
    return sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in endings and path.stat().st_size < 1 << 20)


class Format:
    """Valid files, who reads them, and what this program is asked to do. With a `model`, a file is put there as `name`."""

    def __init__(self, seeds, readers, arguments, model=None, name="", without=()):
        self.seeds, self.readers, self.arguments = seeds, readers, arguments
        self.model, self.name, self.without = model, name, without

    def prepare(self, folder):
        if self.model:
            shutil.copytree(self.model, folder, ignore=shutil.ignore_patterns(*self.without), copy_function=shutil.copyfile)
        else:
            folder.mkdir()

    def put(self, folder, suffix, data):
        """Writes a file. Returns what to read, and its size."""
        if not self.model:
            for before in folder.iterdir():
                before.unlink()
        path = folder / (self.name or f"file{suffix}")
        path.write_bytes(data)
        return (folder if self.model else path), sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())

    def damaged(self, dice):
        seed = dice.choice(self.seeds)
        data = seed.read_bytes()
        if dice.random() < 0.5:
            return seed.suffix, inside_changed(data, dice)
        return seed.suffix, (text_changed if seed.suffix == ".json" else bytes_changed)(data, dice)


class Hostile(Format):
    """Pickles that call something; a third of them damaged as well."""

    def damaged(self, dice):
        data = hostile(dice)
        return ".bin", (bytes_changed(data, dice) if dice.random() < 1 / 3 else data)


class Claimed(Format):
    """Images that say that they are large."""

    def damaged(self, dice):
        while True:
            seed = dice.choice(self.seeds)
            if data := claim(seed.read_bytes(), dice):
                return seed.suffix, bytes(data)


def formats():
    def image(path):
        return ["embed", "--image", path, "--output", "o.npy"]

    def convert(path):
        return ["convert", path, "o.safetensors"]

    def encode(path):
        return ["encode", TEXT, "--model", path, "--output", "o.safetensors"]

    def embed(path):
        return ["embed", "--text", "a cat", "--model", path, "--output", "o.npy"]

    def generate(path):
        return ["generate", "a cat", "--model", path, "--steps", "1", "--width", "64", "--height", "64", "--output", "o.png"]

    small, clip = GOLDEN / "alt_diffusion", GOLDEN / "dual_encoders/clip"
    unet, vocabulary = "unet/diffusion_pytorch_model.safetensors", "tokenizer/sentencepiece.bpe.model"
    checkpoint = ["stable-diffusion.cpp", "candle"]
    pickle = ["torch-weights", "torch-anything", *checkpoint]
    images = {name: Format(found(PICTURES, *endings), ["pillow"], image) for name, endings in {
        "png": [".png", ".apng"], "jpeg": [".jpg", ".jpeg", ".jfif", ".jpe", ".mpo"], "webp": [".webp"], "gif": [".gif"],
        "tiff": [".tiff"], "bmp": [".bmp", ".dib"], "avif": [".avif"], "ico": [".ico"], "tga": [".tga"], "qoi": [".qoi"],
        "pnm": [".pbm", ".pgm", ".ppm", ".pnm"],
    }.items()}
    with_sizes = [images[name].seeds for name in images if name not in ("avif", "ico", "tga")]
    images["claimed size"] = Claimed(sum(with_sizes, []), ["pillow"], image)
    pickles = [path for path in found(CHECKPOINTS, ".bin", ".pt", ".ckpt") if "mindspore" not in path.parts]
    tokenizers = found([GOLDEN / "tokenizer_json", ROOT / "fuzz/seeds/tokenizer_json"], ".json")
    # As it is, `bpe.json` ends the others: it would be counted again and again.
    tokenizers = [path for path in tokenizers if path.name != "bpe.json"]
    return images | {
        "safetensors": Format(
            [*found([CHECKPOINTS[0], ROOT / "fuzz/seeds/safetensors"], ".safetensors"), clip / "model.safetensors"],
            ["safetensors", *checkpoint], convert,
        ),
        "pickle": Format(pickles, pickle, convert),
        "hostile pickle": Hostile(pickles, pickle, convert),
        "gguf": Format(found([GOLDEN / "gguf", ROOT / "fuzz/seeds/gguf"], ".gguf"), ["gguf", *checkpoint], convert),
        "unet": Format([small / unet], ["diffusers"], generate, small, unet),
        "clip": Format([clip / "model.safetensors"], ["transformers"], embed, clip, "model.safetensors"),
        "tokenizer.json": Format(
            tokenizers, ["tokenizers", "transformers-fast"], encode, small, "tokenizer/tokenizer.json", ["sentencepiece.bpe.model"],
        ),
        "sentencepiece": Format([small / vocabulary], ["sentencepiece", "transformers-slow"], encode, small, vocabulary),
    }


class Count:
    """What one reader did with one format."""

    def __init__(self, name, usual):
        self.name, self.usual, self.most, self.counts, self.examples = name, usual, usual, dict.fromkeys(COLUMNS, 0), []

    def add(self, ended, size):
        """Counts how a file ended. Returns what was wrong."""
        wrong = [ended["outcome"]] if ended["outcome"] in ("crash", "hang") else []
        self.most = max(self.most, ended["memory"])
        if ended["memory"] > self.usual + 2 * size + MEMORY_BESIDE_FILES or ended["short_of_memory"]:
            wrong.append("memory")
        wrong += ["executed"] if ended["executed"] else []
        wrong += ["other"] if ended["other"] else []
        for column in {"tried", ended["outcome"], *wrong}:
            self.counts[column] += 1
        return wrong


def measure(name, format, reader, folder):
    """What valid files of a format take. None if the reader has no use for them."""
    most = 0
    for seed in format.seeds:
        path, _ = format.put(folder, seed.suffix, seed.read_bytes())
        ended = reader.read(name, path, format.arguments(path))
        if ended["outcome"] == "accepted":
            most = max(most, ended["memory"])
        elif ended["outcome"] != "refused":
            print(f"{name}: {reader.name}: {ended['outcome']} with the valid {seed.name}", file=sys.stderr)
    return most or None


def campaign(name, format, readers, asked, place):
    counts, folder = [], place / "input"
    shutil.rmtree(folder, ignore_errors=True)
    format.prepare(folder)
    for reader in readers:
        if most := measure(name, format, reader, folder):
            counts.append((reader, Count(reader.name, most)))
        else:
            print(f"{name}: {reader.name} reads no valid file, and is left out", file=sys.stderr)
    for seed in range(asked.seed, asked.seed + asked.count):
        suffix, data = format.damaged(random.Random(f"{name} {seed}"))
        path, size = format.put(folder, suffix, data)
        for reader, count in counts:
            ended = reader.read(name, path, format.arguments(path))
            wrong = count.add(ended, size)
            if not wrong:
                continue
            what = {"seed": seed, "wrong": wrong, "error": (ended["other"] or ended["error"])[-400:], "megabytes": ended["memory"] >> 20}
            of_kind = [one for one in count.examples if one["wrong"] == wrong]
            if isinstance(reader, OurProgram):
                print(f"fault: {name}: --seed {seed} --count 1: {what}", file=sys.stderr, flush=True)
            elif len(of_kind) >= KEPT:
                continue
            count.examples.append(what)
            if asked.keep:
                asked.keep.mkdir(parents=True, exist_ok=True)
                (asked.keep / f"{name.replace(' ', '-')}-{seed}-{'-'.join(wrong)}-{reader.name}{suffix}").write_bytes(data)
    return [count for _, count in counts]


def show(name, counts):
    for count in counts:
        numbers = [count.counts[column] for column in COLUMNS] + [round((count.most - count.usual) / 1e6)]
        print(f"| {name:14} | {count.name:20} | " + " | ".join(f"{number:8}" for number in numbers) + " |", flush=True)


def write(asked, started, results):
    """Writes what is known so far."""
    about = {
        "date": time.strftime("%Y-%m-%d"), "processor": chip(), "seed": asked.seed, "count": asked.count,
        "versions": {name: reader.versions for name, reader in started.items() if reader},
        "formats": {
            name: {one.name: {"counts": one.counts, "usual": one.usual, "most": one.most, "examples": one.examples} for one in counts}
            for name, counts in results.items()
        },
    }
    asked.keep.mkdir(parents=True, exist_ok=True)
    (asked.keep / "results.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def start(name, asked, place):
    """A reader, or None where it is not there."""
    if name == "altdiffusion":
        return OurProgram(name, place)
    if name == "candle":
        return candle(place, asked.candle.resolve()) if asked.candle else None
    if name == "stable-diffusion.cpp":
        return stable_diffusion_cpp(place, asked.sdcpp.resolve()) if asked.sdcpp else None
    return PythonReader.start(name, asked.python, place)


def main():
    known = formats()
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--program", help="this program; otherwise as in the other campaigns")
    options.add_argument("--python", default=sys.executable, help="a Python with the packages of the others")
    options.add_argument("--candle", type=Path, help="the program `reader` of scripts/peers/candle")
    options.add_argument("--sdcpp", type=Path, help="the program `sd-cli` of stable-diffusion.cpp")
    options.add_argument("--readers", nargs="+", help="only these; `altdiffusion` is this program")
    options.add_argument("--seed", type=int, default=0, help="of the first file of each format")
    options.add_argument("--count", type=int, default=1000, help="files per format")
    options.add_argument("--keep", type=Path, help="a folder for files with which something was wrong, and for results.json")
    options.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(known))
    asked = options.parse_args()
    if unknown := set(asked.formats) - set(known):
        options.error(f"{unknown.pop()!r} is no format, expected some of: {', '.join(known)}")
    if asked.program:
        os.environ["ALTDIFFUSION"] = str(Path(asked.program).resolve())
    chosen = {name: format for name, format in known.items() if not asked.formats or name in asked.formats}
    started, results = {}, {}
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        place = Path(name)
        print(f"| format | reader | {' | '.join(COLUMNS)} | most MB |\n|---|---|{'--:|' * (len(COLUMNS) + 1)}")
        for name, format in chosen.items():
            names = [reader for reader in ["altdiffusion", *format.readers] if not asked.readers or reader in asked.readers]
            for reader in names:
                if reader not in started:
                    started[reader] = start(reader, asked, place)
            results[name] = campaign(name, format, [started[reader] for reader in names if started[reader]], asked, place)
            show(name, results[name])
            if asked.keep:
                write(asked, started, results)
        for name, reader in started.items():
            if reader:
                print(f"{name}: {reader.versions}")
                reader.close()
    sys.exit(1 if any(count.examples for counts in results.values() for count in counts if count.name == "altdiffusion") else 0)


main()
