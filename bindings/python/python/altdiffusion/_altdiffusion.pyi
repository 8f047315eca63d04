"""The part of the package that computes. It takes plain data; the package's modules say what they mean."""

from collections.abc import Callable, Sequence
from typing import TypedDict, final

import numpy as np
from numpy.typing import NDArray

__version__: str
BUILT_IN_STEPS: int
BUILT_IN_GUIDANCE_SCALE: float
BUILT_IN_SCALE: int

class ModelOptions(TypedDict):
    name: str | None
    revision: str | None
    variant: str | None
    config: str | None
    dtype: str
    device: str

class Additions(TypedDict):
    loras: list[tuple[str, float]]
    words: list[tuple[str, str | None]]
    vae: str | None
    low_memory: bool
    safety_checker: bool

class Inputs(TypedDict):
    image: tuple[str, bytes | None] | None
    mask: tuple[str, bytes | None] | None
    controls: list[tuple[ControlNet, tuple[str, bytes | None], float, float, float]]
    latents: NDArray[np.float32] | None
    prompt_embeds: NDArray[np.float32] | None
    negative_prompt_embeds: NDArray[np.float32] | None
    noise: Callable[[list[int], bool], NDArray[np.float32]] | None
    callback: Callable[[int, float, NDArray[np.float32]], object] | None

def run_command(arguments: Sequence[str]) -> int: ...
@final
class Embedder:
    def __new__(cls, model: ModelOptions, background: str | None, max_pixels: int | None) -> Embedder: ...
    @property
    def dim(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def family(self) -> str: ...
    def text_stream(self) -> TextStream: ...
    def image_stream(self) -> ImageStream: ...
    def embed_labels(self, labels: list[str], templates: list[str]) -> NDArray[np.float32]: ...
    def similarity(
        self, images: NDArray[np.float32], texts: NDArray[np.float32], probabilities: bool
    ) -> NDArray[np.float32]: ...

@final
class TextStream:
    def push(self, items: list[str | None]) -> None: ...
    def finish(self) -> None: ...
    def take(self, rows: int) -> tuple[NDArray[np.float32], list[tuple[int, BaseException]]]: ...

@final
class ImageStream:
    def push(self, items: list[tuple[str, bytes | None]]) -> None: ...
    def finish(self) -> None: ...
    def take(self, rows: int) -> tuple[NDArray[np.float32], list[tuple[int, BaseException]]]: ...

@final
class TextEncoder:
    def __new__(cls, model: ModelOptions) -> TextEncoder: ...
    @property
    def length(self) -> int: ...
    @property
    def width(self) -> int: ...
    def encode(self, prompts: list[str], clip_skip: int) -> tuple[NDArray[np.float32], list[int]]: ...

@final
class ControlNet: ...

@final
class Pipeline:
    def __new__(cls, model: ModelOptions, additions: Additions) -> Pipeline: ...
    @property
    def default_size(self) -> tuple[int, int]: ...
    def load_controlnet(self, name: str) -> ControlNet: ...
    def text_encoder(self) -> TextEncoder: ...
    def generate(
        self, options: str, inputs: Inputs
    ) -> tuple[NDArray[np.uint8], list[bool] | None, NDArray[np.float32]]: ...
