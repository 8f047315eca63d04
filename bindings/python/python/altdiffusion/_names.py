"""What a model is called, and how it computes, in the words of this package and of others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._errors import InputError

if TYPE_CHECKING:
    from ._altdiffusion import ModelOptions

BUILT_IN = "emoji"
"""The name of the model inside the package."""

_DTYPES = {
    "f32": "f32",
    "fp32": "f32",
    "float32": "f32",
    "float": "f32",
    "f16": "f16",
    "fp16": "f16",
    "float16": "f16",
    "half": "f16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "int8": "int8",
}


def model_options(
    name: str | os.PathLike[str] | None,
    *,
    dtype: Any,
    device: Any,
    revision: str | None = None,
    variant: str | None = None,
    config: str | os.PathLike[str] | None = None,
) -> ModelOptions:
    """The options of a model, which can be pickled and hold for other processes in other directories."""
    return {
        "name": None if name is None or name == BUILT_IN else _absolute("name", name),
        "revision": text_or_none("revision", revision),
        "variant": text_or_none("variant", variant),
        "config": None if config is None else _absolute("config", config),
        "dtype": dtype_name(dtype),
        "device": str(device),
    }


def dtype_name(dtype: Any) -> str:
    """`f32`, `f16`, `bf16` or `int8`, from a name or the type itself, such as `torch.float16`."""
    text = getattr(dtype, "__name__", None) or str(dtype)
    name = _DTYPES.get(text.rsplit(".", 1)[-1])
    if name is None:
        raise InputError(f"dtype {text}: expected f32, f16, bf16 or int8")
    return name


def text_or_none(argument: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{argument}: expected a text, found {type(value).__name__}")
    return value


def _absolute(argument: str, name: Any) -> str:
    """A path that exists, made absolute; a name of a repository as it is."""
    text = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(text, str):
        raise InputError(f"{argument}: expected a name or a path, found {type(name).__name__}")
    return os.path.abspath(text) if os.path.exists(text) else text


def shown(options: ModelOptions) -> str:
    """The options for a `repr`."""
    parts = [repr(options["name"] or BUILT_IN)]
    if options["revision"]:
        parts.append(f"revision={options['revision']!r}")
    if options["variant"]:
        parts.append(f"variant={options['variant']!r}")
    return ", ".join([*parts, f"dtype={options['dtype']!r}", f"device={options['device']!r}"])
