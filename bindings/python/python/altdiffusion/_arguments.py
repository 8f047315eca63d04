"""Turns the arguments of a run into what the library takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_SEED = 2**64 - 1


def first(name: str, value: int | None, other_name: str, other: int | None) -> int | None:
    if value is not None and other is not None:
        raise InputError(f"{name}, {other_name}: expected one of them, found both")
    return value if value is not None else other


def steps_of(count: int, timesteps: Sequence[int] | None, sigmas: Sequence[float] | None) -> Any:
    if timesteps is not None and sigmas is not None:
        raise InputError("timesteps, sigmas: expected one of them, found both")
    if timesteps is not None:
        return {"timesteps": [int(timestep) for timestep in timesteps]}
    if sigmas is not None:
        return {"sigmas": [float(sigma) for sigma in sigmas]}
    return count


def seed_of(seed: int | None, generator: Any) -> int | None:
    if seed is None:
        return None
    if generator is not None:
        raise InputError("seed, generator: expected one of them, found both")
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"seed {seed}: expected a number from 0 to {MOST_SEED}")
    return int(seed)


def states_of(states: Any) -> NDArray[np.float32] | None:
    """An array of f32 in one piece, from NumPy, torch or this package."""
    if states is None:
        return None
    import numpy as np

    if hasattr(states, "detach"):
        states = states.detach().float().cpu()
    return np.ascontiguousarray(states, dtype=np.float32)


def finite(name: str, value: float) -> float:
    """The number, which JSON has to hold."""
    if not math.isfinite(value):
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
