"""Columns and shards; with Ray itself where it is installed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import altdiffusion

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet")
from altdiffusion.ray import AltClipEmbedder  # noqa: E402
from altdiffusion._shards import ShardJob, Shards  # noqa: E402


def test_batches_of_every_kind_get_a_column(embedder):
    stage = AltClipEmbedder(text_column="text")
    texts = ["一只猫", None, "a dog"]
    expected = embedder.embed_texts(["一只猫", "a dog"], normalize=True)
    table = stage(pa.table({"text": texts, "id": [1, 2, 3]}))
    assert table.column_names == ["text", "id", "embedding"]
    rows = table["embedding"].to_pylist()
    assert rows[1] is None and np.array_equal(np.array([rows[0], rows[2]], np.float32), expected)
    batch = stage({"text": np.array(texts, object)})
    assert np.isnan(batch["embedding"][1]).all() and np.array_equal(batch["embedding"][[0, 2]], expected)
    frame = stage(table.select(["text"]).to_pandas()) if _has_pandas() else None
    assert frame is None or list(frame.columns) == ["text", "embedding"]
    assert dict(stage.skipped) == {"expected a text, found None": 3 if frame is not None else 2}


def _has_pandas() -> bool:
    try:
        import pandas  # noqa: F401
    except ImportError:
        return False
    return True


def test_images_are_opened_by_the_caller(embedder, tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (9, 9), "red").save(path)
    files = {"a": path.read_bytes()}
    stage = AltClipEmbedder(image_column="image", opener=lambda name: files[name] if name in files else open(name, "rb").read())
    column = ["a", str(path), str(tmp_path / "none.png"), None]
    rows = stage(pa.table({"image": column}))["embedding"].to_pylist()
    assert rows[0] == rows[1] and rows[2:] == [None, None]
    assert dict(stage.skipped) == {"FileNotFoundError": 1, "InputError": 1}
    groups = [{"bytes": files["a"], "path": None}, {"bytes": None, "path": "a"}]
    assert stage(pa.table({"image": groups}))["embedding"].to_pylist() == [rows[0], rows[0]]


@pytest.fixture
def shards(tmp_path):
    for number in range(4):
        texts = [f"{number} {row} 猫" if row % 50 else None for row in range(200)]
        pq.write_table(pa.table({"text": texts}), tmp_path / f"{number}.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    return sorted(str(path) for path in tmp_path.glob("*.parquet"))


def test_each_file_is_done_once(shards, tmp_path, embedder):
    output = str(tmp_path / "out")
    job = ShardJob(Shards(shards, output), {"text_column": "text"})
    stage = AltClipEmbedder(text_column="text")
    report, missing = job.begin()
    assert missing == shards and report.files == 0
    for source in missing[:2]:
        job.embed(source, stage.column, stage.embedder)
    # Killed between the file and its entry, it is done again, with the same bytes.
    before = (tmp_path / "out" / "0.parquet").read_bytes()
    (tmp_path / "out" / "_manifest" / "0.parquet.json").unlink()
    report, missing = job.begin()
    assert report.files == 1 and len(missing) == 4
    for source in missing:
        report.add(job.embed(source, stage.column, stage.embedder))
    assert (tmp_path / "out" / "0.parquet").read_bytes() == before
    assert (report.files, report.rows, dict(report.skipped)) == (5, 800, {"expected a text, found None": 16})
    assert job.begin()[1] == []
    # What a killed worker left.
    (tmp_path / "out" / "_partial" / "half.parquet").write_bytes(b"PAR1")
    job.finish()
    assert not (tmp_path / "out" / "_partial").exists()
    table = pq.read_table(tmp_path / "out" / "3.parquet")
    assert table["embedding"].null_count == 4 and table["text"].null_count == 4
    with pytest.raises(altdiffusion.InputError, match="begun with"):
        ShardJob(Shards(shards, output), {"text_column": "caption"}).begin()
    with pytest.raises(altdiffusion.InputError, match="one name twice"):
        Shards(["a/1.parquet", "b/1.parquet"], output)
    with pytest.raises(altdiffusion.InputError, match="one name twice"):
        Shards(["s3://a/1.parquet?region=eu-north-1", "s3://b/1.parquet"], output)


def test_fsspec_opens_files(shards, tmp_path):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    memory = fsspec.filesystem("memory")
    for path in shards:
        memory.pipe(f"/in/{os.path.basename(path)}", open(path, "rb").read())
    job = ShardJob(Shards([f"/in/{os.path.basename(path)}" for path in shards], "/out", memory), {"text_column": "text"})
    stage = AltClipEmbedder(text_column="text")
    for source in job.begin()[1]:
        job.embed(source, stage.column, stage.embedder)
    report, missing = job.begin()
    assert (report.rows, missing) == (800, [])
    assert json.loads(memory.cat("/out/_manifest/0.parquet.json"))["rows"] == 200


def test_ray_does_what_is_missing(shards, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    program = f"""
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
from altdiffusion.ray import embed_shards
print(embed_shards({shards!r}, {str(tmp_path / "out")!r}, workers=2, text_column="text"))
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "Report(files=5, rows=800, skipped={'expected a text, found None': 16})" in done.stdout
