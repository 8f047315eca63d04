"""`noise.json` and `noise.safetensors`: the values of `torch.randn` for a seed, on the CPU and (reimplemented) on CUDA."""

import math
from pathlib import Path

import numpy as np
import torch

from common import save_json, save_tensors

#: Includes a seed of 33 bits, and the largest one.
SEEDS = (0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**32 + 7, 2**63, 2**64 - 1)
#: The sizes of consecutive calls: below and above 16 values, with every alignment of the tail, and both mixed.
CALLS = (
    (1, 1, 1),
    (2, 3, 15),
    (16, 17),
    (31, 32, 33),
    (3, 16, 3, 20, 1),
    (47, 15, 48),
    (100, 7, 7, 101),
)
#: One long call, stored only as a checksum.
LONG = 1_000_003
CUDA_SEEDS = (0, 42, 2**32 + 7, 2**64 - 1)
CUDA_CALLS = (1, 5, 64, 100)


def checksum(values: torch.Tensor) -> str:
    """The sum of the bits of value i times 2 i + 1, modulo 2⁶⁴."""
    bits = values.numpy().view(np.uint32).astype(np.uint64)
    return str(int((bits * (2 * np.arange(len(bits), dtype=np.uint64) + 1)).sum(dtype=np.uint64)))


def philox(counter: np.ndarray, key: list[int]) -> np.ndarray:
    """Philox4x32-10 of counters (4, n)."""
    mask = np.uint64(0xFFFFFFFF)
    counter = counter.astype(np.uint64)
    for _ in range(10):
        first = counter[0] * np.uint64(0xD2511F53)
        second = counter[2] * np.uint64(0xCD9E8D57)
        high, low = np.uint64(32), mask
        counter = np.stack(
            [
                (second >> high) ^ counter[1] ^ np.uint64(key[0]),
                second & low,
                (first >> high) ^ counter[3] ^ np.uint64(key[1]),
                first & low,
            ]
        )
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def cuda_randn(seed: int, call: int, count: int) -> torch.Tensor:
    """The formula of curand_normal.h, in f64 where the GPU's functions are approximations."""
    counter = np.zeros((4, count), dtype=np.uint64)
    counter[0] = call
    counter[2] = np.arange(count)
    bits = philox(counter, [seed & 0xFFFFFFFF, seed >> 32])
    unit = np.float32(2.3283064e-10)
    turn = np.float32(2.3283064e-10 * 6.2831855)
    # Rounded once after the product and the sum, like a fused multiply-add.
    u = (bits[0].astype(np.float32).astype(np.float64) * np.float64(unit) + np.float64(unit / 2)).astype(np.float32)
    v = (bits[1].astype(np.float32).astype(np.float64) * np.float64(turn) + np.float64(turn / 2)).astype(np.float32)
    normal = np.sqrt(-2 * np.log(u.astype(np.float64))) * np.sin(v.astype(np.float64))
    return torch.from_numpy(normal.astype(np.float32))


def make(output: Path) -> None:
    tensors, cpu, cuda = {}, [], []
    for seed in SEEDS:
        for number, calls in enumerate(CALLS):
            generator = torch.Generator().manual_seed(seed)
            name = f"cpu.{seed}.{number}"
            tensors[name] = torch.cat([torch.randn(count, generator=generator) for count in calls])
            cpu.append({"name": name, "seed": str(seed), "calls": calls})
    for seed in CUDA_SEEDS:
        name = f"cuda.{seed}"
        tensors[name] = torch.cat([cuda_randn(seed, call, count) for call, count in enumerate(CUDA_CALLS)])
        cuda.append({"name": name, "seed": str(seed), "calls": CUDA_CALLS})
    long = torch.randn(LONG, generator=torch.Generator().manual_seed(3))
    assert math.isclose(long.std().item(), 1, abs_tol=0.01)
    save_json(
        output / "noise.json",
        {"cpu": cpu, "cuda": cuda, "long": {"seed": "3", "count": LONG, "checksum": checksum(long)}},
    )
    save_tensors(output / "noise.safetensors", tensors)
