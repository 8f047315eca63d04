"""Makes valid and invalid requests from /openapi.json with schemathesis, and checks the answers against it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# It runs as a program of its own; without it, this says what is missing.
import schemathesis  # noqa: F401

# Requests for which a schema cannot say what is valid: that a text is an image, or the product of two numbers, or what
# a model can do. A refusal of what the document allows is no fault there.
JUDGED_BY_THE_SERVER = [
    "/api/embed",
    "/embed",
    "/predict",
    "/sdapi/v1/img2img",
    "/sdapi/v1/options",
    "/sdapi/v1/png-info",
    "/sdapi/v1/txt2img",
    "/v1/classify",
    "/v1/embeddings",
    "/v1/images/edits",
    "/v1/images/generations",
    "/v1/search",
    "/v1/similarity",
]
SECONDS = 60
EXAMPLES = 20


def check(server, report):
    with tempfile.TemporaryDirectory() as folder:
        for name, problem in run(server, pathlib.Path(folder)):
            report.one(f"schemathesis: {name}", problem)


def run(server, folder):
    """Yields kinds of faults, and whether there are any."""
    (folder / "schemathesis.toml").write_text(configuration(server))
    program = shutil.which("schemathesis", path=os.path.dirname(sys.executable)) or "schemathesis"
    command = [program, "run", f"{server.address}/openapi.json", "--url", server.address]
    command += ["--checks", "all", "--continue-on-failure", "--request-timeout", "60", "--no-color"]
    command += ["--max-examples", str(EXAMPLES), "--max-time", str(SECONDS), "--seed", "1"]
    command += ["--generation-database", "none", "--report", "json", "--report-json-path", "report.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    try:
        found = json.loads((folder / "report.json").read_text())
    except (OSError, ValueError):
        yield "runs", f"it wrote no report: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return
    requests, operations = found["test_cases"]["generated"], found["operations"]["tested"]
    yield f"{requests} requests for {operations} operations", None if operations else "expected some"
    for failure in found["failures"]:
        yield failure["title"], ", ".join(map(str, failure["operations"]))
    for error in found["errors"]:
        yield "the document", f"{error['title']}, {error['count']} times"
    if done.returncode:
        # How to repeat the requests.
        print(done.stdout, file=sys.stderr)
        yield "ends without faults", f"it ended with {done.returncode}"


def configuration(server):
    """Which refusals are right, and the key."""
    statuses = '["2xx", "3xx", "400", "401", "403", "404", "409", "413", "422", "429"]'
    lines = []
    if server.key:
        lines += ["[headers]", f'Authorization = "Bearer {server.key}"']
    for path in JUDGED_BY_THE_SERVER:
        lines += ["[[operations]]", f'include-path = "{path}"']
        lines += [f"checks.positive_data_acceptance.expected-statuses = {statuses}"]
    return "\n".join(lines) + "\n"
