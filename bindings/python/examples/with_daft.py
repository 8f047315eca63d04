"""Embed a column of captions with Daft: `with_daft.py INPUT OUTPUT`"""

import sys

import daft
import numpy as np

import altdiffusion


@daft.cls
class Embed:
    """A model in each of Daft's workers."""

    def __init__(self):
        self.embedder = altdiffusion.Embedder()

    # Not lists of a fixed size: Parquet's readers do not find the nulls in those.
    @daft.method.batch(return_dtype=daft.DataType.list(daft.DataType.float32()))
    def __call__(self, texts: daft.Series):
        vectors = self.embedder.embed_texts(texts.to_pylist(), normalize=True, on_error=lambda index, error: None)
        # Rows without a text are NaN.
        return [None if np.isnan(vector[0]) else vector for vector in vectors]


captions = daft.read_parquet(sys.argv[1])
captions.with_column("embedding", Embed()(captions["text"])).write_parquet(sys.argv[2])
