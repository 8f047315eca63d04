#!/usr/bin/env python3
"""Make the golden values of `tests/golden/` with the reference implementations.

Usage::

    make.py --output tests/golden [PART ...]
    make.py --cldr CLDR_ANNOTATIONS_DIR --output tests/golden tokenizer

`CLDR_ANNOTATIONS_DIR` is the unpacked npm package `cldr-annotations-full` 48.2.0 (the folder that holds
`annotations/en/annotations.json`); only the part `tokenizer` reads it. Without PART, every part is made, in the order
of `PARTS`; the later parts read what `tokenizer` and `repositories` wrote. Scripts here that are not in `PARTS` need
other versions or packages, and run separately. The same versions give the same values, up to the last bits of torch's
matrix products, which depend on the processor. (One file changes at each run without a change of content: torch's
legacy format uses memory addresses as storage names.)

The environment: transformers 5 dropped the tokenizer that reads SentencePiece, so an older version is installed in a
directory that comes first on PYTHONPATH, with a recent torch::

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 sentencepiece safetensors pillow==13.0.0 numpy
    venv/bin/pip install --target overlay --no-deps transformers==4.46.3 tokenizers==0.20.3 diffusers==0.31.0 \\
        huggingface_hub==0.26.5 protobuf requests charset_normalizer idna urllib3 certifi
    venv/bin/pip install filelock pyyaml regex tqdm packaging fsspec importlib_metadata ftfy scipy
    venv/bin/pip install --no-deps gguf==0.19.0
    PYTHONPATH=overlay venv/bin/python scripts/golden/make.py --cldr DIR --output tests/golden
"""

import argparse
import importlib
from pathlib import Path

PARTS = (
    "tokenizer",
    "repositories",
    "noise",
    "schedulers",
    "k_diffusion",
    "unet",
    "vae",
    "upscaler",
    "variants",
    "text_encoder",
    "pipeline",
    "given_images",
    "controlnet",
    "ip_adapter",
    "prompt_weights",
    "adapters",
    "adapter_kinds",
    "safety_checker",
    "panorama",
    "combined",
    "single_file",
    "image_tower",
    "image_processor",
    "image_formats",
    "dual_encoders",
    "conditioners",
    "added_tokens",
    "evaluation",
    "gguf_files",
    "training",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--output", type=Path, required=True, help="the directory tests/golden")
    parser.add_argument("--cldr", type=Path, help="the unpacked npm package cldr-annotations-full")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    for part in parts:
        if part not in PARTS:
            parser.error(f"unknown part {part!r}: expected one of {', '.join(PARTS)}")
    if "tokenizer" in parts and arguments.cldr is None:
        parser.error("the part tokenizer needs --cldr")

    import diffusers
    import torch
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    # One thread, so that the order of additions, and with it the last bits, is always the same.
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for part in parts:
        module = importlib.import_module(part)
        print(f"{part} …", flush=True)
        if part == "tokenizer":
            module.make(arguments.output, arguments.cldr)
        else:
            module.make(arguments.output)


if __name__ == "__main__":
    main()
