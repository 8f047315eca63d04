#!/usr/bin/env python3
"""Try which of the models that this program opens are opened by others: the source of docs/other-programs.md.

    pip install torch diffusers==0.42.1 transformers==5.24.0 sentence-transformers==6.2.0 open_clip_torch==3.3.0 \\
        embed-anything==0.7.1 sentencepiece protobuf
    pip install --no-deps multilingual-clip==1.0.10
    opens.py [--program altdiffusion] [--sd-cli sd-cli --sd-model DIR [--sd2-model DIR]] [--only COLUMN]

The models are the tiny ones of `tests/golden`, or made here where a program needs other sizes. A model counts as opened if the
latents or vectors are the reference's: each line has ‖a − b‖/‖b‖, or the error. Nothing is downloaded: a folder stands for the
hub. stable-diffusion.cpp knows one size of each model: DIR is made by `scripts/make-random-checkpoint.py` with `--model sd15` or
`--model sd21`.
"""

import argparse
from pathlib import Path

# First, since it sets what the libraries read from the environment.
from opening.shared import torch
from opening import embedders, hugging_face, programs  # isort: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, help="the program altdiffusion")
    parser.add_argument("--sd-cli", type=Path, help="the program sd-cli of stable-diffusion.cpp")
    parser.add_argument("--sd-model", type=Path, metavar="DIR", help="a full-size Stable Diffusion 1.5")
    parser.add_argument("--sd2-model", type=Path, metavar="DIR", help="a full-size Stable Diffusion 2.1")
    columns = {
        "altdiffusion": lambda: programs.ours(arguments.program),
        "hugging-face": hugging_face.hugging_face,
        "open_clip": embedders.open_clip,
        "embed-anything": embedders.embed_anything,
        "stable-diffusion.cpp": lambda: programs.sd_cpp(arguments.sd_cli.resolve(), arguments.sd_model, arguments.sd2_model),
    }
    parser.add_argument("--only", choices=columns, help="only this column (default: all that the other options allow)")
    arguments = parser.parse_args()
    if not arguments.program:
        del columns["altdiffusion"]
    if not (arguments.sd_cli and arguments.sd_model):
        del columns["stable-diffusion.cpp"]
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    for name, column in columns.items():
        if arguments.only in (None, name):
            column()


if __name__ == "__main__":
    main()
