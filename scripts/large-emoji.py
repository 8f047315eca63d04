"""Draws the data set's emoji in 256 × 256 pixels, from which `altdiffusion train emoji` learns to enlarge.

    npm pack @iconify-json/noto @iconify-json/twemoji
    pip install numpy pillow resvg_py safetensors
    python scripts/large-emoji.py --packages . --data emoji --output emoji/large

Reads the data set that `train prepare` wrote, and the vector drawings of Noto Emoji (Apache-2.0) and Twemoji (CC BY 4.0) as
Iconify packs them. Writes OUTPUT/VENDOR/CONCEPT.png, RGB on white. Drawings that differ from the data set's, which may be of
another version, are left out, and so are people in a skin tone, who differ in colour alone.
"""

import argparse
import io
import json
import statistics
import tarfile
from pathlib import Path

import numpy
from PIL import Image
from resvg_py import svg_to_bytes
from safetensors.numpy import load_file

SMALL, LARGE = 64, 256
PACKAGES = {"google": "iconify-json-noto", "twitter": "iconify-json-twemoji"}
# Below, in dB, the drawing is another one.
LEAST_PSNR = 24.0
# Drawings from which the place of the small image in the drawing is found.
PROBES = 40


class Drawings:
    """A package's drawings by code points."""

    def __init__(self, package: Path):
        with tarfile.open(package) as archive:
            read = lambda name: json.load(archive.extractfile(f"package/{name}.json"))
            self.icons, self.chars = read("icons"), read("chars")
        self.side = self.icons.get("width", 16)

    def of(self, concept: str) -> str | None:
        """The drawing's elements."""
        codes = concept.lower()
        names = (self.chars.get(key) for key in (codes, codes.replace("-fe0f", "")))
        name = next(filter(None, names), None)
        alias = self.icons.get("aliases", {}).get(name, {})
        icon = self.icons["icons"].get(alias.get("parent", name))
        return icon and icon["body"]

    def draw(self, body: str, place: tuple[float, float, float]) -> numpy.ndarray:
        """The square at `place`, (left, top, side) in units of the drawing's side, in LARGE pixels."""
        box = " ".join(f"{value * self.side:.4f}" for value in (*place, place[2]))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}" '
            f'width="{LARGE}" height="{LARGE}">{body}</svg>'
        )
        png = svg_to_bytes(svg_string=svg, background="#ffffff", skip_system_fonts=True)
        return numpy.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def psnr(large: numpy.ndarray, small: numpy.ndarray) -> float:
    """The similarity of a drawing, reduced, to the data set's image in dB."""
    reduced = Image.fromarray(large).resize((SMALL, SMALL), Image.Resampling.LANCZOS)
    error = numpy.square(numpy.asarray(reduced, numpy.float64) - small).mean()
    return 10 * numpy.log10(255**2 / max(error, 1e-9))


def best_place(drawings: Drawings, pairs: list) -> tuple[float, float, float]:
    """Where the data set's images lie in the drawings: the same for all of a vendor."""
    probes = pairs[:: max(1, len(pairs) // PROBES)]
    score = lambda place: statistics.median(psnr(drawings.draw(body, place), small) for _, body, small in probes)
    best, found = (0.0, 0.0, 1.0), {}
    step = 0.02
    while step >= 0.0006:
        left, top, side = best
        # Larger squares around the same middle, and moved ones.
        near = [best]
        near += [(left - d / 2, top - d / 2, side + d) for d in (-2 * step, -step, step, 2 * step)]
        near += [(left + d, top, side) for d in (-step, step)] + [(left, top + d, side) for d in (-step, step)]
        for place in near:
            found.setdefault(place, None)
            if found[place] is None:
                found[place] = score(place)
        better = max(near, key=found.get)
        if better == best:
            step /= 2
        best = better
    print(f"  the image begins at ({best[0]:.4f}, {best[1]:.4f}) and is {best[2]:.4f} wide: {found[best]:.2f} dB")
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder of the packages, as npm pack writes them")
    parser.add_argument("--data", type=Path, required=True, help="the data set")
    parser.add_argument("--output", type=Path, required=True, help="folder of the large images")
    options = parser.parse_args()
    images = load_file(options.data / "images.safetensors")["images"]
    concepts = [json.loads(line) for line in (options.data / "concepts.jsonl").read_text().splitlines()]
    for vendor, package in PACKAGES.items():
        found = sorted(options.packages.glob(f"{package}-[0-9]*.tgz"))
        if len(found) != 1:
            parser.error(f"{options.packages}: expected one {package}-VERSION.tgz, found {len(found)}")
        drawings = Drawings(found[0])
        print(f"{vendor}, from {found[0].name}:")
        wanted = [
            (concept["id"], drawings.of(concept["id"]), images[image["index"]])
            for concept in concepts
            for image in concept["images"]
            if image["vendor"] == vendor and not concept.get("composition")
        ]
        pairs = [pair for pair in wanted if pair[1]]
        place = best_place(drawings, pairs)
        folder = options.output / vendor
        folder.mkdir(parents=True, exist_ok=True)
        kept = []
        for concept, body, small in pairs:
            large = drawings.draw(body, place)
            similarity = psnr(large, small)
            if similarity >= LEAST_PSNR:
                kept.append(similarity)
                Image.fromarray(large).save(folder / f"{concept}.png", optimize=True)
        print(f"  {len(wanted)} images, {len(pairs)} drawings, {len(kept)} alike, at {statistics.mean(kept):.2f} dB")


if __name__ == "__main__":
    main()
