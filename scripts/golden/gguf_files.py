"""`gguf/`: a file by the reference writer of GGUF (llama.cpp's package `gguf`), and the values in it.

Its quantizer supports these five block types; it can only read the K types.
"""

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

from common import normal, save_tensors

TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def make(output: Path) -> None:
    folder = output / "gguf"
    folder.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(folder / "reference.gguf", "test")
    writer.add_string("test.text", "一只猫")
    writer.add_array("test.texts", ["a", "b"])
    writer.add_array("test.numbers", [1, 2, 3])
    writer.add_bool("test.flag", True)
    writer.add_float64("test.real", 0.5)
    numbers = {}
    for name in TYPES:
        kind = GGMLQuantizationType[name]
        blocks = quantize(normal(f"gguf.{name}", 3, 96).numpy(), kind)
        writer.add_tensor(name.lower(), blocks, raw_dtype=kind)
        numbers[name.lower()] = torch.from_numpy(dequantize(blocks, kind))
    # A convolution as ComfyUI-GGUF stores it: flattened, with its shape in the metadata.
    kind = GGMLQuantizationType.Q8_0
    blocks = quantize(normal("gguf.conv", 2, 4, 4, 4).numpy().reshape(2, 64), kind)
    writer.add_array("comfy.gguf.orig_shape.conv", [2, 4, 4, 4])
    writer.add_tensor("conv", blocks, raw_dtype=kind)
    numbers["conv"] = torch.from_numpy(dequantize(blocks, kind)).reshape(2, 4, 4, 4)
    plain = normal("gguf.plain", 2, 3, 4).numpy()
    for name, dtype in (("f32", np.float32), ("f16", np.float16), ("f64", np.float64)):
        writer.add_tensor(name, plain.astype(dtype))
        numbers[name] = torch.from_numpy(plain.astype(dtype).astype(np.float32))
    writer.add_tensor("i64", np.array([3, -4], dtype=np.int64))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_tensors(folder / "numbers.safetensors", numbers)
