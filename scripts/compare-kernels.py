#!/usr/bin/env python3
"""Time the operations of `gpu_check time` in PyTorch on the same GPU, and print both in one table.

    gpu_check time > times.jsonl
    compare-kernels.py times.jsonl --device NAME --output TABLE.md

`gpu-check.sh` calls this. Attention is `scaled_dot_product_attention` with its fastest backend for the shape, on tensors
in its preferred layout; the other operations are PyTorch's own, with group normalisation on channels-last images. Both
sides are timed in the same way: the median of 15 CUDA event timings of a CUDA graph of several runs over different inputs,
so that neither waits for the host. The lower bound of an operation is the larger of the times for its arithmetic and its
memory traffic at the device's peak.
"""

import argparse
import datetime
import json
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

INPUT_SETS, TURNS, MEASUREMENTS = 6, 4, 15
#: Operations per second on f16 matrices and bytes per second of memory, for devices with a known lower bound: for the H100
#: and the H200 what large products reach, the rest from NVIDIA's data sheets.
PEAKS = {
    "H100 80GB HBM3": (790e12, 3.35e12),
    "H200": (790e12, 4.8e12),
    "A100-SXM4-80GB": (312e12, 2.04e12),
}
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


def milliseconds(run) -> float:
    def all_sets():
        for i in range(TURNS * INPUT_SETS):
            run(i % INPUT_SETS)

    # PyTorch requires a warm-up run on a side stream before recording.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        all_sets()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        all_sets()
    graph.replay()
    times = []
    for _ in range(MEASUREMENTS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / (TURNS * INPUT_SETS))
    return statistics.median(times)


def sets(dtype: torch.dtype, *shape: int) -> list[torch.Tensor]:
    return [torch.randn(shape, device="cuda", dtype=dtype) for _ in range(INPUT_SETS)]


def attention(case: dict, dtype: torch.dtype) -> tuple[float, str]:
    """The time of the fastest backend, and its name."""
    heads, head_dim = case["heads"], case["head_dim"]

    def split(tokens: int) -> list[torch.Tensor]:
        rows = sets(dtype, case["batch"], tokens, heads * head_dim)
        return [x.unflatten(2, (heads, head_dim)).transpose(1, 2) for x in rows]

    query, key, value = split(case["queries"]), split(case["keys"]), split(case["keys"])
    times = {}
    for backend in (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.MATH,
    ):
        try:
            with sdpa_kernel(backend):
                run = lambda i: F.scaled_dot_product_attention(query[i], key[i], value[i])  # noqa: E731
                times[backend.name] = milliseconds(run)
        except RuntimeError:  # a backend that does not support this shape
            continue
    name = min(times, key=times.get)
    return times[name], name.removesuffix("_ATTENTION").lower()


def conv2d(case: dict, dtype: torch.dtype) -> tuple[float, str]:
    """cuDNN's fastest algorithm for that shape, on channels-last images."""
    torch.backends.cudnn.benchmark = True
    channels, out_channels, kernel = case["channels"], case["out_channels"], case["kernel"]
    layout = torch.channels_last
    x = [x.to(memory_format=layout) for x in sets(dtype, case["batch"], channels, case["side"], case["side"])]
    weight = torch.randn((out_channels, channels, kernel, kernel), device="cuda", dtype=dtype)
    weight = (weight / (channels * kernel**2) ** 0.5).to(memory_format=layout)
    bias = torch.randn(out_channels, device="cuda", dtype=dtype)

    def run(i: int):
        grown = F.interpolate(x[i], scale_factor=2.0, mode="nearest") if case["upsample"] else x[i]
        return F.conv2d(grown, weight, bias, padding=kernel // 2)

    return milliseconds(run), ""


def group_norm_silu(case: dict, dtype: torch.dtype) -> tuple[float, str]:
    channels = case["channels"]
    x = [
        x.to(memory_format=torch.channels_last)
        for x in sets(dtype, case["batch"], channels, case["side"], case["side"])
    ]
    weight, bias = torch.randn((2, channels), device="cuda", dtype=dtype)
    return milliseconds(lambda i: F.silu(F.group_norm(x[i], 32, weight, bias, 1e-5))), ""


def layer_norm(case: dict, dtype: torch.dtype) -> tuple[float, str]:
    size = case["size"]
    x = sets(dtype, case["rows"], size)
    weight, bias = torch.randn((2, size), device="cuda", dtype=dtype)
    return milliseconds(lambda i: F.layer_norm(x[i], (size,), weight, bias, 1e-5)), ""


def linear(case: dict, dtype: torch.dtype) -> tuple[float, str]:
    rows, in_features, out_features = case["rows"], case["in_features"], case["out_features"]
    x, residual = sets(dtype, rows, in_features), sets(dtype, rows, out_features)
    weight = torch.randn((out_features, in_features), device="cuda", dtype=dtype)
    bias = torch.randn(out_features, device="cuda", dtype=dtype)

    def run(i: int):
        y = F.linear(x[i], weight, bias)
        return y + residual[i] if case["residual"] else y

    return milliseconds(run), ""


def geglu(case: dict, dtype: torch.dtype) -> tuple[float, str]:
    x = sets(dtype, case["rows"], 2 * case["columns"])

    def run(i: int):
        value, gate = x[i].chunk(2, dim=-1)
        return value * F.gelu(gate)

    return milliseconds(run), ""


OPERATIONS = {
    "attention": attention,
    "conv2d": conv2d,
    "group_norm_silu": group_norm_silu,
    "layer_norm": layer_norm,
    "linear": linear,
    "geglu": geglu,
}
NOT_SHAPE = {"op", "dtype", "ms", "flops", "bytes"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("times", type=Path)
    parser.add_argument("--device", required=True, help="the name of the GPU and its driver")
    parser.add_argument("--output", type=Path, required=True, help="where the table is written to as well")
    arguments = parser.parse_args()
    peaks = next((peaks for name, peaks in PEAKS.items() if name in arguments.device), None)

    lines = [
        f"# CUDA kernels beside PyTorch {torch.__version__}",
        "",
        f"{arguments.device}, {datetime.date.today()}; medians, in milliseconds.",
        "",
        "| operation | shape | type | here | PyTorch | ratio | share of the floor |",
        "|---|---|---|---|---|---|---|",
    ]
    measured = {}
    with torch.inference_mode():
        for line in arguments.times.read_text().splitlines():
            case = json.loads(line)
            # If this project has two kernels for a shape, both are compared with the same PyTorch time.
            other = NOT_SHAPE - {"op", "dtype"} | {"hopper", "whose"}
            same = tuple(value for key, value in case.items() if key not in other)
            if same not in measured:
                measured[same] = OPERATIONS[case["op"]](case, DTYPES[case["dtype"]])
            theirs, backend = measured[same]
            shape = ", ".join(f"{key} {value}" for key, value in case.items() if key not in NOT_SHAPE)
            share = "–"
            if peaks:
                floor = 1e3 * max(case["flops"] / peaks[0], case["bytes"] / peaks[1])
                share = f"{floor / case['ms']:.0%}"
            beside = f"{theirs:.4f}" + (f" ({backend})" if backend else "")
            ratio = theirs / case["ms"]
            lines.append(
                f"| {case['op']} | {shape} | {case['dtype']} | {case['ms']:.4f} | {beside} | {ratio:.2f} | {share} |"
            )
    table = "\n".join(lines) + "\n"
    arguments.output.write_text(table)
    print(table)


if __name__ == "__main__":
    main()
