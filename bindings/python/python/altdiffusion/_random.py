"""Draws noise from the caller's generators, as diffusers does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ._errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def noise_of(generator: Any, images: int) -> Callable[[list[int], bool], NDArray[np.float32]]:
    """A function that draws noise of a shape from a `torch.Generator`, or from one for each of `images`.

    It draws what diffusers would, and leaves the generators in the state that diffusers would.
    """
    generators = list(generator) if isinstance(generator, Sequence) else [generator]
    for each in generators:
        if not hasattr(each, "initial_seed"):
            raise InputError(f"generator: expected a torch.Generator or a list of them, found {type(each).__name__}")
    if isinstance(generator, Sequence) and len(generators) != images:
        raise InputError(f"generator: expected one for each of {images} images, found {len(generators)}")

    def draw(shape: list[int], shared: bool) -> NDArray[np.float32]:
        import torch

        if len(generators) > 1:
            # Noise that a batch shares is drawn for each image too.
            shape = [1, *shape[1:]]
        drawn = [torch.randn(shape, generator=each, device=each.device).cpu() for each in generators]
        array: NDArray[np.float32] = torch.cat(drawn).numpy()
        return array

    return draw
