"""Writes the normalisation rules of the emoji model's tokenizer, and what its captions in traditional characters need.

They are nmt_nfkc's, and turn traditional Chinese characters into simplified ones, by OpenCC's table, where the
simplified one occurs in CLDR's Chinese names and keywords and the traditional one in no name or keyword of another
language: 貓 becomes 猫, but 車 stays, since Japanese texts have it. The other file has the pairs of all simplified
characters there that have a traditional form.

    pip install sentencepiece==0.2.3 protobuf opencc-python-reimplemented==0.1.7
    npm pack cldr-annotations-full@48.2.0
    python make-charsmap.py cldr-annotations-full-48.2.0.tgz nmt_nfkc_hans.charsmap traditional.txt
"""

import io
import json
import struct
import sys
import tarfile
import tempfile
from pathlib import Path

import opencc
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

LANGUAGES = ["ja", "ko", "en", "th", "hi", "uk", "ar", "tr", "vi", "pl", "nl", "pt", "it", "es", "de", "fr", "ru"]


def rules(charsmap: bytes) -> dict[str, str]:
    """Reads all rules from the double array (darts-clone) of a `precompiled_charsmap`."""
    size = struct.unpack_from("<I", charsmap)[0]
    units = struct.unpack_from(f"<{size // 4}I", charsmap, 4)
    replacements = charsmap[4 + size :]
    offset = lambda unit: (unit >> 10) << ((unit & (1 << 9)) >> 6)
    found = {}
    stack = [(offset(units[0]), b"")]
    while stack:
        place, key = stack.pop()
        for byte in range(1, 256):
            child = place ^ byte
            if child >= len(units) or units[child] & 0x800000FF != byte:
                continue
            below = child ^ offset(units[child])
            if units[child] >> 8 & 1:
                start = units[below] & 0x7FFFFFFF
                end = replacements.index(b"\0", start)
                found[(key + bytes([byte])).decode()] = replacements[start:end].decode()
            stack.append((below, key + bytes([byte])))
    return found


def trained_with(**options: str) -> bytes:
    """The rules in a model that was trained with these options."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g h"] * 10), model_writer=model, vocab_size=12, model_type="char",
        minloglevel=2, **options,
    )
    return sentencepiece_model_pb2.ModelProto.FromString(model.getvalue()).normalizer_spec.precompiled_charsmap


def compiled(table: dict[str, str]) -> bytes:
    """Compiles rules."""
    hexadecimal = lambda text: " ".join(f"{ord(character):X}" for character in text)
    with tempfile.TemporaryDirectory() as folder:
        tsv = Path(folder, "rules.tsv")
        tsv.write_text("".join(f"{hexadecimal(key)}\t{hexadecimal(value)}\n" for key, value in sorted(table.items())))
        return trained_with(normalization_rule_tsv=str(tsv))


def words(package: Path, language: str) -> str:
    """All names and keywords of a language."""
    with tarfile.open(package) as archive:
        path = f"package/annotations/{language}/annotations.json"
        annotations = json.load(archive.extractfile(path))["annotations"]["annotations"]
    return " ".join(word for entry in annotations.values() for words in entry.values() for word in words)


def dictionary(name: str) -> list[tuple[str, str]]:
    """Characters of one of OpenCC's tables, each with its first translation."""
    path = Path(opencc.__file__).with_name("dictionary") / f"{name}.txt"
    rows = [line.split()[:2] for line in path.read_text(encoding="utf-8").splitlines()]
    return [(key, value) for key, value in rows if len(key) == len(value) == 1]


def main(package: str, output: str, pairs: str) -> None:
    nmt_nfkc = trained_with(normalization_rule_name="nmt_nfkc")
    table = rules(nmt_nfkc)
    assert compiled(table) == nmt_nfkc, "the rules are not read as they were written"
    chinese = set(words(Path(package), "zh"))
    others = {character for language in LANGUAGES for character in words(Path(package), language)} | chinese
    simplified = {
        traditional: first
        for traditional, first in dictionary("TSCharacters")
        if traditional not in others and first in chinese
    }
    for key, value in table.items():
        table[key] = "".join(simplified.get(character, character) for character in value)
    table |= {key: value for key, value in simplified.items() if key not in table}
    written = compiled(table)
    Path(output).write_bytes(written)
    forms = [f"{key}{value}\n" for key, value in dictionary("STCharacters") if key in chinese and key != value]
    Path(pairs).write_text("".join(forms), encoding="utf-8")
    print(f"{len(simplified)} rules, {len(written)} bytes; {len(forms)} pairs")


if __name__ == "__main__":
    main(*sys.argv[1:])
