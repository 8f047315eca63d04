#!/usr/bin/env python3
"""Draw the same prompts with several models, unchosen, into one sheet and into blind sheets for judges.

Usage::

    contact-sheet.py --altdiffusion target/release/altdiffusion --model "" --model runs/next/model --output sheets
    contact-sheet.py … --steps 20,4 --guidance 2.25,1      # settings of each model

Draws each line of ``scripts/prompts/everyday.txt`` from the seeds 0 to 3. ``sheet.png`` has a row for each prompt and a
group of columns for each model; an empty name is the model inside the program. ``blind-1.png`` and so on have one row
each for a prompt and a model, in an order that only ``key.json`` tells, with numbers instead of prompts: a judge writes
what is on each row in a word.
"""

import argparse
import json
import random
import subprocess
from pathlib import Path

from PIL import Image, ImageDraw

SIDE, GAP, LABEL = 96, 4, 40
ROWS_PER_BLIND_SHEET = 30


def draw(program: str, model: str, prompts: list[str], seeds: int, settings: list[str], folder: Path) -> list[list[Image.Image]]:
    """The images of each prompt, one per seed."""
    lines = folder / "prompts.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        {"prompt": prompt, "seed": seed, "output": f"{number:03}-{seed}.png"}
        for number, prompt in enumerate(prompts)
        for seed in range(seeds)
    ]
    lines.write_text("".join(json.dumps(job, ensure_ascii=False) + "\n" for job in jobs), encoding="utf-8")
    command = [program, "generate", "--quiet", "--scale", "4", "--prompts", lines, "--output", folder, *settings]
    subprocess.run(command + (["--model", model] if model else []), check=True)
    files = iter(jobs)
    return [[Image.open(folder / next(files)["output"]).convert("RGB") for _ in range(seeds)] for _ in prompts]


def sheet(rows: list[list[Image.Image]], group: int) -> Image.Image:
    """Rows of images with their numbers, and a gap between groups of columns."""
    place = lambda column: LABEL + column * (SIDE + GAP) + column // group * 4 * GAP
    image = Image.new("RGB", (place(len(rows[0]) - 1) + SIDE + GAP, len(rows) * (SIDE + GAP)), "white")
    pen = ImageDraw.Draw(image)
    for number, row in enumerate(rows):
        top = number * (SIDE + GAP)
        pen.text((4, top + SIDE // 2 - 6), str(number + 1), fill="black")
        for column, drawing in enumerate(row):
            image.paste(drawing.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (place(column), top))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--altdiffusion", default="altdiffusion")
    parser.add_argument("--model", action="append", required=True, help="a folder, or nothing for the one inside the program")
    parser.add_argument("--prompts", type=Path, default=Path(__file__).with_name("prompts") / "everyday.txt")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", default="", help="steps of each model, by comma")
    parser.add_argument("--guidance", default="", help="guidance scale of each model, by comma")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    prompts = [line for line in options.prompts.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    given = lambda name, values, place: [name, values.split(",")[place]] if values else []
    by_model = []
    for place, model in enumerate(options.model):
        settings = given("--steps", options.steps, place) + given("--guidance-scale", options.guidance, place)
        by_model.append(draw(options.altdiffusion, model, prompts, options.seeds, settings, options.output / f"model-{place}"))
    rows = [[image for drawings in by_model for image in drawings[number]] for number in range(len(prompts))]
    sheet(rows, options.seeds).save(options.output / "sheet.png")

    blind = [(model, number) for model in range(len(by_model)) for number in range(len(prompts))]
    random.Random(1).shuffle(blind)
    key = []
    for first in range(0, len(blind), ROWS_PER_BLIND_SHEET):
        some = blind[first : first + ROWS_PER_BLIND_SHEET]
        name = f"blind-{first // ROWS_PER_BLIND_SHEET + 1}.png"
        sheet([by_model[model][number] for model, number in some], options.seeds).save(options.output / name)
        key += [
            {"sheet": name, "row": row + 1, "model": options.model[model], "prompt": prompts[number]}
            for row, (model, number) in enumerate(some)
        ]
    (options.output / "key.json").write_text(json.dumps(key, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
