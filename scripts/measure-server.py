#!/usr/bin/env python3
"""Measure `altdiffusion serve` under load, over loopback and for a bounded time.

    cargo build --release
    measure-server.py --program target/release/altdiffusion [--model DIR] [PART ...]

Starts the servers itself. The parts, all but `soak` and `peers` by default:

    capacity  texts embedded a second by 1, 8 and 64 clients, with 1 and 32 texts a request, beside the library alone
    latency   seconds to an answer at 10, 50, 80 and 120 % of the capacity, by --batch-tokens; requests come at random times
    overload  twice the capacity of texts and of images: statuses, and memory before, during and after
    vanish    100 clients that leave in mid-picture: seconds until no work runs for them
    pictures  seconds from a request to an image
    soak      mixed work for --minutes, and the slope of the memory
    peers     servers of other projects in turns with ours, on the same models: infinity-emb (`pip install 'infinity-emb[server]'`,
              in the environment of --peer-python) and sd-server of stable-diffusion.cpp, on the PATH

`capacity` measures the model inside the program, and --model, which `latency` and `overload` then use too. A model of the
size of a small AltCLIP, with random weights: `compare-encoders.py --make DIR altclip-base`. The client is one Python
process on the same cores; the tables say what it takes. Answers are in base64, which clients ask for by default.

Prints tables in Markdown; --json also writes all numbers to a file. Needs Python alone.
"""

import argparse
import asyncio
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

from server_load import embeddings, overload, peers, pictures, soak
from server_load.samples import NotMeasured

PARTS = ("capacity", "latency", "overload", "vanish", "pictures", "soak", "peers")


def table(heads, rows):
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row) + " |")
    print(flush=True)


def ms(seconds):
    return "–" if seconds is None else f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"


def mb(size):
    return f"{size / 1e6:.0f} MB"


def share(value, of):
    return f"{100 * value / of:.0f} %" if of and value is not None else "–"


def whole(value):
    return "–" if value is None else f"{value:.0f}"


def digits(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def counted(statuses):
    return ", ".join(f"{count} × {status if status != '0' else 'no answer'}" for status, count in statuses.items())


def show_capacity(found):
    for model in found:
        alone = model["library_texts_a_second"]
        print(f"Embedding texts, {model['model']}: {alone:.0f} texts a second by `altdiffusion embed`. With `GET /ping`, "
              f"64 clients and the server exchange {model['client_requests_a_second']:.0f} requests a second.\n")
        heads = ["texts a request", "clients", "texts a second", "of the library", "p50", "p99", "tokens a batch", "client's cores", "answers"]
        table(heads, [
            [row["texts_of_a_request"], row["clients"], whole(row["texts_a_second"]), share(row["texts_a_second"], alone), ms(row["p50"]),
             ms(row["p99"]), f"{row['tokens_of_a_batch']:.0f}", f"{row['client_cores']:.2f}", counted(row["statuses"])]
            for row in model["rows"]
        ])


def show_latency(rows):
    print("One text a request, at shares of what the default of --batch-tokens carries, at random times or evenly. The ideal server has no\n"
          "overhead, and takes the time that a text takes at capacity for one after the other:\n")
    heads = ["--batch-tokens", "64 clients", "load", "requests a second", "p50", "p99", "p99 / unloaded", "p99 of an ideal server", "tokens a batch", "answers"]
    table(heads, [
        [row["batch_tokens"], f"{row['capacity']:.0f} a second", f"{100 * row['load']:.0f} %{', evenly' if row['even'] else ''}",
         f"{row['requests_a_second']:.0f}", ms(row["p50"]),
         ms(row["p99"]), f"{row['p99'] / row['unloaded']['p99']:.1f}" if row["p99"] and row["unloaded"]["p99"] else "–",
         ms(row["least_p99"]), f"{row['tokens_of_a_batch']:.0f}", counted(row["statuses"])]
        for row in rows
    ])


def show_overload(rows):
    print("Twice the capacity:\n")
    heads = ["what", "requests a second", "answers", "p99", "queue empty after", "memory before", "first half", "second half", "after"]
    table(heads, [
        [row["what"], f"{row['requests_a_second']:.0f}", counted(row["statuses"]), ms(row["p99"]), f"{row['seconds_to_empty']:.1f} s",
         *(mb(row[f"memory_{when}"]) for when in ("before", "first_half", "second_half", "after"))]
        for row in rows
    ])


def show_vanish(found):
    print("Clients that leave in mid-picture (200 steps):\n")
    heads = ["clients", "queued", "cancelled", "all counted after", "queue empty after", "cores busy then", "next image"]
    table(heads, [[found["clients"], f"{found['queued']:.0f}", f"{found['cancelled']:.0f}", ms(found["seconds_to_count"]), ms(found["seconds_to_empty"]),
                   f"{found['busy_cores_after']:.2f}", f"status {found['next_status']} in {ms(found['next_seconds'])}"]])


def show_pictures(found):
    print("From a request to an image of the model inside the program (64 × 64, 20 steps):\n")
    heads = ["program start to first image", "first", "later (median)", "later (most)", "first event (median)"]
    names = ("from_program_start", "first", "later_median", "later_most", "first_event_median")
    table(heads, [[ms(found[name]) for name in names]])


def show_soak(found):
    print(f"Mixed work for {found['minutes']:g} minutes: {found['requests']} requests, all with status 200 but "
          f"{counted(found['others_than_200']) or 'none'}.\n")
    heads = ["memory after a quarter", "most", "last", "slope"]
    names = ("memory_after_a_quarter", "memory_most", "memory_last")
    table(heads, [[*(mb(found[name]) for name in names), f"{found['bytes_an_hour'] / 1e6:+.1f} MB an hour"]])


def show_peers(measured):
    for found in measured["found"]:
        for what, agreement in found["agreement"].items():
            print(f"{found['model']}, {what}: {agreement['vectors']} vectors, smallest cosine {agreement['least_cosine']:.7f}, "
                  f"largest difference {agreement['most_difference']:.1e}.\n")
    heads = ["model", "what", "a request", "clients", "server", "a second", "p50", "p99", "memory", "cores", "a second and core", "load", "answers"]
    table(heads, [
        [row["model"], row["what"], row["of_a_request"], row["clients"], row["server"], digits(row["a_second"]), ms(row["p50"]), ms(row["p99"]),
         mb(row["memory"]), f"{row['cores']:.2f}", digits(row["a_core_second"]), f"{row['load']:.1f}", counted(row["statuses"])]
        for found in measured["found"] for row in found["rows"]
    ])
    for problem in measured["missing"]:
        print(f"Not measured: {problem}\n")


async def measure(arguments, part):
    program, model = arguments.program, arguments.model
    if part == "capacity":
        found = [await embeddings.capacity(program, "the model inside", None, arguments.seconds)]
        if model:
            found.append(await embeddings.capacity(program, model.name, model, arguments.seconds))
    elif part == "latency":
        found = await embeddings.latency(program, model, arguments.load_seconds)
    elif part == "overload":
        found = [await overload.texts(program, model, arguments.overload_seconds)]
        found.append(await overload.images(program, arguments.overload_seconds / 2))
    elif part == "vanish":
        found = await pictures.vanish(program)
    elif part == "pictures":
        found = await pictures.first_picture(program)
    elif part == "soak":
        found = await soak.soak(program, arguments.minutes)
    else:
        found = await peers.peers(program, arguments.peer_python, arguments.peer_models, arguments.peer_threads, arguments.peer_seconds)
    globals()[f"show_{part}"](found)
    return found


def processor():
    found = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout.splitlines()
    return next(line.split(":", 1)[1].strip() for line in found if line.startswith("Model name"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--program", type=Path, required=True, help="the built command")
    parser.add_argument("--model", type=Path, help="a dual encoder to measure as well")
    parser.add_argument("--seconds", type=float, default=5, help="of each row of `capacity` (default: 5)")
    parser.add_argument("--load-seconds", type=float, default=10, help="of each row of `latency` (default: 10)")
    parser.add_argument("--overload-seconds", type=float, default=30, help="of `overload`, half for images (default: 30)")
    parser.add_argument("--minutes", type=float, default=10, help="of `soak` (default: 10)")
    parser.add_argument("--peer-python", type=Path, metavar="PYTHON", help="the Python of the environment of `peers`")
    parser.add_argument("--peer-models", type=Path, metavar="DIR", help="models of `peers`; server_load/peers.py says how to make them")
    parser.add_argument("--peer-threads", type=int, metavar="N", default=os.cpu_count(),
                        help="threads of a server of `peers`, by default all cores; on a busy machine, where threads that wait for each "
                             "other waste time, 1 still compares what a core does")
    parser.add_argument("--peer-seconds", type=float, default=12, help="of each row of `peers` and server (default: 12)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to this file")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS[:-2]
    for part in parts:
        if part not in PARTS:
            parser.error(f"unknown part {part!r}: expected one of {', '.join(PARTS)}")
    arguments.program = arguments.program.resolve()
    chip, date = f"{os.cpu_count()} cores of {processor()}", datetime.date.today().isoformat()
    load = os.getloadavg()[0]
    print(f"{date}, {chip}; load of the machine before: {load:.1f}\n")
    numbers = {"date": date, "processor": chip, "load_before": load}
    for part in parts:
        try:
            numbers[part] = asyncio.run(measure(arguments, part))
        except NotMeasured as problem:
            print(f"{part}: not measured: {problem}\n", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")
    print(f"({date}, {chip}; `scripts/measure-server.py`.)")


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
