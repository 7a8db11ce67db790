"""Judging what arrives, in a folder or through a pipe, until one is asked to stop."""

import contextlib
import dataclasses
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic, sleep, time_ns

from audio import stream, wav
from audio.clips import Clip, wav_paths
from common import UserError
from deployment import detection, report
from deployment.alarm import Alarm
from deployment.detection import UNUSABLE, Judge, Verdict
from deployment.verdict_log import VerdictLog

INTERVAL = 1.0  # [s] from one look at a folder to the next
PATIENCE = 30.0  # [s] for which a file that cannot be judged has to stay as it is until that is told
COLUMNS = ("time", *(field.name for field in dataclasses.fields(Verdict)))
WIDTH = 20  # of a recording's name on the screen; longer ones push the rest aside
WINDOWS_AHEAD = 8  # of a stream, that wait while others are judged, and while TensorFlow is loaded

logger = logging.getLogger(__name__)


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


class Telling:
    """Where verdicts go as they come: the log, then the screen, each time flushed.

    Parameters
    ----------
    log : None: they go to the screen alone
    as_json : whether the screen gets JSON objects
    """

    def __init__(self, log: VerdictLog | None, alarm: Alarm | None, *, as_json: bool):
        self.log, self.alarm, self.as_json = log, alarm, as_json
        self.known = {(row["recording"], row["time"]) for row in log.rows} if log else set()
        self.any_anomaly = False
        for row in log.rows if log and alarm else ():
            alarm.recall(row["machine_id"], row["verdict"] == "anomaly")
        if not as_json:
            print(f"{'time':19}  {report.title(WIDTH)}", flush=True)

    def tell(self, verdicts: list[Verdict], when: str) -> None:
        """Write and print the verdicts on a recording, or on a window of a stream."""
        rows = [{"time": when, **row} for row in report.rows(verdicts, self.alarm)]
        if self.log:
            self.log.add(rows)
        for row in rows:
            shown = datetime.fromisoformat(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            print(report.json_line(row) if self.as_json else f"{shown}  {report.line(row, WIDTH)}", flush=True)
        self.any_anomaly |= any(verdict.verdict == "anomaly" for verdict in verdicts)


def columns(alarm: Alarm | None) -> list[str]:
    """Columns of the rows of a watch."""
    return [*COLUMNS, *(["alarm"] if alarm else [])]


def time_text(nanoseconds: int) -> str:
    """Time as ISO 8601 in UTC, to the microsecond."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return (
        datetime.fromtimestamp(seconds, timezone.utc).replace(microsecond=rest // 1000).isoformat("T", "microseconds")
    )


# ---- a folder ----


@dataclass
class Seen:
    """A file of the folder, as it was when it was looked at."""

    state: tuple[int, int]  # time of the last change [ns], size [bytes]
    since: float  # when it was first seen so [s]
    fault: str = ""  # why it cannot be judged as it is
    done: bool = False  # judged, or told why not


class Arrivals:
    """The wav files of a folder, each once it is whole: its size and time stay, and the header's sound is there.

    Parameters
    ----------
    check : see :func:`deployment.detection.check_recording`
    known : (name, time) of the files that were judged before
    """

    def __init__(self, folder: Path, check: Callable[[Path], Clip], known: set[tuple[str, str]]):
        self.folder, self.check, self.known = folder, check, known
        self.seen: dict[Path, Seen] = {}

    def look(self, now: float) -> Iterator[Clip]:
        """Those that have become whole since the last look, the oldest first.

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
            elif not seen.done and (clip := self._whole(path, seen, now)):
                yield clip

    def _whole(self, path: Path, seen: Seen, now: float) -> Clip | None:
        if not seen.fault:
            try:
                clip = self.check(path)
                if (clip.mtime_ns, clip.size) == seen.state:
                    seen.done = True
                    return clip
            except UNUSABLE as error:
                seen.fault = str(error)
        elif now - seen.since >= PATIENCE:
            self.refuse(path, seen.fault)
        return None

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


def watch_folder(arrivals: Arrivals, judge: Judge, telling: Telling, n_samples: int) -> None:
    """Judge each file that arrives, window by window of ``n_samples``; it ends by an exception alone."""
    logger.info("watching %s; %d recordings were judged before", arrivals.folder, len(arrivals.known))
    while True:
        for clip in arrivals.look(monotonic()):
            names = {clip.path: clip.path.name}
            try:
                windows, errors = judge.usable(detection.windows(clip, n_samples), names, repeat=False)
                detection.go_on(errors, windows, keep_going=False)
                verdicts = judge.verdicts(windows, names)
            except UserError as error:
                arrivals.refuse(clip.path, error)
            else:
                telling.tell(verdicts, time_text(clip.mtime_ns))
        sleep(INTERVAL)


# ---- a stream ----


def open_stream(standard_input, raw: tuple[int, int] | None, trained: detection.Trained, channel: int | str | None):
    """Format of the stream and its windows, which are read from now on.

    Parameters
    ----------
    raw : sample rate and number of channels of samples without a header

    Raises
    ------
    UserError : if such a stream cannot be judged.
    """
    pipe = getattr(standard_input, "raw", standard_input)  # a thread that waits for a buffer's lock hangs at the end
    try:
        sound = stream.raw_format(*raw) if raw else stream.read_format(pipe)
        trained.require_rate(sound.sample_rate)
        wav.require_channel(sound.n_channels, channel)
    except ValueError as error:
        raise UserError(f"{detection.STANDARD_INPUT}: {error}") from error
    return sound, stream.read_ahead(stream.windows(pipe, sound, trained.n_samples), WINDOWS_AHEAD)


def watch_stream(
    sound: stream.Format,
    windows: Iterator[tuple[int, bytes]],
    check: Callable[[Path], Clip],
    judge: Judge,
    telling: Telling,
    folder: Path,
) -> None:
    """Judge each window of a stream when it is there; ``folder`` is for one window at a time."""
    judge.require_machine_id()
    path, told = folder / "stream.wav", ""
    names = {path: detection.STANDARD_INPUT}
    for first, content in windows:
        path.write_bytes(sound.wav(content))
        try:
            clips, errors = judge.usable([check(path)], names, repeat=False)
            detection.go_on(errors, clips, keep_going=False)
        except (*UNUSABLE, UserError) as error:
            if str(error) != told:
                logger.error("%s at %.2f s: not judged: %s", names[path], first / sound.sample_rate, error)
            told = str(error)
            continue
        verdicts = judge.verdicts(clips, names)
        start = first / sound.sample_rate
        telling.tell([dataclasses.replace(one, start=start) for one in verdicts], time_text(time_ns()))
        told = ""
