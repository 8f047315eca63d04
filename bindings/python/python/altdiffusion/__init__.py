"""Images from prompts in Chinese, English and sixteen other languages, and vectors for searching texts and images.

* `Embedder`: texts and images to vectors of one space
* `TextEncoder`: prompts to the hidden states that diffusion models draw from
* `Pipeline`: prompts to images

Each takes a model: a directory, a repository on the Hugging Face hub, or nothing for the small model inside the package.
Python runs other threads while they compute, and Ctrl-C stops them. Exceptions are subclasses of `Error`.
"""

from ._altdiffusion import __version__
from ._embedder import Embedder
from ._errors import (
    CancelledError,
    Error,
    FileError,
    ForkError,
    InputError,
    MissingFileError,
    NetworkError,
    OutOfMemoryError,
    SkippedWarning,
)
from ._pipeline import Pipeline, PipelineOutput
from ._text_encoder import HiddenStates, TextEncoder

__all__ = [
    "CancelledError",
    "Embedder",
    "Error",
    "FileError",
    "ForkError",
    "HiddenStates",
    "InputError",
    "MissingFileError",
    "NetworkError",
    "OutOfMemoryError",
    "Pipeline",
    "PipelineOutput",
    "SkippedWarning",
    "TextEncoder",
    "__version__",
]
