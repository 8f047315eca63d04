"""Makes small image files say that they are large."""

import re
import struct
import zlib

# Just under the pixels that this program and Pillow read.
MOST_PIXELS = 89_000_000


def claim(data, random):
    """The file with another width and height, or None if its format has no place for them here."""
    width = random.choice([4000, 9400, 16000, 65535])
    height = MOST_PIXELS // width
    data = bytearray(data)
    for start, change in STARTS.items():
        if re.match(start, data, re.DOTALL):
            return change(data, width, height)
    return None


def png(data, width, height):
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return data


def gif(data, width, height):
    # The screen; its frames stay small.
    data[6:10] = struct.pack("<HH", width, height)
    return data


def jpeg(data, width, height):
    at = 2
    while at + 9 < len(data):
        if 0xC0 <= data[at + 1] <= 0xC2:
            data[at + 5:at + 9] = struct.pack(">HH", height, width)
            return data
        at += 2 + int.from_bytes(data[at + 2:at + 4], "big")
    return None


def bmp(data, width, height):
    data[18:26] = struct.pack("<ii", width, height)
    return data


def qoi(data, width, height):
    data[4:12] = struct.pack(">II", width, height)
    return data


def webp(data, width, height):
    # Its fields have 14 bits.
    width, height = min(width, 16383), min(height, 16383)
    at = 12
    while at + 18 <= len(data):
        kind, content = bytes(data[at:at + 4]), at + 8
        if kind == b"VP8X":
            data[content + 4:content + 10] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        elif kind == b"VP8 ":
            data[content + 6:content + 10] = struct.pack("<HH", width, height)
        elif kind == b"VP8L":
            alpha = int.from_bytes(data[content + 1:content + 5], "little") >> 28
            data[content + 1:content + 5] = (alpha << 28 | height - 1 << 14 | width - 1).to_bytes(4, "little")
        length = int.from_bytes(data[at + 4:at + 8], "little")
        at = content + length + length % 2
    return data


def tiff(data, width, height):
    order = "<" if data[:2] == b"II" else ">"
    start, = struct.unpack_from(order + "I", data, 4)
    count, = struct.unpack_from(order + "H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, = struct.unpack_from(order + "H", data, at)
        # Width, height, and the rows of a strip.
        if number := {256: width, 257: height, 278: height}.get(tag):
            struct.pack_into(order + "HII", data, at + 2, 4, 1, number)
    return data


def pnm(data, width, height):
    return re.sub(rb"^(P\d)\s+\d+\s+\d+", rb"\1 %d %d" % (width, height), data)


STARTS = {
    rb"\x89PNG": png, b"GIF8": gif, rb"\xff\xd8": jpeg, b"BM": bmp, b"qoif": qoi, b"RIFF....WEBP": webp,
    rb"II\*\0|MM\0\*": tiff, rb"P[1-6]\s": pnm,
}
