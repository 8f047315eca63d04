#!/usr/bin/env python3
"""Reads files as another program would, for `scripts/campaigns/readers.py`: each in a process of its own, with limits.

    reader.py READER

Lines of standard input are JSON: `path`, `folder` (to work in), `cpu_seconds`, `seconds` and `address_space` (in bytes, beside
what is taken already). Lines of standard output are answers: how reading ended, its memory and what it said. The first one
has the versions of what reads.
"""

import importlib.metadata
import json
import os
import resource
import select
import signal
import sys
import tempfile
from pathlib import Path

TEXT = "a cat 一只猫"


def pillow():
    from PIL import Image

    def read(path):
        with Image.open(path) as image:
            image.convert("RGB")

    return read


def safetensors():
    from safetensors.torch import load_file

    return lambda path: [tensor.clone() for tensor in load_file(path).values()]


def torch_weights():
    import torch

    return lambda path: torch.load(path, map_location="cpu", weights_only=True)


def torch_anything():
    import torch

    return lambda path: torch.load(path, map_location="cpu", weights_only=False)


def diffusers():
    from diffusers import UNet2DConditionModel

    # Whole loading: without the other package that would load lazily.
    return lambda path: UNet2DConditionModel.from_pretrained(f"{path}/unet", low_cpu_mem_usage=False, local_files_only=True)


def transformers():
    from transformers import CLIPModel

    return lambda path: CLIPModel.from_pretrained(path, local_files_only=True)


def transformers_slow():
    from transformers import XLMRobertaTokenizer

    return lambda path: XLMRobertaTokenizer(f"{path}/tokenizer/sentencepiece.bpe.model")(TEXT)


def transformers_fast():
    from transformers import PreTrainedTokenizerFast

    return lambda path: PreTrainedTokenizerFast(tokenizer_file=f"{path}/tokenizer/tokenizer.json")(TEXT)


def tokenizers():
    from tokenizers import Tokenizer

    return lambda path: Tokenizer.from_file(f"{path}/tokenizer/tokenizer.json").encode(TEXT)


def sentencepiece():
    from sentencepiece import SentencePieceProcessor

    return lambda path: SentencePieceProcessor(model_file=f"{path}/tokenizer/sentencepiece.bpe.model").encode(TEXT)


def gguf():
    from gguf import GGUFReader

    # Bytes as they are: it can dequantize some types only.
    return lambda path: [tensor.data.copy() for tensor in GGUFReader(path).tensors]


# Each imports what it needs, and returns a function that reads a file; and the packages whose versions matter.
READERS = {
    "pillow": (pillow, ["pillow"]),
    "safetensors": (safetensors, ["safetensors", "torch"]),
    "torch-weights": (torch_weights, ["torch"]),
    "torch-anything": (torch_anything, ["torch"]),
    "diffusers": (diffusers, ["diffusers", "torch"]),
    "transformers": (transformers, ["transformers", "torch"]),
    "transformers-slow": (transformers_slow, ["transformers", "sentencepiece"]),
    "transformers-fast": (transformers_fast, ["transformers", "tokenizers"]),
    "tokenizers": (tokenizers, ["tokenizers"]),
    "sentencepiece": (sentencepiece, ["sentencepiece"]),
    "gguf": (gguf, ["gguf"]),
}


def child(read, work, answer, said):
    """Reads one file and never returns."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(said, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(work["folder"])
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, number in ((resource.RLIMIT_AS, taken + work["address_space"]), (resource.RLIMIT_CPU, work["cpu_seconds"])):
        resource.setrlimit(kind, (number, resource.RLIM_INFINITY))
    try:
        read(work["path"])
        result = {"outcome": "accepted"}
    except Exception as error:  # Anything that a program would catch.
        result = {"outcome": "refused", "error": f"{type(error).__name__}: {error}"[:1000]}
    except BaseException as error:
        result = {"outcome": "crash", "error": f"{type(error).__name__}, which `except Exception` does not catch: {error}"[:1000]}
    os.write(answer, json.dumps(result).encode())
    os._exit(0)


def attempt(read, work):
    ours, theirs = os.pipe()
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            child(read, work, theirs, said.fileno())
        os.close(theirs)
        ended = os.pidfd_open(pid)
        in_time = bool(select.select([ended], [], [], work["seconds"])[0])
        os.close(ended)
        try:
            # Also what it started.
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        status, usage = os.wait4(pid, 0)[1:]
        os.set_blocking(ours, False)
        try:
            text = os.read(ours, 1 << 16)
        except BlockingIOError:
            text = b""
        os.close(ours)
        said.seek(max(0, said.seek(0, os.SEEK_END) - 1000))
        tail = said.read().decode("utf-8", "replace")
    code = os.waitstatus_to_exitcode(status)
    if not in_time or code == -signal.SIGXCPU:
        result = {"outcome": "hang", "error": ""}
    elif text and code == 0:
        result = json.loads(text)
    else:
        what = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        result = {"outcome": "crash", "error": f"{what}: {tail[-500:]}"}
    return {"error": "", "memory": usage.ru_maxrss << 10, "seconds": usage.ru_utime + usage.ru_stime} | result


def main():
    prepare, packages = READERS[sys.argv[1]]
    # Others print to standard output, too.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    read = prepare()
    print(json.dumps({package: importlib.metadata.version(package) for package in packages}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(attempt(read, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
