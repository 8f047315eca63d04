"""Measures how long a server takes to draw, and what happens to images that nobody waits for."""

import asyncio
import time

from .http_client import ask_once, connect, post
from .running_server import RunningServer, total
from .samples import NotMeasured, percentile

GENERATIONS = "/v1/images/generations"
VANISHING = 100
QUEUE = 'altdiffusion_queue_length{kind="images"'


def drawing(prompt="一只猫", **more):
    return post(GENERATIONS, {"prompt": prompt, **more})


async def first_picture(program, later=10):
    """Seconds from a request to its image, for the model inside the program."""
    with RunningServer(program) as server:
        async def timed(request):
            start = time.perf_counter()
            connection = await connect(server.address)
            status, _ = await connection.ask(request)
            end, first = time.perf_counter(), connection.first
            connection.vanish()
            if status != 200:
                raise NotMeasured(f"an image got status {status}")
            return end - start, first - start

        first, _ = await timed(drawing())
        since_start = time.perf_counter() - server.started
        seconds = sorted([(await timed(drawing(seed=seed)))[0] for seed in range(later)])
        events = sorted([(await timed(drawing(seed=seed, stream=True, partial_images=3)))[1] for seed in range(later)])
    return {
        "from_program_start": since_start, "first": first, "later_median": percentile(seconds, 0.5), "later_most": seconds[-1],
        "first_event_median": percentile(events, 0.5),
    }


async def vanish(program):
    """Clients that leave in mid-picture: until when work runs for them."""
    with RunningServer(program, "--queue-images", 2 * VANISHING, "--preload") as server:
        await ask_once(server.address, drawing())
        before = total(await server.metrics(), "altdiffusion_cancelled_total")
        connections = [await connect(server.address) for _ in range(VANISHING)]
        asked = [
            asyncio.create_task(connection.ask(drawing(steps=200, size="256x256", scale=1, stream=number % 2 == 0)))
            for number, connection in enumerate(connections)
        ]

        async def waiting():
            return sum(value for name, value in (await server.metrics()).items() if name.startswith(QUEUE))

        start = time.perf_counter()
        while await waiting() < VANISHING and time.perf_counter() - start < 20:
            await asyncio.sleep(0.05)
        queued = await waiting()
        await asyncio.sleep(1)
        ended = sum(task.done() for task in asked)
        for connection in connections:
            connection.vanish()
        start = time.perf_counter()
        counted = emptied = None
        while (counted is None or emptied is None) and time.perf_counter() - start < 60:
            metrics = await server.metrics()
            now = time.perf_counter() - start
            if counted is None and total(metrics, "altdiffusion_cancelled_total") - before >= VANISHING:
                counted = now
            if emptied is None and not await waiting():
                emptied = now
            await asyncio.sleep(0.02)
        cancelled = total(await server.metrics(), "altdiffusion_cancelled_total") - before
        busy = server.processor_seconds()
        await asyncio.sleep(2)
        busy = (server.processor_seconds() - busy) / 2
        start = time.perf_counter()
        status, _ = await ask_once(server.address, drawing())
        return {
            "clients": VANISHING, "queued": queued, "answered_before": ended, "cancelled": cancelled, "seconds_to_count": counted,
            "seconds_to_empty": emptied, "busy_cores_after": busy, "next_status": status,
            "next_seconds": time.perf_counter() - start,
        }
