"""The examples in the documents run, and their stubs are complete."""

import re
import subprocess
import sys

import pytest

from conftest import ROOT

PAGES = ["bindings/python/README.md", "docs/python.md", "docs/zh-CN/python.md"]
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


def test_examples_are_the_same_in_both_languages():
    english, chinese = ([re.sub("#.*", "", block) for block in blocks(page)] for page in PAGES[1:])
    assert english == chinese


def test_every_public_name_has_a_docstring():
    import altdiffusion

    for name in altdiffusion.__all__:
        value = getattr(altdiffusion, name)
        if isinstance(value, type):
            members = [member for member in vars(value).values() if callable(member) or isinstance(member, property)]
            public = [member for member in members if not getattr(member, "__name__", "property").startswith("_")]
            assert all(item.__doc__ for item in [value, *public]), name
