"""What every script needs: errors, the command line, clip names and lists, waveforms, log-mel energies.

Importing this module is cheap; TensorFlow, librosa and SciPy are loaded where they are first used.
"""

import argparse
import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import logging
import os
import platform
import re
import sys
import time
import uuid
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import wav

if TYPE_CHECKING:
    import scipy.sparse

__version__ = "1.0.0"

LOG_FILE = "baseline.log"
TRAINING_DATA = ("dev", "eval", "dev+eval")
CLIP_NAME = re.compile(r"(?:(normal|anomaly)_)?(id_\d\d)_[^/\\]+\.wav", re.IGNORECASE | re.ASCII)
LABELS = {"normal": 0, "anomaly": 1}
FOLDER_LABELS = LABELS | {"abnormal": 1}  # MIMII's name
CLIP_OF_FOLDER = re.compile(rf"({'|'.join(FOLDER_LABELS)})/[^/\\]+\.wav", re.IGNORECASE | re.ASCII)
ANY_ID = "id_00"  # of all clips whose names say nothing
LEFTOVER = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}(\.[^.]*)?", re.DOTALL)  # see path_beside
ABANDONED = 24 * 3600  # [s] nobody writes to a file for so long and is still at it
BROKEN_PIPE = 128 + 13  # what a shell reports of a program that SIGPIPE ends
SETTLED = 2_000_000_000  # [ns] a file changed less than this ago may change again within its time stamp's resolution
MANY = 1000  # clips that one waits for
MAX_FAULTS_SHOWN = 15  # an error fits on one screen; the log file has the whole list

logger = logging.getLogger(__name__)


class UserError(Exception):
    """Something the user can mend. Shown without a traceback; the script exits with 1."""


def fault_list(title: str, faults: Sequence[str], advice: str) -> UserError:
    """All faults of one kind as one error that fits on a screen; the log file gets them all."""
    for fault in faults[MAX_FAULTS_SHOWN:]:
        logger.debug("%s: %s", title, fault)
    lines = [f"{title}:", *(f"  {fault}" for fault in faults[:MAX_FAULTS_SHOWN])]
    if len(faults) > MAX_FAULTS_SHOWN:
        lines.append(f"  ... and {len(faults) - MAX_FAULTS_SHOWN} more, all of them in {LOG_FILE}")
    return UserError("\n".join([*lines, advice]))


# ---- command line and logging ----


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Parser with the official baseline's options and ours that all numbered scripts share."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the examples keep their lines
    )
    parser.add_argument("-v", "--version", action="version", version=f"%(prog)s {__version__}")
    split = parser.add_mutually_exclusive_group(required=True)
    split.add_argument("-d", "--dev", dest="split", action="store_const", const="dev", help="development dataset")
    split.add_argument("-e", "--eval", dest="split", action="store_const", const="eval", help="evaluation dataset")
    parser.add_argument(
        "--config", type=Path, default=Path("baseline.yaml"), metavar="PATH", help="default: %(default)s"
    )
    parser.add_argument("--system", action="append", metavar="NAME", help="system of the YAML to run; may be repeated")
    parser.add_argument(
        "--machine-type", action="append", metavar="NAME", help="only this machine type; may be repeated (default: all)"
    )
    parser.add_argument(
        "--training-data",
        choices=["eval", "dev+eval"],
        help="with -e: train on (or use models trained on) the additional training clips alone, or with those of the "
        "development set (default: eval)",
    )
    return parser


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; ``training_data`` is then ``dev``, ``eval`` or ``dev+eval``."""
    args = parser.parse_args(argv)
    if args.split == "dev" and args.training_data:
        parser.error("--training-data goes with -e/--eval; with -d the development training clips are used")
    args.training_data = args.training_data or args.split
    return args


def run_main(main: Callable[[], None]) -> None:
    """Run a script's ``main`` for the shell: errors become a message and an exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next file that is opened would take its place
            setattr(sys, name, Path(os.devnull).open(mode))
        elif name != "stdin":
            with contextlib.suppress(AttributeError):  # some consoles have streams of their own
                getattr(sys, name).reconfigure(errors="backslashreplace")  # for what the terminal cannot show
    logging.captureWarnings(True)
    configure_logging()
    code, spoilt = _exit_code(main), False
    try:
        sys.stdout.flush()
    except OSError as error:
        spoilt = True
        if not isinstance(error, BrokenPipeError):  # else `| head` has read enough
            logger.error("What was to be printed cannot be written: %s", error)
        code = code or (BROKEN_PIPE if isinstance(error, BrokenPipeError) else 1)
    if spoilt or code == BROKEN_PIPE:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # what Python writes at its end
            os.dup2(nowhere, stream.fileno())
    if code:
        sys.exit(code)


def _exit_code(main: Callable[[], None]) -> int:
    """Run ``main``, tell its errors to the user, and say what the shell gets."""
    try:
        main()
    except SystemExit as done:  # --help, wrong arguments
        return done.code
    except UserError as error:
        logger.error("%s", error)
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:  # no permission, a full disk, a file where a folder should be: the message names the path
        logger.debug("file system error", exc_info=True)
        advice = "Make room there" if error.errno == errno.ENOSPC else "Make it accessible"
        logger.error("A file or folder cannot be used: %s\n%s, or name another in the YAML.", error, advice)
    except MemoryError as error:
        logger.debug("out of memory", exc_info=True)
        logger.error("Not enough memory (%s): lower fit.batch_size, or name fewer machine types", error)
    except KeyboardInterrupt:
        logger.error("interrupted; what was finished is kept: the same command again goes on from there")
        return 130
    else:
        return 0
    return 1


def configure_logging() -> None:
    """INFO to the screen, everything of ours to ``baseline.log`` in the current folder, as the official baseline."""
    screen = logging.StreamHandler()
    screen.setLevel(logging.INFO)
    screen.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - %(message)s"))
    log_file = LogFile(LOG_FILE, encoding="utf-8", delay=True, errors="backslashreplace")
    log_file.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - %(name)s - %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[screen, log_file], force=True)
    for module in Path(__file__).parent.glob("*.py"):  # other people's details stay out of the log
        logging.getLogger(module.stem).setLevel(logging.DEBUG)


class LogFile(logging.FileHandler):
    """The log file; where it cannot be written, a warning on the screen says so once, and the run goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            super().emit(record)  # opens the file, the first time
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 logging's name
        """Give up: another user's file, a folder, a full disk."""
        error = sys.exc_info()[1]
        logging.getLogger().removeHandler(self)
        logger.warning("%s cannot be written (%s): this run has no log file", LOG_FILE, error)


# ---- files that appear whole or not at all ----


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it gets its name only when the block ends without an error.

    Raises
    ------
    OSError : if the file cannot be written; it names the path, which that of a full disk does not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers_once(path.parent)
    beside = path_beside(path)
    try:
        with errors_name(path):
            yield beside
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Give the errors of the file system that name no path this one: that of a full disk is one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def path_beside(path: Path) -> Path:
    """Hidden name beside ``path`` for the time of writing, this process's own.

    Two runs on a shared folder do not write into each other's file, and what a killed run leaves can be told from what
    a living one writes. The name keeps its ending: Keras and matplotlib choose the format by it.
    """
    return path.with_name(f".{path.stem[:40]}.{_system()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}")


@functools.cache
def _system() -> str:
    """Eight digits for the system whose process numbers are ours: a boot of a machine, and a container on it."""
    try:
        facts = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        facts = f"{platform.node()} {uuid.getnode()}"
    return hashlib.sha256(facts.encode()).hexdigest()[:8]


def remove_leftovers(folder: Path) -> None:
    """Delete the half-written files of runs that were killed.

    Of this system, those of processes that are no more. Elsewhere, nobody can tell a dead process from a living one:
    there, files go that nobody has written to for a day.
    """
    with contextlib.suppress(OSError):  # no such folder, or not ours
        for path in folder.iterdir():
            match = LEFTOVER.fullmatch(path.name)
            if match:
                dead = match[1] == _system() and not _may_be_alive(int(match[2]))
                with contextlib.suppress(OSError):  # gone, or on Windows, in use
                    if dead or time.time() - path.stat().st_mtime > ABANDONED:
                        path.unlink()


remove_leftovers_once = functools.cache(remove_leftovers)  # of each folder, in a run


def _may_be_alive(process_id: int) -> bool:
    """False where there is no such process; Windows has no harmless way to ask."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends, whole or not at all."""
    with write_whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


# ---- clips: names, lists, headers ----


def parse_clip_name(name: str) -> tuple[str, int | None]:
    """``normal_id_01_00000000.wav`` -> ``("id_01", 0)``; the label is 1 for an anomaly, None where the name has none.

    A clip that ``names: any`` has taken from a folder is called ``normal/<text>.wav``: ``("id_00", 0)``.

    Raises
    ------
    ValueError : if the name is not of the official form.
    """
    if match := CLIP_OF_FOLDER.fullmatch(name):
        return ANY_ID, FOLDER_LABELS[match[1].lower()]
    match = CLIP_NAME.fullmatch(name)
    if not match:
        raise ValueError("name is not of the form [normal_|anomaly_]id_<NN>_<text>.wav")
    prefix, machine_id = match.groups()
    return machine_id.lower(), LABELS[prefix.lower()] if prefix else None


@dataclass(frozen=True)
class Clip:
    """One wav file whose header has been checked."""

    path: Path
    machine_type: str
    machine_id: str
    label: int | None  # 0 normal, 1 anomaly, None unknown
    n_samples: int
    sample_rate: int  # [Hz]
    size: int  # [bytes]
    mtime_ns: int
    crc: int  # CRC-32 of the whole file
    first: int = 0  # [samples] where it begins in the file, of which it may be a part
    channel: int | str | None = None  # a number from 0, mean; None: the only one
    folder: str = ""  # normal, anomaly or abnormal: the folder in place of the name says what the clip is

    @property
    def name(self) -> str:
        """File name without folders, but for one that says what the clip is; as it stands in the score CSVs."""
        return f"{self.folder}/{self.path.name}" if self.folder else self.path.name


def file_crc(path: Path) -> int:
    """CRC-32 of a whole file."""
    crc = 0
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            crc = zlib.crc32(block, crc)
    return crc


class Checksums:
    """CRC-32 of each file of a folder of clips, kept in the cache by size and time of change: each is read once.

    Parameters
    ----------
    directory : folder of the cache; None: nothing is kept
    """

    def __init__(self, folder: Path, directory: Path | None):
        digest = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()
        self.path = directory / f"checksums_{digest[:32]}.json" if directory else None
        self.known: dict[str, list[int]] = {}  # file name -> size, times of change [ns], checksum
        self.fresh = False  # True where something became known
        if self.path:
            with contextlib.suppress(OSError, ValueError):  # none yet, or damaged
                own, content = self.path.read_bytes().split(b"\n", 1)
                if int(own) == zlib.crc32(content):
                    self.known = json.loads(content)

    def of(self, path: Path, stat: os.stat_result) -> int:
        """Checksum of a file of this size and time of change."""
        *before, crc = self.known.get(path.name, [None])
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]  # the last cannot be set back
        if before != state:
            crc = file_crc(path)
            if time.time_ns() - max(state[1:]) > SETTLED:
                self.known[path.name] = [*state, crc]
                self.fresh = True
        return crc

    def keep(self) -> None:
        """Write what has become known; a cache that cannot be written costs time, not the run."""
        if self.path and self.fresh:
            content = json.dumps(self.known)
            with contextlib.suppress(OSError):
                write_text(self.path, f"{zlib.crc32(content.encode())}\n{content}")


def is_utf8(name: str) -> bool:
    """False for a file name whose bytes are no UTF-8: it cannot stand in a CSV."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def machine_types(directory: Path, key: str) -> list[str]:
    """Names of the machine-type folders in ``directory``, sorted; files and hidden folders are ignored.

    Raises
    ------
    UserError : if there is no such directory, or no machine type in it. ``key`` is the YAML key that names it.
    """
    if not directory.is_dir():
        raise UserError(
            f"{key}: no folder {directory} (looked for {directory.resolve()})\n"
            "Put the dataset there, or change the key in the YAML; `python make_demo_data.py` makes a synthetic one."
        )
    names = sorted(
        entry.name
        for entry in directory.iterdir()
        if not entry.name.startswith(".") and any((entry / folder).is_dir() for folder in ("train", "test"))
    )
    unusable = [name for name in names if not is_utf8(name)]
    if unusable:
        raise fault_list(f"{key}: folders whose names are not UTF-8", unusable, "Rename them.")
    if not names:
        layout = "Expected folders <machine type>/train and <machine type>/test with wav files, as the archives unpack."
        if any(next(directory.glob(f"{above}/normal/*.wav"), None) for above in ("*", "*/*")):
            layout += "\nOf recordings in folders normal and abnormal, as MIMII's, these become <machine type>/test/"
            layout += "normal and /abnormal, with normal ones for training in <machine type>/train, and names: any."
        raise UserError(f"{key}: no machine type in {directory.resolve()}\n{layout}")
    return names


def select_machine_types(directory: Path, key: str, wanted: Sequence[str] | None) -> list[str]:
    """Machine types of ``directory``, or those of them that the user ``wanted``."""
    found = machine_types(directory, key)
    unknown = sorted(set(wanted or ()) - set(found))
    if unknown:
        raise UserError(
            f"--machine-type {' '.join(unknown)}: no such folder in {directory.resolve()}; there is {', '.join(found)}"
        )
    return sorted(set(wanted)) if wanted else found


def wav_paths(folder: Path) -> list[Path]:
    """Wav files of ``folder``, sorted by name; other and hidden files are ignored."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ".wav" and not p.name.startswith("."))


def test_order(clips: Sequence[Clip]) -> list[Clip]:
    """The official order of a score CSV: by machine ID, normal clips before anomalous ones, then by name."""
    return sorted(clips, key=lambda clip: (clip.machine_id, clip.label or 0, clip.name))


@dataclass(frozen=True)
class ClipFolder:
    """A folder of clips of one machine type."""

    machine_type: str
    path: Path
    names: str  # official: they say which machine and what label; any: the clips are of one machine
    label: int | None = None  # of its clips, where their names do not say it
    shown: str = ""  # name of the folder, where it says the label


def clip_folders(machine_type: str, folder: Path, *, names: str, normal_only: bool) -> list[ClipFolder]:
    """The folders that hold the clips of a machine type's train or test ``folder``.

    With ``names: any`` a train folder holds normal clips, and a test folder either clips without labels or folders that
    name these.
    """
    if names == "official" or normal_only:
        return [ClipFolder(machine_type, folder, names, 0 if normal_only else None)]
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    labelled = [entry for entry in entries if entry.is_dir() and entry.name.lower() in FOLDER_LABELS]
    return [
        ClipFolder(machine_type, entry, names, FOLDER_LABELS[entry.name.lower()], entry.name) for entry in labelled
    ] or [ClipFolder(machine_type, folder, names)]


def clip_names(machine_type: str, folder: Path, *, names: str) -> set[str]:
    """Names of the clips of a machine type's test folder, as they stand in the score CSVs."""
    sources = clip_folders(machine_type, folder, names=names, normal_only=False)
    return {f"{s.shown}/{path.name}" if s.shown else path.name for s in sources for path in wav_paths(s.path)}


def not_taken(folder: Path, taken: Sequence[Path]) -> str:
    """What else is in a folder: ``12 .flac files, 2 folders``; hidden files are not counted."""
    entries = folder.iterdir() if folder.is_dir() else ()
    others = [entry for entry in entries if not entry.name.startswith(".") and entry not in taken]
    kinds = Counter("folder" if entry.is_dir() else f"{entry.suffix.lower()} file".strip() for entry in others)
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(kinds.items()))


def check_clips(
    folders: Sequence[tuple[str, Path]],
    *,
    min_samples: int,
    normal_only: bool,
    names: str = "official",
    channel: int | str | None = None,
    cache_directory: Path | None = None,
) -> list[Clip]:
    """Check the name and header of every wav file of ``folders``; the clips, in the folders' order.

    Parameters
    ----------
    folders : (machine type, folder) pairs
    min_samples : int [samples], the shortest clip that gives a feature
    normal_only : True for training clips
    names, channel : the keys of the YAML
    cache_directory : where the checksums of the files are kept; None: each call reads every file whole

    Raises
    ------
    UserError : naming every folder without clips, or every clip that cannot be used, in one message.
    """
    jobs = _clip_jobs(folders, names=names, normal_only=normal_only, cache_directory=cache_directory)
    n_unknown = sum(path.name not in crcs.known for _, path, crcs in jobs)
    if cache_directory and n_unknown > MANY:
        logger.info("%d clips are new: they are read once to know them again", n_unknown)

    def check(job: tuple[ClipFolder, Path, Checksums]) -> Clip | str:
        try:
            return _check_clip(*job, min_samples=min_samples, normal_only=normal_only, channel=channel)
        except (ValueError, OSError, RuntimeError) as error:  # soundfile's errors are RuntimeErrors
            return f"{job[1]}: {error}"

    with ThreadPoolExecutor(8) as pool:
        checked = list(pool.map(check, jobs, chunksize=64))
    for crcs in {id(crcs): crcs for _, _, crcs in jobs}.values():
        crcs.keep()
    faults = [result for result in checked if isinstance(result, str)]
    clips = [result for result in checked if isinstance(result, Clip)]
    faults += _sample_rate_faults(clips)
    if faults:
        raise fault_list(
            f"{len(faults)} of {len(jobs)} clips cannot be used", faults, "Replace or remove them, then run again."
        )
    return clips


def _clip_jobs(
    folders: Sequence[tuple[str, Path]], *, names: str, normal_only: bool, cache_directory: Path | None
) -> list[tuple[ClipFolder, Path, Checksums]]:
    """Every wav file of ``folders``: where it was found, its path, the checksums of its folder.

    Raises
    ------
    UserError : naming every folder without clips.
    """
    empty, jobs = [], []
    for machine_type, folder in folders:
        sources = clip_folders(machine_type, folder, names=names, normal_only=normal_only)
        found = {source: wav_paths(source.path) for source in sources}
        if not any(found.values()):
            empty.append(f"{machine_type}: no wav file in {folder}{_instead(folder, names)}")
        for source, paths in found.items():
            if paths and (others := not_taken(source.path, paths)):
                logger.info("%s: %d wav files taken, not %s", source.path, len(paths), others)
            crcs = Checksums(source.path, cache_directory)
            jobs += [(source, path, crcs) for path in paths]
        if sources[0].path != folder and (others := not_taken(folder, [source.path for source in sources])):
            logger.info("%s: %s taken, not %s", folder, ", ".join(source.shown for source in sources), others)
    if empty:
        raise fault_list(
            "Machine types without clips",
            empty,
            "Put the clips there, or name the other machine types with --machine-type.",
        )
    return jobs


def _instead(folder: Path, names: str) -> str:
    """What a folder without wav files holds, and what to do about it."""
    others = not_taken(folder, [])
    if not others:
        return ""
    within = any(wav_paths(entry) for entry in folder.iterdir() if entry.name.lower() in FOLDER_LABELS)
    if within and names == "official":
        return f" but {others}; with names: any in the YAML, its folders normal and anomaly or abnormal are read"
    convert = "; convert the recordings to wav" if " file" in others else ""
    return f" but {others}{convert}"


def _check_clip(
    source: ClipFolder,
    path: Path,
    crcs: Checksums,
    *,
    min_samples: int,
    normal_only: bool,
    channel: int | str | None,
) -> Clip:
    """Check one clip of a dataset by its name, its header and its first samples."""
    if not is_utf8(path.name):
        raise ValueError("name is not UTF-8; rename the file")
    machine_id, label = ANY_ID, source.label
    if source.names == "official":
        try:
            machine_id, label = parse_clip_name(path.name)
        except ValueError as error:
            raise ValueError(f"{error}; with names: any in the YAML it may be any") from None
        if normal_only and label == 1:
            raise ValueError("an anomalous clip among the training clips; training uses normal clips only")
    clip = check_sound(
        path, source.machine_type, machine_id, label, min_samples=min_samples, channel=channel, crcs=crcs
    )
    return dataclasses.replace(clip, folder=source.shown)


def check_sound(
    path: Path,
    machine_type: str,
    machine_id: str,
    label: int | None,
    *,
    min_samples: int,
    channel: int | str | None = None,
    crcs: Checksums | None = None,
) -> Clip:
    """Check a wav file by its header and its first samples, whatever its name.

    Parameters
    ----------
    channel : the key of the YAML
    crcs : checksums of files that are known; otherwise the whole file is read for its own

    Raises
    ------
    ValueError, OSError, RuntimeError : if it cannot be used.
    """
    stat = path.stat()
    n_samples, sample_rate = wav.check(path, min_samples=min_samples, channel=channel)
    crc = crcs.of(path, stat) if crcs else file_crc(path)
    facts = (n_samples, sample_rate, stat.st_size, stat.st_mtime_ns, crc)
    return Clip(path, machine_type, machine_id, label, *facts, channel=channel)


def _sample_rate_faults(clips: Sequence[Clip]) -> list[str]:
    """Clips whose sample rate is not that of the most."""
    rates = [clip.sample_rate for clip in clips]
    if not rates:
        return []
    usual = max(set(rates), key=rates.count)
    return [
        f"{clip.path}: sample rate {clip.sample_rate} Hz; the other clips have {usual} Hz"
        for clip in clips
        if clip.sample_rate != usual
    ]


def by_machine_type(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """Machine type -> its clips, both in the order given."""
    grouped: dict[str, list[Clip]] = {}
    for clip in clips:
        grouped.setdefault(clip.machine_type, []).append(clip)
    return grouped


def without_auc(clips: dict[str, list[Clip]]) -> list[str]:
    """A line for each machine ID that gives no AUC, which takes normal and anomalous clips: what it lacks."""
    labels: dict[tuple[str, str], set] = {}
    for clip in (clip for of_type in clips.values() for clip in of_type):
        labels.setdefault((clip.machine_type, clip.machine_id), set()).add(clip.label)
    lines = []
    for (machine_type, machine_id), found in sorted(labels.items()):
        missing = ["clips without a label"] if None in found else []
        missing = missing or [f"no {name} clip" for name, label in LABELS.items() if label not in found]
        lines += [f"{machine_type} {machine_id}: {' and '.join(missing)}"] if missing else []
    return lines


def fingerprint(clips: Sequence[Clip]) -> str:
    """SHA-256 of a clip list: machine types, names, and checksums of the files, whatever the order and the folder."""
    lines = sorted(f"{clip.machine_type}/{clip.name} {clip.size} {clip.crc} {clip.channel}" for clip in clips)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# ---- features ----


def load_clip(clip: Clip) -> tuple[np.ndarray, int]:
    """Waveform, shape (n_samples,), float32 in [-1, 1], and sample rate [Hz] of a checked clip.

    Raises
    ------
    UserError : if it cannot be read, or is another than when it was checked.
    """
    waveform, sample_rate = load_wav(clip.path, first=clip.first, n_samples=clip.n_samples, channel=clip.channel)
    stat = clip.path.stat()
    same = (waveform.shape, sample_rate) == ((clip.n_samples,), clip.sample_rate)
    touched = (stat.st_size, stat.st_mtime_ns) != (clip.size, clip.mtime_ns)
    if not same or (touched and file_crc(clip.path) != clip.crc):
        raise UserError(f"{clip.path}: changed since the run began; run again, once no other program writes to it")
    return waveform, sample_rate


def load_wav(
    path: Path, *, first: int = 0, n_samples: int = -1, channel: int | str | None = None
) -> tuple[np.ndarray, int]:
    """Waveform, shape (n_samples,), float32 in [-1, 1], and sample rate [Hz] of a wav file, or of a part of it.

    Parameters
    ----------
    first, n_samples : int [samples], the part; -1: to the end
    channel : a number from 0, or mean; None: the only one, or (n_samples, n_channels) where there are several
    """
    try:
        waveform, sample_rate = wav.read(path, first=first, n_samples=n_samples, channel=channel)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); it was readable when the run began") from error
    if not np.isfinite(waveform).all():
        raise UserError(f"{path}: has samples that are not finite numbers; replace or remove it")
    return waveform, sample_rate


@functools.lru_cache(maxsize=8)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> "scipy.sparse.csr_array":
    """Mel filter bank of librosa, shape (n_mels, 1 + n_fft // 2), float32; one value in 64 is not 0."""
    import librosa.filters  # takes a second and 110 MB: here, so that what comes from the cache does without
    import scipy.sparse

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on empty filters, by no name that the user knows
        filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
    empty = np.flatnonzero(filters.max(axis=1) == 0)
    if len(empty):
        logger.warning(
            "feature: no bin of the spectrum falls into %d of the %d mel bands (the first: %d); raise n_fft or lower "
            "n_mels",
            len(empty),
            n_mels,
            empty[0],
        )
    return scipy.sparse.csr_array(filters)


def log_mel_energies(
    waveform: np.ndarray,
    sample_rate: int,
    *,
    n_mels: int,
    n_fft: int,
    hop_length: int,
    power: float,
    pad_mode: str = "constant",
) -> np.ndarray:
    """Log-mel energies of one clip [dB].

    Parameters
    ----------
    waveform : ndarray, shape (n_samples,), in [-1, 1]
    sample_rate : int [Hz]
    n_fft, hop_length : int [samples]
    power : float, exponent of the magnitude spectrum: 1 for magnitudes, 2 for energies
    pad_mode : str, what stands before and behind the clip: ``constant``: zeros, as librosa since 0.9; ``reflect``: its
        reflection, as the librosa of 2020, by which the official baseline's published scores were made

    Returns
    -------
    ndarray, shape (n_mels, 1 + n_samples // hop_length), float32

    Raises
    ------
    ValueError : if ``waveform`` is empty or not one-dimensional, or ``n_fft`` is odd.

    Notes
    -----
    ``20 / power * log10(mel + eps)``, equal to the official ``common.file_to_vector_array`` (librosa's
    melspectrogram: Hann window, centred frames) within rounding. The transform is taken in float64 and
    all that follows in float32, as librosa does: a float32 transform is off by up to 1e-3 dB in quiet bands.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or not waveform.size:
        raise ValueError(f"expected a waveform of shape (n_samples,), got {waveform.shape}")
    if n_fft % 2:
        raise ValueError(f"n_fft: {n_fft}; expected an even number, for the frames to be centred")
    filters = mel_filters(sample_rate, n_fft, n_mels)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)  # Hann's
    padded = np.pad(waveform, n_fft // 2, mode=pad_mode)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    log_mel = _mel_energies(frames, window, filters, power)
    log_mel += np.float32(sys.float_info.epsilon)
    np.log10(log_mel, out=log_mel)
    log_mel *= np.float32(20.0 / power)
    return log_mel.T


def _mel_energies(
    frames: np.ndarray, window: np.ndarray, filters: "scipy.sparse.csr_array", power: float
) -> np.ndarray:  # (n_frames, n_mels)
    """Sums of the mel filters over the spectra of frames, (n_frames, n_fft)."""
    import scipy.fft

    n_fft = frames.shape[1]
    mel = np.empty((len(frames), filters.shape[0]), np.float32)
    block = 48  # frames at once: the spectra stay in the processor's cache, and are memory that is used again
    windowed = np.empty((block, n_fft))
    energy = np.empty((block, n_fft // 2 + 1), np.float32)
    for start in range(0, len(frames), block):
        n = min(block, len(frames) - start)
        np.multiply(frames[start : start + n], window, out=windowed[:n])
        spectrum = scipy.fft.rfft(windowed[:n]).view(np.float64)
        spectrum *= spectrum
        np.add(spectrum[:, 0::2], spectrum[:, 1::2], out=energy[:n], casting="same_kind")
        if power != 2:
            energy[:n] **= power / 2
        mel[start : start + n] = (filters @ energy[:n].T).T
    return mel


def n_frames(n_samples: int, hop_length: int) -> int:
    """Number of frames of a clip of ``n_samples`` samples."""
    return 1 + n_samples // hop_length


def stack_frames(log_mel: np.ndarray, *, frames: int) -> np.ndarray:
    """(n_mels, n_frames) -> (n_frames - frames + 1, n_mels * frames), oldest frame first: the official vectors."""
    windows = np.lib.stride_tricks.sliding_window_view(log_mel, frames, axis=1)
    return windows.transpose(1, 2, 0).reshape(-1, log_mel.shape[0] * frames)
