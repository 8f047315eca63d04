"""Speaks immich's protocol by curl, with the forms that its server sends."""

import json
import pathlib
import shutil
import subprocess
import tempfile

from client_checks.harness import near, same
from client_checks.pictures import photo

MODEL = "emoji"


def check(server, report):
    if shutil.which("curl") is None:
        report.skipped("immich", "curl is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        image = pathlib.Path(folder, "preview.png")
        image.write_bytes(photo().getvalue())
        report.run("immich", [ping, texts, images, other_tasks, damaged_forms, unknown_paths], server, image)


def curl(server, path, *options):
    """The status and the body."""
    key = ["--header", f"Authorization: Bearer {server.key}"] if server.key else []
    command = ["curl", "--silent", "--show-error", "--max-time", "120", "--write-out", "\n%{http_code}"]
    command += [*key, *options, server.address + path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    body, status = done.stdout.rsplit("\n", 1)
    return int(status), body


def predict(server, entries, *fields):
    forms = [option for field in (f"entries={json.dumps(entries)}", *fields) for option in ("--form", field)]
    # A comma or a semicolon in a value means something to --form, but not to --form-string.
    forms[0] = "--form-string"
    status, body = curl(server, "/predict", *forms)
    return status, json.loads(body)


def clip(kind, **more):
    return {"clip": {kind: {"modelName": MODEL, **more}}}


def ping(server, _):
    """a ping is answered."""
    same(curl(server, "/ping"), (200, "pong"))


def texts(server, _):
    """a text gets the command's vector, as JSON in a string."""
    for text in ("一只猫", "a red car", "a" * 2000):
        status, answer = predict(server, clip("textual", options={"language": "zh"}), f"text={text}")
        same((status, set(answer)), (200, {"clip"}))
        near([json.loads(answer["clip"])], server.text_vectors(text))


def images(server, image):
    """an image gets the command's vector, and its size."""
    blob = f"image=@{image};filename=blob;type=application/octet-stream"
    status, answer = predict(server, clip("visual"), blob)
    same((status, set(answer)), (200, {"clip", "imageHeight", "imageWidth"}))
    same((answer["imageHeight"], answer["imageWidth"]), (64, 64))
    near([json.loads(answer["clip"])], server.image_vectors(image))


def other_tasks(server, image):
    """faces, texts in images and other models are refused in a line."""
    two = lambda name: {kind: {"modelName": name, "options": {}} for kind in ("detection", "recognition")}
    other_model = {"clip": {"visual": {"modelName": "ViT-B-32__openai"}}}
    for entries, part in (
        ({"facial-recognition": two("buffalo_l")}, "facial-recognition"),
        ({"ocr": two("PP-OCRv5_mobile")}, "ocr"),
        (other_model, "ViT-B-32__openai"),
    ):
        status, answer = predict(server, entries, f"image=@{image}")
        assert 400 <= status < 500 and part in answer["detail"], (entries, status, answer)


def damaged_forms(server, image):
    """damaged forms are refused."""
    for options in (
        ["--form", "text=a"],
        ["--form-string", "entries={", "--form", "text=a"],
        ["--form-string", "entries=[]", "--form", "text=a"],
        ["--form-string", f"entries={json.dumps(clip('textual'))}"],
        ["--form-string", f"entries={json.dumps(clip('visual'))}", "--form", "image=text"],
        ["--form-string", f"entries={json.dumps(clip('visual'))}", "--form", f"text=@{image}"],
        ["--json", "{}"],
        ["--data", "a"],
        ["--header", "Content-Type: multipart/form-data", "--data", "a"],
    ):
        status, body = curl(server, "/predict", *options)
        assert 400 <= status < 500 and set(json.loads(body)) == {"detail"}, (options, status, body)


def unknown_paths(server, _):
    """other paths and methods are not there."""
    same([curl(server, "/predict")[0], curl(server, "/none")[0]], [405, 404])
