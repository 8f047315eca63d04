"""Damages files in the ways in which files are damaged, and in those of an attacker."""

import re

NUMBERS = [0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 1e308, 1e-320, 0.5]
TEXTS = ["", "\0", "\x1b[2J\x1b]0;x\x07", "\u202egnp.exe", "\u2028", "x" * 100_000, "../../../etc/passwd", "%n%s", "\ud7ff\u0301" * 50, "NaN", "null"]


def bytes_changed(data, random):
    """Bytes flipped, removed, repeated, inserted, cut off."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 4, 16])):
        if not data:
            break
        at, length = random.randrange(len(data)), random.choice([1, 1, 2, 4, 8, 64])
        kind = random.randrange(7)
        if kind == 0:
            data[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            data[at:at + length] = bytes(random.choice([[0] * length, [255] * length, [127] * length]))
        elif kind == 2:
            del data[at:at + length]
        elif kind == 3:
            data[at:at] = data[at:at + length] * random.choice([1, 2, 100])
        elif kind == 4:
            size = random.choice([2, 4, 8])
            number = int(random.choice(NUMBERS[:-3])) % (1 << (8 * size))
            data[at:at + size] = number.to_bytes(size, random.choice(["little", "big"]))
        elif kind == 5:
            del data[at:]
        else:
            data[at:at + length] = random.randbytes(length)
    return bytes(data)


def text_changed(data, random):
    """Numbers and strings of a text replaced by extreme ones, lines repeated and removed; sometimes its bytes."""
    if random.random() < 0.3:
        return bytes_changed(data, random)
    text = data.decode("utf-8", "replace")
    kind = random.randrange(4)
    if kind == 0 and (found := list(re.finditer(r"-?\d+(\.\d+)?(e-?\d+)?", text))):
        one = random.choice(found)
        text = text[:one.start()] + str(random.choice(NUMBERS)) + text[one.end():]
    elif kind == 1 and (found := list(re.finditer(r'"[^"\n]*"', text))):
        one = random.choice(found)
        new = random.choice(TEXTS).replace("\\", "\\\\").replace('"', '\\"')
        text = text[:one.start()] + '"' + new + '"' + text[one.end():]
    elif kind == 2:
        at = random.randrange(len(text) + 1)
        text = text[:at] + random.choice([*TEXTS, "[" * 5000, "{", "}", ",", '"', "(" * 3000, ":1.5)"]) + text[at:]
    else:
        lines = text.splitlines(keepends=True) or [""]
        at = random.randrange(len(lines))
        lines[at:at + 1] = random.choice([[], [lines[at]] * 50, [lines[at][::-1]]])
        text = "".join(lines)
    return text.encode("utf-8", "surrogatepass")
