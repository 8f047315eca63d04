#!/usr/bin/env python3
"""Downloads from a hub that lies: about lengths, ranges, hashes, names, redirects and time.

    scripts/campaigns/hub.py --count 500

A fault is a file in the cache that is not the hub's, a file outside the cache, a token at another host or in a message,
and what `common.py` calls one.
"""

import argparse
import hashlib
import http.server
import json
import random
import socket
import tempfile
import threading
import time
from pathlib import Path

from common import GOLDEN, Table, run

MODEL = GOLDEN / "dual_encoders/clip"
TOKEN = "hf_campaign_secret"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {str(path.relative_to(MODEL)): path.read_bytes() for path in MODEL.rglob("*") if path.is_file()}
LIES = [
    "none", "none", "length too short", "length too long", "no length", "wrong bytes", "another hash", "etag leads out", "commit leads out",
    "names lead out", "redirect to another host", "redirect for ever", "redirect to a file", "cut off", "reset", "status 500", "status 429",
    "retry after a year", "endless headers", "no HTTP", "silence", "huge list", "list is no JSON", "range ignored", "wrong range", "control characters",
]


class Hub(http.server.ThreadingHTTPServer):
    daemon_threads = True
    lie, other, leaks = "none", None, []

    def __init__(self, is_other=False):
        self.is_other, self.dice = is_other, random.Random(0)
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that leaves is no error of the hub."""


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        hub = self.server
        if hub.is_other and TOKEN in f"{self.path}{self.headers}":
            Hub.leaks.append(self.path)
        lie = Hub.lie if hub.dice.random() < 0.7 else "none"
        if lie in ("no HTTP", "reset", "silence"):
            if lie == "no HTTP":
                self.wfile.write(hub.dice.randbytes(200))
            if lie == "silence":
                time.sleep(3)
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if lie == "endless headers":
            try:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 1000 + b"\r\n")
                for _ in range(5000):
                    self.wfile.write(b"x: " + b"y" * 1000 + b"\r\n")
            except OSError:
                pass
            self.close_connection = True
            return
        if lie.startswith("status") or lie == "retry after a year":
            code = 429 if lie != "status 500" else 500
            return self.send(code, b"", [("Retry-After", "31536000" if "year" in lie else "0")])
        if "/api/models/" in self.path:
            return self.send(200, self.list(lie))
        name = self.path.split("?")[0].split(f"/resolve/")[-1].partition("/")[2]
        if name not in FILES:
            return self.send(404, b"", [("X-Error-Code", "EntryNotFound"), ("X-Repo-Commit", COMMIT)])
        target = {"redirect to another host": f"http://localhost:{Hub.other}{self.path}", "redirect for ever": self.path, "redirect to a file": "file:///etc/passwd"}.get(lie)
        content = FILES[name]
        etag = hashlib.sha256(content if lie != "another hash" else b"x").hexdigest()
        headers = [("ETag", f'"{"../../../../etag" if lie == "etag leads out" else etag}"'), ("X-Repo-Commit", "../../../commit" if lie == "commit leads out" else COMMIT), ("X-Linked-Size", str(len(content)))]
        if target and not hub.is_other:
            return self.send(302, b"", [("Location", target), ("X-Linked-ETag", f'"{etag}"'), *headers])
        if lie == "wrong bytes":
            content = bytes([content[0] ^ 1]) + content[1:]
        if lie == "control characters":
            return self.send(403, b"", [("X-Error-Message", "\x1b[2J\x1b]0;owned\x07 \u202e".encode().decode("latin-1"))])
        self.content(content, headers, lie)

    do_HEAD = do_GET

    def list(self, lie):
        if lie == "list is no JSON":
            return b"[" * 100_000
        names = list(FILES)
        if lie == "huge list":
            names += [f"file-{number}.txt" for number in range(50_000)]
        if lie == "names lead out":
            names += ["../../../outside.txt", "/tmp/campaign-outside.txt", "a\x1b[2J/../../b"]
        blobs = [{"rfilename": name, "size": len(FILES.get(name, b"")), "lfs": {"sha256": hashlib.sha256(FILES.get(name, b"")).hexdigest(), "size": len(FILES.get(name, b""))}} for name in names]
        return json.dumps({"sha": "../../x" if lie == "commit leads out" else COMMIT, "siblings": blobs}).encode()

    def content(self, content, headers, lie):
        code, whole = 200, len(content)
        asked = self.headers.get("Range")
        if asked and lie != "range ignored":
            first, _, last = asked.split("=")[-1].partition("-")
            first, last = int(first or 0), int(last or whole - 1)
            if lie == "wrong range":
                first += 1
            content, code = content[first:last + 1], 206
            headers.append(("Content-Range", f"bytes {first}-{first + len(content) - 1}/{whole}"))
        length = len(content) + {"length too short": -1, "length too long": 7}.get(lie, 0)
        if lie == "cut off":
            content = content[:len(content) // 2]
        self.send(code, content, headers, None if lie == "no length" else max(length, 0))

    def send(self, code, content, headers=(), length=-1):
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        if length is None:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(content) if length < 0 else length))
            self.close_connection = 0 <= length != len(content)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def attempt(hub, lie, table):
    Hub.lie, Hub.leaks = lie, []
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        folder = Path(place)
        (folder / "work").mkdir()
        ended = run(
            ["download", "someone/model"], folder / "work", HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}", HF_TOKEN=TOKEN, HF_HOME=str(folder / "home"),
            HF_HUB_OFFLINE="0", HF_HUB_DOWNLOAD_TIMEOUT="2", HF_HUB_ETAG_TIMEOUT="2", RUST_LOG="trace", TMPDIR=place,
        )
        faults = [fault for fault in ended.faults() if fault != "overlong line"]
        if Hub.leaks:
            faults.append(f"the token reached another host: {Hub.leaks[0]}")
        if TOKEN.encode() in ended.out + ended.err:
            faults.append("the token is in a message")
        snapshots = folder / "home/hub/models--someone--model/snapshots"
        for path in snapshots.rglob("*"):
            name = str(path.relative_to(snapshots)).partition("/")[2]
            if path.is_file() and path.read_bytes() != FILES.get(name):
                faults.append(f"the cache has another {name}")
        outside = [path for path in folder.rglob("*") if path.is_file() and "models--someone--model" not in str(path) and ".locks" not in str(path) and path.name not in ("CACHEDIR.TAG", "version.txt")]
        if outside or Path("/tmp/campaign-outside.txt").exists():
            faults.append(f"outside the cache: {outside}")
        table.add(lie, ended.code == 0, faults, ended.err.decode("utf-8", "replace").strip()[-160:])


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=500)
    asked = options.parse_args()
    hub, Hub.other = Hub(), Hub(is_other=True).server_port
    table = Table("A hostile hub, by its lie")
    for number in range(asked.count):
        attempt(hub, LIES[number % len(LIES)], table)
    table.finish()


main()
