#!/usr/bin/env python3
"""Writes the Arrow schema that pyarrow stores in a Parquet file with the columns text, image and embedding, a fixed-size list:
crates/embedding-index/src/output/arrow_schema.bin, where the size is replaced when a file is written, and for a test
crates/embedding-index/tests/data/arrow_schema_2.txt, in base64, with the size 2.

Needs pyarrow; 26.0.1 made the files.
"""

import base64
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

CRATE = Path(__file__).resolve().parents[2] / "crates/embedding-index"


def message(size):
    number = pa.field("element", pa.float32(), nullable=False)
    embedding = pa.field("embedding", pa.list_(number, size), nullable=False)
    schema = pa.schema([("text", pa.string()), ("image", pa.string()), embedding])
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file)
    return base64.b64decode(pq.read_metadata(file).metadata[b"ARROW:schema"])


def main():
    first, second = message(0x01020304), message(0x11223344)
    differing = [place for place in range(len(first)) if first[place] != second[place]]
    assert len(first) == len(second) and differing == list(range(differing[0], differing[0] + 4)), differing
    (CRATE / "src/output/arrow_schema.bin").write_bytes(message(1))
    (CRATE / "tests/data/arrow_schema_2.txt").write_bytes(base64.b64encode(message(2)) + b"\n")
    print(f"{len(first)} bytes, the size at {differing[0]}")


if __name__ == "__main__":
    main()
