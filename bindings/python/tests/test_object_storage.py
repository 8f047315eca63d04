"""Jobs over object storage, with moto as the store: `pip install 'moto[server]' pyarrow`, and s3fs and Ray for what needs them."""

import json
import os
import subprocess
import sys

import pytest

import altdiffusion
from conftest import ROOT

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet")
fs = pytest.importorskip("pyarrow.fs")
server = pytest.importorskip("moto.server", reason="moto[server] is not installed: nothing was tested on object storage")
from altdiffusion._shards import ShardJob, Shards  # noqa: E402
from altdiffusion.ray import AltClipEmbedder  # noqa: E402

BUCKET = "captions"
ROWS = 60
NAMES = [f"{number}.parquet" for number in range(3)]


@pytest.fixture(scope="module")
def endpoint():
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"{host}:{port}"
    moto.stop()


@pytest.fixture
def store(endpoint, monkeypatch):
    """A filesystem of pyarrow with a bucket of captions. URLs lead there too, in this process and those that it starts."""
    found = {
        "AWS_ENDPOINT_URL": f"http://{endpoint}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    filesystem = fs.S3FileSystem(
        access_key="test", secret_key="test", region="us-east-1", endpoint_override=f"http://{endpoint}",
        allow_bucket_creation=True, allow_bucket_deletion=True,
    )
    filesystem.create_dir(BUCKET)
    for number, name in enumerate(NAMES):
        table = pa.table({"id": range(ROWS), "text": [f"{number} {row} 猫" if row else None for row in range(ROWS)]})
        pq.write_table(table, f"{BUCKET}/in/{name}", filesystem=filesystem)
    yield filesystem
    filesystem.delete_dir(BUCKET)


def check(store, embedder):
    """Every file is there once, with every row, and nothing else is left."""
    found = store.get_file_info(fs.FileSelector(f"{BUCKET}/out", recursive=True))
    files = sorted(one.path for one in found if one.is_file)
    manifest = [f"_manifest/{name}.json" for name in NAMES]
    assert files == sorted(f"{BUCKET}/out/{name}" for name in [*NAMES, *manifest, "_manifest/job.json"])
    for number, name in enumerate(NAMES):
        table = pq.read_table(f"{BUCKET}/out/{name}", filesystem=store)
        assert table["id"].to_pylist() == list(range(ROWS))
        rows = table["embedding"].to_pylist()
        expected = embedder.embed_texts([f"{number} 7 猫"], normalize=True)[0]
        assert rows[0] is None and abs(expected - rows[7]).max() < 1e-5
        with store.open_input_stream(f"{BUCKET}/out/_manifest/{name}.json") as content:
            assert json.loads(content.read()) == {"rows": ROWS, "skipped": {"expected a text, found None": 1}}


def do(job):
    stage = AltClipEmbedder(text_column="text")
    _, missing = job.begin()
    for source in missing:
        job.embed(source, stage.column, stage.embedder)
    job.finish()
    return missing


@pytest.mark.parametrize("query", ["", "?region=us-east-1"])
def test_urls_lead_to_a_bucket(store, embedder, query):
    sources = [f"s3://{BUCKET}/in/{name}{query}" for name in NAMES]
    job = ShardJob(Shards(sources, f"s3://{BUCKET}/out{query}"), {"text_column": "text"})
    assert do(job) == sources
    check(store, embedder)
    # Killed between the file and its entry, a file is done again.
    store.delete_file(f"{BUCKET}/out/_manifest/{NAMES[1]}.json")
    assert do(job) == sources[1:2]
    check(store, embedder)


def test_a_filesystem_of_pyarrow_is_taken(store, embedder):
    job = ShardJob(Shards([f"{BUCKET}/in/{name}" for name in NAMES], f"{BUCKET}/out", store), {"text_column": "text"})
    do(job)
    check(store, embedder)


def test_a_filesystem_of_fsspec_is_taken(store, embedder, endpoint):
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    through = s3fs.S3FileSystem(
        key="test", secret="test", client_kwargs={"endpoint_url": f"http://{endpoint}", "region_name": "us-east-1"}
    )
    job = ShardJob(Shards([f"{BUCKET}/in/{name}" for name in NAMES], f"{BUCKET}/out", through), {"text_column": "text"})
    do(job)
    check(store, embedder)


def test_a_file_that_is_not_there_is_an_error(store):
    job = ShardJob(Shards([f"s3://{BUCKET}/in/none.parquet"], f"s3://{BUCKET}/out"), {"text_column": "text"})
    with pytest.raises(FileNotFoundError, match="none.parquet"):
        do(job)
    with pytest.raises(altdiffusion.InputError, match="begun with"):
        ShardJob(Shards([], f"s3://{BUCKET}/out"), {"text_column": "caption"}).begin()


def test_the_example_embeds_a_bucket_on_ray(store, embedder):
    pytest.importorskip("ray", reason="Ray is not installed")
    script = ROOT / "bindings/python/examples/embed_shards.py"
    sources = [f"s3://{BUCKET}/in/{name}" for name in NAMES]
    command = [sys.executable, script, f"s3://{BUCKET}/out", *sources, "--workers", "2"]
    # Ray looks for no cluster.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        expected = f"{len(NAMES)} files, {ROWS * len(NAMES)} rows; skipped: {{'expected a text, found None': {len(NAMES)}}}"
        assert expected in done.stdout
        check(store, embedder)
