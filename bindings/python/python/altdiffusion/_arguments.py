"""Turns the arguments of a run into what the library takes."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ._arrays import numbers_of
from ._errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_SEED = 2**64 - 1
MOST_SIZE = 2**64 - 1


def first(name: str, value: int | None, other_name: str, other: int | None) -> int | None:
    if value is not None and other is not None:
        raise InputError(f"{name}, {other_name}: expected one of them, found both")
    return value if value is not None else other


def texts_of(name: str, texts: Any) -> list[str]:
    """One text, or several."""
    if not isinstance(texts, Iterable):
        raise InputError(f"{name}: expected texts, found {type(texts).__name__}")
    given = [texts] if isinstance(texts, str) else list(texts)
    for index, text in enumerate(given):
        if not isinstance(text, str):
            raise InputError(f"{name} {index}: expected a text, found {type(text).__name__}")
    return given


def whole(name: str, value: Any) -> int:
    """The number, of Python, NumPy or torch, which JSON has to hold."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} {value!r}: expected a whole number") from None


def steps_of(count: int, timesteps: Sequence[int] | None, sigmas: Sequence[float] | None) -> Any:
    if timesteps is not None and sigmas is not None:
        raise InputError("timesteps, sigmas: expected one of them, found both")
    if timesteps is not None:
        return {"timesteps": [whole("timesteps", timestep) for timestep in timesteps]}
    if sigmas is not None:
        return {"sigmas": [finite("sigmas", sigma) for sigma in sigmas]}
    return whole("num_inference_steps", count)


def seed_of(seed: int | None, generator: Any) -> int | None:
    if seed is None:
        return None
    if generator is not None:
        raise InputError("seed, generator: expected one of them, found both")
    number = whole("seed", seed)
    if not 0 <= number <= MOST_SEED:
        raise InputError(f"seed {number}: expected a number from 0 to {MOST_SEED}")
    return number


def states_of(states: Any) -> NDArray[np.float32] | None:
    """Numbers from NumPy, torch or this package, if there are any."""
    return None if states is None else numbers_of(states)


def finite(name: str, value: float) -> float:
    """The number, which JSON has to hold."""
    try:
        is_number = math.isfinite(value)
    except TypeError:
        is_number = False
    if not is_number:
        raise InputError(f"{name} {value}: expected a number")
    return float(value)


def each(name: str, values: Any, count: int) -> list[float]:
    """A number for each of `count`, from one for all or a list."""
    if isinstance(values, (int, float)):
        return [float(values)] * count
    numbers = [float(value) for value in values]
    if len(numbers) != count:
        raise InputError(f"{name}: expected {count}, found {len(numbers)}")
    return numbers
