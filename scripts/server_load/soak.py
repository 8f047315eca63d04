"""Sends mixed work for a long time, and watches the server's memory meanwhile."""

import asyncio
import base64
import json
import random
import struct
import time
import zlib
from collections import Counter

from captions import mixed

from .http_client import LOST, connect, get, post
from .pictures import drawing
from .running_server import RunningServer, idle
from .samples import slope

#: How often the memory is read, in seconds.
EVERY = 5
BOUNDARY = "a-boundary-of-parts"


def png(generator, side=64):
    """A small image of one colour with noise."""
    colour = generator.randbytes(3)
    rows = b"".join(b"\0" + b"".join(bytes(c ^ generator.randrange(8) for c in colour) for _ in range(side)) for _ in range(side))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def multipart(fields):
    parts = []
    for name, value in fields.items():
        is_file = isinstance(value, bytes)
        disposition = f'Content-Disposition: form-data; name="{name}"' + ('; filename="image.png"' if is_file else "")
        parts += [f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode(), value if is_file else value.encode(), b"\r\n"]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class Requests:
    """One of each kind, different every time."""

    def __init__(self):
        self.dice = random.Random(3)
        self.images = [png(self.dice) for _ in range(8)]
        self.texts = mixed(self.dice, 4096)

    def text(self):
        return self.dice.choice(self.texts)

    def image(self):
        return base64.b64encode(self.dice.choice(self.images)).decode()

    def embeddings(self):
        count = self.dice.choice([1, 1, 4, 32])
        return post("/v1/embeddings", {"input": [self.text() for _ in range(count)], "encoding_format": self.dice.choice(["float", "base64"])})

    def image_embeddings(self):
        return post("/v1/embeddings", {"input": [{"text": self.text()}, {"image": self.image()}]})

    def similarity(self):
        return post("/v1/similarity", {"texts": [self.text(), self.text()], "images": [self.image()]})

    def hidden_states(self):
        return post("/v1/hidden_states", {"prompts": [self.text() for _ in range(4)]})

    def images_of_openai(self):
        return drawing(self.text(), steps=self.dice.choice([4, 8]), n=self.dice.choice([1, 2]))

    def events(self):
        return drawing(self.text(), steps=6, stream=True, partial_images=2)

    def txt2img(self):
        return post("/sdapi/v1/txt2img", {"prompt": self.text(), "steps": 5, "width": 64, "height": 64, "sampler_name": "Euler a"})

    def img2img(self):
        return post("/sdapi/v1/img2img", {"prompt": self.text(), "steps": 5, "init_images": [self.image()], "denoising_strength": 0.6})

    def immich(self):
        entries = json.dumps({"clip": {"visual": {"modelName": "emoji", "options": {}}}})
        body = multipart({"entries": entries, "image": self.dice.choice(self.images)})
        return post("/predict", body, f"multipart/form-data; boundary={BOUNDARY}")

    def lists(self):
        return get(self.dice.choice(["/metrics", "/v1/models", "/sdapi/v1/options", "/sdapi/v1/progress", "/openapi.json", "/"]))


KINDS = (
    "embeddings", "image_embeddings", "similarity", "hidden_states", "images_of_openai", "events", "txt2img", "img2img", "immich", "lists",
)


async def soak(program, minutes):
    """A client for each kind of request, and one that leaves in mid-picture."""
    requests, counts, points, lost = Requests(), Counter(), [], []
    with RunningServer(program) as server:
        start = time.perf_counter()
        end = start + 60 * minutes

        async def client(kind):
            connection = await connect(server.address)
            answered = time.perf_counter()
            while time.perf_counter() < end:
                request, asked = getattr(requests, kind)(), time.perf_counter()
                status, _ = await connection.ask(request)
                counts[kind, status] += 1
                if status == LOST:
                    lost.append({
                        "request": request.split(b"\r\n", 1)[0].decode(), "minute": (asked - start) / 60, "idle_before": asked - answered,
                        "waited": time.perf_counter() - asked, "error": repr(connection.error), "received": len(connection.buffer),
                    })
                    connection = await connect(server.address)
                answered = time.perf_counter()
                await asyncio.sleep(requests.dice.uniform(0, 0.1))
            connection.vanish()

        async def one_that_leaves():
            while time.perf_counter() < end:
                connection = await connect(server.address)
                asked = asyncio.create_task(connection.ask(drawing(steps=100)))
                await asyncio.sleep(requests.dice.uniform(0, 0.5))
                connection.vanish()
                await asked
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(client(kind)) for kind in KINDS] + [asyncio.create_task(one_that_leaves())]
        while time.perf_counter() < end:
            await asyncio.sleep(min(EVERY, 10 * minutes))
            points.append(((time.perf_counter() - start) / 3600, server.memory()))
        await asyncio.gather(*tasks)
        await idle(server)
        points.append(((time.perf_counter() - start) / 3600, server.memory()))
    settled = points[len(points) // 4 :]
    return {
        "minutes": minutes, "requests": sum(counts.values()),
        "statuses": {f"{kind} {status}": count for (kind, status), count in sorted(counts.items())},
        "lost": lost, "others_than_200": {f"{kind} {status}": count for (kind, status), count in sorted(counts.items()) if status != 200},
        "memory_after_a_quarter": settled[0][1], "memory_most": max(memory for _, memory in settled), "memory_last": settled[-1][1],
        "bytes_an_hour": slope(settled), "points": points,
    }
