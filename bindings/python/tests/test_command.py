"""The installed command: it does what the native one does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import altdiffusion

COMMAND = Path(sys.executable).parent / "altdiffusion"
# Long enough to be interrupted.
LONG = ["generate", "一只猫", "--steps", "1000", "--num-images", "64", "--output", "out.png"]


def run(*arguments, **options):
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, **options)


def test_it_is_the_same_version():
    version = f"altdiffusion {altdiffusion.__version__}"
    module = subprocess.run([sys.executable, "-m", "altdiffusion", "--version"], capture_output=True, text=True)
    for found in (run("--version"), module):
        # The configuration file may follow.
        assert found.stdout.splitlines()[0] == version


def test_it_draws_what_the_library_draws(pipeline, tmp_path):
    drawn = run("generate", "一只猫", "--seed", "7", "--steps", "3", "--output", "cat.png", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.startswith("cat.png: 256 × 256 pixels, seed 7")
    expected = pipeline("一只猫", seed=7, steps=3).images[0]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "cat.png")), np.asarray(expected))


def test_exit_codes_say_what_happened(tmp_path):
    failed = run("inspect", "none", cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (1, "") and failed.stderr.startswith("error: ")
    assert run("generate", "--no-such-option").returncode == 2
    assert run("--help").returncode == 0
    full = Path("/dev/full")
    if full.exists():
        with full.open("w") as output:
            assert subprocess.run([COMMAND, "--version"], stdout=output, stderr=subprocess.DEVNULL).returncode == 1


def test_names_need_not_be_unicode(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.png"
    failed = subprocess.run([COMMAND, "generate", "cat", "--steps", "1", "--output", name], capture_output=True)
    assert failed.returncode == 0 and os.path.exists(name), failed.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_as_they_end_the_native_one(tmp_path, sent):
    process = subprocess.Popen([COMMAND, *LONG], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "error: cancelled" in errors and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
