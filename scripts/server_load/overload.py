"""Sends twice what a server can do, and measures what it answers and whether its memory grows."""

import asyncio

from .embeddings import embedder, requests_for
from .http_client import ask_once, closed_loop, open_loop
from .pictures import drawing
from .running_server import RunningServer, idle
from .samples import rate, statuses, times

OVERLOAD = 2.0
#: A queue that fills within the time of the measurement.
SMALL_QUEUE = ("--queue-tokens", 1 << 14)


async def texts(program, model, seconds):
    with RunningServer(program, *embedder(model), *SMALL_QUEUE) as server:
        return await beyond_capacity(server, "texts", requests_for(2048, 1), 64, seconds)


async def images(program, seconds):
    with RunningServer(program, "--preload") as server:
        return await beyond_capacity(server, "images", [drawing(seed=seed) for seed in range(64)], 4, seconds)


async def beyond_capacity(server, what, requests, clients, seconds):
    await ask_once(server.address, requests[0])
    a_second = OVERLOAD * rate(await closed_loop(server.address, requests, clients, 5))
    await idle(server)
    before, during = server.memory(), []
    task = asyncio.create_task(open_loop(server.address, requests, a_second, seconds))
    while not task.done():
        during.append(server.memory())
        await asyncio.wait([task], timeout=0.2)
    samples = task.result()
    emptied = await idle(server)
    await asyncio.sleep(3)
    half = len(during) // 2
    return {
        "what": what, "requests_a_second": a_second, "statuses": statuses(samples), **times(samples), "seconds_to_empty": emptied,
        "memory_before": before, "memory_first_half": max(during[:half]), "memory_second_half": max(during[half:]),
        "memory_after": server.memory(),
    }
