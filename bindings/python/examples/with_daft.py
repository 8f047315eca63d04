"""Embed a column of captions with Daft: `with_daft.py INPUT OUTPUT`"""

import sys

import daft

import altdiffusion


@daft.cls
class Embed:
    """A model in each of Daft's workers."""

    def __init__(self):
        self.embedder = altdiffusion.Embedder()

    @daft.method.batch(return_dtype=daft.DataType.fixed_size_list(daft.DataType.float32(), 128))
    def __call__(self, texts: daft.Series):
        return list(self.embedder.embed_texts(texts.to_pylist(), normalize=True))


captions = daft.read_parquet(sys.argv[1])
captions.with_column("embedding", Embed()(captions["text"])).write_parquet(sys.argv[2])
