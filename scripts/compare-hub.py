#!/usr/bin/env python3
"""Compares downloads with huggingface_hub's on hubs that behave in every way, kills downloads, and times them against curl.

    compare-hub.py modes [--quick]   every combination of server behaviours, with both programs
    compare-hub.py kills [N]         kills N downloads (100) at random times, and checks the cache after each
    compare-hub.py speed [GB]        downloads this many gigabytes (6) from this machine, alternating with curl

Runs target/debug/altdiffusion, or $ALTDIFFUSION; and target/debug/examples/mock_hub, or $MOCK_HUB, which
`cargo build -p model-files --example mock_hub` makes. `modes` needs the package huggingface_hub in this Python.
"""

import hashlib
import http.server
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target")) / "debug"
PROGRAM = os.environ.get("ALTDIFFUSION", TARGET / "altdiffusion")
MOCK_HUB = os.environ.get("MOCK_HUB", TARGET / "examples" / "mock_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "org/model"


def environment(endpoint, home, **more):
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")}
    return {**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **more}


def model(root, weights):
    """Write a model to ROOT that `download` recognizes: a configuration, and weights of these sizes in bytes."""
    folder = root / MODEL / COMMIT
    (folder / "unet").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "altclip"}')
    files = {"config.json": (folder / "config.json").read_bytes()}
    index = {}
    for number, size in enumerate(weights):
        name = f"model-{number:05}.safetensors"
        files[name] = random.Random(number).randbytes(size)
        (folder / name).write_bytes(files[name])
        index[f"tensor.{number}"] = name
    files["model.safetensors.index.json"] = json.dumps({"weight_map": index}).encode()
    (folder / "model.safetensors.index.json").write_bytes(files["model.safetensors.index.json"])
    (root / "refs.json").write_text(json.dumps({MODEL: {"main": COMMIT}}))
    return files


class MockHub:
    def __init__(self, root):
        self.process = subprocess.Popen([MOCK_HUB, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def answer(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ok\n"

    def stop(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()


def ours(endpoint, home):
    done = subprocess.run([PROGRAM, "download", MODEL], env=environment(endpoint, home), capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def theirs(endpoint, home, files):
    from huggingface_hub import hf_hub_download

    try:
        for file in files:
            hf_hub_download(MODEL, file, endpoint=endpoint, cache_dir=home / "hub")
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def wrong(home, files):
    """List files in the cache that differ from the served ones or are missing, except for incomplete ones."""
    folder = home / "hub" / ("models--" + MODEL.replace("/", "--"))
    problems = []
    hashes = {hashlib.sha256(content).hexdigest() for content in files.values()}
    for blob in (folder / "blobs").glob("*"):
        if not blob.name.endswith(".incomplete") and hashlib.sha256(blob.read_bytes()).hexdigest() not in hashes:
            problems.append(f"{blob.name} is not what was served")
    snapshots = folder / "snapshots"
    for path in snapshots.rglob("*") if snapshots.exists() else []:
        name = path.relative_to(snapshots / COMMIT).as_posix()
        if name in files and (not path.exists() or path.read_bytes() != files[name]):
            problems.append(f"{name} is not what was served")
    ref = folder / "refs" / "main"
    if ref.exists() and ref.read_text() != COMMIT:
        problems.append("refs/main is no commit")
    return problems


def missing(home, files):
    folder = home / "hub" / ("models--" + MODEL.replace("/", "--")) / "snapshots" / COMMIT
    return [name for name in files if not (folder / name).is_file()]


def modes(quick):
    try:
        import huggingface_hub
    except ImportError:
        sys.exit("SKIPPED: this Python has no package huggingface_hub")
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    manners = {
        "ranges": ["honoured", "ignored", "unsaid"],
        "encoding": ["plain", "gzip", "always-gzip"],
        "redirect": ["no", "relative", "other-host"],
        "etag": ["sha256", "sha1", "git", "weak", "opaque", "absent"],
        "length": ["announced", "chunked", "unsaid"],
        "api": ["yes", "no"],
    }
    faults = ["", "ends:70000", "reset:70000,status:503:0", "status:429:0,ends:1000,status:503"]
    combinations = [dict(zip(manners, values)) for values in itertools.product(*manners.values())]
    if quick:
        combinations = combinations[::37]
    work = Path(tempfile.mkdtemp())
    files = model(work / "root", [150_000])
    hub = MockHub(work / "root")
    counts, bad, refused = {}, [], {}
    start = time.time()
    for number, combination in enumerate(combinations):
        # A mirror's path and the faults are independent.
        prefix = "yes" if number % 3 == 1 else "no"
        fault = faults[number % len(faults)]
        line = " ".join(f"{name}={value}" for name, value in combination.items()) + f" prefix={prefix}"
        endpoint = f"http://localhost:{hub.port}" + ("/artifactory/api/huggingfaceml/hf" if prefix == "yes" else "")
        result = []
                    # Not with the reference, because it waits a second after each fault.
        for name, run, its_fault in [
            ("altdiffusion", lambda home: ours(endpoint, home), fault),
            ("huggingface_hub", lambda home: theirs(endpoint, home, files), ""),
        ]:
            hub.answer(line + (f" faults={its_fault}" if its_fault else ""))
            home = Path(tempfile.mkdtemp(dir=work))
            error = run(home)
            problems = wrong(home, files) + ([] if error else missing(home, files))
            bad += [f"{line} {its_fault}: {name}: {problem}" for problem in problems]
            if error and name == "altdiffusion":
                refused.setdefault(error.split(": ", 4)[-1], []).append(line)
            result.append("right" if not error and not problems else "wrong" if problems else "refused")
            shutil.rmtree(home)
        counts[tuple(result)] = counts.get(tuple(result), 0) + 1
    hub.stop()
    shutil.rmtree(work)
    print(f"{len(combinations)} combinations in {time.time() - start:.0f} s, beside huggingface_hub {huggingface_hub.__version__}")
    print("| altdiffusion | huggingface_hub | combinations |\n|---|---|---|")
    for (mine, other), count in sorted(counts.items()):
        print(f"| {mine} | {other} | {count} |")
    for error, lines in refused.items():
        kinds = {name: sorted({dict(word.split("=") for word in line.split())[name] for line in lines}) for name in manners}
        print(f"refused {len(lines)} times: {error}\n  where {kinds}")
    print("\n".join(bad) or "nothing wrong in any cache")
    return bool(bad)


def kills(count):
    work = Path(tempfile.mkdtemp())
    files = model(work / "root", [20_000_000, 20_000_000, 10_000_000])
    hub = MockHub(work / "root")
    bad, incomplete, whole = [], 0, 0
    for number in range(count):
        home = work / str(number)
        endpoint = f"http://localhost:{hub.port}"
        process = subprocess.Popen([PROGRAM, "download", MODEL], env=environment(endpoint, home),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Most of the time passes before the first byte: wait for it.
        while process.poll() is None and not any(home.rglob("*.incomplete")):
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = list(home.rglob("*.incomplete"))
        incomplete += bool(left)
        whole += not missing(home, files)
        bad += [f"kill {number}: {problem}" for problem in wrong(home, files)]
        error = ours(endpoint, home)
        bad += [f"after kill {number}: {problem}" for problem in [error, *wrong(home, files), *missing(home, files)] if problem]
        bad += [f"after kill {number}: {path.name} is left" for path in home.rglob("*.incomplete")]
        shutil.rmtree(home)
    hub.stop()
    shutil.rmtree(work)
    print(f"{count} kills, {incomplete} in the middle of a file, {whole} after all of them")
    print("\n".join(bad) or "nothing wrong in any cache, and every next run was complete")
    return bool(bad)


class Files(http.server.BaseHTTPRequestHandler):
    """Serves one large file, sent by the kernel."""

    protocol_version = "HTTP/1.1"
    path_of_file, etag, small = None, "", b""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, has_body):
        # A file of this name in a folder does not exist.
        name = self.path.split("/resolve/")[-1].split("/", 1)[-1]
        if name == "config.json":
            size, etag = len(self.small), hashlib.sha256(self.small).hexdigest()
        elif name == "model.safetensors":
            size, etag = self.path_of_file.stat().st_size, self.etag
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(200)
        for header in [("ETag", f'"{etag}"'), ("X-Repo-Commit", COMMIT), ("Content-Length", str(size))]:
            self.send_header(*header)
        self.end_headers()
        if has_body and name == "config.json":
            self.wfile.write(self.small)
        elif has_body:
            self.wfile.flush()
            with open(self.path_of_file, "rb") as file:
                self.connection.sendfile(file)


def speed(gigabytes):
    work = Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR", "/tmp")))
    free = shutil.disk_usage(work).free
    size = int(gigabytes * 1e9)
    if free < 2.2 * size:
        sys.exit(f"{work}: {free / 1e9:.1f} GB free, expected {2.2 * size / 1e9:.1f}")
    Files.path_of_file, Files.small = work / "file", b'{"model_type": "altclip"}'
    block, digest, left = random.Random(0).randbytes(1 << 26), hashlib.sha256(), size
    with open(Files.path_of_file, "wb") as file:
        while left:
            file.write(block[:left])
            digest.update(block[:left])
            left -= min(left, len(block))
    Files.etag = digest.hexdigest()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"

    def curl():
        subprocess.run(["curl", "-s", "--noproxy", "*", "-o", work / "curl", endpoint + "/model.safetensors"], check=True)
        os.unlink(work / "curl")

    def altdiffusion():
        error = ours(endpoint, work / "home")
        assert not error, error
        shutil.rmtree(work / "home")

    seconds = {"curl": [], "altdiffusion": []}
    for _ in range(3):
        for name, run in [("curl", curl), ("altdiffusion", altdiffusion)]:
            os.sync()
            start = time.time()
            run()
            seconds[name].append(time.time() - start)
    shutil.rmtree(work)
    best = {name: min(times) for name, times in seconds.items()}
    for name, times in seconds.items():
        shown = ", ".join(f"{t:.1f}" for t in times)
        print(f"{name}: {shown} s, at best {size / best[name] / 1e6:.0f} MB/s")
    print(f"{best['curl'] / best['altdiffusion']:.2f} of curl's speed, with SHA-256, {size / 1e9:.1f} GB")
    return best["altdiffusion"] > 2 * best["curl"]


def main():
    what, more = (sys.argv[1:] + [""])[0], sys.argv[2:]
    random.seed()
    if what == "modes":
        sys.exit(modes("--quick" in more))
    if what == "kills":
        sys.exit(kills(int(more[0]) if more else 100))
    if what == "speed":
        sys.exit(speed(float(more[0]) if more else 6))
    sys.exit(__doc__)


main()
