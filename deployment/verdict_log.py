"""The file that a watch writes its verdicts to, and by which it knows, once it is started again, what it has judged."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from common import UserError
from deployment.report import csv_lines, json_lines
from storage.files import errors_name


class VerdictLog:
    """Rows appended to a file; those of a call are there whole or not at all.

    Parameters
    ----------
    path : a name that ends in .csv or .jsonl; a line that was not finished is cut off
    columns : that rows have
    recall : is called with each row that is there, of text or of numbers: years of them do not fit into the memory

    Raises
    ------
    UserError : if the file is not one of such rows.
    """

    def __init__(self, path: Path, columns: Sequence[str], recall: Callable[[dict], object]):
        self.path, self.columns, self.is_csv = path, list(columns), path.suffix == ".csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with errors_name(path), path.open("a+b") as file:
            file.seek(0)
            end = self._read(file, recall)
            if end < file.seek(0, io.SEEK_END):
                file.truncate(end)
            self.file = path.open("ab", buffering=0)

    def _read(self, file: BinaryIO, recall: Callable[[dict], object]) -> int:
        """Where the last whole line ends."""
        end = 0

        def lines():
            nonlocal end
            for line in file:
                if line.endswith(b"\n"):
                    end += len(line)
                    yield line.decode(errors="surrogateescape")

        rows = csv.DictReader(lines()) if self.is_csv else map(json.loads, lines())
        try:
            if self.is_csv:
                self._require(rows.fieldnames or self.columns)
            for row in rows:
                self._require([*row])
                recall(row)
        except (csv.Error, TypeError, ValueError) as error:
            raise UserError(f"{self.path}: not the verdicts of a watch ({error}); name another --output") from error
        return end

    def _require(self, found: list) -> None:
        """Raise UserError for other columns."""
        if found != self.columns:
            raise UserError(
                f"{self.path}: has the columns {', '.join(map(str, found))}; expected {', '.join(self.columns)}. "
                "Name another --output, or move it away"
            )

    def add(self, rows: Sequence[dict]) -> None:
        """Append rows, with one call of the system.

        Raises
        ------
        OSError : if they cannot be written, such as on a full disk; the file is then as it was.
        """
        end = self.file.seek(0, io.SEEK_END)
        text = csv_lines(rows, header=not end) if self.is_csv else json_lines(rows)
        left = memoryview(text.encode(errors="surrogateescape"))
        try:
            with errors_name(self.path):
                while left:
                    left = left[self.file.write(left) :]
        except BaseException:  # Ctrl-C too
            self.file.truncate(end)
            raise
