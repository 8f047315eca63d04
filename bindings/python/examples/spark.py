"""Embed a column of captions with Spark: `spark.py INPUT OUTPUT`"""

import sys

from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, FloatType


def load():
    """Runs once in each of Spark's Python processes."""
    import altdiffusion

    embedder = altdiffusion.Embedder()
    return lambda texts: embedder.embed_texts(texts.tolist(), normalize=True)


embed = predict_batch_udf(load, return_type=ArrayType(FloatType()), batch_size=2048)
spark = SparkSession.builder.getOrCreate()
captions = spark.read.parquet(sys.argv[1])
captions.withColumn("embedding", embed("text")).write.parquet(sys.argv[2])
