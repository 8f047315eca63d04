#!/usr/bin/env python3
"""`image_formats/`: small images in the formats and variants found in practice, and their pixels by Pillow.

`files/` has the images, and `avif/` those that need a feature. In `golden.safetensors`, all u8 and (height, width, channels):

* `{file}`: Pillow's pixels, RGBA if any is not opaque, otherwise RGB;
* `{file}.white`: for images that are not opaque, Pillow's `alpha_composite` over white, as RGB;
* `{file}.grey`: for colour images, Pillow's `convert("L")`, (height, width, 1).

Only needs Pillow, NumPy and safetensors, so it also runs separately: `image_formats.py tests/golden`.
"""

import io
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin
from safetensors.numpy import save_file

WIDTH, HEIGHT = 13, 9


def random(name: str, *shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).integers(0, 256, shape, dtype=np.uint8)


def file(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bitmap(bits: int, rows: bytes, *, compression: int = 0, masks: tuple[int, ...] = (), palette: bytes = b"",
           header: int = 40, file_header: bool = True, colours: int = 0) -> bytes:
    """A BMP in a form that Pillow reads but does not write."""
    if header == 12:
        info = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", header, WIDTH, HEIGHT, 1, bits, compression, len(rows), 2835, 2835, colours, 0)
        info += struct.pack(f"<{len(masks)}I", *masks)
        if header > 40:
            info += bytes(header - len(info))
    body = info + palette + rows
    if not file_header:
        return body
    return struct.pack("<2sIHHI", b"BM", 14 + len(body), 0, 0, 14 + len(info) + len(palette)) + body


def rows_of(name: str, row_bytes: int) -> bytes:
    return random(name, HEIGHT, row_bytes).tobytes()


def tiff(*tags: tuple[int, int, object], data: bytes, order: str = "<", big: bool = False) -> bytes:
    """A TIFF of one strip with these tags: number, type (3 is u16, 4 u32), value or values."""
    code = {3: "H", 4: "I", 16: "Q"}
    offset_code, count_code, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        f"{order}HHHQ" if big else f"{order}HI", *((43, 8, 0, 16) if big else (42, 8)))
    tags = sorted((*tags, (273, 16 if big else 4, 0), (279, 4, len(data))))
    directory = len(head) + struct.calcsize(order + count_code) + len(tags) * (20 if big else 12) + inline
    values, entries = b"", b""
    place = {}
    for number, kind, value in tags:
        items = value if isinstance(value, (list, tuple)) else (value,)
        packed = struct.pack(f"{order}{len(items)}{code[kind]}", *items)
        if number == 273:
            place["entry"] = len(entries)
        field = packed.ljust(inline, b"\0")
        if len(packed) > inline:
            field = struct.pack(order + offset_code, directory + len(values))
            values += packed
        entries += struct.pack(f"{order}HH{offset_code}", number, kind, len(items)) + field
    strip = directory + len(values)
    at = place["entry"] + (12 if big else 8)
    entries = entries[:at] + struct.pack(order + offset_code, strip) + entries[at + inline:]
    return head + struct.pack(order + count_code, len(tags)) + entries + bytes(inline) + values + data


def shape(bits: int | tuple[int, ...], photometric: int, compression: int = 1) -> list[tuple[int, int, object]]:
    count = len(bits) if isinstance(bits, tuple) else 1
    return [(256, 3, WIDTH), (257, 3, HEIGHT), (258, 3, bits), (259, 3, compression), (262, 3, photometric),
            (277, 3, count), (278, 3, HEIGHT)]


def without_end(png: bytes) -> bytes:
    return png[: png.rindex(b"IEND") - 4]


def images() -> dict[str, bytes]:
    rgb = Image.fromarray(random("rgb", HEIGHT, WIDTH, 3))
    alpha = Image.fromarray(random("rgba", HEIGHT, WIDTH, 4))
    alpha.putpixel((0, 0), (200, 30, 10, 0))
    alpha.putpixel((1, 0), (200, 30, 10, 255))
    grey, grey_alpha = rgb.convert("L"), alpha.convert("LA")
    black_and_white = Image.fromarray(random("bw", HEIGHT, WIDTH)).point(lambda v: 255 * (v > 127)).convert("1")
    palette = rgb.quantize(16)
    large = Image.fromarray(random("large", 40, 48, 3))
    smooth = Image.fromarray(np.mgrid[:16, :16].sum(0).astype(np.uint8) * 8).convert("RGB")
    jpeg = file(smooth, "JPEG", quality=92, subsampling=0)
    colours = random("colours", 16, 3)
    map16 = [int(v) * 257 for channel in range(3) for v in colours[:, channel]]
    map256 = [int(v) * 257 for channel in range(3) for v in random("map", 256, 3)[:, channel]]
    wide = 4 * ((WIDTH * 3 + 3) // 4)
    premultiplied = random("premultiplied", HEIGHT, WIDTH, 4)
    premultiplied[..., :3] = (premultiplied[..., :3].astype(int) * premultiplied[..., 3:] // 255).astype(np.uint8)
    qoi = b"qoif" + struct.pack(">IIBB", WIDTH, HEIGHT, 4, 0)
    qoi += b"".join(b"\xff" + bytes(p) for row in np.asarray(alpha) for p in row) + bytes(7) + b"\1"
    rle8 = b"".join(bytes([4, 1, 0, 5, 2, 3, 4, 5, 6, 0, 4, 7, 0, 0]) for _ in range(HEIGHT)) + b"\0\1"
    rle4 = b"".join(bytes([6, 0x12, 0, 5, 0x34, 0x56, 0x70, 0, 2, 0x8F, 0, 0]) for _ in range(HEIGHT)) + b"\0\1"
    palette256 = b"".join(bytes(c) + b"\0" for c in random("palette256", 256, 3))
    palette16 = palette256[:64]
    planar = np.asarray(rgb).transpose(2, 0, 1).tobytes()

    return {
        # Transparency in every pixel format.
        "rgba.png": file(alpha, "PNG"),
        "grey_alpha.png": file(grey_alpha, "PNG"),
        "palette_alphas.png": file(palette, "PNG", transparency=bytes(range(0, 240, 15))),
        "transparent_colour.png": file(rgb, "PNG", transparency=rgb.getpixel((3, 4))),
        "opaque_alpha.png": file(rgb.convert("RGBA"), "PNG"),
        "transparent.gif": file(palette, "GIF", transparency=5),
        "alpha.webp": file(alpha, "WEBP", lossless=True, exact=True),
        "alpha.tiff": file(alpha, "TIFF"),
        "associated_alpha.tiff": tiff(*shape((8, 8, 8, 8), 2), (338, 3, 1), data=premultiplied.tobytes()),
        "unspecified_fourth.tiff": tiff(*shape((8, 8, 8, 8), 2), (338, 3, 0), data=premultiplied.tobytes()),
        "grey_alpha.tiff": file(grey_alpha, "TIFF"),
        "alpha.qoi": qoi,
        "alpha.tga": file(alpha, "TGA"),
        "alpha.ico": file(Image.fromarray(random("icon", 16, 16, 4)), "ICO", sizes=[(16, 16)]),
        "two_sizes.ico": file(Image.fromarray(random("icon", 32, 32, 4)), "ICO", sizes=[(16, 16), (32, 32)]),
        # Alternative file name extensions.
        "a.jfif": jpeg,
        "b.jpe": jpeg,
        "c.apng": file(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)], duration=50),
        "d.mpo": file(smooth, "MPO", save_all=True, append_images=[smooth.rotate(90)], quality=92, subsampling=0),
        "no_ending": file(rgb, "PNG"),
        # PNG.
        "no_end.png": without_end(file(rgb, "PNG")),
        "no_end_palette.png": without_end(file(palette, "PNG")),
        "comment_after_image.png": without_end(file(rgb, "PNG")) + file(rgb, "PNG")[-12:] + b"trailing bytes",
        # PNM.
        "raw.ppm": file(rgb, "PPM"),
        "raw.pgm": file(grey, "PPM"),
        "raw.pbm": file(black_and_white, "PPM"),
        "plain.pgm": b"P2\n# a comment\n3 2\n255\n0 127 255\n9 8 7\n",
        "plain.pbm": b"P1\n4 2\n1 0 1 1\n0 1 0 0\n",
        "plain.ppm": b"P3 2 1 255 255 0 9 1 2 3\n",
        "fifteen.pgm": b"P5\n4 1\n15\n" + bytes([0, 5, 10, 15]),
        "sixteen_bits.pnm": b"P6\n2 1\n65535\n" + bytes(range(0, 240, 20)),
        # BMP.
        "bits_1.bmp": file(black_and_white, "BMP"),
        "bits_4.bmp": bitmap(4, rows_of("bits_4", 8), palette=palette16, colours=16),
        "bits_8.bmp": file(palette, "BMP"),
        "bits_16_555.bmp": bitmap(16, rows_of("bits_16", 28)),
        "bits_16_565.bmp": bitmap(16, rows_of("bits_16", 28), compression=3, masks=(0xF800, 0x7E0, 0x1F)),
        "bits_32.bmp": bitmap(32, rows_of("bits_32", WIDTH * 4)),
        "bits_32_alpha.bmp": bitmap(32, rows_of("bits_32", WIDTH * 4), compression=3, header=124,
                                    masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        "os2.bmp": bitmap(24, rows_of("os2", wide), header=12),
        "rle_8.bmp": bitmap(8, rle8, compression=1, palette=palette256),
        "rle_4.bmp": bitmap(4, rle4, compression=2, palette=palette16, colours=16),
        "no_file_header.dib": bitmap(24, rows_of("os2", wide), file_header=False),
        "file_header.dib": bitmap(24, rows_of("os2", wide)),
        # TIFF.
        "palette.tiff": file(palette, "TIFF"),
        "palette_4.tiff": tiff(*shape(4, 3), (320, 3, map16), data=rows_of("palette_4", 7)),
        "palette_big_endian.tiff": tiff(*shape(8, 3), (320, 3, map256), data=rows_of("p", WIDTH), order=">"),
        "palette_big.tiff": tiff(*shape(8, 3), (320, 3, map256), data=rows_of("p", WIDTH), big=True),
        "bits_1.tiff": file(black_and_white, "TIFF"),
        "white_is_zero.tiff": tiff(*shape(1, 0), data=rows_of("white", 2)),
        "bits_2.tiff": tiff(*shape(2, 1), data=rows_of("bits_2", 4)),
        "bits_4.tiff": tiff(*shape(4, 1), data=rows_of("bits_4", 7)),
        "fax_3.tiff": file(black_and_white, "TIFF", compression="group3"),
        "fax_4.tiff": file(black_and_white, "TIFF", compression="group4"),
        "packbits.tiff": file(rgb, "TIFF", compression="packbits"),
        "lzw.tiff": file(rgb, "TIFF", compression="tiff_lzw"),
        "deflate.tiff": file(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "predictor.tiff": file(rgb, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
        "jpeg.tiff": file(smooth, "TIFF", compression="jpeg", quality=95),
        "cmyk.tiff": file(Image.fromarray(random("cmyk", HEIGHT, WIDTH, 4), "CMYK"), "TIFF"),
        "big.tiff": file(rgb, "TIFF", big_tiff=True),
        "big_endian.tiff": tiff(*shape((8, 8, 8), 2), data=np.asarray(rgb).tobytes(), order=">"),
        "planes.tiff": planes(planar),
        "tiles.tiff": tiles(large),
    }


def planes(data: bytes) -> bytes:
    """Three strips, one per colour."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    size = WIDTH * HEIGHT
    for tag, value in ((256, WIDTH), (257, HEIGHT), (258, (8, 8, 8)), (259, 1), (262, 2), (277, 3), (278, HEIGHT), (284, 2)):
        info[tag] = value
    info[279] = (size, size, size)
    # Pillow adds the directory's length to these.
    info[273] = (0, size, 2 * size)
    info.tagtype[273], info.tagtype[279] = 4, 4
    return b"II*\0\x08\0\0\0" + info.tobytes(8) + data


def tiles(image: Image.Image) -> bytes:
    """Tiles of 32 × 32, which do not divide the image."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    pixels = np.asarray(image)
    height, width, _ = pixels.shape
    across, down = -(-width // 32), -(-height // 32)
    padded = np.zeros((down * 32, across * 32, 3), np.uint8)
    padded[:height, :width] = pixels
    parts = [zlib.compress(padded[y * 32:y * 32 + 32, x * 32:x * 32 + 32].tobytes()) for y in range(down) for x in range(across)]
    for tag, value in ((256, width), (257, height), (258, (8, 8, 8)), (259, 8), (262, 2), (277, 3), (322, 32), (323, 32)):
        info[tag] = value
    info[325] = tuple(map(len, parts))
    info[324] = (0,) * len(parts)
    info.tagtype[324], info.tagtype[325] = 4, 4
    start = 8 + len(info.tobytes(8))
    info[324] = tuple(start + sum(map(len, parts[:place])) for place in range(len(parts)))
    return b"II*\0\x08\0\0\0" + info.tobytes(8) + b"".join(parts)


def avif_images() -> dict[str, bytes]:
    """AVIF in every colour layout, transparent, rotated, and in the other range."""
    y, x = np.mgrid[:40, :53].astype(np.float64)
    waves = [np.sin(x / 7 + c) * np.cos(y / (5 + c)) * 90 + 128 for c in range(3)]
    image = Image.fromarray(np.clip(np.stack(waves, -1), 0, 255).astype(np.uint8))
    alpha = image.copy()
    alpha.putalpha(Image.fromarray((x * 4).astype(np.uint8)))
    turned = Image.Exif()
    turned[0x112] = 6
    layouts = {f"{name}.avif": file(image, "AVIF", quality=90, subsampling=f"4:{name[1]}:{name[2]}")
               for name in ("444", "422", "420", "400")}
    return layouts | {
        "lossless.avif": file(image, "AVIF", quality=100, subsampling="4:4:4"),
        "limited.avif": file(image, "AVIF", quality=90, range="limited"),
        "alpha.avif": file(alpha, "AVIF", quality=90),
        "turned.avif": file(image, "AVIF", quality=90, exif=turned),
    }


def make(output: Path) -> None:
    folder = output / "image_formats"
    if folder.exists():
        shutil.rmtree(folder)
    (folder / "files").mkdir(parents=True)
    tensors = {}
    for name, content in images().items():
        (folder / "files" / name).write_bytes(content)
        opened = Image.open(io.BytesIO(content))
        if opened.mode.startswith("I;16") or opened.mode == "I":
            raise ValueError(f"{name}: Pillow clips 16-bit grey")
        rgba = np.asarray(opened.convert("RGBA"))
        is_opaque = (rgba[..., 3] == 255).all()
        tensors[name] = np.ascontiguousarray(np.asarray(opened.convert("RGB")) if is_opaque else rgba)
        if not is_opaque:
            white = Image.new("RGBA", opened.size, "white")
            white = Image.alpha_composite(white, opened.convert("RGBA"))
            tensors[f"{name}.white"] = np.ascontiguousarray(np.asarray(white.convert("RGB")))
    (folder / "avif").mkdir()
    for name, content in avif_images().items():
        (folder / "avif" / name).write_bytes(content)
        opened = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        tensors[name] = np.ascontiguousarray(np.asarray(opened if opened.mode == "RGBA" else opened.convert("RGB")))
    grey = Image.open(folder / "files" / "raw.ppm").convert("L")
    tensors["raw.ppm.grey"] = np.ascontiguousarray(np.asarray(grey)[..., None])
    print(f"  image_formats: {len(images())} files")
    save_file(tensors, str(folder / "golden.safetensors"))
    (folder / "golden.safetensors").chmod(0o644)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
