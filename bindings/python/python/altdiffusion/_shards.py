"""Embeds Parquet files one by one, so that each is done exactly once whatever is killed."""

from __future__ import annotations

import json
import posixpath
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ._errors import InputError

if TYPE_CHECKING:
    from ._columns import Column
    from ._embedder import Embedder

MANIFEST = "_manifest"
PARTIAL = "_partial"
JOB = "job.json"
# Rows in memory at a time, and rows of a row group.
ROWS = 8192


class Report:
    """How many rows of how many files are done, and how many were skipped, by reason."""

    def __init__(self) -> None:
        self.files = 0
        self.rows = 0
        self.skipped: Counter[str] = Counter()

    def add(self, entry: dict[str, Any]) -> None:
        """Adds a file's entry in the manifest."""
        self.files += 1
        self.rows += entry["rows"]
        self.skipped.update(entry["skipped"])

    def __repr__(self) -> str:
        return f"Report(files={self.files}, rows={self.rows}, skipped={dict(self.skipped)})"


class Shards:
    """The files, and the folder for the results, on any filesystem."""

    def __init__(self, inputs: Sequence[str], output: str, filesystem: Any = None) -> None:
        names = [name_of(source) for source in inputs]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"{twice[0]}: expected files with different names, found one name twice")
        self.inputs, self.output, self._filesystem = list(inputs), output, filesystem

    def open(self, name: str) -> tuple[Any, str]:
        """The filesystem of pyarrow with this file, and its path there."""
        from pyarrow import fs

        given = self._filesystem
        if given is None:
            if "://" in name:
                found: tuple[Any, str] = fs.FileSystem.from_uri(name)
                return found
            return fs.LocalFileSystem(), name
        if isinstance(given, fs.FileSystem):
            return given, name
        return fs.PyFileSystem(fs.FSSpecHandler(given)), name

    def folder(self) -> tuple[Any, str]:
        """The filesystem with the results, and their folder there."""
        return self.open(self.output)


class ShardJob:
    """A job, which its folder describes, so that another cannot be mixed with it."""

    def __init__(self, shards: Shards, options: dict[str, Any]) -> None:
        self.shards = shards
        shown = {name: str(value) for name, value in options.items() if name != "opener"}
        self._description = json.dumps(shown, sort_keys=True, ensure_ascii=False)

    def begin(self) -> tuple[Report, list[str]]:
        """What is done already, and the files that are not."""
        filesystem, folder = self.shards.folder()
        for name in (MANIFEST, PARTIAL):
            filesystem.create_dir(f"{folder}/{name}", recursive=True)
        path = f"{folder}/{MANIFEST}/{JOB}"
        found = _read(filesystem, path)
        if found is None:
            _write(filesystem, folder, path, self._description)
        elif found != self._description:
            raise InputError(f"{path}: begun with {found}, expected {self._description}, or another folder")
        report, missing = Report(), []
        done = {name: _read(filesystem, name) for name in _files(filesystem, f"{folder}/{MANIFEST}")}
        for source in self.shards.inputs:
            entry = done.get(self._entry(folder, source))
            if entry is None:
                missing.append(source)
            else:
                report.add(json.loads(entry))
        return report, missing

    def embed(self, source: str, column: Column, embedder: Embedder) -> dict[str, Any]:
        """Embeds one file, and returns its entry in the manifest."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        filesystem, folder = self.shards.folder()
        partial = f"{folder}/{PARTIAL}/{uuid.uuid4().hex}.parquet"
        skipped: Counter[str] = Counter()
        rows = 0
        writer = None
        of_source, path = self.shards.open(source)
        with of_source.open_input_file(path) as content, filesystem.open_output_stream(partial) as output:
            reader = pq.ParquetFile(content)
            for batch in reader.iter_batches(batch_size=ROWS):
                table = column.embed(
                    embedder, pa.Table.from_batches([batch]), lambda _, error: skipped.update([reason(error)])
                )
                writer = writer or pq.ParquetWriter(output, table.schema)
                writer.write_table(table)
                rows += len(table)
            if writer is None:
                empty = column.embed(embedder, reader.schema_arrow.empty_table(), lambda *_: None)
                writer = pq.ParquetWriter(output, empty.schema)
            writer.close()
        filesystem.move(partial, f"{folder}/{name_of(source)}")
        entry = {"rows": rows, "skipped": dict(sorted(skipped.items()))}
        _write(filesystem, folder, self._entry(folder, source), json.dumps(entry, ensure_ascii=False))
        return entry

    def _entry(self, folder: str, source: str) -> str:
        return f"{folder}/{MANIFEST}/{name_of(source)}.json"

    def finish(self) -> None:
        """Removes what killed workers left unfinished, once every file is done."""
        filesystem, folder = self.shards.folder()
        try:
            filesystem.delete_dir(f"{folder}/{PARTIAL}")
        except FileNotFoundError:
            # A store without folders has none that is empty.
            pass


def name_of(source: str) -> str:
    """The name of a file, from its path or its URL, whose query says how it is reached."""
    if "://" in source:
        source = unquote(urlsplit(source).path)
    return posixpath.basename(source)


def reason(error: BaseException) -> str:
    """Why a row was skipped, without what is particular to it."""
    text = str(error)
    if text.startswith("expected "):
        return text
    return type(error).__name__


def _read(filesystem: Any, path: str) -> str | None:
    try:
        with filesystem.open_input_stream(path) as content:
            text: str = content.read().decode()
            return text
    except FileNotFoundError:
        return None


def _write(filesystem: Any, folder: str, path: str, text: str) -> None:
    partial = f"{folder}/{PARTIAL}/{uuid.uuid4().hex}"
    with filesystem.open_output_stream(partial) as output:
        output.write(text.encode())
    filesystem.move(partial, path)


def _files(filesystem: Any, folder: str) -> list[str]:
    from pyarrow import fs

    return [found.path for found in filesystem.get_file_info(fs.FileSelector(folder)) if found.is_file]
