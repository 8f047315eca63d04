#!/usr/bin/env python3
"""Compare the values in a GGUF file of `altdiffusion convert`, as read by the reference reader and by this program.

Usage::

    altdiffusion convert MODEL out.gguf --dtype q4_0
    altdiffusion convert out.gguf out.safetensors
    check-gguf.py out.gguf out.safetensors

Needs the packages gguf (of llama.cpp), safetensors, torch and numpy. Exits with 1 if a tensor differs.
"""

import argparse
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open

SHAPE_KEY = "comfy.gguf.orig_shape."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("safetensors")
    arguments = parser.parse_args()
    reader = GGUFReader(arguments.gguf)
    counts: dict[str, int] = {}
    wrong = []
    with safe_open(arguments.safetensors, framework="pt") as numbers:
        names = set(numbers.keys())
        for tensor in reader.tensors:
            kind = tensor.tensor_type.name
            counts[kind] = counts.get(kind, 0) + 1
            found = tensor.data if kind.startswith(("F", "I")) else dequantize(tensor.data, tensor.tensor_type)
            shape = reader.get_field(SHAPE_KEY + tensor.name)
            if shape is not None:
                found = found.reshape([int(shape.parts[part][0]) for part in shape.data])
            expected = numbers.get_tensor(tensor.name).numpy()
            names.discard(tensor.name)
            # For the K types, the reference dequantises with operations in another order: the last bit of f32 may differ.
            same = found.shape == expected.shape and np.allclose(found, expected, rtol=3e-7, atol=1e-9)
            if not same:
                wrong.append(tensor.name)
    for name in sorted(wrong + list(names)):
        print(f"{name}: differs")
    print(f"{len(reader.tensors)} tensors: " + ", ".join(f"{kind} × {n}" for kind, n in sorted(counts.items())))
    sys.exit(1 if wrong or names else 0)


if __name__ == "__main__":
    main()
