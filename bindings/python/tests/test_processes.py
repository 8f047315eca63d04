"""Threads, processes, signals, and how fast the package is there."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import altdiffusion

TEXTS = [f"{number} 只猫" for number in range(200)]
# The work is long enough to be interrupted, but ends if it is not.
MANY = 400_000


def embed(embedder: altdiffusion.Embedder) -> np.ndarray:
    return embedder.embed_texts(TEXTS)


def test_threads_share_a_model(embedder, pipeline):
    expected = embed(embedder), pipeline("猫", steps=2).latents
    found = [None] * 4

    def work(index):
        found[index] = embed(embedder), pipeline("猫", steps=2).latents

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for vectors, latents in found:
        np.testing.assert_array_equal(vectors, expected[0])
        np.testing.assert_array_equal(latents, expected[1])


def test_python_runs_while_it_computes(embedder):
    count = 0
    done = threading.Event()

    def work():
        embedder.embed_texts(TEXTS * 50)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        count += 1
    thread.join()
    assert count > 10


def test_processes_that_are_spawned_load_the_model_again(embedder):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(embed, (embedder,)), embed(embedder))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_after_use_is_an_error_that_explains():
    program = """
import os, altdiffusion
embedder = altdiffusion.Embedder()
embedder.embed_texts(["a cat"])
child = os.fork()
if child == 0:
    for use in (lambda: embedder.embed_texts(["a cat"]), altdiffusion.Embedder):
        try:
            use()
        except altdiffusion.ForkError as error:
            print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
assert len(embedder.embed_texts(["a cat"])) == 1
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    lines = output.stdout.splitlines()
    assert output.returncode == 0 and len(lines) == 2, output.stderr
    assert "was used in process" in lines[0] and "spawn" in lines[0] and lines[0] == lines[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_before_use_works():
    program = """
import os, altdiffusion
child = os.fork()
if child == 0:
    os._exit(len(altdiffusion.Embedder().embed_texts(["a cat"])))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def after(seconds: float, action) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


@pytest.mark.parametrize("work", ["texts", "stream", "pipeline"])
def test_ctrl_c_stops_at_once(embedder, pipeline, work):
    def stream():
        for _ in embedder.stream_texts((f"{number} cats" for number in range(MANY)), batch_size=20_000):
            pass

    def draw():
        # In a callback, too, Python handles the signal.
        pipeline("猫", steps=1000, num_images_per_prompt=32)

    long = {"texts": lambda: embedder.embed_texts([f"{i} cats" for i in range(MANY)]), "stream": stream, "pipeline": draw}
    sent = []

    def send():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = after(1.5, send)
    with pytest.raises(KeyboardInterrupt):
        long[work]()
    timer.join()
    assert time.monotonic() - sent[0] < 2
    # What was interrupted can be used again.
    assert len(embedder.embed_texts(["a cat"])) == 1


def test_exceptions_can_be_pickled():
    for error in (altdiffusion.InputError("a"), altdiffusion.MissingFileError("b"), altdiffusion.ForkError("c")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == str(error)


@pytest.mark.parametrize("given", [None, "3"])
def test_candle_starts_no_threads_unless_it_is_told_to(given):
    environment = {name: value for name, value in os.environ.items() if name != "CANDLE_NUM_THREADS"}
    environment |= {"CANDLE_NUM_THREADS": given} if given else {}
    program = "import altdiffusion, os; print(os.environ['CANDLE_NUM_THREADS'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == (given or "1")


def test_it_is_imported_quickly():
    program = (
        "import os, time; start = os.times(); import altdiffusion; end = os.times();"
        "print(end.user + end.system - start.user - start.system)"
    )
    seconds = min(
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    )
    assert seconds < 0.3
