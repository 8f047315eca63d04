"""The examples in the documents run, those for other systems too where these are, and every public name is explained."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT

PAGES = ["bindings/python/README.md", "docs/python.md", "docs/zh-CN/python.md"]
TRANSLATED = ["python.md", "bulk.md"]
EXAMPLES = ROOT / "bindings" / "python" / "examples"
#: What the examples that need others are marked with.
NEEDS = re.compile(r"^import (torch|ray|daft|pyspark)|^from (diffusers|pyspark|ray)", re.MULTILINE)


def blocks(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, tmp_path):
    from PIL import Image

    for name in ("photo.jpg", "mask.png", "dog.jpg"):
        Image.new("RGB", (64, 64), "white").save(tmp_path / name)
    code = [block for block in blocks(page) if not NEEDS.search(block) and "BAAI" not in re.sub("#.*", "", block)]
    assert code
    # A page is read from its beginning.
    program = "\n".join(code)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", TRANSLATED)
def test_examples_are_the_same_in_both_languages(page):
    english, chinese = ([re.sub("#.*", "", block) for block in blocks(f"{folder}/{page}")] for folder in ("docs", "docs/zh-CN"))
    assert english and english == chinese


@pytest.mark.parametrize(("system", "script"), [("pyspark", "spark.py"), ("daft", "with_daft.py")])
def test_other_systems_embed_a_column(embedder, system, script, tmp_path):
    pytest.importorskip(system, reason=f"{system} is not installed: its example was not run")
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet")
    if system == "pyspark" and not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.skip("Java is not installed: the example for Spark was not run")
    texts = ["一只猫", None, "a dog"]
    pq.write_table(pa.table({"id": [0, 1, 2], "text": texts}), tmp_path / "in.parquet")
    command = [sys.executable, EXAMPLES / script, str(tmp_path / "in.parquet"), str(tmp_path / "out")]
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "DAFT_ANALYTICS_ENABLED": "0"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "out").sort_by("id")
    rows = table["embedding"].to_pylist()
    assert table["text"].to_pylist() == texts and rows[1] is None
    expected = embedder.embed_texts(["一只猫", "a dog"], normalize=True)
    np.testing.assert_allclose([rows[0], rows[2]], expected, atol=1e-6)


def test_every_public_name_has_a_docstring():
    import altdiffusion

    for name in altdiffusion.__all__:
        value = getattr(altdiffusion, name)
        if isinstance(value, type):
            members = [member for member in vars(value).values() if callable(member) or isinstance(member, property)]
            public = [member for member in members if not getattr(member, "__name__", "property").startswith("_")]
            assert all(item.__doc__ for item in [value, *public]), name
