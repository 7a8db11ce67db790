"""Verdicts as rows: on the screen, as CSV and as JSON."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

from deployment.alarm import Alarm
from deployment.detection import Verdict
from storage.files import write_text


def rows(verdicts: Sequence[Verdict], alarm: Alarm | None) -> list[dict]:
    """Verdicts as plain values, in the order of the output; with ``alarm``, whether there is one."""
    found = []
    for verdict in verdicts:
        row = dataclasses.asdict(verdict)
        if alarm:
            where = f"{verdict.recording} at {verdict.start:.2f} s"
            row["alarm"] = alarm.hear(verdict.machine_id, verdict.verdict == "anomaly", where)
        found.append(row)
    return found


def title(width: int = 0) -> str:
    """Names of the columns of :func:`line`."""
    return f"{'recording':{width}}   ID     start [s]       score   threshold  percentile  verdict"


def line(row: dict, width: int = 0) -> str:
    """A row for the screen; ``width`` is that of the longest name."""
    return (
        f"{row['recording']:{width}}  {row['machine_id']}  {row['start']:9.2f}  {row['score']:10.5g}  "
        f"{row['threshold']:10.5g}  {row['percentile']:10.1f}  {row['verdict']}{'  ALARM' * row.get('alarm', False)}"
    )


def table(rows: Sequence[dict]) -> str:
    """Rows for the screen, and how many are anomalous."""
    width = max(len("recording"), *(len(row["recording"]) for row in rows))
    n_anomalous = sum(row["verdict"] == "anomaly" for row in rows)
    lines = [line(row, width) for row in rows]
    return "\n".join([title(width), *lines, f"{n_anomalous} of {len(rows)} anomalous"])


def json_line(row: dict) -> str:
    """A row as a JSON object in one line; floats have the digits that give the same number again."""
    return json.dumps(row)


def json_lines(rows: Sequence[dict]) -> str:
    """Rows as JSON objects, one in each line."""
    return "".join(f"{json_line(row)}\n" for row in rows)


def csv_lines(rows: Sequence[dict], *, header: bool) -> str:
    """Rows as lines of a CSV, with the same digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(path: Path, rows: Sequence[dict]) -> None:
    """Write the rows as the name's ending says."""
    texts = {
        ".json": lambda: json.dumps(rows, indent=1) + "\n",
        ".jsonl": lambda: json_lines(rows),
        ".csv": lambda: csv_lines(rows, header=True),
    }
    write_text(path, texts[path.suffix]())
