"""Judging what arrives, in a folder or through a pipe, until one is asked to stop."""

import contextlib
import dataclasses
import logging
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic, sleep, time_ns

from audio import stream
from audio.clips import Clip, wav_paths
from common import UserError
from deployment import report
from deployment.detection import Judge, Session, Verdict
from deployment.hearing import Hearing, windows
from deployment.recordings import STANDARD_INPUT
from deployment.report import Telling
from deployment.verdict_log import VerdictLog
from storage.files import errors_name

INTERVAL = 1.0  # [s] from one look at a folder to the next
PATIENCE = 30.0  # [s] for which a file that cannot be judged has to stay as it is until that is told
WIDTH = 20  # of a recording's name on the screen; longer ones push the rest aside
WINDOWS_AHEAD = 8  # of a stream, that wait while others are judged, and while TensorFlow is loaded

logger = logging.getLogger(__name__)


def judge(session: Session, place: Path, *, raw: tuple[int, int] | None, output: Path | None, telling: Telling) -> None:
    """Judge what arrives until asked to stop, or the stream ends.

    Parameters
    ----------
    place : a folder, or ``-`` for standard input
    raw : sample rate and number of channels of samples without a header
    """
    is_stream, hearing = str(place) == STANDARD_INPUT, session.hearing
    by_channel = hearing.channels is not None
    if not is_stream and not place.is_dir():
        raise UserError(f"--watch {place}: no such folder (looked for {place.resolve()})")
    if not output and not is_stream:
        output = place / f"verdicts_{hearing.machine_type}_{session.system.name}.csv"
    known: set[tuple[str, str]] = set()

    def recall(row: dict) -> None:
        telling.hear(row)
        if not is_stream:
            known.add((row["recording"], row["time"]))

    with until_asked_to_stop(), tempfile.TemporaryDirectory() as folder:
        log = VerdictLog(output, ["time", *telling.columns(by_channel=by_channel)], recall) if output else None
        if is_stream:
            sound, parts = open_stream(sys.stdin.buffer, raw, hearing)
        with session.judge() as judge:
            if is_stream:
                judge.require_machine_id()
                judged = watch_stream(sound, parts, judge, Path(folder, "stream.wav"))
            else:
                judged = watch_folder(Arrivals(place, hearing, known), judge)
            if not telling.as_json:
                print(f"{'time':19}  {report.title(WIDTH, by_channel=by_channel)}", flush=True)
            for verdicts, when in judged:
                rows = [{"time": time_text(when), **row} for row in telling.rows(verdicts)]
                if log:
                    log.add(rows)
                shown = datetime.fromtimestamp(when / 1e9).strftime("%Y-%m-%d %H:%M:%S")
                table = "".join(f"{shown}  {report.line(row, WIDTH)}\n" for row in rows)
                with errors_name(Path("standard output")):
                    print(report.json_lines(rows) if telling.as_json else table, end="", flush=True)


@contextlib.contextmanager
def until_asked_to_stop() -> Iterator[None]:
    """Leave the block without an error at Ctrl-C or SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        logger.info("asked to stop: what was judged is written, and the same command goes on from there")
    finally:
        signal.signal(signal.SIGTERM, before)


def time_text(nanoseconds: int) -> str:
    """Time as ISO 8601 in UTC, to the microsecond."""
    return datetime.fromtimestamp(nanoseconds / 1e9, timezone.utc).isoformat(timespec="microseconds")


# ---- a folder ----


@dataclass
class Seen:
    """A file of the folder, as it was when it was looked at."""

    state: tuple[int, int]  # time of the last change [ns], size [bytes]
    since: float  # when it was first seen so [s]
    faults: tuple[str, ...] = ()  # why it cannot be judged as it is
    done: bool = False  # judged, or told why not


class Arrivals:
    """The wav files of a folder, each once it is whole: its size and time stay, and the header's sound is there.

    Parameters
    ----------
    known : (name, time) of the files that were judged before
    """

    def __init__(self, folder: Path, hearing: Hearing, known: set[tuple[str, str]]):
        self.folder, self.hearing, self.known = folder, hearing, known
        self.seen: dict[Path, Seen] = {}

    def look(self, now: float) -> Iterator[list[Clip]]:
        """Those that have become whole since the last look, the oldest first, each as clips of its channels.

        Parameters
        ----------
        now : [s], of a clock that only goes on
        """
        there = {path: state for path in wav_paths(self.folder) if (state := _state(path))}
        self.seen = {path: seen for path, seen in self.seen.items() if path in there}
        for path, state in sorted(there.items(), key=lambda item: (item[1][0], item[0])):
            seen = self.seen.get(path)
            if seen is None or seen.state != state:
                done = (path.name, time_text(state[0])) in self.known
                self.seen[path] = Seen(state, now, done=done)
            elif not seen.done and (clips := self._whole(path, seen, now)):
                yield clips

    def _whole(self, path: Path, seen: Seen, now: float) -> list[Clip]:
        if not seen.faults:
            clips, faults = self.hearing.heard(path)
            if clips and any((clip.mtime_ns, clip.size) != seen.state for clip in clips):
                return []  # the next look sees to it
            if clips:
                seen.done = True
                for fault in faults:
                    logger.error("%s: not judged: %s", path, fault)
                return clips
            seen.faults = tuple(faults)
        elif now - seen.since >= PATIENCE:
            self.refuse(path, "; ".join(seen.faults))
        return []

    def refuse(self, path: Path, fault: object) -> None:
        """Tell once that a file is not judged as it is; where it has changed, the next look sees to it."""
        seen = self.seen[path]
        if _state(path) == seen.state:
            seen.done = True
            logger.error("%s: not judged: %s", path, fault)


def _state(path: Path) -> tuple[int, int] | None:
    """Time of the last change and size of a file, None where it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def watch_folder(arrivals: Arrivals, judge: Judge) -> Iterator[tuple[list[Verdict], int]]:
    """Verdicts on the windows of each file that arrives, and when it was written [ns]; it never ends."""
    logger.info("watching %s; %d recordings were judged before", arrivals.folder, len(arrivals.known))
    while True:
        for clips in arrivals.look(monotonic()):
            path, when = clips[0].path, clips[0].mtime_ns
            names = {path: path.name}
            parts, errors = judge.usable(windows(clips, judge.hearing.n_samples), names, repeat=False)
            try:
                if errors:
                    raise errors[0]
                verdicts = judge.verdicts(parts, names)
            except UserError as error:
                arrivals.refuse(path, error)
            else:
                yield verdicts, when
        sleep(INTERVAL)


# ---- a stream ----


def open_stream(standard_input, raw: tuple[int, int] | None, hearing: Hearing):
    """Format of the stream and its windows, which are read from now on.

    Raises
    ------
    UserError : if such a stream cannot be judged.
    """
    pipe = getattr(standard_input, "raw", standard_input)  # a thread that waits for a buffer's lock hangs at the end
    try:
        sound = stream.raw_format(*raw) if raw else stream.read_format(pipe)
        hearing.require(sound.sample_rate, sound.n_channels)
    except ValueError as error:
        raise UserError(f"{STANDARD_INPUT}: {error}") from error
    return sound, stream.read_ahead(stream.windows(pipe, sound, hearing.n_samples), WINDOWS_AHEAD)


def watch_stream(
    sound: stream.Format, parts: Iterator[tuple[int, bytes]], judge: Judge, path: Path
) -> Iterator[tuple[list[Verdict], int]]:
    """Verdicts on each window of a stream when it is there, and the time [ns]; ``path`` is for one at a time."""
    names, told = {path: STANDARD_INPUT}, set()
    for first, content in parts:
        with errors_name(path):
            path.write_bytes(sound.wav(content))
        clips, faults = judge.hearing.heard(path)
        clips, errors = judge.usable(clips, names, repeat=False)
        faults += map(str, errors)
        start = first / sound.sample_rate
        for fault in faults:
            if fault not in told:
                logger.error("%s at %.2f s: not judged: %s", STANDARD_INPUT, start, fault)
        told = {*faults}
        if clips:
            verdicts = judge.verdicts(clips, names)
            yield [dataclasses.replace(one, start=start) for one in verdicts], time_ns()
