"""The file that a watch writes its verdicts to, and by which it knows, once it is started again, what it has judged."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from common import UserError
from deployment.report import csv_lines, json_lines
from storage.files import errors_name


class VerdictLog:
    """Rows appended to a file; those of a call are there whole or not at all.

    Parameters
    ----------
    path : a name that ends in .csv or .jsonl; a line that was not finished is cut off
    columns : that rows have

    Raises
    ------
    UserError : if the file is not one of such rows.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path, self.columns = path, list(columns)
        path.parent.mkdir(parents=True, exist_ok=True)
        with errors_name(path):
            self.file = path.open("a+b", buffering=0)
            self.file.seek(0)
            content = self.file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self.rows = self._read(whole.decode(errors="surrogateescape"))
        if len(whole) < len(content):
            self.file.truncate(len(whole))

    def _read(self, text: str) -> list[dict]:
        """The rows that are there, as text or as numbers."""
        try:
            if self.path.suffix == ".csv":
                reader = csv.DictReader(io.StringIO(text, newline=""))
                rows, columns = [*reader], [reader.fieldnames or self.columns]
            else:
                rows = [json.loads(line) for line in text.splitlines()]
                columns = map(list, rows)
        except (csv.Error, ValueError) as error:
            raise UserError(f"{self.path}: not the verdicts of a watch ({error}); name another --output") from error
        if wrong := next((found for found in columns if found != self.columns), None):
            raise UserError(
                f"{self.path}: has the columns {', '.join(wrong)}; expected {', '.join(self.columns)}. "
                "Name another --output, or move it away"
            )
        return rows

    def add(self, rows: Sequence[dict]) -> None:
        """Append rows, with one call of the system.

        Raises
        ------
        OSError : if they cannot be written, such as on a full disk; the file is then as it was.
        """
        if not rows:
            return
        end = self.file.seek(0, io.SEEK_END)
        is_csv = self.path.suffix == ".csv"
        text = csv_lines(rows, header=not end) if is_csv else json_lines(rows)
        left = memoryview(text.encode(errors="surrogateescape"))
        try:
            with errors_name(self.path):
                while left:
                    left = left[self.file.write(left) :]
        except BaseException:  # Ctrl-C too
            self.file.truncate(end)
            raise
