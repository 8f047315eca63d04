"""Makes wrong requests, by kind. Each kind gives the bytes of a request, or several, in parts that are sent one by one."""

import base64
import json
import struct
import zlib

from common import GOLDEN
from mutate import NUMBERS, TEXTS, bytes_changed, text_changed

PICTURES = sorted(path for path in (GOLDEN / "image_processor/pictures").iterdir() if path.stat().st_size < 1 << 18)
SMALL = (GOLDEN / "image_processor/pictures/grey.png").read_bytes()
BOUNDARY = "part-5d1f"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def encoded(data):
    return base64.b64encode(data).decode()


# What clients send, and what the model inside the program answers with status 200.
BODIES = {
    "/v1/embeddings": {"model": "emoji", "input": [{"text": "一只猫"}, {"image": encoded(SMALL)}], "encoding_format": "float"},
    "/v1/similarity": {"texts": ["a cat", "一只猫"], "images": [encoded(SMALL)]},
    "/v1/classify": {"images": [encoded(SMALL)], "labels": ["a cat", "a dog"], "templates": ["a photo of {}"]},
    "/v1/hidden_states": {"prompts": ["a cat", "一只猫"], "dtype": "f16"},
    "/v1/images/generations": {
        "prompt": "a cat", "negative_prompt": "a dog", "n": 1, "size": "64x64", "seed": 1, "steps": 1, "guidance_scale": 2.0,
        "guidance_rescale": 0.5, "scheduler": "euler", "clip_skip": 1, "prompt_weights": True, "image": encoded(SMALL), "strength": 1.0,
    },
    "/sdapi/v1/txt2img": {
        "prompt": "(a cat:1.2)", "negative_prompt": "", "steps": 1, "width": 64, "height": 64, "cfg_scale": 2.0, "seed": -1, "batch_size": 1,
        "n_iter": 1, "sampler_name": "Euler a", "scheduler": "Automatic", "eta": 0.5, "override_settings": {"CLIP_stop_at_last_layers": 1},
        "alwayson_scripts": {},
    },
    "/sdapi/v1/img2img": {
        "prompt": "a cat", "steps": 1, "width": 64, "height": 64, "init_images": [encoded(SMALL)], "mask": encoded(SMALL), "mask_blur": 4,
        "denoising_strength": 1.0, "inpaint_full_res": True, "inpaint_full_res_padding": 32, "inpainting_mask_invert": 0,
    },
    "/sdapi/v1/options": {"sd_model_checkpoint": "emoji"},
    "/sdapi/v1/png-info": {"image": "data:image/png;base64," + encoded(SMALL)},
    "/v1/search": {"index": "none", "text": "a cat", "limit": 3},
}
#: Fields in which extreme values are likely to reach the work.
ODD = [*NUMBERS, *TEXTS, None, True, [], {}, [[]], [None] * 1000, {"a": {"b": []}}, -0.0, "９", "Infinity", 10**400, [1e308] * 8, "8x8x8", "-8x8"]


def request(path, body, media_type="application/json", method="POST", headers=b""):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {media_type}\r\n".encode()
    return head + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


def as_json(body):
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


def choose(dice):
    path = dice.choice(list(BODIES))
    return path, json.loads(json.dumps(BODIES[path]))


def sound(dice):
    """A request that nothing is wrong with, amid the others."""
    path, body = choose(dice)
    return [request(path, as_json(body))]


def truncated_json(dice):
    path, body = choose(dice)
    text = as_json(body)
    return [request(path, text[: dice.randrange(len(text))])]


def damaged_json(dice):
    path, body = choose(dice)
    return [request(path, text_changed(as_json(body), dice))]


def wrong_types(dice):
    """One or two fields have another type or an extreme value."""
    path, body = choose(dice)
    for _ in range(dice.choice([1, 1, 2])):
        name = dice.choice([*body, "unknown", "n", "steps", "model", "stream", "dimensions"])
        body[name] = dice.choice(ODD)
    text = json.dumps(body).replace("1e+308", dice.choice(["1e308", "1e999", "NaN", "-Infinity"]))
    return [request(path, text.encode())]


def numbers(dice):
    """A huge, negative or odd number in a field that is one."""
    path = dice.choice(["/v1/images/generations", "/sdapi/v1/txt2img", "/sdapi/v1/img2img"])
    body = dict(BODIES[path])
    names = [name for name, value in body.items() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    for name in dice.sample(names, dice.choice([1, 2, 3])):
        body[name] = "@"
    text = as_json(body)
    odd = ["1e308", "-1e308", "1e-320", "1e999", "-0", "-1", "0", "0.1", "2147483648", "4294967296", "9223372036854775808", "1" * 5000, "NaN", "3.999", "1", "2", "64", "72", "1000", "1.0"]
    while b'"@"' in text:
        text = text.replace(b'"@"', dice.choice(odd).encode(), 1)
    return [request(path, text)]


def nesting(dice):
    path, body = choose(dice)
    depth = dice.choice([100, 127, 128, 129, 1000, 100_000, 1_000_000])
    opening, closing = dice.choice([(b"[", b"]"), (b'{"a":', b"}")])
    nest = opening * depth + dice.choice([b"", b"1" + closing * depth])
    name = dice.choice([*body, "unknown"]).encode()
    return [request(path, dice.choice([nest, b'{"' + name + b'":' + nest + b"}"]))]


def invalid_utf8(dice):
    path, body = choose(dice)
    text = bytearray(as_json(body))
    for _ in range(dice.choice([1, 3, 20])):
        at = dice.randrange(len(text))
        text[at:at] = dice.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\\ud800", b"\\u0000", b"\0", b"\xef\xbb\xbf"])
    return [request(path, bytes(text))]


def picture_request(dice, data, text=None):
    text = text if text is not None else dice.choice(["", "data:image/png;base64,"]) + encoded(data)
    path, body = dice.choice([
        ("/v1/embeddings", {"input": [{"image": text}]}), ("/v1/similarity", {"texts": ["a"], "images": [text]}),
        ("/v1/classify", {"images": [text], "labels": ["a"]}), ("/v1/images/generations", {"prompt": "a", "image": text, "steps": 1}),
        ("/sdapi/v1/img2img", {"prompt": "a", "init_images": [text], "steps": 1, "width": 64, "height": 64}),
        ("/sdapi/v1/img2img", {"prompt": "a", "init_images": [encoded(SMALL)], "mask": text, "steps": 1, "width": 64, "height": 64}),
        ("/sdapi/v1/png-info", {"image": text}), ("/predict", None),
    ])
    if body is None:
        return request(path, form({"entries": ENTRIES, "image": data}), f"multipart/form-data; boundary={BOUNDARY}")
    return request(path, as_json(body))


def bad_base64(dice):
    text = encoded(dice.choice(PICTURES).read_bytes()[:2000])
    at = dice.randrange(len(text))
    odd = dice.choice(["=", "*", "\n", "é", "%3D", " ", "====", "\0"])
    texts = ["data:,", "data:image/png;base64", "data:text/html,<b>", "http://127.0.0.1/a.png", "file:///etc/passwd", "/etc/passwd", "=" * 100_000]
    return [picture_request(dice, b"x", dice.choice([text[:at], text[:at] + odd + text[at:], dice.choice(texts)]))]


def damaged_pictures(dice):
    return [picture_request(dice, bytes_changed(dice.choice(PICTURES).read_bytes(), dice))]


def png(width, height, rows):
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    parts = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BOMB_ROWS = zlib.compress(bytes(8_000_000), 9)


def bombs(dice):
    """Pictures that are larger than they look, by their head or in truth."""
    width, height = dice.choice([(100_000, 100_000), (2**31 - 1, 2**31 - 1), (65_535, 1), (1, 4_000_000), (2000, 3999), (1999, 2000), (0, 0), (1, 1)])
    gif = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\0;"
    bmp = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width % 2**31, -(height % 2**31), 1, 24, 0, 0, 0, 0, 0, 0)
    farbfeld = b"P6 %d %d 255\n" % (width, height) + bytes(100)
    return [picture_request(dice, dice.choice([png(width, height, BOMB_ROWS), png(width, height, BOMB_ROWS), gif, bmp, farbfeld]))]


ENTRIES = json.dumps({"clip": {"visual": {"modelName": "emoji", "options": {}}}})


def form(fields):
    parts = []
    for name, value in fields.items():
        data = value if isinstance(value, bytes) else value.encode()
        kind = f'; filename="{name}.png"' if isinstance(value, bytes) else ""
        parts.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{kind}\r\n\r\n'.encode() + data + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def multipart(dice):
    path = dice.choice(["/predict", "/v1/images/edits"])
    fields = {"entries": ENTRIES, "image": SMALL} if path == "/predict" else {"prompt": "a", "image": SMALL, "steps": "1", "size": "64x64"}
    if dice.random() < 0.5:
        fields[dice.choice([*fields, "n", "mask", "unknown", "text"])] = str(dice.choice(ODD))[:200_000].encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    body = form(fields)
    kind = dice.randrange(5)
    if kind == 0:
        body = body[: dice.randrange(len(body))]
    elif kind == 1:
        body = bytes_changed(body, dice)
    elif kind == 2:
        body = body.replace(b"--\r\n", b"", 1) + body * dice.choice([1, 50])
    elif kind == 3:
        body = b"".join(b"--" + BOUNDARY.encode() + b'\r\nContent-Disposition: form-data; name="n%d"\r\n\r\nx\r\n' % n for n in range(20_000)) + body
    boundary = dice.choice([BOUNDARY, BOUNDARY, BOUNDARY, "", "x" * 1000, '"', BOUNDARY + "\t;boundary=b"])
    return [request(path, body, f"multipart/form-data; boundary={boundary}")]


def media_types(dice):
    path, body = choose(dice)
    kinds = ["", "text/plain", "application/json; charset=utf-16", "application/jsonx", "multipart/form-data", "application/x-www-form-urlencoded", "x" * 5000]
    headers = dice.choice([b"", b"Content-Encoding: gzip\r\n", b"x-request-timeout: nan\r\n", b"x-request-timeout: -1\r\n", b"x-request-timeout: 1e300\r\n",
                           b"x-request-id: " + b"\xff" * 100 + b"\r\n", b"Expect: 100-continue\r\n", b"Expect: x\r\n", b"Origin: null\r\n"])
    return [request(path, as_json(body), dice.choice(kinds), headers=headers)]


def paths(dice):
    pieces = ["v1", "sdapi", "models", "..", ".", "%00", "%2e%2e", "%ff", "page", "etc/passwd", "embeddings", "a" * 3000, "?" + "a=b&" * 500, "%", "//", "index", "一"]
    path = "/" + "/".join(dice.choice(pieces) for _ in range(dice.randrange(1, 5)))
    path = dice.choice([path, path, "*", "http://other/v1/models", "/v1/models/%FF", "/v1/index/%FF/images/-1", "/page/../../etc/passwd", "/sdapi/v1/progress?skip_current_image=%FF"])
    method = dice.choice(["GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO", "CONNECT", "get", ""])
    return [f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()]
