#!/usr/bin/env python3
"""Compare every family of dual encoders with its reference at full size: vectors, and texts and images a second, in one run.

    cargo build --release -p altclip-encoder --example embed --example throughput
    compare-families.py --programs target/release/examples [FAMILY ...] [--output benches/results/families.md]

One family at a time, a checkpoint with random weights is made in a temporary folder (in `--scratch`; up to 5 GB), in the
published layout and size (`scripts/peers/families.py`), and removed. Both sides hold it in f32 and use as many threads as
`--threads` says. First the vectors are compared, ‖a − b‖ / ‖b‖ of a few texts and images; the exit code is 1 if one is above
the tolerance. Then both embed the same strings and JPEG files in turns, so that tokenizing and decoding are included, and the
medians of the rounds after a first one are printed. References pad texts as their own examples do: to the longest of the
batch, SigLIP, OpenCLIP and Wukong to all positions.

Needs torch 2.15.0 and `pip install transformers==4.57.6 sentencepiece protobuf ftfy scikit-learn`, then with `--no-deps`
open_clip_torch 3.3.0, timm 1.0.31, torchvision and sentence-transformers 6.2.0. `--tiny` tries all that with small models.
"""

import argparse
import datetime
import gc
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import sentence_transformers
import torch
import transformers
from captions import caption
from safetensors.torch import load_file
from turns import Program, timed

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts/peers"))
from families import FAMILIES, VERSIONS, Reference, Sizes  # noqa: E402


def script(name: str):
    """Another script, whose name is none of a module."""
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


encoders, throughput = script("compare-encoders"), script("compare-throughput")


def distances(reference: Reference, program: Path, folder: Path, scratch: Path) -> dict[str, float]:
    """‖a − b‖ / ‖b‖ of the vectors of some texts, and of images that need no resizing."""
    paths = [str(path) for path in encoders.images(scratch)]
    expected = {"text_embeds": reference.texts(encoders.TEXTS), "image_embeds": reference.images(paths)}
    texts, output = scratch / "texts.txt", scratch / "vectors.safetensors"
    texts.write_text("\n".join(encoders.TEXTS) + "\n", encoding="utf-8")
    ran = subprocess.run([program, folder, output, texts, *paths], capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"error: {program}: {ran.stderr.strip()}")
    found = load_file(output)
    return {name: encoders.distance(found[name], value) for name, value in expected.items()}


def works(arguments, reference: Reference, program: Program, scratch: Path) -> dict:
    """The works of `compare`: names, with the number of items and the two sides."""
    generator = random.Random(0)
    paths = throughput.images(scratch, max(arguments.batches))
    found = {}
    for batch in arguments.batches:
        texts = [caption(generator, 10) for _ in range(batch)]
        found[f"texts, batch {batch}"] = (
            batch,
            [lambda texts=texts: program.run(json.dumps({"texts": texts})), lambda texts=texts: timed(reference.texts, texts)],
        )
    for batch in arguments.batches:
        few = paths[:batch]
        found[f"images, batch {batch}"] = (
            batch,
            [lambda few=few: program.run(json.dumps({"images": few})), lambda few=few: timed(reference.images, few)],
        )
    return found


def compare(name: str, arguments) -> tuple[list[str], float]:
    """The cells of a family's row, and its largest distance."""
    print(f"{name}:", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder, tempfile.TemporaryDirectory() as scratch:
        folder, scratch = Path(folder), Path(scratch)
        reference = FAMILIES[name](folder, Sizes(arguments.tiny))
        errors = distances(reference, arguments.programs / "embed", folder, scratch)
        print("  " + ", ".join(f"{key}: {error:.1e}" for key, error in errors.items()), flush=True)
        program = Program(arguments.programs / "throughput", folder)
        try:
            results = throughput.compare(works(arguments, reference, program, scratch), arguments.rounds)
        finally:
            program.process.stdin.close()
            program.process.wait()
    cells = [f"{count / ours:.2f}, {theirs / ours:.2f} ×" for _, (ours, theirs), count in results]
    library = reference.library
    del reference
    gc.collect()
    return [name, library, *cells, *(f"{error:.1e}" for error in errors.values())], max(errors.values())


def table(arguments, rows: list[list[str]]) -> str:
    works = [f"{kind}, batch {batch}" for kind in ("texts", "images") for batch in arguments.batches]
    header = ["family", "reference", *works, "distance of texts", "of images"]
    lines = [" | ".join(header), "|".join("---" for _ in header), *(" | ".join(row) for row in rows)]
    lines = [f"| {line} |" if "---" not in line else f"|{line}|" for line in lines]
    versions = ", ".join(f"{module.__name__} {module.__version__.split('+')[0]}" for module in (*VERSIONS, sentence_transformers))
    sizes = "tiny models" if arguments.tiny else "random weights"
    about = (
        f"Items a second here, and how many times as long the reference takes. ({datetime.date.today().isoformat()}, "
        f"{arguments.threads} threads of {throughput.processor_name()}, f32, {sizes}, medians of {arguments.rounds} turns after a "
        f"first one, by `scripts/compare-families.py`; {versions}.)"
    )
    return "\n".join(lines) + f"\n\n{about}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {'; '.join(FAMILIES)} (default: all)")
    parser.add_argument("--programs", type=Path, required=True, help="the folder of the built examples")
    parser.add_argument("--scratch", type=Path, help="where the models are made (default: the system's)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of each work (default: 3)")
    parser.add_argument("--batches", type=int, nargs="+", default=(8, 32))
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest distance (default: 1e-5)")
    parser.add_argument("--tiny", action="store_true", help="use small models, to try this script")
    parser.add_argument("--output", type=Path, help="the file to write the table to as well")
    arguments = parser.parse_args()
    names = arguments.families or list(FAMILIES)
    for name in names:
        if name not in FAMILIES:
            parser.error(f"unknown family {name!r}: expected one of {'; '.join(FAMILIES)}")
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    transformers.utils.logging.set_verbosity_error()

    rows, worst = [], 0.0
    for name in names:
        row, error = compare(name, arguments)
        rows.append(row)
        worst = max(worst, error)
    found = table(arguments, rows)
    print(f"\n{found}")
    if arguments.output:
        arguments.output.write_text(found, encoding="utf-8")
    sys.exit(1 if worst > arguments.tolerance else 0)


if __name__ == "__main__":
    main()
