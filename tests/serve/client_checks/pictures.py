"""Writes and compares small PNG files without other packages."""

import io
import pathlib
import struct
import tempfile
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIDE = 64


def png(pixel, side=SIDE):
    """A file with the colours that `pixel(x, y)` gives."""
    rows = b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(side)) for y in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    file = io.BytesIO(SIGNATURE)
    file.seek(len(SIGNATURE))
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    file.seek(0)
    file.name = "image.png"
    return file


def photo():
    return png(lambda x, y: (4 * x, 4 * y, 90))


def left_half():
    """A mask: the left half is white."""
    return png(lambda x, _: (255, 255, 255) if x < SIDE // 2 else (0, 0, 0))


def compressed_pixels(file):
    """The pixels of a PNG file as they are compressed: equal if the same program wrote equal pixels."""
    assert file.startswith(SIGNATURE), f"expected a PNG file, found {file[:16]}"
    pixels, place = b"", len(SIGNATURE)
    while place < len(file):
        (length,) = struct.unpack(">I", file[place : place + 4])
        if file[place + 4 : place + 8] == b"IDAT":
            pixels += file[place + 8 : place + 8 + length]
        place += length + 12
    return pixels


def redrawn(server, files, prompt, *options):
    """What the command draws with options that name files, such as {"image": photo()}."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = list(options)
        for name, file in files.items():
            path = pathlib.Path(folder, f"{name}.png")
            path.write_bytes(file.getvalue())
            arguments += [f"--{name}", path]
        return server.generated(prompt, *arguments)
