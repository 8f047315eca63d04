"""`image_processor/`: unusual images, decoded by Pillow and prepared by `CLIPImageProcessor`.

`pictures/` has the files. In `golden.safetensors`, all (height, width, 3) and u8 unless stated otherwise:

* `{file}.decoded`: `load_image`'s pixels (rotated according to Exif, then RGB), for images of at most 4 000 pixels;
* `{file}.raw`: the same without rotation, if different;
* `{file}.{processor}.bytes`: after resizing and cropping, by each `{processor}` in `cases.json`;
* `{file}.{processor}.pixel_values`: (3, height, width) f32, the final values, for the few that `cases.json` marks.

Pillow 13.0 resizes along the columns first if the height shrinks more than twice as much as the width. Earlier releases
always start with the rows, with differences of 20 levels at hard edges of tall images. Nothing else here depends on the
release.

Two bugs of the reference are not reproduced:

* Pillow clips 16-bit greyscale at 255, which leaves white. Here, the high bytes of such images are used, as Pillow does
  for all other 16-bit images.
* transformers mistakes images of 1 or 3 rows for channels-first ones. Here, the channels are declared to be last.
"""

import io
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from transformers import CLIPImageProcessor
from transformers.image_utils import load_image

from common import save_json, save_tensors, seed_of

LARGEST_DECODED = 4_000

SQUARE = {"size": {"shortest_edge": 40}, "crop_size": {"height": 40, "width": 40}}
PROCESSORS = {
    "square": SQUARE,
    # Larger than the resized image on one side, smaller on the other, by odd differences.
    "padded": {"size": {"shortest_edge": 28}, "crop_size": {"height": 19, "width": 71}, "resample": 2},
    "exact": {"size": {"height": 23, "width": 50}, "do_center_crop": False},
    "number": {"size": 33, "crop_size": 30, "resample": 1},
    "only_crop": {"do_resize": False, "crop_size": 37},
    "only_resize": {"size": {"height": 9, "width": 14}, "do_center_crop": False, "do_rescale": False},
    "not_normalised": {**SQUARE, "do_normalize": False},
    "not_rescaled": {**SQUARE, "do_rescale": False},
    "nearest": {**SQUARE, "resample": 0},
    "lanczos": {**SQUARE, "resample": 1},
    "bilinear": {**SQUARE, "resample": 2},
    "box": {**SQUARE, "resample": 4},
    "hamming": {**SQUARE, "resample": 5},
}
#: The processors besides `square` for these images: they shrink hard edges, enlarge them, or both.
ALL_PROCESSORS = ("checkerboard.png", "tiny_checkerboard.png", "black_and_white_wide.png", "noise.png")
WITH_VALUES = (
    ("noise.png", ("square", "not_normalised", "not_rescaled", "only_resize")),
    ("gradient.png", ("square",)),
)


def random(name: str, *shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed_of(name))).integers(0, 256, shape, dtype=np.uint8)


def photo(width: int, height: int) -> np.ndarray:
    """Smooth waves in all channels, which JPEG handles well, and a few hard edges, which it does not."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin(x / 7 + c) * np.cos(y / (5 + c)) * 90 + 128 + 30 * ((x + 2 * y) % 29 > 20) for c in range(3)]
    return np.clip(np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def gradient(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) % 256], -1).astype(np.uint8)


def checkerboard(width: int, height: int, side: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    white = (x // side + y // side) % 2 == 1
    return np.stack([np.where(white, 255, 0), np.where(white, 0, 255), np.where(white, 255, 40)], -1).astype(np.uint8)


def png(depth: int, colour_type: int, rows: list[bytes], width: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG in a form that Pillow reads but cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    body = b"".join(chunk(*part) for part in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def file(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def deep(name: str, channels: int, width: int, height: int) -> list[bytes]:
    """Rows of 16-bit samples, big endian."""
    return [row.tobytes() for row in random(name, height, width * channels * 2)]


def pictures() -> dict[str, bytes]:
    rgb = Image.fromarray(photo(61, 47))
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(gradient(61, 47)[..., 0]))
    grey = rgb.convert("L")
    palette = rgb.quantize(24)
    black_and_white = Image.fromarray(np.where(random("black_and_white", 50, 300, 3) > 127, 255, 0).astype(np.uint8))
    noise = Image.fromarray(random("noise", 43, 38, 3))
    cmyk = Image.fromarray(np.concatenate([photo(61, 47), gradient(61, 47)[..., :1] // 2], -1), "CMYK")
    ycck = bytearray(file(cmyk, "JPEG", quality=90))
    adobe = ycck.index(b"Adobe")
    ycck[adobe + 11] = 2  # the transform: the stored values are now read as Y, Cb, Cr and K

    made = {
        "one_pixel.png": file(Image.fromarray(random("one", 1, 1, 3)), "PNG"),
        "one_column.png": file(Image.fromarray(random("column", 2000, 1, 3)), "PNG"),
        "one_row.png": file(Image.fromarray(random("row", 1, 2000, 3)), "PNG"),
        "three_rows.png": file(Image.fromarray(random("three", 3, 80, 3)), "PNG"),
        "already_fits.png": file(Image.fromarray(random("fits", 40, 40, 3)), "PNG"),
        "noise.png": file(noise, "PNG"),
        "large_noise_blocks.png": file(
            Image.fromarray(random("blocks", 24, 32, 3)).resize((1024, 768), Image.Resampling.NEAREST), "PNG"
        ),
        "gradient.png": file(Image.fromarray(gradient(640, 400)), "PNG"),
        "checkerboard.png": file(Image.fromarray(checkerboard(301, 203, 7)), "PNG"),
        "fine_checkerboard.png": file(Image.fromarray(checkerboard(97, 131, 1)), "PNG"),
        "tiny_checkerboard.png": file(Image.fromarray(checkerboard(9, 5, 1)), "PNG"),
        "large_checkerboard.png": file(Image.fromarray(checkerboard(1600, 1200, 11)), "PNG", optimize=True),
        "black_and_white_wide.png": file(black_and_white, "PNG"),
        "black_and_white_tall.png": file(black_and_white.transpose(Image.Transpose.TRANSPOSE), "PNG"),
        "grey.png": file(grey, "PNG"),
        "grey_alpha.png": file(alpha.convert("LA"), "PNG"),
        "one_bit.png": file(grey.point(lambda v: 255 * (v > 120)).convert("1"), "PNG"),
        "two_bits.png": png(2, 0, [row.tobytes() for row in random("two_bits", 30, 11)], 43),
        "four_bits.png": png(4, 0, [row.tobytes() for row in random("four_bits", 30, 22)], 43),
        "grey_16.png": png(16, 0, deep("grey_16", 1, 31, 29), 31),
        "grey_alpha_16.png": png(16, 4, deep("grey_alpha_16", 2, 31, 29), 31),
        "rgb_16.png": png(16, 2, deep("rgb_16", 3, 31, 29), 31),
        "rgba_16.png": png(16, 6, deep("rgba_16", 4, 31, 29), 31),
        "rgb_transparent_colour.png": file(noise, "PNG", transparency=noise.getpixel((3, 4))),
        "grey_transparent_level.png": file(grey, "PNG", transparency=128),
        "rgba.png": file(alpha, "PNG"),
        "palette.png": file(palette, "PNG"),
        "palette_transparent.png": file(palette, "PNG", transparency=3),
        "palette_alphas.png": file(palette, "PNG", transparency=bytes(range(0, 240, 10))),
        "exif_6.png": file(rgb, "PNG", exif=exif(6)),
        "baseline_444.jpg": file(rgb, "JPEG", quality=92, subsampling=0),
        "baseline_422.jpg": file(rgb, "JPEG", quality=85, subsampling=1),
        "baseline_420.jpg": file(rgb, "JPEG", quality=75, subsampling=2),
        "progressive.jpg": file(rgb, "JPEG", quality=80, progressive=True),
        "restart_markers.jpg": file(rgb, "JPEG", quality=80, restart_marker_blocks=3),
        "noise.jpg": file(noise, "JPEG", quality=95, subsampling=0),
        "large.jpg": file(Image.fromarray(photo(400, 300)), "JPEG", quality=60),
        "grey.jpg": file(grey, "JPEG", quality=85),
        "rgb_components.jpg": file(rgb, "JPEG", quality=90, keep_rgb=True),
        "cmyk.jpg": file(cmyk, "JPEG", quality=90),
        "ycck.jpg": bytes(ycck),
        "lossless.webp": file(rgb, "WEBP", lossless=True),
        "lossless_alpha.webp": file(alpha, "WEBP", lossless=True, exact=True),
        "lossy.webp": file(rgb, "WEBP", quality=80),
        "lossy_alpha.webp": file(alpha, "WEBP", quality=80),
        "exif_8.webp": file(rgb, "WEBP", lossless=True, exif=exif(8)),
        "animated.webp": file(
            rgb, "WEBP", lossless=True, save_all=True, append_images=[rgb.rotate(90), rgb.rotate(180)], duration=100
        ),
        "still.gif": file(palette, "GIF"),
        "transparent.gif": file(palette, "GIF", transparency=5),
        "interlaced.gif": file(palette, "GIF", interlace=1),
        "animated.gif": file(palette, "GIF", save_all=True, append_images=[palette.rotate(90)], duration=100),
        "rgb.bmp": file(rgb, "BMP"),
        "palette.bmp": file(palette, "BMP"),
        "rgb.tiff": file(rgb, "TIFF", compression="tiff_lzw"),
        "grey.tiff": file(grey, "TIFF", compression="tiff_adobe_deflate"),
        "cmyk.tiff": file(cmyk, "TIFF", compression="tiff_lzw"),
        "exif_5.tiff": file(noise, "TIFF", exif=exif(5)),
    }
    upright = Image.fromarray(gradient(24, 16))
    for orientation in range(1, 9):
        made[f"exif_{orientation}.jpg"] = file(upright, "JPEG", quality=90, subsampling=0, exif=exif(orientation))
    made["exif_none.jpg"] = file(upright, "JPEG", quality=90, subsampling=0, exif=exif(9))
    return made


def high_bytes(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I;16") else image


def make(output: Path) -> None:
    if int(PIL.__version__.split(".")[0]) < 13:
        raise RuntimeError(f"Pillow is {PIL.__version__}, expected 13.0 or a later release")
    folder = output / "image_processor"
    if folder.exists():
        shutil.rmtree(folder)
    (folder / "pictures").mkdir(parents=True)
    processors = {name: CLIPImageProcessor(**config) for name, config in PROCESSORS.items()}
    values_of = dict(WITH_VALUES)
    tensors, cases = {}, []
    for name, content in pictures().items():
        (folder / "pictures" / name).write_bytes(content)
        opened = high_bytes(Image.open(io.BytesIO(content)))
        raw = np.asarray(opened.convert("RGB"))
        # `load_image` without opening a file: it also accepts an opened image.
        picture = load_image(opened)
        pixels = np.asarray(picture)
        if pixels.shape[0] * pixels.shape[1] <= LARGEST_DECODED:
            tensors[f"{name}.decoded"] = torch.from_numpy(pixels.copy())
            if raw.shape != pixels.shape or (raw != pixels).any():
                tensors[f"{name}.raw"] = torch.from_numpy(raw.copy())
        for processor in PROCESSORS if name in ALL_PROCESSORS else ("square",):
            reference = processors[processor]
            result = reference(picture, input_data_format="channels_last", do_rescale=False, do_normalize=False)
            result = np.asarray(result["pixel_values"][0])
            assert result.dtype == np.uint8
            tensors[f"{name}.{processor}.bytes"] = torch.from_numpy(result.transpose(1, 2, 0).copy())
            with_values = processor in values_of.get(name, ())
            if with_values:
                values = reference(picture, input_data_format="channels_last")["pixel_values"][0]
                tensors[f"{name}.{processor}.pixel_values"] = torch.from_numpy(np.asarray(values, dtype=np.float32))
            cases.append({"picture": name, "processor": processor, "values": with_values})
    print(f"  image_processor: {len(pictures())} pictures, {len(cases)} results")
    save_tensors(folder / "golden.safetensors", tensors)
    save_json(folder / "cases.json", {"processors": PROCESSORS, "cases": cases})
