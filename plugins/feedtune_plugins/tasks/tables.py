"""Tables: CSV by the standard library, Parquet by pyarrow."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feedtune.errors import UserError, missing_extra
from feedtune_plugins.tasks.sources import FileTask, Located, read_text


class Csv(FileTask):
    """Rows from CSV files whose first line names the columns; every value is text.

    Args:
        delimiter: what separates two fields: one character.
        path: see `FileTask`, as for the others.
    """

    suffixes = (".csv", ".tsv")

    def __init__(
        self,
        *,
        path: str | None = None,
        eval_path: str | None = None,
        eval_fraction: float = 0.05,
        seed: int = 0,
        columns: Mapping[str, str] | None = None,
        chat: bool = False,
        delimiter: str = ",",
    ) -> None:
        super().__init__(
            path=path,
            eval_path=eval_path,
            eval_fraction=eval_fraction,
            seed=seed,
            columns=columns,
            chat=chat,
        )
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise UserError(f"task.delimiter: expected one character such as ',' or ';', got {delimiter!r}")
        self.delimiter = delimiter

    def read_file(self, file: Path) -> Iterator[Located]:
        lines = csv.reader(io.StringIO(read_text(file), newline=""), delimiter=self.delimiter, strict=True)
        header: list[str] | None = None
        for number, fields in _numbered(lines, file):
            if not fields:  # a blank line
                continue
            where = f"{file}:{number}"
            if header is None:
                header = _header(fields, where)
            elif len(fields) != len(header):
                raise UserError(
                    f"{where}: {len(fields)} fields, but the first line names {len(header)} columns"
                )
            else:
                yield Located(where, dict(zip(header, fields, strict=True)))


class Parquet(FileTask):
    """Rows from Parquet files. The options are those of `FileTask`."""

    suffixes = (".parquet",)

    def require(self) -> None:
        try:
            import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: F401 - asked for before reading
        except ModuleNotFoundError as error:
            raise missing_extra("pyarrow", "data", "task=parquet") from error

    def read_file(self, file: Path) -> Iterator[Located]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                number = 0
                for batch in table.iter_batches():
                    for row in batch.to_pylist():
                        number += 1
                        yield Located(f"{file}, row {number}", row)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{file}: cannot be read as Parquet: {reason}") from error


def _header(fields: list[str], where: str) -> list[str]:
    twice = next((name for name in fields if fields.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where}: two columns have the name '{twice}'")
    return fields


def _numbered(lines: Any, file: Path) -> Iterator[tuple[int, list[str]]]:
    """Records and the line on which each begins; a field may be of any length."""
    with _any_length():
        while True:
            begin = lines.line_num + 1
            try:
                fields = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(f"{file}:{begin}: not CSV: {error}") from error
            yield begin, fields


@contextmanager
def _any_length() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters a field, which holds for all its users."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
