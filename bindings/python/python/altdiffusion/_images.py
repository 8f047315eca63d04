"""Turns images in the forms that Python has into files, which the library decodes: paths, bytes, Pillow, arrays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Union

from ._arrays import array_of
from ._errors import FileError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    ImageLike = Union[str, os.PathLike[str], bytes, bytearray, memoryview, Image, NDArray[Any]]
    """A path, the contents of an image file, a Pillow image, or an array or a tensor (height, width[, channels]): of
    uint8, or of numbers from 0 to 1. Channels are 1 for grey, 3 for RGB or 4 for RGBA."""

File = tuple[str, Union[bytes, None]]
"""The name of an image, and the contents of its file unless the name is its path."""


def image_file(image: ImageLike, name: str) -> File:
    """The image as a file. `name` is its name in errors if it has none."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image), None
    if isinstance(image, (bytes, bytearray, memoryview)):
        return name, bytes(image)
    if hasattr(image, "tobytes") and hasattr(image, "getbands"):
        name = getattr(image, "filename", "") or name
        try:
            return name, _of_pillow(image, name)
        except OSError as error:
            # Pillow reads files late.
            raise FileError(f"{name}: {error}") from error
    if hasattr(image, "__array__"):
        return name, _of_array(image, name)
    raise InputError(f"{name}: expected a path, bytes, a Pillow image or an array, found {type(image).__name__}")


def _of_pillow(image: Any, name: str) -> bytes:
    if image.mode.startswith("I;16"):
        # The high byte, as for files. Pillow would clip.
        import numpy as np

        return _of_array((np.asarray(image) >> 8).astype(np.uint8), name)
    if image.mode in ("I", "F"):
        # Pillow would clip these too, to white or to black, and nobody knows their range.
        return _of_array(image, name)
    if image.mode not in ("L", "RGB", "RGBA"):
        in_palette = image.mode == "P" and image.palette.mode == "RGBA"
        has_alpha = in_palette or image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    return _pnm(image.width, image.height, len(image.getbands()), image.tobytes())


def _of_array(image: Any, name: str) -> bytes:
    import numpy as np

    array = given = array_of(image)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise InputError(f"{name}: expected an array (height, width, 1, 3 or 4), found {given.shape}")
    if array.dtype.kind == "f":
        if not bool(((array >= 0) & (array <= 1)).all()):
            raise InputError(f"{name}: expected an array of uint8, or of numbers from 0 to 1, found other numbers")
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise InputError(f"{name}: expected an array of uint8, or of numbers from 0 to 1, found {array.dtype}")
    height, width, channels = array.shape
    return _pnm(width, height, channels, array.tobytes())


def _pnm(width: int, height: int, channels: int, pixels: bytes) -> bytes:
    """An uncompressed file, whose header is text."""
    kind = {1: "GRAYSCALE", 3: "RGB", 4: "RGB_ALPHA"}[channels]
    header = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL 255\nTUPLTYPE {kind}\nENDHDR\n"
    return header.encode() + pixels


def images_of(arrays: NDArray[np.uint8]) -> list[Image]:
    """Pillow images from an array (images, height, width, 3)."""
    from PIL import Image

    return [Image.fromarray(array) for array in arrays]
