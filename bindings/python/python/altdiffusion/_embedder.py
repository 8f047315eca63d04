"""Texts and images to vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import _altdiffusion as native
from ._arguments import MOST_SIZE, texts_of, whole
from ._arrays import numbers_of
from ._errors import InputError
from ._images import File, image_file
from ._names import model_options, shown, text_or_none
from ._streams import Options, collected, vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from ._images import ImageLike
    from ._streams import OnError

# The library tokenizes whole windows of texts, ahead of the model.
_WINDOW = 2048
# The model takes 16 images at a time, while as many are prepared.
_IMAGES_AHEAD = 48


class Embedder:
    """A dual encoder: texts and images to vectors of one space, in which what belongs together is close.

    Args:
        name: a directory or a repository, such as "BAAI/AltCLIP": AltCLIP, CLIP, SigLIP, OpenCLIP, Chinese-CLIP and
            others. By default the model inside the package.
        dtype: of the weights: "f32", "f16", "bf16" or, on the CPU alone, "int8"; or a type of torch or NumPy.
        device: "cpu", "cuda", "cuda:1", "metal", or "auto", a GPU if there is one and the package was built for it.
        revision: of a repository: a branch, a tag or a commit.
        variant: of the weights, such as "fp16".
        background: of transparent images: "white", "black", "#rrggbb", or "none" for the colours under the
            transparency. By default as the model says.
        max_pixels: larger images are refused before they are decoded.

    Threads can share it. A pickle holds its name and options, and loads it again.
    """

    def __init__(
        self,
        name: str | os.PathLike[str] | None = None,
        *,
        dtype: Any = "f32",
        device: Any = "auto",
        revision: str | None = None,
        variant: str | None = None,
        background: str | None = None,
        max_pixels: int | None = None,
    ) -> None:
        options = model_options(name, dtype=dtype, device=device, revision=revision, variant=variant)
        self._load((options, text_or_none("background", background), _pixels(max_pixels)))

    def _load(self, state: tuple[native.ModelOptions, str | None, int | None]) -> None:
        self._state = state
        self._native = native.Embedder(*state)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._native.dim

    @property
    def max_tokens(self) -> int:
        """The number of tokens that texts are cut to."""
        return self._native.max_tokens

    @property
    def family(self) -> str:
        """The model's family, such as AltCLIP."""
        return self._native.family

    def embed_texts(
        self, texts: Iterable[str | None], *, normalize: bool = False, on_error: OnError = "raise"
    ) -> NDArray[np.float32]:
        """The vectors of texts, (texts, `dim`), f32, of length 1 if `normalize` says so.

        With `on_error="skip"` the row of a text that is None or cannot be read is NaN, and a `SkippedWarning` counts
        them. A function `on_error` is called with the index and the error of each instead.
        """
        # A list is one batch, so that nothing is copied.
        given = _many(texts, "texts")
        rows = max(len(given), 1)
        return collected(self.stream_texts(given, batch_size=rows, normalize=normalize, on_error=on_error), self.dim)

    def embed_images(
        self, images: Iterable[ImageLike], *, normalize: bool = False, on_error: OnError = "raise"
    ) -> NDArray[np.float32]:
        """The vectors of images, (images, `dim`), f32, of length 1 if `normalize` says so.

        Images are paths, contents of image files, Pillow images, or arrays or tensors (height, width[, channels]) of
        uint8 or of numbers from 0 to 1. They are decoded on all cores while the model runs. With `on_error="skip"` the row of an
        image that cannot be read is NaN, and a `SkippedWarning` counts them. A function `on_error` is called with the
        index and the error of each instead.
        """
        given = _many(images, "images")
        return collected(self.stream_images(given, normalize=normalize, on_error=on_error), self.dim)

    def stream_texts(
        self,
        texts: Iterable[str | None],
        *,
        batch_size: int = _WINDOW,
        normalize: bool = False,
        on_error: OnError = "raise",
    ) -> Iterator[NDArray[np.float32]]:
        """Arrays of the vectors of at most `batch_size` texts, in order, for more texts than fit into memory.

        Texts are read a few thousand ahead, on this thread, and tokenized while the model runs.
        """
        stream = self._native.text_stream()
        given = _many(texts, "texts", as_list=False)
        options = Options(batch_size, 2 * _WINDOW, normalize, on_error)
        return vectors(stream, given, _texts, options)

    def stream_images(
        self,
        images: Iterable[ImageLike],
        *,
        batch_size: int = 64,
        normalize: bool = False,
        on_error: OnError = "raise",
    ) -> Iterator[NDArray[np.float32]]:
        """Arrays of the vectors of at most `batch_size` images, in order, for more images than fit into memory."""
        stream = self._native.image_stream()
        given = _many(images, "images", as_list=False)
        options = Options(batch_size, _IMAGES_AHEAD, normalize, on_error)
        return vectors(stream, given, _files, options)

    def similarity(self, images: ArrayLike, texts: ArrayLike) -> NDArray[np.float32]:
        """Logits, (images, texts), f32: cosines of vectors (images, `dim`) and (texts, `dim`), times the model's scale.

        Their softmax over the texts is the probability that each text is the one that describes the image. SigLIP adds a
        bias, and the sigmoid of each logit is the probability that the two match.
        """
        return self._native.similarity(self._rows("images", images), self._rows("texts", texts), False)

    def _rows(self, name: str, vectors: ArrayLike) -> NDArray[np.float32]:
        rows = numbers_of(vectors)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(f"{name}: expected an array (items, {self.dim}), found {rows.shape}")
        return rows

    def classify(
        self,
        images: Iterable[ImageLike],
        labels: Sequence[str],
        *,
        templates: Sequence[str] = ("{}",),
        on_error: OnError = "raise",
    ) -> NDArray[np.float32]:
        """The probability of each label for each image, (images, labels), f32, without training for the labels.

        Each label is put into every template, such as "一张{}的照片", and stands for the mean of those texts. The
        probabilities of an image add up to 1, except for SigLIP, which asks about each label alone.
        """
        if isinstance(templates, str) or isinstance(labels, str):
            raise InputError("labels, templates: expected lists of texts, found one text")
        classes = self._native.embed_labels(texts_of("labels", labels), texts_of("templates", templates))
        return self._native.similarity(self.embed_images(images, on_error=on_error), classes, True)

    def __getstate__(self) -> tuple[native.ModelOptions, str | None, int | None]:
        return self._state

    def __setstate__(self, state: tuple[native.ModelOptions, str | None, int | None]) -> None:
        self._load(state)

    def __repr__(self) -> str:
        return f"Embedder({shown(self._state[0])})"


def _pixels(max_pixels: Any) -> int | None:
    if max_pixels is None:
        return None
    number = whole("max_pixels", max_pixels)
    if not 1 <= number <= MOST_SIZE:
        raise InputError(f"max_pixels {number}: expected a number from 1 to {MOST_SIZE}")
    return number


def _many(items: Any, what: str, as_list: bool = True) -> Any:
    """The items, of which one alone is a mistake that would be iterated over."""
    if isinstance(items, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(items, "getbands"):
        raise InputError(f"{what}: expected a list, found one {type(items).__name__}")
    return items if not as_list or isinstance(items, list) else list(items)


def _texts(first: int, texts: list[Any], broken: dict[int, Exception]) -> list[str | None]:
    for index, text in enumerate(texts, first):
        if type(text) is not str and not (text is None or isinstance(text, str)):
            # Such as a missing value of pandas, which is a number.
            broken[index] = InputError(f"text {index}: expected a text, found {type(text).__name__}")
            texts[index - first] = None
    return texts


def _files(first: int, images: list[Any], broken: dict[int, Exception]) -> list[File]:
    files: list[File] = []
    for index, image in enumerate(images, first):
        try:
            files.append(image_file(image, f"image {index}"))
        except Exception as error:
            broken[index] = error
            files.append(("", b""))
    return files
