#!/usr/bin/env python3
"""Gives the whole program damaged files and odd options, with limits on time, memory, lines and leftovers.

    scripts/campaigns/command.py --minutes 60 [--jobs 2] [--seed N] [KIND …]

Every run is repeatable: a fault names the kind and the seed, and `--seed N --count 1 KIND` makes the same input again.
"""

import argparse
import functools
import itertools
import multiprocessing
import random
import resource
import shutil
import tempfile
import threading
import time
from pathlib import Path

from common import GOLDEN, MEMORY_BESIDE_FILES, ROOT, Table, leftovers, limit, run
from mutate import TEXTS, bytes_changed, text_changed
from mutate_inside import inside_changed

PICTURES = GOLDEN / "image_processor/pictures"
# What the program itself, its own model and its threads take.
MEMORY_OF_PROGRAM = 192 << 20
ADDRESS_SPACE = 4 << 30
SHARED = Path("/dev/shm")


@functools.cache
def files(folder, *endings):
    return sorted(path for path in Path(folder).rglob("*") if path.suffix in endings and path.stat().st_size < 1 << 20)


def changed(source, to, dice):
    text = source.suffix in (".json", ".jsonl", ".csv", ".tsv", ".toml", ".txt")
    change = text_changed if text else dice.choice([bytes_changed, inside_changed])
    to.write_bytes(change(source.read_bytes(), dice))
    return to


def image(folder, dice):
    source = dice.choice(files(PICTURES, ".png", ".jpg", ".webp", ".gif", ".bmp", ".tiff") + files(GOLDEN / "image_formats", ".avif"))
    path = changed(source, folder / f"damaged{source.suffix}", dice)
    return dice.choice([
        ["embed", "--image", path, "--output", "o.npy"],
        ["classify", path, "--label", "a", "--label", "b"],
        ["generate", "a cat", "--image", path, "--steps", "2", "--output", "o.png"],
        ["generate", "--like", path, "--output", "o.png"],
    ])


def model(folder, dice, kinds, wanted):
    """A copy of a small model with one of its files damaged."""
    copy = folder / "model"
    shutil.copytree(GOLDEN / dice.choice(kinds), copy, copy_function=shutil.copyfile)
    found = [path for path in sorted(copy.rglob("*")) if path.is_file() and wanted(path)]
    if found:
        path = dice.choice(found)
        changed(path, path, dice)
    return copy


def config(folder, dice):
    copy = model(folder, dice, ["alt_diffusion", "dual_encoders/altclip", "dual_encoders/clip"], lambda path: path.suffix == ".json")
    return use_model(copy, dice)


def weights(folder, dice):
    copy = model(folder, dice, ["alt_diffusion", "dual_encoders/clip"], lambda path: path.suffix in (".safetensors", ".bin"))
    return use_model(copy, dice)


def tokenizer(folder, dice):
    names = ("vocab.txt", "vocab.json", "merges.txt", "tokenizer.json", "sentencepiece.bpe.model")
    copy = model(folder, dice, ["alt_diffusion", "dual_encoders/clip", "dual_encoders/altclip"], lambda path: path.name in names)
    return use_model(copy, dice)


def use_model(copy, dice):
    if (copy / "unet").is_dir():
        return dice.choice([
            ["inspect", copy], ["encode", "a cat", "--model", copy, "--output", "o.safetensors"],
            ["generate", "a cat", "--model", copy, "--steps", "1", "--width", "64", "--height", "64", "--output", "o.png"],
            ["convert", copy, "o.safetensors"],
        ])
    return dice.choice([["inspect", copy], ["embed", "--text", "a cat", "--model", copy, "--output", "o.npy"]])


def checkpoint(folder, dice):
    data = ROOT / "crates/model-files/tests/data"
    source = dice.choice(files(data, ".bin", ".pt", ".ckpt", ".safetensors") + files(GOLDEN / "gguf", ".gguf"))
    path = changed(source, folder / f"damaged{source.suffix}", dice)
    return dice.choice([
        ["convert", path, "o.safetensors"],
        ["generate", "a cat", "--lora", path, "--steps", "1", "--output", "o.png"],
        ["generate", "a cat", "--embedding", path, "--steps", "1", "--output", "o.png"],
    ])


def data(folder, dice):
    source = dice.choice([
        *files(ROOT / "crates/embedding-index/tests/data", ".parquet"), *files(ROOT / "fuzz/seeds", ".jsonl", ".csv", ".tsv", ".txt"),
    ])
    path = changed(source, folder / f"damaged{source.suffix}", dice)
    option = dice.choice(["--texts", "--images"])
    return ["embed", option, path, "--output", "o.safetensors"]


def index(folder, dice):
    path = changed(dice.choice(files(ROOT / "fuzz/seeds/index", ".safetensors")), folder / "damaged.safetensors", dice)
    return ["search", path, dice.choice(["a cat", "一只猫"]), *dice.choice([[], ["--json"], ["--html", "o.html"]])]


def settings(folder, dice):
    source = dice.choice(files(ROOT / "models/emoji", ".toml") + files(ROOT / "fuzz/seeds", ".toml"))
    path = changed(source, folder / "damaged.toml", dice)
    return dice.choice([
        ["train", "lora", "--config", path, "--output", "run"], ["train", "contrastive", "--config", path, "--output", "run"],
        ["train", "emoji", "--recipe", path, "--data", folder, "--output", "run"],
    ])


def prompt(folder, dice):
    letters = ["cat", "猫", "(", ")", "[", "]", ":", "1.5", "BREAK", "\\", "（", "：", "\u202e", "\x1b", "\n", "👩‍🎨", *TEXTS[1:]]
    text = "".join(dice.choice(letters) for _ in range(dice.randrange(1, 30))).replace("\0", "")[:60_000]
    return ["generate", *dice.choice([[], ["--prompt-weights"], ["--grid", "--num-images", "2"]]), "--steps", "1", "--output", "o.png", "--", text]


def options(folder, dice):
    numbers = ["0", "-1", "1", "3", "18446744073709551616", "NaN", "inf", "1e400", "2147483648", "64", "", "９", *TEXTS[2:5]]
    names = ["--steps", "--width", "--height", "--seed", "--guidance-scale", "--num-images", "--strength", "--scheduler", "--only"]
    chosen = [[dice.choice(names) + "=" + dice.choice(numbers)] for _ in range(dice.randrange(1, 4))]
    # Only a few of these are drawings, and none is a long one.
    return ["generate", "a cat", "--output", dice.choice(["o.png", "o\x1b[2J.png", "no/o.png", "o.gif"]), "--steps=1", *sum(chosen, [])][:9]


KINDS = [image, config, weights, tokenizer, checkpoint, data, index, settings, prompt, options]


def attempt(task):
    """Makes an input and gives it to the program. Returns what the table takes."""
    kind, seed = task
    dice = random.Random(f"{kind.__name__} {seed}")
    # Small files that live for a moment go to memory.
    with tempfile.TemporaryDirectory(prefix="campaign-", dir=SHARED if SHARED.is_dir() else None) as name:
        folder = Path(name)
        arguments = kind(folder, dice)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        ended = run(arguments, folder, before=limit(resource.RLIMIT_AS, ADDRESS_SPACE), TMPDIR=name)
        # `options` may ask for a large image, which is not a file's doing.
        most = None if kind is options else MEMORY_OF_PROGRAM + 2 * size + MEMORY_BESIDE_FILES
        faults = ended.faults(most)
        faults += [f"leftover {path.name}" for path in leftovers(folder)]
        shown = " ".join(str(argument) for argument in arguments)
        return kind.__name__, ended.code == 0, faults, f"--seed {seed} --count 1: {shown[:200]!r}"


def tasks(kinds, first, count, end):
    """Every kind with one seed after another, so many or until a time."""
    for seed in itertools.count(first):
        if seed - first >= count if count else time.monotonic() > end:
            return
        yield from ((kind, seed) for kind in kinds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--count", type=int, help="runs per kind, instead of a time")
    parser.add_argument("--seed", type=int, default=0, help="of the first run of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(kind.__name__ for kind in KINDS))
    asked = parser.parse_args()
    chosen = [kind for kind in KINDS if not asked.kinds or kind.__name__ in asked.kinds]
    table, end = Table("Damaged files and odd options, through the whole program"), time.monotonic() + 60 * asked.minutes
    # A pool would take all tasks at once, which end with the time only if they are taken one after the other.
    free, stopped = threading.Semaphore(2 * asked.jobs), threading.Event()

    def given():
        for task in tasks(chosen, asked.seed, asked.count, end):
            free.acquire()
            if stopped.is_set():
                return
            yield task

    with multiprocessing.Pool(asked.jobs) as pool:
        try:
            for outcome in pool.imap_unordered(attempt, given()):
                free.release()
                table.add(*outcome)
        finally:
            stopped.set()
            free.release()
    table.finish()


main()
