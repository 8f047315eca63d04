#!/usr/bin/env python3
"""Turn the output of `altdiffusion eval retrieval --json` into a table with a row per language.

Usage::

    altdiffusion eval retrieval DATA --language en,zh --model A --model B --json | retrieval-table.py [NAME ...]

Every model has three columns, in percent: how often a text finds its image first, how often among the first five, and
the mean of all recalls. NAME … are labels for the models, by default their folders. The last rows are the means over all
languages, and over all but English.
"""

import argparse
import json
import statistics
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    rows = json.load(sys.stdin)
    models = list(dict.fromkeys(row["model"] for row in rows))
    languages = list(dict.fromkeys(row["language"] for row in rows))
    names = names or [model.rstrip("/").rsplit("/", 1)[-1] for model in models]
    if len(names) != len(models):
        sys.exit(f"expected {len(models)} names, found {len(names)}")

    def values(row: dict) -> list[float]:
        return [row["text_to_image"][0], row["text_to_image"][1], row["mean_recall"]]

    of = {(row["model"], row["language"]): values(row) for row in rows}
    images = {row["images"] for row in rows}
    header = [f"{name}, {what}" for name in names for what in ("R@1", "R@5", "MR")]
    print("| language | " + " | ".join(header) + " |")
    print("|---" * (1 + len(header)) + "|")

    def line(label: str, chosen: list[str]) -> None:
        columns = [zip(*(of[model, language] for language in chosen)) for model in models]
        cells = [f"{100 * statistics.mean(column):.1f}" for model in columns for column in model]
        print(f"| {label} | " + " | ".join(cells) + " |")

    for language in languages:
        line(language, [language])
    line("mean", languages)
    others = [language for language in languages if language != "en"]
    if others and len(others) < len(languages):
        line("mean without en", others)
    print(f"\n{' or '.join(map(str, sorted(images)))} images")


if __name__ == "__main__":
    main()
