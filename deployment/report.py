"""Verdicts as rows: on the screen, as CSV and as JSON."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence

from deployment.alarm import Alarm
from deployment.detection import Verdict


class Telling:
    """What is told of the verdicts of one call of 04_detect.py.

    Parameters
    ----------
    rule : of the alarm, as :class:`Alarm` takes it; None: there is none
    as_json : whether the screen gets JSON objects
    """

    def __init__(self, rule: tuple[int, int] | None, *, as_json: bool):
        self.alarm, self.as_json = Alarm(*rule) if rule else None, as_json
        self.occurred = False  # an anomaly, with an alarm an alarm

    def rows(self, verdicts: Sequence[Verdict]) -> list[dict]:
        """Verdicts as plain values, in the order of the output; with an alarm, whether there is one."""
        found = [dataclasses.asdict(verdict) for verdict in verdicts]
        for row in found:
            if row["channel"] is None:
                del row["channel"]
            is_told = self.hear(row, f"{row['recording']} at {row['start']:.2f} s")
            self.occurred |= is_told
            if self.alarm:
                row["alarm"] = is_told
        return found

    def hear(self, row: dict, where: str = "") -> bool:
        """Whether a row is of an anomaly, with an alarm: there is one; without ``where`` an earlier run has told it."""
        machine = f"{row['machine_id']}, channel {row['channel']}" if "channel" in row else row["machine_id"]
        is_anomaly = row["verdict"] == "anomaly"
        return self.alarm.hear(machine, is_anomaly, where) if self.alarm else is_anomaly

    def columns(self, *, by_channel: bool) -> list[str]:
        """Columns of the rows."""
        names = [field.name for field in dataclasses.fields(Verdict) if by_channel or field.name != "channel"]
        return [*names, *(["alarm"] if self.alarm else [])]


def title(width: int, *, by_channel: bool) -> str:
    """Names of the columns of :func:`line`."""
    channel = "channel  " if by_channel else ""
    return f"{'recording':{width}}   ID     {channel}start [s]       score   threshold  percentile  verdict"


def line(row: dict, width: int) -> str:
    """A row for the screen; ``width`` is that of the longest name."""
    channel = f"{row['channel']:7}  " if "channel" in row else ""
    return (
        f"{row['recording']:{width}}  {row['machine_id']}  {channel}{row['start']:9.2f}  {row['score']:10.5g}  "
        f"{row['threshold']:10.5g}  {row['percentile']:10.1f}  {row['verdict']}{'  ALARM' * row.get('alarm', False)}"
    )


def table(rows: Sequence[dict]) -> str:
    """Rows for the screen, and how many are anomalous."""
    width = max(len("recording"), *(len(row["recording"]) for row in rows))
    n_anomalous = sum(row["verdict"] == "anomaly" for row in rows)
    lines = [title(width, by_channel="channel" in rows[0]), *(line(row, width) for row in rows)]
    return "\n".join([*lines, f"{n_anomalous} of {len(rows)} anomalous\n"])


def json_lines(rows: Sequence[dict]) -> str:
    """Rows as JSON objects, one in each line; floats have the digits that give the same number again."""
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def csv_lines(rows: Sequence[dict], *, header: bool = True) -> str:
    """Rows as lines of a CSV, with the same digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


FILES = {  # ending of a file's name -> its content
    ".csv": csv_lines,
    ".jsonl": json_lines,
    ".json": lambda rows: json.dumps(rows, indent=1) + "\n",
}
