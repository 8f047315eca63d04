"""Compares the server with those of other projects: the same models, the same client, in turns.

Models are in a directory, and made by other scripts with random weights:

    compare-encoders.py --make DIR/clip clip-vit-b-32
    compare-encoders.py --make DIR/altclip altclip-base
    peers/text_tower.py DIR/altclip DIR/text-tower
    make-random-checkpoint.py DIR/sd15 --model sd15 --dtype f16 --vae-names new --tokenizer tests/golden/dual_encoders/clip
"""

import asyncio
import base64
import json
import math
import os
import random
import struct
import time

from .embeddings import CLIENTS, LARGE_QUEUE, TEXTS_OF_A_REQUEST, requests_for
from .http_client import Sample, ask_once, connect, post
from .peer_servers import infinity, sd_server
from .running_server import RunningServer
from .samples import NotMeasured, statuses, times
from .soak import png

IMAGES = 16
IMAGE_SIDE = 256
PICTURE_SIDES = (64, 128, 256)
STEPS = 4
#: The name under which both servers have the model.
MODEL = "model"


async def turn(server, requests, clients, seconds, place):
    """Each client sends until `seconds` are over, and waits for its last answer, so that no work is left for another's turn."""
    samples = []
    connections = [await connect(server.address) for _ in range(clients)]
    used, begin = server.processor_seconds(), time.perf_counter()

    async def client(number, connection):
        at = place + number
        while (start := time.perf_counter()) < begin + seconds:
            status, _ = await connection.ask(requests[at % len(requests)])
            samples.append(Sample(start, time.perf_counter(), status))
            at += clients
            if status != 200:
                raise NotMeasured(f"{server.name} answered with status {status}")

    try:
        await asyncio.gather(*(client(number, connection) for number, connection in enumerate(connections)))
    finally:
        for connection in connections:
            connection.vanish()
    return samples, time.perf_counter() - begin, server.processor_seconds() - used


async def in_turns(work, servers, requests, of_a_request, clients, seconds):
    """A row for each server: as many turns as fill `seconds`, three at most, with a server after the other."""
    samples, wall, used, load = ({server.name: [] for server in servers} for _ in range(4))
    place = 0
    for number in range(3):
        for server in servers if number % 2 == 0 else servers[::-1]:
            found = await turn(server, requests[server.name], clients, seconds / 3, place)
            for values, value in zip((samples, wall, used, load), (*found, os.getloadavg()[0])):
                values[server.name].append(value)
        place += clients
        if all(sum(wall[server.name]) >= seconds for server in servers):
            break
    rows = []
    for server in servers:
        name = server.name
        answers = [sample for turn in samples[name] for sample in turn]
        units = of_a_request * len(answers)
        rows.append({
            **work, "of_a_request": of_a_request, "clients": clients, "server": name, "a_second": units / sum(wall[name]),
            "a_core_second": units / max(sum(used[name]), 1e-9), "cores": sum(used[name]) / sum(wall[name]), "memory": server.memory(),
            "statuses": statuses(answers), "turns": len(wall[name]), "load": max(load[name]), **times(answers),
        })
    return rows


def vectors(body):
    for item in json.loads(body)["data"]:
        data = base64.b64decode(item["embedding"])
        yield struct.unpack(f"<{len(data) // 4}f", data)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


async def agreement(servers, requests, count):
    """The smallest cosine between the servers' vectors, and the largest difference of a number; they also load the models here."""
    found = []
    for server in servers:
        found.append([])
        for request in requests[server.name][:count]:
            status, body = await ask_once(server.address, request)
            if status != 200:
                raise NotMeasured(f"{server.name} answered with status {status}: {body[:200].decode(errors='replace')}")
            found[-1] += vectors(body)
    pairs = list(zip(*found))
    return {
        "vectors": len(pairs), "least_cosine": min(cosine(a, b) for a, b in pairs),
        "most_difference": max(abs(x - y) for a, b in pairs for x, y in zip(a, b)),
    }


def image_requests():
    images = [base64.b64encode(png(random.Random(seed), IMAGE_SIDE)).decode() for seed in range(IMAGES)]
    common = {"model": MODEL, "encoding_format": "base64"}
    return {
        "ours": [post("/v1/embeddings", {"input": [{"image": image}], **common}) for image in images],
        "infinity": [
            post("/v1/embeddings", {"input": ["data:image/png;base64," + image], "modality": "image", **common}) for image in images
        ],
    }


async def embeddings(program, python, label, ours, theirs, with_images, seconds):
    found = {"model": label, "rows": [], "agreement": {}}
    with infinity(python, theirs) as peer, RunningServer(program, "--embedder", f"{MODEL}={ours}", "--preload", *LARGE_QUEUE) as server:
        servers = [server, peer]
        await peer.answers()
        for texts in TEXTS_OF_A_REQUEST:
            requests = dict.fromkeys(("ours", "infinity"), requests_for(2048 // texts, texts, model=MODEL))
            found["agreement"][f"texts, {texts} a request"] = await agreement(servers, requests, 32 // texts)
            for clients in CLIENTS:
                found["rows"] += await in_turns({"model": label, "what": "texts"}, servers, requests, texts, clients, seconds)
        if with_images:
            requests = image_requests()
            found["agreement"]["images"] = await agreement(servers, requests, IMAGES)
            for clients in CLIENTS:
                found["rows"] += await in_turns({"model": label, "what": "images"}, servers, requests, 1, clients, seconds)
    return found


async def pictures(program, threads, model, seconds):
    found = {"model": "Stable Diffusion 1.5", "rows": [], "agreement": {}}
    with sd_server(model, threads) as peer, RunningServer(program, "--model", model, "--preload") as server:
        servers = [server, peer]
        await peer.answers()
        for side in PICTURE_SIDES:
            common = {"steps": STEPS, "cfg_scale": 7, "width": side, "height": side, "sampler_name": "Euler"}
            requests = [post("/sdapi/v1/txt2img", {"prompt": f"a cat {seed}", "seed": seed, **common}) for seed in range(64)]
            requests = dict.fromkeys(("ours", "sd-server"), requests)
            for either in servers:
                await ask_once(either.address, requests[either.name][0])
            work = {"model": found["model"], "what": f"pictures, {side} × {side}, {STEPS} steps"}
            found["rows"] += await in_turns(work, servers, requests, 1, 1, seconds)
    return found


async def peers(program, python, models, threads, seconds):
    """What was measured, and why others were not."""
    if not models:
        raise NotMeasured("expected --peer-models; how to make them is in server_load/peers.py")
    # Servers made with PyTorch read the first, ours the others.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"), str(threads)))
    clip, altclip, tower, sd15 = (models / name for name in ("clip", "altclip", "text-tower", "sd15"))
    found, missing = [], []
    for needed, measure, arguments in (
        ([clip], embeddings, (python, "CLIP ViT-B/32", clip, clip, True)),
        ([altclip, tower], embeddings, (python, "XLM-R base", altclip, tower, False)),
        ([sd15], pictures, (threads, sd15)),
    ):
        try:
            if absent := [folder for folder in needed if not folder.is_dir()]:
                raise NotMeasured(f"{absent[0]} is missing")
            found.append(await measure(program, *arguments, seconds))
        except NotMeasured as problem:
            missing.append(str(problem))
    return {"found": found, "missing": missing}
