"""Attributes of clips whose names hide them: ``attributes_<NN>*.csv`` beside a machine type's folders."""

import contextlib
import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from common import UserError, fault_list
from years.year import Year, told

Clip = TypeVar("Clip")  # of audio/clips.py
FILES = "attributes_*.csv"
TOLD_LATER = ["source_file_name", "target_file_name"]  # full name, name as given out


def filled(clips: Sequence[Clip], year: Year) -> list[Clip]:
    """Clips with the attributes that a file beside their folder tells where their names do not."""
    hiding = {clip.path.parent.parent for clip in clips if clip.attributes is None}
    known = {folder: _read_all(sorted(folder.glob(FILES)), year) for folder in sorted(hiding)}
    return [
        clip
        if clip.attributes or not (own := known[clip.path.parent.parent].get(clip.path.name))
        else dataclasses.replace(clip, attributes=own)
        for clip in clips
    ]


def _read_all(paths: Sequence[Path], year: Year) -> dict[str, str]:
    """File name of a clip -> its attributes as one text; UserError names the rows that contradict each other."""
    found: dict[str, str] = {}
    faults = []
    for path in paths:
        for number, name, text in _rows(path, year):
            if text and found.setdefault(name, text) != text:
                faults.append(f"{path}, row {number}: {name} has {text}, and {found[name]} in another row")
    if faults:
        raise fault_list("Attributes that contradict each other", faults, "Get the files again, or move them away.")
    return found


def _rows(path: Path, year: Year) -> Iterator[tuple[int, str, str | None]]:
    """Number, file name of the clip, and its attributes, of each row.

    There are two kinds of files: ``file_name,d1p,d1v,d2p,d2v``, pairs of a name and a value, perhaps with the full name
    behind them; and, of attributes that were told later, ``source_file_name,target_file_name``.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); get it again, or move it away") from error
    later = bool(rows) and rows[0][:2] == TOLD_LATER
    for number, row in enumerate(rows[1:], 2):
        cells = [cell.strip() for cell in row if cell.strip()]
        names = [cell.replace("\\", "/").rpartition("/")[2] for cell in cells if cell.lower().endswith(".wav")]
        if later and len(names) > 1:
            yield number, names[1], _of_full_name(names[0], year)
        elif names:
            text = told("_".join(cell for cell in cells if not cell.lower().endswith(".wav")))
            yield number, names[0], text or _of_full_name(names[-1], year)


def _of_full_name(name: str, year: Year) -> str | None:
    with contextlib.suppress(ValueError):
        return year.parse(name).attributes
    return None
