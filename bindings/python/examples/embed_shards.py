"""Embed Parquet files of captions, anywhere, on Ray's workers: `embed_shards.py OUTPUT FILE...`

Files and folders may be URLs, such as s3://bucket/captions/1.parquet. Start it again after anything was killed.
"""

import argparse

import ray

from altdiffusion.ray import embed_shards

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("output")
parser.add_argument("files", nargs="+")
parser.add_argument("--model")
parser.add_argument("--text-column", default="text")
parser.add_argument("--workers", type=int, default=1)
parser.add_argument("--cpus-per-worker", type=float, default=1)
arguments = parser.parse_args()

ray.init()
report = embed_shards(
    arguments.files,
    arguments.output,
    workers=arguments.workers,
    cpus_per_worker=arguments.cpus_per_worker,
    model=arguments.model,
    text_column=arguments.text_column,
)
print(f"{report.files} files, {report.rows} rows; skipped: {dict(report.skipped)}")
