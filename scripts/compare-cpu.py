#!/usr/bin/env python3
"""Compare the time of a full-size model's parts on the CPU with PyTorch and OpenVINO, in f32 and bf16: one checkpoint, one
run, alternating between all.

    make-random-checkpoint.py MODEL --model m9 --tokenizer tests/golden/tokenizer
    cargo build --release -p altdiffusion-pipeline --example stopwatch
    cargo build --release --manifest-path scripts/peers/candle/Cargo.toml
    compare-cpu.py MODEL --program target/release/examples/stopwatch --compile --openvino \\
        --peer candle-transformers=scripts/peers/candle/target/release/stopwatch-candle \\
        --peer stable-diffusion.cpp=scripts/peers/sdcpp.py

PyTorch runs eagerly, with channels first and channels last in f32, and with channels last in bf16, and the fastest way
counts; `--compile` adds `torch.compile` with frozen weights, which needs a C++ compiler and some minutes. `--openvino` adds
OpenVINO (`pip install openvino`) with static shapes. Peers are optional, run in f32, and answer like the example
`stopwatch`, or with `-` for work that they do not support. All use every core.

After a warm-up, turns alternate. Prints medians, the others' times relative to ours, operations per second (counted without
shortcuts) as a share of the processor's limit in that type, and the distance ‖a − b‖ / ‖b‖ from PyTorch's f32. Exits with
code 1 if the distance is above 1e-4 in f32, or in bf16 above that of PyTorch's bf16. See `scripts/golden/make.py` for the environment.
"""

import argparse
import datetime
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch._dynamo
import torch._inductor.config
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesModelWithTransformation,
)
from safetensors.torch import load_file, save_file
from turns import Program, prompts, timed

TOLERANCE = 1e-4
#: 10⁹ floating-point operations per work item, without shortcuts.
TEXT_TOKEN, UNET_256, UNET_512, VAE_512 = 0.604, 360, 803, 2510
#: Of XLM-R.
VOCAB_SIZE = 250002

Inputs = dict[str, torch.Tensor]


def make_inputs() -> dict[str, tuple[float, Inputs]]:
    """The 10⁹ operations of each work item, and its inputs."""
    generator = np.random.default_rng(0)
    normal = lambda *shape: torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))  # noqa: E731

    def unet(batch: int, size: int) -> Inputs:
        return {
            "sample": normal(batch, 4, size // 8, size // 8),
            "timesteps": torch.full((batch,), 500.0),
            "hidden_states": normal(batch, 77, 768),
        }

    return {
        "text_8x77": (8 * 77 * TEXT_TOKEN, prompts(np.full(8, 77), VOCAB_SIZE, generator)),
        "text_32_realistic": (32 * 77 * TEXT_TOKEN, prompts(generator.integers(4, 41, 32), VOCAB_SIZE, generator)),
        "unet_2x256": (UNET_256, unet(2, 256)),
        "unet_1x512": (UNET_512, unet(1, 512)),
        "unet_2x512": (2 * UNET_512, unet(2, 512)),
        "vae_512": (VAE_512, {"latents": normal(1, 4, 64, 64)}),
    }


class Part(torch.nn.Module):
    """A part of the model from tensors to a tensor."""

    def __init__(self, name: str, model: Path, dtype: torch.dtype):
        super().__init__()
        self.name = name
        if name == "text":
            self.model = RobertaSeriesModelWithTransformation.from_pretrained(model / "text_encoder")
        elif name == "unet":
            self.model = UNet2DConditionModel.from_pretrained(model / "unet")
        else:
            self.model = AutoencoderKL.from_pretrained(model / "vae")
        self.model.to(dtype).eval()
        self.dtype = dtype

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        if self.name == "text":
            return self.model(*inputs).projection_state
        inputs = [tensor.to(self.dtype) for tensor in inputs]
        if self.name == "unet":
            sample, timesteps, hidden_states = inputs
            return self.model(sample, timesteps, encoder_hidden_states=hidden_states, return_dict=False)[0]
        return self.model.decode(*inputs, return_dict=False)[0]


#: A function that does the work, and one to call before each turn, which is not timed.
Runner = tuple[Callable[[], torch.Tensor], Callable[[], object]]
#: A way to compute a part: prepares a work item from its inputs.
Way = Callable[[Inputs], Runner]


def eager(part: Part, memory_format: torch.memory_format) -> Way:
    return lambda inputs: (lambda: part(*inputs.values()), lambda: part.to(memory_format=memory_format))


def compiled(part: Part) -> Way:
    torch._inductor.config.freezing = True
    part.to(memory_format=torch.channels_last)

    def prepare(inputs: Inputs) -> Runner:
        torch._dynamo.reset()
        graph = torch.compile(part)
        return lambda: graph(*inputs.values()), lambda: None

    return prepare


def openvino(part: Part, precision: str, folder: Path) -> Way:
    import openvino

    def prepare(inputs: Inputs) -> Runner:
        # By a file, so that both precisions share the weights and PyTorch's graph is not kept.
        file = folder / f"{'-'.join(str(size) for tensor in inputs.values() for size in tensor.shape)}.xml"
        if not file.exists():
            graph = openvino.convert_model(part, example_input=tuple(inputs.values()))
            graph.reshape({port: list(tensor.shape) for port, tensor in zip(graph.inputs, inputs.values())})
            openvino.save_model(graph, file, compress_to_fp16=False)
        model = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        arrays = [tensor.numpy() for tensor in inputs.values()]
        return lambda: torch.from_numpy(model(arrays)[0]), lambda: None

    return prepare


class Column:
    """The times of one side, in its fastest way, and its result."""

    def __init__(self, runners: list[Runner]):
        self.runners = runners
        self.seconds = [[] for _ in runners]
        self.result = None

    def turn(self, counts: bool) -> None:
        for (run, before), seconds in zip(self.runners, self.seconds):
            before()
            found = []
            time = timed(lambda: found.append(run()))
            if counts:
                seconds.append(time)
            self.result = found[0]

    def median(self) -> float:
        return min(statistics.median(seconds) for seconds in self.seconds)

    def distance(self, expected: torch.Tensor) -> float:
        return ((self.result.float() - expected).norm() / expected.norm()).item()


class OurColumn(Column):
    """The times of a program that measures itself."""

    def __init__(self, program: Program, work: str, folder: Path):
        super().__init__([])
        self.program, self.work, self.file = program, work, folder / f"{work}.safetensors"
        self.seconds = [[]]

    def turn(self, counts: bool) -> None:
        time = self.program.run(self.work)
        if counts:
            self.seconds[0].append(time)
        if self.result is None and self.file.exists():
            self.result = load_file(self.file)["result"]


def compare(
    part: str, works: dict[str, tuple[float, Inputs]], arguments: argparse.Namespace, folder: Path
) -> list[tuple[str, float, dict[str, Column], torch.Tensor, dict[str, float]]]:
    """Return each work item's operations, every side's column, PyTorch's result in f32, and the limits of this CPU."""
    flat = {f"{work}.{name}": tensor for work, (_, inputs) in works.items() for name, tensor in inputs.items()}
    flat = {key: tensor.to(torch.uint32) if tensor.dtype == torch.int64 else tensor for key, tensor in flat.items()}
    inputs_file = folder / f"{part}.safetensors"
    save_file(flat, inputs_file)

    programs = {f"here, {dtype}": (arguments.program, ["cpu", dtype]) for dtype in ("f32", "bf16")}
    for peer in arguments.peer:
        name, _, path = peer.partition("=")
        programs[name] = (path, [])
    for name, (path, more) in programs.items():
        output = folder / part / name
        output.mkdir(parents=True)
        programs[name] = (Program(path, arguments.model, inputs_file, output, *more), output)
    limits = {name: program.run("limit") for name, (program, _) in programs.items() if name.startswith("here")}

    f32, bf16 = Part(part, arguments.model, torch.float32), Part(part, arguments.model, torch.bfloat16)
    formats = [torch.contiguous_format] if part == "text" else [torch.contiguous_format, torch.channels_last]
    ways: dict[str, list[Way]] = {
        "PyTorch, f32": [eager(f32, memory_format) for memory_format in formats],
        "PyTorch, bf16": [eager(bf16, formats[-1])],
    }
    if arguments.compile:
        ways["PyTorch, bf16"].append(compiled(bf16))
    if arguments.openvino:
        ways["OpenVINO, f32"] = [openvino(f32, "f32", folder)]
        ways["OpenVINO, bf16"] = [openvino(f32, "bf16", folder)]

    rows = []
    for work, (operations, inputs) in works.items():
        columns: dict[str, Column] = {
            name: OurColumn(program, work, output) for name, (program, output) in programs.items()
        }
        for name, all_ways in ways.items():
            columns[name] = Column([way(inputs) for way in all_ways])
        for turn in range(arguments.rounds + 1):
            for column in columns.values():
                column.turn(counts=turn > 0)
        for column in columns.values():
            column.runners.clear()  # compiled models are as large as the weights
        rows.append((work, operations, columns, columns["PyTorch, f32"].result, limits))
        times = ", ".join(f"{name} {column.median():.3f} s" for name, column in columns.items())
        print(f"  {work}: {times}", flush=True)
    for program, _ in programs.values():
        program.process.stdin.close()
        program.process.wait()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the checkpoint")
    parser.add_argument("--program", type=Path, required=True, help="the built example `stopwatch`")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PROGRAM", help="another program to time")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile in bf16")
    parser.add_argument("--openvino", action="store_true", help="also time OpenVINO")
    parser.add_argument("--rounds", type=int, default=3, help="counted turns of each work (default: 3)")
    parser.add_argument("--works", nargs="+", help="some of the works (default: all)")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(os.cpu_count())

    works = make_inputs()
    works = {name: works[name] for name in arguments.works or works}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for part in ("text", "unet", "vae"):
            of_part = {name: work for name, work in works.items() if name.split("_")[0] == part}
            if of_part:
                rows += compare(part, of_part, arguments, Path(folder))

    sides = list(rows[0][2])
    print(f"\n| work | {' | '.join(sides)} | of the limit, f32 | bf16 | distance, f32 | bf16 | PyTorch's bf16 |")
    print("|---" * (len(sides) + 6) + "|")
    failed = False
    for work, operations, columns, expected, limits in rows:
        mine = {dtype: columns[f"here, {dtype}"] for dtype in ("f32", "bf16")}
        cells = []
        for name, column in columns.items():
            base = mine["bf16" if name.endswith("bf16") else "f32"].median()
            time = column.median()
            ratio = "" if name.startswith("here") else f", {time / base:.2f} ×"
            cells.append("–" if math.isnan(time) else f"{time:.3f} s{ratio}")
        for dtype, column in mine.items():
            cells.append(f"{100 * operations / column.median() / limits[f'here, {dtype}']:.0f} %")
        distances = [column.distance(expected) for column in (*mine.values(), columns["PyTorch, bf16"])]
        failed = failed or distances[0] > TOLERANCE or distances[1] > distances[2]
        cells += [f"{distance:.1e}" for distance in distances]
        print(f"| {work} | {' | '.join(cells)} |")
    limits = ", ".join(f"{name.removeprefix('here, ')} {limit:.0f}" for name, limit in rows[0][4].items())
    print(f"\n({datetime.date.today().isoformat()}, {os.cpu_count()} cores; the limit in GFLOP/s: {limits}.)")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
