"""Embed a column of captions with Spark: `spark.py INPUT OUTPUT`

PYSPARK_PYTHON names the Python of Spark's workers, which needs this package too.
"""

import sys

from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.functions import when
from pyspark.sql.types import ArrayType, FloatType


def load():
    """Runs once in each of Spark's Python processes."""
    import altdiffusion

    embedder = altdiffusion.Embedder()

    def vectors(texts):
        # Spark passes NaN for a null. Its vector is NaN, and null in the result.
        given = [text if isinstance(text, str) else None for text in texts]
        return embedder.embed_texts(given, normalize=True, on_error=lambda index, error: None)

    return vectors


embed = predict_batch_udf(load, return_type=ArrayType(FloatType()), batch_size=2048)
spark = SparkSession.builder.getOrCreate()
captions = spark.read.parquet(sys.argv[1])
vectors = when(captions["text"].isNotNull(), embed("text"))
captions.withColumn("embedding", vectors).write.parquet(sys.argv[2])
