#!/usr/bin/env python3
"""`image_formats/heic/`: small HEIC images, and their pixels by Pillow with its plugin pillow-heif.

In `golden.safetensors`, `{file}`: the pixels, u8, (height, width, channels), RGBA if there is transparency, otherwise RGB.

Only needs Pillow, pillow-heif, NumPy and safetensors, so it runs separately: `heic_images.py tests/golden`.
"""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image
from safetensors.numpy import save_file

pillow_heif.register_heif_opener()


def file(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "HEIF", **options)
    return buffer.getvalue()


def images() -> dict[str, bytes]:
    """Images in every colour layout, grey, transparent, rotated, and with 10 bits."""
    y, x = np.mgrid[:72, :85].astype(np.float64)
    waves = np.stack([np.sin(x / 7 + c) * np.cos(y / (5 + c)) * 90 + 128 for c in range(3)], -1)
    image = Image.fromarray(np.clip(waves, 0, 255).astype(np.uint8))
    alpha = image.copy()
    alpha.putalpha(Image.fromarray((x * 3).astype(np.uint8)))
    turned = Image.Exif()
    turned[0x112] = 6
    deep = io.BytesIO()
    samples = np.clip(waves * 256, 0, 65535).astype(np.uint16)
    pillow_heif.encode("RGB;16", (85, 72), samples.tobytes(), deep, quality=90, chroma=444)
    return {
        "444.heic": file(image, quality=90, chroma=444),
        "420.heic": file(image, quality=90),
        "grey.heic": file(image.convert("L"), quality=90),
        "lossless.heic": file(image, quality=-1, chroma=444, matrix_coefficients=0),
        "alpha.heic": file(alpha, quality=90, chroma=444),
        "turned.heic": file(image, quality=90, chroma=444, exif=turned.tobytes()),
        "ten_bits.heic": deep.getvalue(),
    }


def make(output: Path) -> None:
    folder = output / "image_formats" / "heic"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    tensors = {}
    for name, content in images().items():
        (folder / name).write_bytes(content)
        opened = Image.open(io.BytesIO(content))
        pixels = opened if opened.mode == "RGBA" else opened.convert("RGB")
        print(f"  {name}: {len(content)} bytes, {opened.mode}, {opened.size}, {opened.info.get('original_orientation')}")
        tensors[name] = np.ascontiguousarray(np.asarray(pixels))
    save_file(tensors, str(folder / "golden.safetensors"))
    (folder / "golden.safetensors").chmod(0o644)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
