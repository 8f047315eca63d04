#!/usr/bin/env python3
"""Search the transparent emoji of two vendors by words, with and without a background, and print the ranks.

Usage::

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0
    search-emoji.py --altdiffusion target/release/altdiffusion *.tgz

Each package has 3 786 RGBA images of 64 × 64 pixels. The built-in model embeds each twice: on white (`--background white`,
the default), and with the colours under the transparency (`--background none`, as in the reference implementations). A
word's rank is that of the first image that shows it. Fails unless it is 1 on white for every word.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

#: Words, and the code points at the start of the matching images' names.
CATS = ("1f408", "1f431", "1f638", "1f639", "1f63a", "1f63b", "1f63c", "1f63d", "1f63e", "1f63f", "1f640")
WORDS = {"一只猫": CATS, "قطة": CATS, "pizza": ("1f355",)}


def unpack(package: Path, folder: Path) -> Path:
    """The folder with the images of 64 pixels in an npm package."""
    with tarfile.open(package) as archive:
        images = [member for member in archive if member.isfile() and "/64/" in member.name and member.name.endswith(".png")]
        archive.extractall(folder, members=images, filter="data")
    return (folder / images[0].name).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--altdiffusion", default="altdiffusion", help="the program")
    parser.add_argument("--top", type=int, default=3, help="images to print for each word")
    parser.add_argument("packages", nargs="+", type=Path, help="packages emoji-datasource-VENDOR, as npm packs them")
    options = parser.parse_args()

    failed = False
    with tempfile.TemporaryDirectory() as place:
        for number, package in enumerate(options.packages):
            images = unpack(package, Path(place) / str(number))
            count = sum(1 for _ in images.iterdir())
            for background in ("none", "white"):
                index = Path(place) / f"{number}-{background}.safetensors"
                subprocess.run(
                    [options.altdiffusion, "embed", "--image", images, "--background", background, "-o", index],
                    check=True, stdout=subprocess.DEVNULL,
                )
                for word, expected in WORDS.items():
                    command = [options.altdiffusion, "search", index, word, "--top", str(count), "--json"]
                    hits = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                    names = [Path(hit["item"]).stem for hit in hits]
                    rank = next(rank for rank, name in enumerate(names, 1) if name.startswith(expected))
                    first = ", ".join(names[: options.top])
                    print(f"{images.parent.name} on {background}: {word}: rank {rank} of {count} ({first})", flush=True)
                    failed |= background == "white" and rank > 1
    sys.exit("a word does not find first what it names" if failed else 0)


if __name__ == "__main__":
    main()
