"""Writes the small torch.save files that the tests of model-files read.

    python scripts/golden/make_pickles.py crates/model-files/tests/data

Needs torch and safetensors. Every tensor has the values 0, 1, 2 … in row-major order, divided by eight so that half
precision is exact; the tests compute the same.
"""

import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file


def counting(*shape, dtype=torch.float32):
    count = 1
    for size in shape:
        count *= size
    return (torch.arange(count, dtype=torch.float32) / 8).reshape(shape).to(dtype)


def weights():
    """Tensors of every kind that a loader can get wrong."""
    shared = counting(4, 6)
    return OrderedDict(
        [
            ("encoder.weight", counting(3, 5)),
            ("encoder.half", counting(7, dtype=torch.float16)),
            ("encoder.brain", counting(7, dtype=torch.bfloat16)),
            ("encoder.double", counting(2, 2, dtype=torch.float64)),
            ("scalar", torch.tensor(0.125)),
            ("empty", torch.empty(0, 3)),
            # Not contiguous: counts in row-major order, but is stored transposed.
            ("transposed", counting(3, 4).t().contiguous().t()),
            ("permuted", counting(2, 3, 4).permute(2, 0, 1).contiguous().permute(1, 2, 0)),
            # Two views of one storage, and the same tensor under two names.
            ("shared.whole", shared),
            ("shared.rows", shared[2:]),
            ("shared.column", shared[:, 1:2]),
            ("shared.again", shared),
            ("parameter", torch.nn.Parameter(counting(2, 3))),
            ("embeddings.position_ids", torch.arange(6).reshape(1, 6)),
            ("flags", torch.tensor([True, False])),
        ]
    )


class RunsACommand:
    def __reduce__(self):
        import os

        return os.system, ("touch executed-by-a-pickle",)


def rewrite(source, target, change):
    """Copies a zip archive, with `change(name, bytes)` in place of each entry (None leaves it out)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights(), folder / "zip.bin")
    torch.save(weights(), folder / "legacy.bin", _use_new_zipfile_serialization=False)

    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(counting(*parameter.shape))
    training = {
        "epoch": 3,
        "global_step": 10**12,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": module.state_dict(),
        "optimizer_states": [{"state": {0: {"exp_avg": counting(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
        "hparams": {"betas": (0.9, 0.999), "fused": None, "size": torch.Size([2, 3])},
    }
    torch.save(training, folder / "lightning.ckpt")
    torch.save({"text": {"weight": counting(2)}, "vision": {"inner": {"weight": counting(3)}}}, folder / "nested.bin")

    torch.save({"weight": counting(2), "surprise": RunsACommand()}, folder / "malicious.bin")
    torch.save({"weight": counting(2)}, folder / "protocol4.bin", pickle_protocol=4)
    torch.save([counting(2)], folder / "list.bin")
    torch.save(counting(2, 3), folder / "alone.bin")

    torch.save({"weight": counting(3, 5)}, folder / "one.bin")
    rewrite(folder / "one.bin", folder / "big_endian.bin", lambda name, b: b"big" if name.endswith("byteorder") else b)
    rewrite(folder / "one.bin", folder / "no_storage.bin", lambda name, b: None if name.endswith("data/0") else b)
    rewrite(folder / "one.bin", folder / "short_storage.bin", lambda name, b: b[:-1] if name.endswith("data/0") else b)
    with zipfile.ZipFile(folder / "one.bin") as old:
        with zipfile.ZipFile(folder / "compressed.bin", "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
    with open(folder / "plain_pickle.bin", "wb") as file:
        pickle.dump({"weight": 1}, file, protocol=2)

    contiguous = {name: tensor.detach().contiguous().clone() for name, tensor in weights().items()}
    save_file(contiguous, folder / "same.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
