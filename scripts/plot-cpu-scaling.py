#!/usr/bin/env python3
"""Measure and plot how the time of a full-size model on the CPU grows with resolution, batch size and threads.

    make-random-checkpoint.py MODEL --model m9 --tokenizer tests/golden/tokenizer
    cargo build --release -p altdiffusion-pipeline --example stopwatch
    plot-cpu-scaling.py MODEL --program target/release/examples/stopwatch --output benches/results/cpu-scaling

Writes OUTPUT.json and OUTPUT.png, with medians of `--rounds` alternating runs of each work item after a warm-up. Dashed
lines show times proportional to the number of pixels, images or threads, from the first point on.
Needs numpy, torch, safetensors and matplotlib.
"""

import argparse
import datetime
import json
import os
import statistics
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from turns import Program

SIZES = (256, 384, 512, 640, 768, 1024)
BATCHES = (1, 2, 4, 8)
#: The side of the images in batches.
BATCH_SIZE = 256


def unet_inputs(batch: int, size: int) -> dict[str, torch.Tensor]:
    return {
        "sample": torch.randn(batch, 4, size // 8, size // 8),
        "timesteps": torch.full((batch,), 500.0),
        "hidden_states": torch.randn(batch, 77, 768),
    }


def works() -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    result = {f"unet_{size}": unet_inputs(1, size) for size in SIZES}
    result |= {f"unet_batch_{batch}": unet_inputs(batch, BATCH_SIZE) for batch in BATCHES}
    result |= {f"vae_{size}": {"latents": torch.randn(1, 4, size // 8, size // 8)} for size in SIZES}
    return result


def measure(program: Path, model: Path, threads: int, names: list[str], rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        inputs = {f"{name}.{part}": tensor for name, parts in works().items() for part, tensor in parts.items()}
        save_file(inputs, Path(folder) / "inputs.safetensors")
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        program = Program(program, model, Path(folder) / "inputs.safetensors", folder)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds + 1):
            for name in names:
                taken = program.run(name)
                if turn:
                    seconds[name].append(taken)
        return {name: statistics.median(times) for name, times in seconds.items()}


def draw(results: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    most = results["threads"][-1]
    seconds = results["seconds"][str(most)]
    figure, (by_size, by_batch, by_threads) = pyplot.subplots(1, 3, figsize=(15, 4.5))
    for part, label in (("unet", "UNet, one pass"), ("vae", "VAE decode")):
        times = [seconds[f"{part}_{size}"] for size in SIZES]
        (line,) = by_size.plot(SIZES, times, "o-", label=label)
        even = [times[0] * (size / SIZES[0]) ** 2 for size in SIZES]
        by_size.plot(SIZES, even, "--", color=line.get_color(), alpha=0.5)
    by_size.set(xlabel="side of the image (pixels)", ylabel="seconds", title=f"resolution, {most} threads")
    by_size.set_xscale("log", base=2)
    by_size.set_yscale("log", base=2)
    by_size.set_xticks(SIZES, SIZES)
    by_size.legend()

    times = [seconds[f"unet_batch_{batch}"] for batch in BATCHES]
    (line,) = by_batch.plot(BATCHES, times, "o-")
    by_batch.plot(BATCHES, [times[0] * batch for batch in BATCHES], "--", color=line.get_color(), alpha=0.5)
    by_batch.set(xlabel="pictures", title=f"batch, UNet at {BATCH_SIZE} × {BATCH_SIZE}, {most} threads")
    by_batch.set_xticks(BATCHES)
    by_batch.set_ylim(0)

    threads = results["threads"]
    for name, label in (("unet_512", "UNet at 512 × 512"), ("vae_512", "VAE decode to 512 × 512")):
        times = [results["seconds"][str(count)][name] for count in threads]
        (line,) = by_threads.plot(threads, times, "o-", label=label)
        by_threads.plot(threads, [times[0] / count for count in threads], "--", color=line.get_color(), alpha=0.5)
    by_threads.set(xlabel="threads", title="threads")
    by_threads.set_xticks(threads)
    by_threads.set_ylim(0)
    by_threads.legend()
    figure.suptitle(f"AltDiffusion-m9's shapes, f32, random weights; {results['date']}, {results['machine']}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the checkpoint")
    parser.add_argument("--program", type=Path, required=True, help="the built example `stopwatch`")
    parser.add_argument("--output", type=Path, required=True, help="the files to write, without their ending")
    parser.add_argument("--machine", default=f"{os.cpu_count()} cores", help="what the plot calls the machine")
    parser.add_argument("--rounds", type=int, default=3, help="counted turns of each work (default: 3)")
    arguments = parser.parse_args()

    cores = os.cpu_count()
    threads = sorted({1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores})
    seconds = {}
    for count in threads:
        names = list(works()) if count == cores else ["unet_512", "vae_512"]
        seconds[str(count)] = measure(arguments.program, arguments.model, count, names, arguments.rounds)
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": arguments.machine,
        "rounds": arguments.rounds,
        "threads": threads,
        "seconds": seconds,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
