"""The tiny models and golden values of the repository, and what the tests compare with."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

#: The tests may have been copied elsewhere.
ROOT = Path(os.environ.get("ALTDIFFUSION_ROOT") or Path(__file__).resolve().parents[3])
GOLDEN = ROOT / "tests" / "golden"
PICTURES = GOLDEN / "image_processor" / "pictures"

#: The bounds of the Rust tests, as relative errors: of single modules, and of whole runs.
MODULE_TOLERANCE = 1e-5
RUN_TOLERANCE = 1e-4

TYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "U8": np.uint8}


def golden_tensors(name: str) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file."""
    content = (GOLDEN / name).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    data = memoryview(content)[8 + length :]
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if entry["dtype"] in TYPES
    }


def golden_json(name: str):
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def relative_error(found, expected) -> float:
    """‖a − b‖ / ‖b‖."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"{found.shape}, expected {expected.shape}"
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No test needs the network, and none reads this machine's configuration or cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("ALTDIFFUSION_CONFIG", os.devnull)


@pytest.fixture(scope="session")
def embedder():
    import altdiffusion

    return altdiffusion.Embedder()


@pytest.fixture(scope="session")
def pipeline():
    import altdiffusion

    return altdiffusion.Pipeline()
