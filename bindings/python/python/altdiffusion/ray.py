"""Embeds more than a machine can hold: a stage for Ray Data, and a job over Parquet files that may be killed at any time.

    import ray
    from altdiffusion.ray import AltClipEmbedder

    captions = ray.data.read_parquet("captions")
    vectors = captions.map_batches(
        AltClipEmbedder, fn_constructor_kwargs={"text_column": "caption"}, batch_format="pyarrow", concurrency=2
    )
    vectors.write_parquet("vectors")
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ._columns import Column
from ._embedder import Embedder
from ._shards import Report, ShardJob, Shards, reason

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["AltClipEmbedder", "Report", "embed_shards"]


class AltClipEmbedder:
    """A stage for `ds.map_batches`: adds a column of vectors of length 1 to batches of Arrow, NumPy or pandas.

    Args:
        model: of `Embedder`, with its options. By default the model inside the package.
        text_column: the column of texts; or
        image_column: the column of images: bytes, names, or groups of `bytes` and `path`.
        output_column: the column of vectors; null where a row cannot be embedded, and NaN in batches of NumPy.
        opener: a function from the name of an image to its contents, such as `fsspec.filesystem("s3").cat_file`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        text_column: str | None = None,
        image_column: str | None = None,
        output_column: str = "embedding",
        opener: Callable[[str], bytes] | None = None,
        **options: Any,
    ) -> None:
        self.column = Column(text=text_column, image=image_column, output=output_column, opener=opener)
        self.embedder = Embedder(model, **options)
        self.skipped: Counter[str] = Counter()
        """How many rows were skipped, by reason."""

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        if isinstance(batch, dict):
            table = pa.table({name: _arrow(values) for name, values in batch.items()})
            found = self._embed(table).column(-1).combine_chunks()
            return {**batch, self.column.output: _rows(found, self.embedder.dim)}
        if not isinstance(batch, pa.Table):
            table = pa.Table.from_pandas(batch, preserve_index=False)
            found = self._embed(table).column(-1)
            return batch.assign(**{self.column.output: found.to_pylist()})
        return self._embed(batch)

    def _embed(self, table: pa.Table) -> pa.Table:
        return self.column.embed(self.embedder, table, lambda _, error: self.skipped.update([reason(error)]))


def embed_shards(
    inputs: Sequence[str],
    output: str,
    *,
    workers: int = 1,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    filesystem: Any = None,
    **options: Any,
) -> Report:
    """Embeds Parquet files, each into a file of the same name in the folder `output`, on Ray's workers.

    Every file is embedded exactly once: it is written beside and renamed, and then listed in `output/_manifest`. Start
    the same job again after anything was killed; it does what is not listed. `filesystem` is one of pyarrow or fsspec; by
    default the names are paths or URLs that pyarrow knows. `options` are those of `AltClipEmbedder`.
    """
    import ray

    job = ShardJob(Shards(inputs, output, filesystem), options)
    report, missing = job.begin()
    if not missing:
        job.finish()
        return report
    threads = str(max(1, round(cpus_per_worker)))

    class Worker:
        """Embeds files with a model of its own. It is started again if it dies, and gets its file again."""

        def __init__(self) -> None:
            self.embedder = AltClipEmbedder(**options)

        def embed(self, source: str) -> dict[str, Any]:
            return job.embed(source, self.embedder.column, self.embedder.embedder)

    actor: Any = ray.remote(
        num_cpus=cpus_per_worker,
        num_gpus=gpus_per_worker,
        max_restarts=-1,
        max_task_retries=-1,
        runtime_env={"env_vars": {"RAYON_NUM_THREADS": threads}},
    )(Worker)
    idle = [actor.remote() for _ in range(min(workers, len(missing)))]
    busy: dict[Any, Any] = {}
    while missing or busy:
        while idle and missing:
            worker = idle.pop()
            busy[worker.embed.remote(missing.pop(0))] = worker
        done, _ = ray.wait(list(busy))
        for entry in done:
            idle.append(busy.pop(entry))
            report.add(ray.get(entry))
    job.finish()
    return report


def _arrow(values: Any) -> Any:
    import pyarrow as pa

    return pa.array(list(values)) if getattr(values, "ndim", 1) == 1 else pa.array(values.tolist())


def _rows(column: Any, dim: int) -> Any:
    import numpy as np

    rows = np.full((len(column), dim), np.nan, np.float32)
    is_there = np.asarray(column.is_valid())
    rows[is_there] = np.asarray(column.drop_null().flatten()).reshape(-1, dim)
    return rows
