"""Judging recordings that are named: all of them, or none."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from audio.clips import Clip, wav_paths
from common import UserError, fault_list
from deployment import report
from deployment.detection import Session
from deployment.hearing import windows
from deployment.report import Telling
from storage.files import expanded, write_text

STANDARD_INPUT = "-"


def judge(
    session: Session,
    arguments: Sequence[str],
    *,
    keep_going: bool,
    plot: Path | None,
    output: Path | None,
    telling: Telling,
) -> None:
    """Print and write verdicts on recordings.

    Parameters
    ----------
    arguments : paths of files and folders, patterns, or ``-`` for standard input
    keep_going : judge what can be judged, and raise errors at the end

    Raises
    ------
    UserError : naming all recordings that cannot be judged.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = find(arguments, sys.stdin.buffer, Path(folder))
        clips, errors = check(session, names)
        if plot and len(clips) > 1:
            raise UserError(f"--plot draws one recording, in one channel; there are {len(clips)}")
        _go_on(errors, clips, keep_going=keep_going)
        parts = windows(clips, session.hearing.n_samples)
        with session.judge(len(parts)) as judge:
            parts, unusable = judge.usable(parts, names)
            errors += unusable
            _go_on(errors, parts, keep_going=keep_going)
            verdicts = judge.verdicts(parts, names)
        rows = telling.rows(verdicts)
        print(report.json_lines(rows) if telling.as_json else report.table(rows), end="")
        if output:
            write_text(output, report.FILES[output.suffix](rows))
        if plot:
            from deployment import picture, unusual

            found = judge.deviations(parts)
            print(unusual.words(verdicts, found), file=sys.stderr if telling.as_json else sys.stdout)
            picture.plot(plot, verdicts, parts, session.system.feature, found)
    _go_on(errors, [], keep_going=False)


def find(arguments: Sequence[str], standard_input: BinaryIO, folder: Path) -> dict[Path, str]:
    """Files to be judged -> what they are called; each once, in the order given.

    What comes from standard input is put into the ``folder`` as a file.
    """
    names: dict[Path, str] = {}
    for argument in dict.fromkeys(arguments):  # standard input can be read once
        if argument == STANDARD_INPUT:
            path = folder / "standard_input.wav"
            path.write_bytes(standard_input.read())
            names[path] = argument
        else:
            names |= {path: str(path) for path in _files(argument)}
    return names


def _files(argument: str) -> list[Path]:
    """Wav files that an argument means: a file, those of a folder, those that a pattern fits."""
    found = []
    for path in expanded(argument):
        if not path.exists():
            found_as = "" if path == Path(argument) else f"{path}: "
            raise UserError(f"{argument}: {found_as}no such file or folder (looked for {path.resolve()})")
        found += wav_paths(path) if path.is_dir() else [path]
    if not found:
        raise UserError(f"{argument}: no wav file in this folder")
    return found


def check(session: Session, names: dict[Path, str]) -> tuple[list[Clip], list[UserError]]:
    """The recordings that can be judged, and an error that names all others, if there are any."""
    clips, faults = [], {}
    for path, name in names.items():
        found, of_file = session.hearing.heard(path)
        clips += found
        faults |= {f"{name}: {fault}": path for fault in of_file}
    title = f"{len({*faults.values()})} of {len(names)} recordings cannot be judged"
    return clips, [fault_list(title, [*faults], "Mend these, or leave them out.")] if faults else []


def _go_on(errors: Sequence[UserError], left: Sequence[Clip], *, keep_going: bool) -> None:
    """Raise the errors unless one is to ``keep_going`` with what is left; then they are raised at the end."""
    if errors and not (keep_going and left):
        raise UserError("\n".join(map(str, errors)))
