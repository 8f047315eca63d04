"""Embeds a column of an Arrow table: texts, contents of images, or names of images that a filesystem opens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from ._embedder import Embedder

    Skipped = Callable[[int, BaseException], object]


class Column:
    """What is embedded, and where it goes.

    Args:
        text: the name of the column of texts; or
        image: the name of the column of images: bytes, names, or groups of `bytes` and `path`, as in the data sets of the
            Hugging Face hub.
        output: the name of the column of vectors, null where a row was skipped.
        opener: a function from the name of an image to its contents. By default the name is a path.
    """

    def __init__(
        self,
        *,
        text: str | None = None,
        image: str | None = None,
        output: str = "embedding",
        opener: Callable[[str], bytes] | None = None,
    ) -> None:
        if (text is None) == (image is None):
            raise InputError("text_column, image_column: expected one of them")
        self.name = text if text is not None else str(image)
        self._is_text = text is not None
        self.output = output
        self._opener = opener

    def embed(self, embedder: Embedder, table: pa.Table, skipped: Skipped) -> pa.Table:
        """The table with another column: lists of `dim` numbers."""
        import numpy as np
        import pyarrow as pa

        if self.name not in table.column_names:
            raise InputError(f"column {self.name}: expected one of {', '.join(table.column_names)}")
        values = table.column(self.name).to_pylist()
        embed: Any = embedder.embed_texts if self._is_text else embedder.embed_images
        items = values if self._is_text else [self._image(value) for value in values]
        vectors = embed(items, normalize=True, on_error=skipped)
        missing = np.isnan(vectors[:, 0]) if len(vectors) else np.zeros(0, bool)
        # Not of a fixed size: Parquet's readers do not find the nulls in such lists.
        starts = np.concatenate([[0], np.cumsum(~missing * embedder.dim)])
        values = pa.array(vectors[~missing].reshape(-1))
        column = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values, mask=pa.array(missing))
        return table.append_column(self.output, column)

    def _image(self, value: Any) -> Any:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if not isinstance(value, str) or self._opener is None:
            return value
        try:
            return self._opener(value)
        except (OSError, ValueError) as error:
            return _Broken(error)


class _Broken:
    """An image that could not be opened: reading it is an error, in its place."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self._error
