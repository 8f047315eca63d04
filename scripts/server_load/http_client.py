"""Sends requests at little cost: HTTP/1.1 over asyncio's protocols, with requests that are made ahead as bytes."""

import asyncio
import json
import random
import time
from typing import NamedTuple

#: A request that has no answer yet has this status.
LOST = 0
#: Fewer batches of answers than this say little.
FEWEST = 5
#: Answers that come within these seconds are of one batch.
GAP = 0.02
#: Connections that are kept for later requests.
MOST_IDLE = 64


class Sample(NamedTuple):
    """A request: when it was due and answered, and the status."""

    start: float
    end: float
    status: int

    @property
    def seconds(self):
        return self.end - self.start


def post(path, body, media_type="application/json"):
    """A request as bytes."""
    body = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def batches(ends):
    """How many batches of answers came, as their times say."""
    ends = sorted(ends)
    return sum(later - earlier > GAP for earlier, later in zip(ends, ends[1:])) + bool(ends)


class Connection(asyncio.Protocol):
    """A connection, with one request at a time."""

    def __init__(self):
        self.buffer, self.waiting, self.first, self.transport, self.error = bytearray(), None, None, None, None
        self._forget()

    def _forget(self):
        self.buffer.clear()
        self.body_at, self.length, self.status = None, 0, LOST

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        if self.body_at is None:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end]).lower()
            self.body_at, self.status = end + 4, int(head[9:12])
            at = head.find(b"\r\ncontent-length:")
            # Without a length the body is in chunks, and its last one is empty.
            self.length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else None
        if self.first is None and len(self.buffer) > self.body_at:
            self.first = time.perf_counter()
        if self.length is None:
            complete = self.buffer.endswith(b"\r\n0\r\n\r\n") or self.buffer[self.body_at :] == b"0\r\n\r\n"
        else:
            complete = len(self.buffer) >= self.body_at + self.length
        if complete and self.waiting and not self.waiting.done():
            self.waiting.set_result((self.status, bytes(self.buffer[self.body_at :])))

    def connection_lost(self, error):
        self.transport, self.error = None, error
        if self.waiting and not self.waiting.done():
            self.waiting.set_result((LOST, b""))

    async def ask(self, request):
        """Sends a request, and waits for (status, body)."""
        self._forget()
        self.first = None
        if self.transport is None:
            return LOST, b""
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.waiting

    def vanish(self):
        """Leaves without a word."""
        if self.transport:
            self.transport.abort()


async def connect(address):
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    return connection


async def ask_once(address, request):
    connection = await connect(address)
    try:
        return await connection.ask(request)
    finally:
        connection.vanish()


async def closed_loop(address, requests, clients, seconds, warm_up=1.0):
    """Each client sends its next request when it has an answer. Returns samples that ended after the warm-up.

    Takes longer, up to four times, if fewer than `FEWEST` batches were answered.
    """
    begin, seconds_at_first = time.perf_counter() + warm_up, seconds
    samples = []
    connections = [await connect(address) for _ in range(clients)]

    async def client(number, connection):
        place = number
        while True:
            start = time.perf_counter()
            status, _ = await connection.ask(requests[place % len(requests)])
            place += clients
            now = time.perf_counter()
            if begin <= now:
                samples.append(Sample(start, now, status))
            if status == LOST:
                raise ConnectionError("the server closed a connection")

    tasks = [asyncio.create_task(client(number, connection)) for number, connection in enumerate(connections)]
    # What is under way at the end is abandoned, which the server notices.
    for _ in range(4):
        done, pending = await asyncio.wait(tasks, timeout=seconds + begin - time.perf_counter(), return_when=asyncio.FIRST_EXCEPTION)
        if done or batches(sample.end for sample in samples) >= FEWEST:
            break
        seconds += seconds_at_first
    for task in pending:
        task.cancel()
    for connection in connections:
        connection.vanish()
    for task in done:
        task.result()
    return samples


async def open_loop(address, requests, rate, seconds, generator=None, patience=120.0, even=False):
    """Requests come at random times, `rate` a second, whether or not earlier ones are answered (Poisson arrivals), or evenly.

    The time of an answer counts from when the request was due, so a client that is late does not hide it.
    """
    generator = generator or random.Random(1)
    idle, samples, tasks = [], [], set()
    begin = time.perf_counter()
    due = begin

    async def one(request, due):
        connection = idle.pop() if idle else await connect(address)
        status, _ = await connection.ask(request)
        samples.append(Sample(due, time.perf_counter(), status))
        # More would take the places of connections that the server has not accepted yet.
        if status != LOST and len(idle) < MOST_IDLE:
            idle.append(connection)
        else:
            connection.vanish()

    place = 0
    while (due := due + (1 / rate if even else generator.expovariate(rate))) < begin + seconds:
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(requests[place % len(requests)], due))
        place += 1
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    late = list(tasks)
    if late:
        await asyncio.wait(late, timeout=patience)
    # Whatever still has no answer is lost.
    samples += [Sample(due, time.perf_counter(), LOST) for task in late if not task.done() or task.exception()]
    for connection in idle:
        connection.vanish()
    return samples
