"""JSON lines: one object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from feedtune.json_lines import objects_in
from feedtune_plugins.tasks.sources import FileTask, Located


class Jsonl(FileTask):
    """Rows from JSON lines; blank lines are skipped. The options are those of `FileTask`."""

    suffixes = (".jsonl", ".ndjson")

    def read_file(self, file: Path) -> Iterator[Located]:
        for where, row in objects_in(file.read_bytes(), file):
            yield Located(where, row)
