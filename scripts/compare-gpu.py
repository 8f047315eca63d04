#!/usr/bin/env python3
"""Compare a full-size model on a GPU with itself on the CPU, and its times with PyTorch: one checkpoint, one run.

    make-random-checkpoint.py MODEL --model m9 --tokenizer tests/golden/tokenizer --dtype f16
    compare-gpu.py MODEL --program stopwatch [--output TABLE.md]

The program is the example `stopwatch` of altdiffusion-pipeline with the feature `cuda`; it may be built on another machine:

    cargo build --release -p altdiffusion-pipeline --features cuda --example stopwatch

First, every part runs in f32 on the CPU and in f16 on the GPU with the same input, and ‖a − b‖ / ‖b‖ is printed: for each
part alone, and for the latents of 20 guided steps at 512 × 512. The exit code is 1 if one of them is above 1e-2. Then,
alternating with transformers and diffusers in f16 with channels last, eager and with `torch.compile`, it times the text
encoder on 64 prompts of mixed lengths and on 64 of 77 tokens, one guided UNet call at 512 × 512, and the VAE; and 20 guided
steps, compared with diffusers' UNet and DDIM. Both sides may choose kernels by measuring: PyTorch its convolutions, the program
according to FUSED_OPS_CONVOLUTION and FUSED_OPS_ATTENTION. Medians are printed. `--device cpu --type f32` runs everything
without a GPU, to test the script.

With `--emulated` the program runs under `emulated-gpu.sh` instead of on a GPU; this measures its distance from the CPU, but
no times. It takes minutes for a tiny model, and is too slow for larger ones:

    make-random-checkpoint.py MODEL --model tiny --tokenizer tests/golden/tokenizer --dtype f16
    compare-gpu.py MODEL --program stopwatch --emulated
"""

import argparse
import datetime
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesModelWithTransformation,
)
from safetensors.torch import load_file, save_file
from turns import Program, prompts

TOLERANCE = 1e-2
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
#: As in the example `stopwatch`.
STEPS, GUIDANCE_SCALE = 20, 7.5
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def make_inputs(text_config, unet_config) -> dict[str, dict[str, torch.Tensor]]:
    generator = np.random.default_rng(0)
    normal = lambda *shape: torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))  # noqa: E731
    latents = (unet_config.in_channels, unet_config.sample_size, unet_config.sample_size)
    states = (2, 77, unet_config.cross_attention_dim)
    return {
        "text_64_realistic": prompts(generator.integers(4, 41, 64), text_config.vocab_size, generator),
        "text_64x77": prompts(np.full(64, 77), text_config.vocab_size, generator),
        "unet_guided": {
            "sample": normal(2, *latents),
            "timesteps": torch.full((2,), 500.0),
            "hidden_states": normal(*states),
        },
        "vae": {"latents": normal(1, *latents)},
        "denoise_20_steps": {"noise": normal(1, *latents), "hidden_states": normal(*states)},
    }


class Reference:
    """PyTorch's side, eager or compiled."""

    def __init__(self, model: Path, device: str, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        torch.backends.cudnn.benchmark = True
        part = lambda cls, folder: cls.from_pretrained(model / folder, torch_dtype=dtype).to(device).eval()  # noqa: E731
        self.text = part(RobertaSeriesModelWithTransformation, "text_encoder")
        self.unet = part(UNet2DConditionModel, "unet").to(memory_format=torch.channels_last)
        self.vae = part(AutoencoderKL, "vae").to(memory_format=torch.channels_last)
        self.decode = self.vae.decode

    def compiled(self) -> None:
        self.text = torch.compile(self.text)
        self.unet = torch.compile(self.unet, fullgraph=True)
        self.decode = torch.compile(self.vae.decode)

    def run(self, name: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        kind = name.split("_")[0]
        if kind == "text":
            return self.text(**inputs).projection_state
        if kind == "unet":
            return self.unet(inputs["sample"], inputs["timesteps"], inputs["hidden_states"], return_dict=False)[0]
        if kind == "vae":
            return self.decode(inputs["latents"], return_dict=False)[0]
        scheduler = DDIMScheduler(**SCHEDULER)
        scheduler.set_timesteps(STEPS, device=self.device)
        latents = inputs["noise"]
        for timestep in scheduler.timesteps:
            sample = torch.cat([latents, latents])
            output = self.unet(sample, timestep, inputs["hidden_states"], return_dict=False)[0]
            without, conditioned = output.chunk(2)
            guided = without + GUIDANCE_SCALE * (conditioned - without)
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
        return latents

    def inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        def convert(x: torch.Tensor) -> torch.Tensor:
            x = x.to(self.device, self.dtype if x.is_floating_point() else None)
            return x.to(memory_format=torch.channels_last) if x.dim() == 4 else x

        return {name: convert(x) for name, x in inputs.items()}

    def seconds(self, name: str, inputs: dict[str, torch.Tensor]) -> float:
        synchronize = torch.cuda.synchronize if self.device == "cuda" else lambda: None
        synchronize()
        begin = time.perf_counter()
        self.run(name, inputs)
        synchronize()
        return time.perf_counter() - begin


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def emulated(works, exact: Program, expected: Path, program: Program, found: Path) -> float:
    """The largest distance of all results from f32 on the CPU."""
    worst = 0.0
    for work in works:
        exact.run(work), program.run(work)
        right, ours = (load_file(folder / f"{work}.safetensors")["result"] for folder in (expected, found))
        distance = relative(ours, right)
        print(f"  {work}: {distance:.1e} from f32 on the CPU", flush=True)
        worst = max(worst, distance) if distance == distance else float("inf")
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the checkpoint")
    parser.add_argument("--program", type=Path, required=True, help="the built example `stopwatch`")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="(default: cuda)")
    parser.add_argument("--type", default="f16", choices=TYPES, help="of weights on the device (default: f16)")
    parser.add_argument("--rounds", type=int, default=9, help="counted turns of each work (default: 9)")
    parser.add_argument("--works", nargs="+", help="some of the works (default: all)")
    parser.add_argument("--no-compile", action="store_true", help="leave `torch.compile` out, which takes minutes")
    parser.add_argument("--emulated", action="store_true", help="run without a GPU, and without PyTorch beside it")
    parser.add_argument("--output", type=Path, help="where the table is written to as well")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    device, name = arguments.device, "the CPU"
    launcher = [Path(__file__).with_name("emulated-gpu.sh")] if arguments.emulated else []
    if device == "cuda" and not launcher:
        name = torch.cuda.get_device_name()

    reference = Reference(arguments.model, "cpu" if launcher else device, TYPES[arguments.type])
    works = make_inputs(reference.text.config, reference.unet.config)
    works = {work: works[work] for work in arguments.works or works}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        flat = {f"{work}.{part}": tensor for work, parts in works.items() for part, tensor in parts.items()}
        flat = {key: tensor.to(torch.uint32) if tensor.dtype == torch.int64 else tensor for key, tensor in flat.items()}
        save_file(flat, folder / "inputs.safetensors")

        def results(side: str, *target: str) -> tuple[Program, Path]:
            (folder / side).mkdir()
            command = [arguments.program.resolve(), arguments.model, folder / "inputs.safetensors", folder / side, *target]
            return Program(*launcher, *command), folder / side

        exact, expected = results("exact", "cpu", "f32")
        program, found = results("found", device, arguments.type)
        if launcher:
            sys.exit(1 if emulated(works, exact, expected, program, found) > TOLERANCE else 0)
        inputs = {work: reference.inputs(parts) for work, parts in works.items()}
        ours, eager, compiled, distances, worst = {}, {}, {}, {}, 0.0
        for work in works:
            exact.run(work)
            ours[work], eager[work] = [], []
            for turn in range(arguments.rounds + 2):
                times = program.run(work), reference.seconds(work, inputs[work])
                # The first two are for choosing algorithms and filling caches.
                if turn >= 2:
                    ours[work].append(times[0])
                    eager[work].append(times[1])
            right = load_file(expected / f"{work}.safetensors")["result"]
            ourselves = relative(load_file(found / f"{work}.safetensors")["result"], right)
            theirs = relative(reference.run(work, inputs[work]).float().cpu(), right)
            distances[work], worst = (ourselves, theirs), max(worst, ourselves)
            print(f"  {work}: {ourselves:.1e} from f32 on the CPU, PyTorch {theirs:.1e}", flush=True)
        heading = f"# A full-size model on {name}, in {arguments.type}, beside PyTorch {torch.__version__}"
        for variable in ("FUSED_OPS_CONVOLUTION", "FUSED_OPS_ATTENTION"):
            if variable in os.environ:
                heading += f", {variable}={os.environ[variable]}"

        def write_table() -> None:
            text = table(heading, ours, eager, compiled, distances)
            print(f"\n{text}", flush=True)
            if arguments.output:
                arguments.output.write_text(text)

        write_table()
        if not arguments.no_compile:
            reference.compiled()
            for work in works:
                compiled[work] = [reference.seconds(work, inputs[work]) for _ in range(arguments.rounds + 2)][2:]
                write_table()
    sys.exit(1 if not worst <= TOLERANCE else 0)


def table(heading: str, ours: dict, eager: dict, compiled: dict, distances: dict) -> str:
    """Format the measurements so far: the seconds of every turn, and the distances of this project and PyTorch."""
    lines = [
        heading,
        "",
        f"{datetime.date.today()}; medians, in milliseconds; distance from f32 on the CPU.",
        "",
        "| work | here | PyTorch | compiled | ratio | ratio, compiled | distance | PyTorch's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for work, (ourselves, theirs) in distances.items():
        mine, eagerly = (statistics.median(times[work]) for times in (ours, eager))
        third, ratio = "–", "–"
        if work in compiled:
            best = statistics.median(compiled[work])
            third, ratio = f"{1e3 * best:.2f}", f"{best / mine:.2f}"
        lines.append(
            f"| {work} | {1e3 * mine:.2f} | {1e3 * eagerly:.2f} | {third} | {eagerly / mine:.2f} | {ratio} | "
            f"{ourselves:.1e} | {theirs:.1e} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
