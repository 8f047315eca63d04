"""Takes numbers from NumPy and from torch, which need not be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def array_of(numbers: Any) -> NDArray[Any]:
    """An array, also from a tensor that needs gradients, is on a GPU, or is of a type that NumPy lacks, such as bf16."""
    import numpy as np

    if hasattr(numbers, "detach"):
        numbers = numbers.detach().cpu()
        numbers = numbers.float() if numbers.is_floating_point() else numbers
    return np.asarray(numbers)


def numbers_of(numbers: Any) -> NDArray[np.float32]:
    """An array of f32 in one piece."""
    import numpy as np

    return np.ascontiguousarray(array_of(numbers), dtype=np.float32)
