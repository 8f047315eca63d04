"""Damages what lies behind the checks of a format: the file stays whole to its container, so that more of it is read."""

import io
import struct
import zipfile
import zlib

from mutate import bytes_changed, text_changed

PNG_START = b"\x89PNG\r\n\x1a\n"


def inside_changed(data, random):
    """A chunk of a PNG, a file of an archive or the header of safetensors damaged; anything else just its bytes."""
    if data.startswith(PNG_START):
        return png_changed(data, random)
    if data.startswith(b"PK\x03\x04"):
        return zip_changed(data, random)
    if data[8:9] == b"{":
        return safetensors_changed(data, random)
    return bytes_changed(data, random)


def png_changed(data, random):
    chunks, at = [], len(PNG_START)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at:at + 4], "big")
        chunks.append((data[at + 4:at + 8], data[at + 8:at + 8 + length]))
        at += 12 + length
    one = random.randrange(len(chunks))
    name, content = chunks[one]
    # What pixels are packed from is damaged as often as how they are packed.
    if name == b"IDAT" and random.random() < 0.5:
        try:
            content = zlib.compress(bytes_changed(zlib.decompress(content), random))
        except zlib.error:
            content = bytes_changed(content, random)
    else:
        content = bytes_changed(content, random)
    chunks[one] = (name, content)
    return PNG_START + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)) for name, content in chunks
    )


def zip_changed(data, random):
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(packed, "w") as to:
            names = source.namelist()
            # The pickle says what the others are.
            pickles = [name for name in names if name.endswith(".pkl")]
            chosen = random.choice(pickles if pickles and random.random() < 0.8 else names)
            for name in names:
                content = source.read(name)
                to.writestr(zipfile.ZipInfo(name), bytes_changed(content, random) if name == chosen else content)
    except (zipfile.BadZipFile, NotImplementedError, zlib.error):
        return bytes_changed(data, random)
    return packed.getvalue()


def safetensors_changed(data, random):
    length = int.from_bytes(data[:8], "little")
    header = text_changed(data[8:8 + length], random)
    return len(header).to_bytes(8, "little") + header + data[8 + length:]
