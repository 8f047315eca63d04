"""Makes requests that abuse HTTP itself, by kind; see `server_requests.py`."""

import base64

from server_requests import BODIES, HTTP2, as_json, request

GET = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


def no_http(dice):
    return [dice.choice([dice.randbytes(dice.choice([1, 100, 5000])), b"\r\n" * 5000, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
                         b"GET /\r\n\r\n", b"GET  /  HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
                         b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\n\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                         b"SSH-2.0-x\r\n", b"GET / HTTP/1.0\r\n\r\n", b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n"])]


def pipelining(dice):
    body = request("/v1/embeddings", as_json({"input": "a"})).replace(b"Connection: close\r\n", b"")
    bad = dice.choice([b"", b"X" * 100, request("/v1/embeddings", b"{")])
    return [GET * dice.choice([1, 10, 200]) + body * dice.choice([0, 5]) + bad + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")]


def headers(dice):
    """Many, long, or odd."""
    kind = dice.randrange(5)
    lines = [
        lambda: b"".join(b"X-%d: a\r\n" % number for number in range(dice.choice([50, 99, 101, 10_000]))),
        lambda: b"X: " + b"a" * dice.choice([1000, 60_000, 300_000, 3_000_000]) + b"\r\n",
        lambda: b"X" * 100_000 + b": a\r\n",
        lambda: b"X: a\0b\r\nY: \x1b[2J\r\nCookie: " + bytes(range(128, 256)) + b"\r\n",
        lambda: b"Authorization: " + dice.choice([b"Basic " + base64.b64encode(b"\xff:\xff"), b"Bearer", b"Basic *", b"Bearer " + b"x" * 9000]) + b"\r\n",
    ][kind]()
    return [b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + lines + b"\r\n"]


def chunks(dice):
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    body = as_json({"input": "a"})
    good = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    tail = dice.choice([
        good, b"ffffffffffffffff\r\n" + body, b"fffffffffffffffff\r\n", b"-1\r\n" + body, b"zz\r\n", b"\r\n", b"5;" + b"x" * 100_000 + b"\r\n", b"0\r\n" + b"T: a\r\n" * 5000 + b"\r\n",
        b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n", b"1\r\n{\r\n" * 50_000 + b"0\r\n\r\n", b"%x\r\n" % (len(body) - 3) + body + b"\r\n0\r\n\r\n",
    ])
    more = dice.choice([b"", b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Trailer: x\r\n"])
    return [head + more + b"\r\n" + tail]


def lengths(dice):
    """Lengths that are not those of the body."""
    body = as_json(BODIES["/v1/similarity"])
    length = dice.choice([b"0", b"1", b"%d" % (len(body) - 1), b"%d" % (len(body) + 1), b"99999999999", b"18446744073709551616", b"-5", b"0x10", b"+5", b"5, 5", b"", b"1e3"])
    return [b"POST /v1/similarity HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " + length + b"\r\n\r\n" + body]


def frame(kind, flags, stream, data=b"", length=None):
    length = len(data) if length is None else length
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + data


def http2(dice):
    """A preface and then frames that are wrong, too many, or cut off."""
    # :method GET, :scheme http, :path /, :authority localhost.
    fields = b"\x82\x86\x84\x41\x09localhost"
    settings = frame(4, 0, 0)
    abuses = [
        lambda: dice.randbytes(dice.choice([9, 100, 3000])), lambda: frame(4, 0, 0, b"\0\4\xff\xff\xff\xff"), lambda: settings * 5000,
        lambda: b"".join(frame(1, 5, number, fields) + frame(3, 0, number, b"\0\0\0\x08") for number in range(1, 2001, 2)),
        lambda: b"".join(frame(1, 5, number, fields) for number in range(1, 601, 2)), lambda: frame(1, 1, 1, fields) + frame(9, 0, 1, b"\x40\1a\1b" * 1000) * 100,
        lambda: frame(6, 0, 0, bytes(8)) * 3000, lambda: frame(8, 0, 0, b"\x7f\xff\xff\xff") * 3, lambda: frame(0, 0, 3, b"x" * 100), lambda: frame(1, 5, 2, fields),
        lambda: frame(1, 5, 1, b"\xff" * 200), lambda: frame(1, 5, 1, fields, 16_777_215), lambda: frame(5, 4, 1, bytes(8)), lambda: frame(7, 0, 0, bytes(8)),
        lambda: frame(1, 4, 1, fields) + frame(0, 0, 1, b"") * 5000, lambda: frame(1, 5, 1, b"\x3f\xe1\xff\xff\xff\x0f" + fields),
    ]
    return [HTTP2 + settings + dice.choice(abuses)()]


def websockets(dice):
    path = dice.choice(["/", "/v1/images/generations", "/sdapi/v1/progress", "/queue/join", "/ws"])
    upgrade = dice.choice([b"websocket", b"h2c", b"h2c, websocket", b"TLS/1.0"])
    more = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n".encode() + b"Upgrade: " + upgrade + b"\r\n" + more + b"\r\n"
    return [head + dice.choice([b"", b"\x81\x85" + dice.randbytes(9), dice.randbytes(500), HTTP2])]


def too_large(dice):
    """Bodies and texts beyond the limits."""
    text = "a" * dice.choice([70_000, 1_000_000, 5_000_000])
    path, body = dice.choice([
        ("/v1/embeddings", {"input": text}), ("/v1/embeddings", {"input": ["a"] * 3000}), ("/v1/embeddings", {"input": list(range(5000))}),
        ("/v1/images/generations", {"prompt": text}), ("/sdapi/v1/txt2img", {"prompt": "a", "negative_prompt": text}), ("/v1/hidden_states", {"prompts": ["a"] * 300}),
        ("/v1/classify", {"images": ["a"], "labels": ["a"] * 3000}), ("/v1/images/generations", {"prompt": "(" * 60_000, "prompt_weights": True, "steps": 1}),
        ("/sdapi/v1/txt2img", {"prompt": "[a:b:0.5]" * 2000, "steps": 1}), ("/sdapi/v1/txt2img", {"prompt": "<lora:" * 2000, "steps": 1}),
    ])
    return [request(path, as_json(body))]


def abandoned(dice):
    """A request that is cut off: the head, the body, or the wait for the answer."""
    path = dice.choice(list(BODIES))
    whole = request(path, as_json(BODIES[path]))
    return [whole[: dice.randrange(1, len(whole))], None]


def slow(dice):
    """Heads and bodies that come byte by byte, or stop."""
    path = dice.choice(list(BODIES))
    whole = request(path, as_json(BODIES[path]))
    at = dice.choice([0, 1, 30, whole.index(b"\r\n\r\n") + 4, len(whole) - 60])
    return [whole[:at], *(whole[place : place + 1] for place in range(at, at + 200))]
