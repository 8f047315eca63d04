#!/usr/bin/env python3
"""Runs a model that `altdiffusion convert --to onnx` wrote as a photo server does, and compares the vectors.

    altdiffusion convert BAAI/AltCLIP altclip-onnx --to onnx
    altdiffusion embed --model BAAI/AltCLIP --texts texts.txt --image photos --output vectors.safetensors
    check-onnx.py altclip-onnx vectors.safetensors [--tolerance 1e-4]

The vectors may also be a reference's: `input_ids` and `text_embeds`, `pixel_values` and `image_embeds`, of any length.
Prints the largest difference of texts and of images, and exits with 1 if one exceeds the tolerance. Needs
`pip install numpy onnxruntime tokenizers pillow`; what is missing is named: SKIPPED.
"""

import argparse
import json
import pathlib
import sys

TYPES = {"F32": "<f4", "I64": "<i8", "I32": "<i4", "U32": "<u4", "U8": "u1"}


def read(path):
    """The tensors of a safetensors file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, about in json.loads(data[8:start]).items():
        if about.get("dtype") in TYPES:
            first, end = (start + offset for offset in about["data_offsets"])
            array = numpy.frombuffer(data[first:end], TYPES[about["dtype"]])
            tensors[name] = array.reshape(about["shape"])
    return tensors


def items(tensor):
    """What `altdiffusion embed` embedded: a JSON string per line."""
    return [json.loads(line) for line in bytes(tensor).decode().splitlines() if line]


def tokenize(folder, texts):
    """As immich does: every text has all positions."""
    length = json.loads((folder / "config.json").read_text())["text_cfg"]["context_length"]
    pad_token = json.loads((folder / "textual/tokenizer_config.json").read_text())["pad_token"]
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "textual/tokenizer.json"))
    tokenizer.enable_padding(length=length, pad_token=pad_token, pad_id=tokenizer.token_to_id(pad_token))
    tokenizer.enable_truncation(max_length=length)
    cleaned = (" ".join(text.split()) for text in texts)
    return numpy.array([tokenizer.encode(text).ids for text in cleaned])


def prepare(folder, paths):
    """As immich does, with Pillow."""
    config = json.loads((folder / "visual/preprocess_cfg.json").read_text())
    side, mean, std = config["size"][0], numpy.float32(config["mean"]), numpy.float32(config["std"])
    filter = PIL.Image.Resampling[config["interpolation"].upper()]
    prepared = []
    for path in paths:
        image = PIL.Image.open(path).convert("RGB")
        if config["resize_mode"] == "squash":
            image = image.resize((side, side), filter)
        else:
            short = min(image.size)
            image = image.resize([int(length / short * side) for length in image.size], filter)
            left, top = (int(length / 2 - side / 2) for length in image.size)
            image = image.crop((left, top, left + side, top + side))
        pixels = numpy.asarray(image, dtype=numpy.float32) / 255
        prepared.append(((pixels - mean) / std).transpose(2, 0, 1))
    return numpy.stack(prepared)


class Tower:
    """A graph, with checks of what programs rely on."""

    def __init__(self, file, name, element):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.name = name
        (given,), (result,) = self.session.get_inputs(), self.session.get_outputs()
        assert (given.name, given.type) == (name, f"tensor({element})"), (given.name, given.type)
        assert given.shape[0] == "batch", given.shape
        assert (result.name, result.type) == ("embedding", "tensor(float)"), (result.name, result.type)

    def difference(self, inputs, expected):
        """The largest, of each input alone and of all at once."""
        expected = expected / numpy.linalg.norm(expected, axis=1, keepdims=True)
        alone = [self.session.run(None, {self.name: inputs[i : i + 1]})[0] for i in range(len(inputs))]
        together = self.session.run(None, {self.name: inputs})[0]
        return max(float(abs(found - expected).max()) for found in (numpy.concatenate(alone), together))


def differences(folder, vectors):
    """What was compared, and how much it differs."""
    if "text_embeds" in vectors and len(vectors["text_embeds"]):
        ids = vectors.get("input_ids")
        ids = tokenize(folder, items(vectors["texts"])) if ids is None else ids
        tower = Tower(folder / "textual/model.onnx", "text", "int32")
        yield f"{len(ids)} texts", tower.difference(ids.astype(numpy.int32), vectors["text_embeds"])
    if "image_embeds" in vectors and len(vectors["image_embeds"]):
        pixels = vectors.get("pixel_values")
        pixels = prepare(folder, items(vectors["images"])) if pixels is None else pixels
        tower = Tower(folder / "visual/model.onnx", "image", "float")
        yield f"{len(pixels)} images", tower.difference(pixels, vectors["image_embeds"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="what was written")
    parser.add_argument("vectors", type=pathlib.Path, help="a safetensors file")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="1e-4 by default; 2e-3 suits f16")
    arguments = parser.parse_args()
    compared = list(differences(arguments.folder, read(arguments.vectors)))
    for what, difference in compared:
        verdict = "ok" if difference <= arguments.tolerance else "FAILED"
        print(f"{verdict}: {what}: they differ by at most {difference:.2e}")
    if not compared:
        sys.exit(f"error: {arguments.vectors}: expected text_embeds or image_embeds, found neither")
    sys.exit(any(difference > arguments.tolerance for _, difference in compared))


try:
    import numpy
    import onnxruntime
    import PIL.Image
    import tokenizers
except ModuleNotFoundError as error:
    print(f"SKIPPED: ONNX: the Python package {error.name} is not installed")
else:
    main()
