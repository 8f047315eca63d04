"""Writes small weight files in rarer forms than `make_pickles.py`, and what PyTorch reads from them.

    python scripts/golden/make_odd_weights.py crates/model-files/tests/data/odd

Needs torch 2.15, numpy and safetensors. Each file F has an F.json with the shape and the values of each tensor that a
loader must find, as read by `torch.load` (or by safetensors with ComfyUI's multiplication), and under "unreadable" the
names of those that are not numeric tensors. Values are multiples of an eighth, so that they are exact.
"""

import argparse
import collections
import json
import pathlib
import sys
import types
import warnings
import zipfile
from fractions import Fraction

import numpy as np
import torch
from safetensors.torch import save_file

warnings.simplefilter("ignore")
FOLDER = pathlib.Path()


def counting(*shape, dtype=torch.float32):
    return (torch.arange(int(np.prod(shape)), dtype=torch.float32) / 8).reshape(shape).to(dtype)


def flattened(value, prefix="", depth=4):
    """The tensors in dictionaries and modules, by their names."""
    if isinstance(value, torch.nn.Module):
        value = {**value._parameters, **value._buffers, **value._modules}
    for key, item in value.items():
        if isinstance(item, torch.Tensor):
            yield prefix + key, item
        elif isinstance(item, (dict, torch.nn.Module)) and depth:
            yield from flattened(item, f"{prefix}{key}.", depth - 1)


def is_numbers(tensor):
    return not (
        tensor.is_sparse
        or tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.is_meta
        or tensor.is_nested
        or tensor.is_complex()
    )


def expect(name, tensors, unreadable=()):
    values = {
        key: {"shape": list(tensor.shape), "values": [float(v) for v in tensor.detach().float().flatten().tolist()]}
        for key, tensor in sorted(tensors.items())
    }
    (FOLDER / f"{name}.json").write_text(json.dumps({"tensors": values, "unreadable": sorted(unreadable)}) + "\n")


def save(name, value, numbers=None, **options):
    """Saves a value and the result of `torch.load`. `numbers` are the values if PyTorch returns no tensor of numbers."""
    torch.save(value, FOLDER / name, **options)
    expect_loaded(name, numbers)


def expect_loaded(name, numbers=None):
    loaded = torch.load(FOLDER / name, weights_only=False)
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    found = dict(flattened(loaded))
    good = {key: tensor for key, tensor in found.items() if is_numbers(tensor)}
    expect(name, {**good, **(numbers or {})}, [key for key in found if key not in good])


def protocols():
    """Every protocol that torch.save supports, in both containers."""
    value = {
        "weight": counting(2, 3),
        "half": counting(4, dtype=torch.float16),
        "long name " * 40: counting(1),
        "number": 2**70,
        "text": "猫" * 200,
    }
    for protocol in (1, 3, 4, 5):
        save(f"protocol{protocol}.pt", value, pickle_protocol=protocol)
        save(f"protocol{protocol}-old.pt", value, pickle_protocol=protocol, _use_new_zipfile_serialization=False)


class Loop(dict):
    """A user-defined dictionary."""


class Callback:
    """An object of a training framework."""

    __module__ = "pytorch_lightning.callbacks"

    def __init__(self):
        self.best = torch.tensor(0.5)
        self.path = pathlib.PurePosixPath("a/b")


class Wrapped(torch.Tensor):
    """A subclass of tensors."""

    __module__ = "somewhere.else"


def modules_of_elsewhere():
    """Makes the classes above importable from the modules that they claim to be from."""
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", "somewhere", "somewhere.else"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["pytorch_lightning.callbacks"].Callback = Callback
    sys.modules["somewhere.else"].Wrapped = Wrapped
    Loop.__module__ = "somewhere.else"
    sys.modules["somewhere.else"].Loop = Loop


def bystanders():
    """Objects in the file besides the weights."""
    values = {
        "set": {1, 2},
        "frozenset": frozenset({"a"}),
        "path": pathlib.PurePosixPath("a/b"),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "layout": torch.strided,
        "size": torch.Size([2, 3]),
        "version": sys.version_info[:2],
        "namespace": argparse.Namespace(lr=1e-4, nested={"a": [1]}),
        "simple_namespace": types.SimpleNamespace(a=1),
        "defaultdict": collections.defaultdict(list, {"a": [1]}),
        "counter": collections.Counter("abca"),
        "deque": collections.deque([1, 2], maxlen=3),
        "fraction": Fraction(1, 3),
        "complex": 1 + 2j,
        "bytes": bytes(range(256)),
        "empty_bytes": b"",
        "bytearray": bytearray(range(200, 256)),
        "ellipsis": ...,
        "slice": slice(1, 2),
        "range": range(3),
        "function": torch.nn.functional.relu,
        "class": torch.nn.Linear,
        "numpy_array": np.arange(6, dtype=">f4").reshape(2, 3),
        "numpy_scalar": np.float64(0.5),
        "numpy_text": np.array(["a", "bc"]),
        "numpy_object": np.array([None, 1], dtype=object),
        "numpy_record": np.zeros(2, dtype=[("a", "f4"), ("b", "i2")]),
        "numpy_random": np.random.default_rng(0).bit_generator.state,
        "rng": random_state(),
        "callback": Callback(),
        "storage": torch.ones(2).untyped_storage(),
        "nested": {"loop": {}},
    }
    values["nested"]["loop"]["self"] = values["nested"]
    for protocol in (2, 4, 5):
        save(f"bystanders{protocol}.pt", {"weight": counting(2, 3), **values}, pickle_protocol=protocol)
    # torch.load cannot read byte storages in the older container.
    del values["storage"]
    save("bystanders-old.pt", {"weight": counting(2, 3), **values}, _use_new_zipfile_serialization=False)


def random_state():
    import random

    return random.Random(0).getstate()


def tensors():
    """Tensors of every kind, readable or to be skipped."""
    base = counting(4, 6)
    with_state = torch.nn.Parameter(counting(2, 2))
    with_state.note = "kept"
    readable = {
        "expanded": counting(3).expand(2, 3),
        "expanded_scalar": torch.tensor(0.5).expand(2, 2),
        "expanded_column": counting(2, 1).expand(2, 3),
        "overlapping": torch.as_strided(base, (3, 4), (2, 3), 1),
        "transposed": base.t(),
        "column": base[:, 1],
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.5),
        "with_state": with_state,
        "subclass": counting(3).as_subclass(Wrapped),
        "buffer": torch.nn.Buffer(counting(2)),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "signed_bytes": torch.tensor([-128, 127], dtype=torch.int8),
        "flags": torch.tensor([True, False]),
        "uint16": torch.tensor([0, 40000], dtype=torch.uint16),
        "uint32": torch.tensor([0, 3], dtype=torch.uint32),
        "uint64": torch.tensor([0, 3], dtype=torch.uint64),
    }
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"):
        readable[name] = counting(3, 3).to(getattr(torch, name)).t()
    readable["float8_e8m0fnu"] = torch.tensor([0.5, 1, 2]).to(torch.float8_e8m0fnu)
    unreadable = {
        "complex": torch.tensor([1 + 2j]),
        "complex_double": torch.tensor([1 + 2j], dtype=torch.complex128),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "sparse": torch.eye(2).to_sparse(),
        "sparse_rows": torch.eye(2).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(counting(4), 0.125, 0, torch.qint8),
        "quantized_rows": torch.quantize_per_channel(
            counting(2, 2), torch.tensor([0.5, 0.25]), torch.tensor([0, 0]), 0, torch.qint8
        ),
        "meta": torch.empty(2, device="meta"),
        "nested": torch.nested.nested_tensor([counting(2), counting(3)]),
    }
    everything = {**readable, **unreadable}
    save("tensors.pt", everything)
    save("tensors5.pt", everything, pickle_protocol=5)
    # In the older container, torch.load can read neither byte storages, which newer types use, nor nested tensors.
    of_bytes = torch.storage._new_dtypes()
    older = {name: t for name, t in everything.items() if t.dtype not in of_bytes and not t.is_nested}
    save("tensors-old.pt", older, _use_new_zipfile_serialization=False)


class OnADevice:
    """The form in which PyTorch saved tensors on devices whose storages could not be saved: MPS, XLA."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def devices():
    from torch._utils import _rebuild_device_tensor_from_cpu_tensor, _rebuild_device_tensor_from_numpy

    many = np.arange(256, dtype=np.float32).reshape(2, 128) - 100.5
    value = {
        "mps": OnADevice(_rebuild_device_tensor_from_numpy, many, torch.float32, "cpu", False),
        "half": OnADevice(_rebuild_device_tensor_from_numpy, many.astype("f2"), torch.float16, "cpu", False),
        "fortran": OnADevice(
            _rebuild_device_tensor_from_numpy, np.asfortranarray(many[:, :3]), torch.float32, "cpu", False
        ),
        "scalar": OnADevice(_rebuild_device_tensor_from_numpy, np.array(0.5, "f8"), torch.float32, "cpu", False),
        "empty": OnADevice(_rebuild_device_tensor_from_numpy, np.zeros((0, 2), "f4"), torch.float32, "cpu", False),
        "xla": OnADevice(_rebuild_device_tensor_from_cpu_tensor, counting(2, 3), torch.float32, "cpu", False),
        "array": np.arange(3, dtype="f4"),
    }
    for protocol in (2, 3, 5):
        save(f"devices{protocol}.pt", value, pickle_protocol=protocol)
    arrays = {
        "little": np.arange(6, dtype="<f4").reshape(2, 3),
        "big": np.arange(6, dtype=">f8").reshape(2, 3),
        "ids": np.arange(3),
        "inner": {"fortran": np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3))},
    }
    numbers = {name: torch.tensor(array.astype("f8")) for name, array in arrays.items() if name != "inner"}
    numbers["inner.fortran"] = torch.tensor(arrays["inner"]["fortran"])
    for protocol in (2, 4, 5):
        save(f"arrays{protocol}.pt", arrays, numbers, pickle_protocol=protocol)


def modules():
    inner = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2, affine=False))
    model = torch.nn.ModuleDict({"body": inner, "words": torch.nn.ParameterDict({"*": counting(2, 3)})})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(counting(*parameter.shape))
    save("module.pt", model)
    save("module-old.pt", model, _use_new_zipfile_serialization=False)
    save("modules-within.pt", {"epoch": 3, "model": model, "optimizer": None})
    words = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": torch.nn.ParameterDict({"*": counting(2, 3)})}
    save("words.pt", words)
    save("dictionaries.pt", Loop(a=counting(2), b=collections.defaultdict(dict, {"c": counting(3)})))
    training = {
        "state_dict": collections.OrderedDict(weight=counting(2, 3)),
        "callbacks": {Callback: {"best": torch.tensor(0.1)}, "other": Callback()},
        "optimizer_states": [{"state": {0: {"exp_avg": counting(2)}}}],
        "loops": {"fit_loop": {"state_dict": {}}},
        "hyper_parameters": Loop(path=pathlib.PurePosixPath("x")),
        "hparams_name": "config",
    }
    save("training.ckpt", training, pickle_protocol=4)


def big_endian():
    """The file that a machine of the other byte order writes: the same, with the bytes of each number reversed."""
    value = {
        "floats": counting(2, 3),
        "halves": counting(4, dtype=torch.bfloat16).reshape(2, 2).t(),
        "ids": torch.arange(3),
        "float8": counting(3).to(torch.float8_e4m3fn),
    }
    name = "big-endian.pt"
    save(name, value)
    widths = {f"data/{i}": t.element_size() for i, t in enumerate(value.values())}
    with zipfile.ZipFile(FOLDER / name) as old:
        entries = {entry: old.read(entry) for entry in old.namelist()}
    with zipfile.ZipFile(FOLDER / name, "w", zipfile.ZIP_STORED) as new:
        for entry, content in entries.items():
            width = widths.get(entry.split("/", 1)[1])
            if width:
                content = np.frombuffer(content, f"V{width}").view(np.uint8).reshape(-1, width)[:, ::-1].tobytes()
            new.writestr(entry, b"big" if entry.endswith("byteorder") else content)


def archives():
    """An archive with additional entries, repacked with compression."""
    name = "extra-entries.pt"
    save(name, {"weight": counting(2, 3), "other": counting(400)})
    with zipfile.ZipFile(FOLDER / name) as old:
        entries = {entry: old.read(entry) for entry in old.namelist()}
    with zipfile.ZipFile(FOLDER / name, "w", zipfile.ZIP_STORED) as new:
        for entry, content in entries.items():
            packed = entry.endswith("data/1")
            new.writestr(entry, content, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
        new.writestr("extra-entries/inner/data.pkl", b"another")
        new.writestr("extra-entries/metadata.pkl", b"another")
        new.writestr("extra-entries/notes.txt", "notes " * 50, zipfile.ZIP_DEFLATED)
    expect(name, {"weight": counting(2, 3)}, ["other"])


def reported():
    """The existing files in `reported`: forms reported by users, with learned words."""
    for file in sorted((FOLDER / "reported").glob("*.pt")):
        expect_loaded(f"reported/{file.name}")


def hostile():
    class Executes:
        def __init__(self, function, *arguments):
            self.reduced = function, arguments

        def __reduce__(self):
            return self.reduced

    torch.save({"weight": counting(2), "x": Executes(eval, "1 + 1")}, FOLDER / "eval.pt", pickle_protocol=4)
    # A name without a call does nothing.
    import os

    save("only-named.pt", {"weight": counting(2), "x": os.getcwd})


def float8():
    """8-bit weights as published, with and without scales."""

    def rows(*shape):
        return torch.linspace(-2, 2, int(np.prod(shape))).reshape(shape)

    weight, e4m3, e5m2 = rows(4, 6), torch.float8_e4m3fn, torch.float8_e5m2
    save_file({"a.weight": weight.to(e4m3), "a.bias": rows(4).to(e5m2), "b": rows(2).half()}, FOLDER / "float8.safetensors")
    expect(
        "float8.safetensors",
        {"a.weight": weight.to(e4m3).float(), "a.bias": rows(4).to(e5m2).float(), "b": rows(2).half()},
    )

    # ComfyUI's forms, multiplied as in comfy/ops.py.
    small = weight.to(e4m3)
    scaled = {
        "net.scaled_fp8": torch.empty(0, dtype=e4m3),
        "net.a.weight": small,
        "net.a.scale_weight": torch.tensor(0.37),
        "net.a.scale_input": torch.tensor(1.5),
        "net.a.bias": rows(4),
        "net.b.weight": rows(3, 2).half(),
        "net.b.scale_weight": torch.tensor([2.0]),
    }
    save_file(scaled, FOLDER / "comfy-scaled.safetensors")
    expect(
        "comfy-scaled.safetensors",
        {
            "net.a.weight": small.float() * 0.37,
            "net.a.bias": rows(4),
            "net.b.weight": rows(3, 2).half().float() * 2,
        },
    )
    settings = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
    tensors = {
        "a.weight": small,
        "a.weight_scale": torch.tensor(0.37),
        "a.comfy_quant": settings,
        "a.input_scale": torch.tensor(0.1),
        "b.weight": weight.to(e5m2),
        "b.weight_scale": torch.tensor([0.5, 1, 2, 4]).reshape(4, 1),
        "c.weight": small.clone(),
        "c.weight_scale": torch.tensor([0.5, 1, 2, 4], dtype=torch.bfloat16),
        "d.weight": (weight * 8).to(torch.int8),
        "d.weight_scale": torch.tensor([0.125]),
        "e.weight": rows(130, 140).to(e4m3),
        "e.weight_scale_inv": torch.tensor([[1.0, 2.0], [0.5, 0.25]]),
        "logit_scale": torch.tensor(2.5),
    }
    save_file(tensors, FOLDER / "scales.safetensors")
    per_row = torch.tensor([0.5, 1, 2, 4]).reshape(4, 1)
    blocks = tensors["e.weight_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)[:130, :140]
    expect(
        "scales.safetensors",
        {
            "a.weight": small.float() * 0.37,
            "b.weight": weight.to(e5m2).float() * per_row,
            "c.weight": small.float() * per_row,
            "d.weight": (weight * 8).to(torch.int8).float() * 0.125,
            "e.weight": rows(130, 140).to(e4m3).float() * blocks,
            "logit_scale": torch.tensor(2.5),
        },
    )
    # As torchao flattens its Float8Tensor.
    flattened = {"a._weight_qdata": small, "a._weight_scale": per_row, "a.bias": rows(4)}
    save_file(flattened, FOLDER / "torchao.safetensors", {"tensor_names": '["a.weight", "a.bias"]'})
    expect("torchao.safetensors", {"a.weight": small.float() * per_row, "a.bias": rows(4)})
    packed = {
        "a.weight": torch.zeros(2, 2, dtype=torch.uint8),
        "a.weight_scale": torch.ones(2, 1).to(e4m3),
        "a.weight_scale_2": torch.tensor(1.0),
        "b.weight": torch.zeros(2, 2, dtype=torch.int8),
        "b.weight_scale": torch.ones(2, 1),
        "b.weight_zero_point": torch.ones(2, 1),
        "c.weight": rows(2),
    }
    save_file(packed, FOLDER / "packed.safetensors")
    expect(
        "packed.safetensors",
        {"c.weight": rows(2), "a.weight_scale_2": torch.tensor(1.0), "b.weight_zero_point": torch.ones(2, 1)},
        ["a.weight", "b.weight"],
    )


def main(folder):
    global FOLDER
    FOLDER = folder
    folder.mkdir(parents=True, exist_ok=True)
    modules_of_elsewhere()
    for make in (protocols, bystanders, tensors, devices, modules, big_endian, archives, reported, hostile, float8):
        make()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
