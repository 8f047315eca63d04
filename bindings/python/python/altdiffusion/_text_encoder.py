"""Prompts to hidden states."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import _altdiffusion as native
from ._arguments import texts_of, whole
from ._names import model_options, shown

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class HiddenStates:
    """Hidden states of prompts, (prompts, tokens, width), f32: what a UNet's cross-attentions take.

    NumPy takes them as an array, and every library that knows DLPack takes them without a copy.
    """

    def __init__(self, array: NDArray[np.float32], truncated: Sequence[int] = ()) -> None:
        self._array = array
        self.truncated: list[int] = list(truncated)
        """The number of tokens that were cut off from each prompt."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(prompts, tokens, width)"""
        return self._array.shape

    def numpy(self) -> NDArray[np.float32]:
        """The array, (prompts, tokens, width), without a copy."""
        return self._array

    def torch(self) -> torch.Tensor:
        """A tensor that shares the memory, for `prompt_embeds=` and `negative_prompt_embeds=` of diffusers."""
        import torch

        return torch.from_dlpack(self._array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self._array if dtype is None else self._array.astype(dtype, copy=False)
        return array.copy() if copy else array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._array.__dlpack_device__()
        return int(kind), int(number)

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int | slice) -> HiddenStates:
        """Those of some prompts. One prompt keeps its first dimension."""
        if not isinstance(index, slice):
            index = range(len(self))[index]
            index = slice(index, index + 1)
        return HiddenStates(self._array[index], self.truncated[index])

    def __repr__(self) -> str:
        return f"HiddenStates(shape={self.shape})"


class TextEncoder:
    """The text encoder of a diffusion model, with its tokenizer: prompts to hidden states.

    Args:
        name: a directory or a repository with folders `tokenizer` and `text_encoder`, such as
            "BAAI/AltDiffusion-m9". By default the model inside the package.
        dtype: of the weights: "f32", "f16", "bf16" or, on the CPU alone, "int8"; or a type of torch or NumPy.
        device: "cpu", "cuda", "cuda:1", "metal", or "auto", a GPU if there is one and the package was built for it.
        revision: of a repository: a branch, a tag or a commit.
        variant: of the weights, such as "fp16".
    """

    def __init__(
        self,
        name: str | os.PathLike[str] | None = None,
        *,
        dtype: Any = "f32",
        device: Any = "auto",
        revision: str | None = None,
        variant: str | None = None,
    ) -> None:
        self._load(model_options(name, dtype=dtype, device=device, revision=revision, variant=variant))

    def _load(self, options: native.ModelOptions) -> None:
        self._options = options
        self._native = native.TextEncoder(options)

    @property
    def length(self) -> int:
        """The number of tokens that prompts are padded and cut to."""
        return self._native.length

    @property
    def width(self) -> int:
        """Width of the hidden states: the UNet's `cross_attention_dim`."""
        return self._native.width

    def encode(self, prompts: str | Sequence[str], *, clip_skip: int = 0) -> HiddenStates:
        """Encodes prompts: (prompts, `length`, `width`), f32, padding included.

        `clip_skip` takes the states from that many layers before the last.
        """
        return HiddenStates(*self._native.encode(texts_of("prompt", prompts), whole("clip_skip", clip_skip)))

    def __getstate__(self) -> native.ModelOptions:
        return self._options

    def __setstate__(self, options: native.ModelOptions) -> None:
        self._load(options)

    def __repr__(self) -> str:
        return f"TextEncoder({shown(self._options)})"
