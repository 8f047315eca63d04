#!/usr/bin/env python3
"""Measure how often the program says that a prompt is about something that its model does not draw.

Usage::

    measure-honesty.py --altdiffusion target/release/altdiffusion [--list] [--vectors]

`prompts` has 200 everyday prompts about emoji that the built-in model draws, and 200 about other things, in English and
Chinese each. Prints how many of them the program notes; a note on the former is a false alarm. With `--list` also prints
which were judged wrongly. With `--vectors`, which needs NumPy, also prints how many could be found by the text encoder
instead: by the cosine to the nearest name of a concept, from a threshold with as many false alarms as `--alarms`.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

PROMPTS = Path(__file__).parent / "prompts"
LANGUAGES = ("en", "zh")
KINDS = ("in-world", "out-of-world")
NOTE = re.compile(r"^note: --prompts .*: line (\d+): ", re.MULTILINE)


def run(program: str, *arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    command = [program, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment)


def noted(program: str, prompts: Path, folder: Path) -> set[int]:
    """The numbers of the lines that the program notes."""
    output = folder / prompts.stem
    said = run(program, "generate", "--prompts", prompts, "--output", output, "--steps", 1, "--no-parameters")
    return {int(line) for line in NOTE.findall(said.stderr)}


def cosines(program: str, prompts: Path, names: Path, folder: Path):
    """The cosine of each prompt to the nearest name."""
    import numpy as np

    vectors = []
    for texts in (prompts, names):
        output = folder / f"{texts.stem}.npy"
        run(program, "embed", "--texts", texts, "--output", output)
        vectors.append(np.load(output))
    return (vectors[0] @ vectors[1].T).max(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--altdiffusion", default="altdiffusion", help="the program")
    parser.add_argument("--list", action="store_true", help="print which prompts were judged wrongly")
    parser.add_argument("--vectors", action="store_true", help="also judge by the text encoder's vectors")
    parser.add_argument("--alarms", type=float, default=0.015, help="share of false alarms by vectors")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        print("| language | prompts | about | noted | not noted |\n|---|---|---|---|---|")
        wrong = []
        for language in LANGUAGES:
            for kind in KINDS:
                path = PROMPTS / f"{kind}.{language}.txt"
                prompts = path.read_text(encoding="utf-8").splitlines()
                lines = noted(options.altdiffusion, path, folder)
                about = "emoji" if kind == "in-world" else "other things"
                print(f"| {language} | {len(prompts)} | {about} | {len(lines)} | {len(prompts) - len(lines)} |", flush=True)
                is_wrong = [(number in lines) == (kind == "in-world") for number in range(1, len(prompts) + 1)]
                wrong += [f"{kind}, {language}: {prompt}" for prompt, is_one in zip(prompts, is_wrong) if is_one]
        if options.list:
            print("\n" + "\n".join(wrong))
        if options.vectors:
            print("\n| language | cosine | false alarms | about other things, found |\n|---|---|---|---|")
            for language in LANGUAGES:
                names = folder / f"names.{language}.txt"
                listed = run(options.altdiffusion, "models", "--concepts", "--language", language, "--json")
                names.write_text("".join(f"{concept['name']}\n" for concept in json.loads(listed.stdout)), encoding="utf-8")
                known, other = (
                    cosines(options.altdiffusion, PROMPTS / f"{kind}.{language}.txt", names, folder) for kind in KINDS
                )
                threshold = sorted(known)[int(options.alarms * len(known))]
                alarms, found = (100 * float((values < threshold).mean()) for values in (known, other))
                print(f"| {language} | {threshold:.3f} | {alarms:.1f} % | {found:.1f} % |")


if __name__ == "__main__":
    main()
