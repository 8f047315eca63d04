"""Fills a stream on one side while its vectors are taken on the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from ._errors import InputError, SkippedWarning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    OnError = Literal["raise", "skip"] | Callable[[int, BaseException], object]

Item = TypeVar("Item")
_PUSHED = 2048


class Stream(Protocol[Item]):
    """A stream of the library."""

    def push(self, items: list[Item]) -> None: ...

    def finish(self) -> None: ...

    def take(self, rows: int) -> tuple[NDArray[np.float32], list[tuple[int, BaseException]]]: ...


Prepared = Callable[[int, list[Any], dict[int, Exception]], list[Item]]
"""Makes what the stream takes of some items, of which the first has this index, and adds those that it cannot."""


class Options(NamedTuple):
    """How vectors are taken from a stream."""

    rows: int
    """At most this many at a time."""
    ahead: int
    """How many items the stream needs beyond those taken."""
    normalize: bool
    on_error: OnError


def vectors(
    stream: Stream[Item], items: Iterable[Any], prepared: Prepared[Item], options: Options
) -> Iterator[NDArray[np.float32]]:
    """Arrays of vectors, in order."""
    if options.on_error not in ("raise", "skip") and not callable(options.on_error):
        raise InputError(f'on_error {options.on_error!r}: expected "raise", "skip" or a function')
    if options.rows < 1:
        raise InputError(f"batch_size {options.rows}: expected at least 1")
    return _vectors(stream, iter(items), prepared, options)


def _vectors(
    stream: Stream[Item], items: Iterator[Any], prepared: Prepared[Item], options: Options
) -> Iterator[NDArray[np.float32]]:
    rows, ahead, normalize, on_error = options
    pushed = taken = 0
    ended = False
    broken: dict[int, Exception] = {}
    skipped: list[BaseException] = []
    try:
        while True:
            while not ended and pushed < taken + rows + ahead:
                batch = list(islice(items, min(_PUSHED, ahead)))
                stream.push(prepared(pushed, batch, broken))
                if broken and on_error == "raise":
                    raise next(iter(broken.values()))
                pushed += len(batch)
                ended = not batch
            if ended:
                stream.finish()
                if taken == pushed:
                    break
            found, failed = stream.take(rows)
            for row, error in failed:
                error = broken.pop(taken + row, error)
                if on_error == "raise":
                    raise error
                found[row] = float("nan")
                if callable(on_error):
                    on_error(taken + row, error)
                else:
                    skipped.append(error)
            taken += len(found)
            yield normalized(found) if normalize else found
    finally:
        stream.finish()
        if skipped:
            more = f"; and {len(skipped) - 1} more" if len(skipped) > 1 else ""
            warnings.warn(f"skipped: {skipped[0]}{more}", SkippedWarning, stacklevel=3)


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1; those of length 0 as they are."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True).astype(np.float32)
    lengths[lengths == 0] = 1
    result: NDArray[np.float32] = vectors / lengths
    return result


def collected(arrays: Iterator[NDArray[np.float32]], dim: int) -> NDArray[np.float32]:
    """All vectors as one array, (items, dim)."""
    import numpy as np

    all_arrays = list(arrays)
    if len(all_arrays) == 1:
        return all_arrays[0]
    return np.concatenate(all_arrays) if all_arrays else np.zeros((0, dim), np.float32)
