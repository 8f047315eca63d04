"""Measures how many texts a server embeds per second, how long they wait, and what happens beyond its capacity."""

import random
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from captions import mixed

from .http_client import ask_once, closed_loop, get, open_loop, post
from .running_server import RunningServer, between, idle
from .samples import NotMeasured, least_p99, rate, statuses, times

CLIENTS = (1, 8, 64)
TEXTS_OF_A_REQUEST = (1, 32)
LOADS = (0.1, 0.5, 0.8, 1.2)
BATCH_TOKENS = (1, 512, 2048, 8192)
#: Room for 64 clients with 32 texts each.
LARGE_QUEUE = ("--queue-tokens", 1 << 20)


def requests_for(count, texts_of_a_request, **more):
    texts = mixed(random.Random(2), count * texts_of_a_request)
    rows = (texts[at : at + texts_of_a_request] for at in range(0, len(texts), texts_of_a_request))
    bodies = ({"input": row[0] if len(row) == 1 else row, "encoding_format": "base64", **more} for row in rows)
    return [post("/v1/embeddings", body) for body in bodies]


def library_alone(program, model, texts_a_second):
    """Texts a second of `altdiffusion embed`: the difference between many texts and few, which loading is no part of."""
    few, many = 64, 64 + max(128, int(texts_a_second * 6))
    texts = mixed(random.Random(2), many)

    def seconds(count, folder):
        (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts[:count]))
        command = [program, "embed", *(["--model", model] if model else []), "--quiet"]
        command += ["--texts", folder / "texts.txt", "--output", folder / "out.npy"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        turns = [(seconds(few, folder), seconds(many, folder)) for _ in range(2)]
    of_few, of_many = (min(turn[place] for turn in turns) for place in (0, 1))
    return (many - few) / max(of_many - of_few, 1e-9)


async def client_alone(server, seconds):
    """What the client itself can send and read: requests a second for `GET /ping`, with the server on the same cores."""
    samples = await closed_loop(server.address, [get("/ping")], 64, seconds, 0.2)
    return rate(samples)


def processor_time():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def texts_a_second(samples, texts_of_a_request):
    try:
        return rate(samples) * texts_of_a_request
    except NotMeasured:
        return None


async def capacity(program, name, model, seconds):
    """Texts a second, by clients and texts of a request."""
    rows = []
    with RunningServer(program, *embedder(model), *LARGE_QUEUE) as server:
        await ask_once(server.address, requests_for(1, 1)[0])
        pings = await client_alone(server, min(seconds, 2))
        for texts in TEXTS_OF_A_REQUEST:
            requests = requests_for(2048 // texts, texts)
            for clients in CLIENTS:
                before, own, start = await server.metrics(), processor_time(), time.perf_counter()
                samples = await closed_loop(server.address, requests, clients, seconds)
                own = (processor_time() - own) / (time.perf_counter() - start)
                await idle(server)
                after = await server.metrics()
                batches = max(between(before, after, "altdiffusion_batch_tokens_count"), 1)
                rows.append({
                    "model": name, "clients": clients, "texts_of_a_request": texts,
                    "texts_a_second": texts_a_second(samples, texts), "statuses": statuses(samples), "client_cores": own,
                    "tokens_of_a_batch": between(before, after, "altdiffusion_batch_tokens_sum") / batches,
                    # Of fewer answers than clients, percentiles say nothing.
                    **(times(samples) if len(samples) >= 2 * clients else {"p50": None, "p99": None}),
                })
    alone = library_alone(program, model, max(row["texts_a_second"] or 0 for row in rows))
    return {"model": name, "library_texts_a_second": alone, "client_requests_a_second": pings, "rows": rows}


def embedder(model):
    return ("--embedder", model, "--preload") if model else ("--preload",)


async def latency(program, model, seconds):
    """Seconds to an answer at shares of the capacity, by the size of a batch."""
    requests, rows, capacities = requests_for(2048, 1), [], {}
    # The loads are the same for all sizes: shares of what the default carries.
    for batch_tokens in sorted(BATCH_TOKENS, key=lambda tokens: tokens != 2048):
        with RunningServer(program, *embedder(model), "--batch-tokens", batch_tokens) as server:
            await ask_once(server.address, requests[0])
            unloaded = times(await closed_loop(server.address, requests, 1, min(seconds, 4), 0))
            capacities[batch_tokens] = rate(await closed_loop(server.address, requests, 64, min(seconds, 5)))
            await idle(server)
            for load, even in [*((load, False) for load in LOADS), (0.8, True)]:
                a_second = load * capacities[2048]
                before = await server.metrics()
                samples = await open_loop(server.address, requests, a_second, seconds, even=even)
                after = await server.metrics()
                batches = max(between(before, after, "altdiffusion_batch_tokens_count"), 1)
                rows.append({
                    "batch_tokens": batch_tokens, "load": load, "even": even, "requests_a_second": a_second,
                    "least_p99": least_p99(load, capacities[2048]) if load < 1 and not even else None,
                    "capacity": capacities[batch_tokens], "unloaded": unloaded, "statuses": statuses(samples),
                    "tokens_of_a_batch": between(before, after, "altdiffusion_batch_tokens_sum") / batches, **times(samples),
                })
    return sorted(rows, key=lambda row: (row["batch_tokens"], row["even"], row["load"]))
