"""The official archives: what of them is there, fetching what is not, unpacking it.

Every archive is known by its MD5; nothing else is unpacked.
"""

import contextlib
import hashlib
import logging
import math
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import requests
import urllib3
import yaml
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import common
from audio.clips import wav_paths
from challenge.zips import member_fault
from common import UserError
from storage.files import errors_name, write_whole

ARCHIVES_FILE = Path(__file__).with_name("archives.yaml")
FETCH_BY_HAND = "look with a browser what is there, fetch the archive by hand and unpack it with --from"
CHUNK_BYTES = 2**16  # so much is lost at most where a transfer breaks off
HEADER_BYTES = 4096  # what a wav file may have beside its samples
MAX_FILE_BYTES = 16 * 2**20  # of a clip, or of the list; the official ones have 0.4 and 0.6 MB
TIMEOUTS = (10, 60)  # to connect, and without a byte [s]
PAUSES_AT_FIRST = (0, 2)  # [s] before asking again a server that has not answered yet
PAUSES = (0, 4, 8, 16, 32, 64, 120, 120)  # [s] and one that has; from the first on when the transfer gets further
LONGEST_PAUSE = 900  # that a server may ask for [s]; beyond it the user is told
PASSING = (408, 425, 429, 500, 502, 503, 504)  # status codes of a server that may do it later
BROKE_OFF = "the connection broke off"
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
CLIP_IN_ARCHIVE = re.compile(r"([\w-]+)/(train|test)/([\w-]+\.wav)", re.ASCII | re.IGNORECASE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A file of the official dataset: an archive of clips, or the ground truth's list."""

    name: str
    record: int
    md5: str
    bytes: int | None = None  # None: not known
    machine_type: str | None = None  # None: the list, which goes beside the dataset's folder
    clips: dict[str, int] = field(default_factory=dict)  # folder, train or test -> number of clips
    samples: int = 0  # in each clip

    @property
    def unpacked_bytes(self) -> int:
        """More than it unpacks to."""
        return sum(self.clips.values()) * (2 * self.samples + HEADER_BYTES) or MAX_FILE_BYTES

    @property
    def most_bytes(self) -> int:
        """Its size, or more where that is not known."""
        return self.bytes or self.unpacked_bytes

    def places(self, directory: Path) -> list[Path]:
        """What it becomes in the dataset's ``directory``: folders of clips, or the list beside the directory."""
        return [directory / self.machine_type / name for name in self.clips] or [self.file(directory)]

    def file(self, directory: Path) -> Path:
        """Where the file itself lies under its own name; if there is one, it is the user's."""
        return (directory if self.clips else directory.absolute().parent) / self.name

    def part(self, directory: Path) -> Path:
        """The file that it is fetched to."""
        return self.file(directory).with_name(f"{self.name}.part")


def read_archives(split: str, machine_types: Sequence[str] | None) -> list[Archive]:
    """The archives of a split, or those of some machine types; the list belongs to all of them.

    Raises
    ------
    UserError : if there is no such machine type.
    """
    content = yaml.safe_load(ARCHIVES_FILE.read_text(encoding="utf-8"))
    unknown = [name for name in machine_types or () if name not in content["samples"]]
    if unknown:
        raise UserError(f"--machine-type {' '.join(unknown)}: the dataset has {', '.join(content['samples'])}")
    archives = [
        Archive(**entry, samples=content["samples"].get(entry.get("machine_type"), 0)) for entry in content[split]
    ]
    return [a for a in archives if not machine_types or a.machine_type in (None, *machine_types)]


# ---- what is there ----


def md5_of(path: Path) -> str:
    """MD5 of a file, which the publishers give for each archive."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Size of a file [bytes], 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def is_empty(place: Path) -> bool:
    """Whether nothing is at ``place``, or a folder with nothing in it."""
    try:
        return not any(place.iterdir())
    except FileNotFoundError:
        return True
    except NotADirectoryError:  # a file there, or above it
        return False


def lacking(archives: Sequence[Archive], directory: Path) -> list[Archive]:
    """The archives that are not unpacked in ``directory`` yet.

    Raises
    ------
    UserError : naming the folders with something else in them than the archive's clips; it is never overwritten.
    """
    filled = [(archive, place) for archive in archives for place in archive.places(directory) if not is_empty(place)]
    faults = [fault for archive, place in filled if (fault := _fault_of(archive, place))]
    if faults:
        raise common.fault_list(
            "What is there is not what would be unpacked there",
            faults,
            "Nothing is overwritten: move it away to fetch it anew, or name other machine types with --machine-type.",
        )
    return [archive for archive in archives if any(map(is_empty, archive.places(directory)))]


def _fault_of(archive: Archive, place: Path) -> str:
    """What is wrong with what lies at one of an archive's places, "" if it is whole."""
    if not archive.clips:
        return "" if place.is_file() and md5_of(place) == archive.md5 else f"{place}: not the official file"
    expected = archive.clips[place.name]
    sizes = [path.stat().st_size for path in wav_paths(place)]
    short = sum(size < 2 * archive.samples for size in sizes)
    if len(sizes) == expected and not short:
        return ""
    return f"{place}: {len(sizes)} wav files" + f", {short} of them cut short" * bool(short) + f"; expected {expected}"


def check_space(archives: Sequence[Archive], directory: Path, to_fetch: Sequence[Archive], *, kept: bool) -> None:
    """Raise UserError unless the disk holds what will be unpacked, and the archives while they are needed.

    ``to_fetch``: those that come onto the same disk, less what of them is there; ``kept``: they stay, else one is there
    at a time.
    """
    arriving = [max(0, archive.most_bytes - size_of(archive.part(directory))) for archive in to_fetch]
    needed = sum(archive.unpacked_bytes for archive in archives) + (sum if kept else max)(arriving or [0])
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"{directory}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free on this disk\n"
            "Make room, name another folder in the YAML, or fetch some machine types alone with --machine-type."
        )


# ---- from the server ----


class HindranceError(Exception):
    """A transfer broke off and may go on: the reason, and the pause that the server asks for [s]."""


class Server:
    """Where the archives are fetched from, by HTTP with all its mishaps."""

    def __init__(self, base_url: str):
        self.base_url = base_url.rstrip("/")
        self.session = requests.Session()  # takes proxies from the environment
        self.session.headers["User-Agent"] = common.USER_AGENT
        self.session.headers["Accept-Encoding"] = "identity"  # bytes as they are: they are counted
        self.has_answered = False

    def url(self, archive: Archive) -> str:
        """Address of an archive."""
        return f"{self.base_url}/records/{archive.record}/files/{archive.name}?download=1"

    def fetch(self, archive: Archive, part: Path, bar: tqdm) -> None:
        """Fetch what ``part`` lacks of the archive, however often it takes.

        Raises
        ------
        UserError : if the server has no such file, or another one under this name.
        HindranceError : if it does not go on; the pauses begin anew whenever it got further.
        """
        pauses, furthest = None, size_of(part)
        while size_of(part) != archive.bytes:
            try:
                return self._receive(archive, part, bar)
            except HindranceError as hindrance:
                if pauses is None or size_of(part) > furthest:
                    furthest, pauses = size_of(part), iter(PAUSES if self.has_answered else PAUSES_AT_FIRST)
                reason, asked = hindrance.args
                pause = max(asked, next(pauses, math.inf))
                if pause > LONGEST_PAUSE:
                    raise
                logger.warning("%s: %s; going on in %.0f s", archive.name, reason, pause)
                time.sleep(pause)

    def _receive(self, archive: Archive, part: Path, bar: tqdm) -> None:
        """One transfer: from the end of ``part``, or from the beginning where the server knows no ranges."""
        offset = size_of(part)
        with self._answer(archive, offset) as response:
            if response.status_code == 416:  # the file ends where we are, or the MD5 will tell
                return
            start, size = _range(response, offset)
            if size is not None and size != (archive.bytes or size):  # the log-in page of a network perhaps
                raise UserError(
                    f"{response.url}: {size} bytes ({response.headers.get('Content-Type', 'of no stated type')}); "
                    f"{archive.name} has {archive.bytes}, so this is another file; {FETCH_BY_HAND}"
                )
            part.touch()
            with part.open("r+b") as stream:
                bar.update(start - stream.seek(0, 2))
                stream.truncate(start)
                stream.seek(start)
                for chunk in response.iter_content(CHUNK_BYTES):
                    start += len(chunk)
                    with errors_name(part):
                        stream.write(chunk)
                    bar.update(len(chunk))
        if start < (archive.bytes or 0):
            raise HindranceError(BROKE_OFF, 0)

    @contextlib.contextmanager
    def _answer(self, archive: Archive, offset: int) -> Iterator[requests.Response]:
        """Response to a GET from byte ``offset`` on, its status checked; 416, too, is an answer to a range."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with self.session.get(self.url(archive), headers=headers, stream=True, timeout=TIMEOUTS) as response:
                self.has_answered = True
                status = f"the server answers {response.status_code} {response.reason}"
                if response.status_code in PASSING:
                    raise HindranceError(status, _retry_after(response))
                if response.status_code not in ((200, 206, 416) if offset else (200,)):
                    raise UserError(f"{response.url}: {status}; {FETCH_BY_HAND}")
                yield response
        except (requests.ConnectionError, requests.Timeout) as error:
            cause = error.args[0] if error.args else error  # names of classes and of pools stand before the last words
            raise HindranceError(str(getattr(cause, "reason", None) or cause).rpartition(": ")[2], 0) from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise HindranceError(BROKE_OFF, 0) from error
        except requests.RequestException as error:  # a malformed address, redirections without end
            raise UserError(f"{self.url(archive)}: {error}; {FETCH_BY_HAND}") from error


def _range(response: requests.Response, offset: int) -> tuple[int, int | None]:
    """Where in the file a response begins, and the size of the whole file, None where it is not said.

    A part without a Content-Range, which RFC 9110 demands, is the one from ``offset`` on that was asked for.
    """
    match = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    start, size = match.groups() if match else (offset, "")
    if response.status_code == 200:
        start, size = 0, response.headers.get("Content-Length", "")
    return int(start), int(size) if size.isdecimal() else None


def _retry_after(response: requests.Response) -> float:
    """Pause that the server asks for [s]."""
    try:
        return urllib3.Retry().get_retry_after(response.raw) or 0
    except urllib3.exceptions.InvalidHeader:
        return 0


# ---- unpacking ----


def unpack(archive: Archive, path: Path, directory: Path) -> None:
    """Unpack the archive's clips into its folders in ``directory`` that are empty; other files are left out.

    Raises
    ------
    UserError : if a member would leave the folder, is no plain file, encrypted, or larger than any clip.
    """
    folder = directory / ".unpacking"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        with zipfile.ZipFile(path) as opened:
            for member in opened.infolist():
                if fault := member_fault(member, MAX_FILE_BYTES):
                    raise UserError(f"{path}: {member.orig_filename!r}: {fault}\nNothing of it was unpacked.")
                match = CLIP_IN_ARCHIVE.fullmatch(member.filename)
                if match and match[1] == archive.machine_type and match[2] in archive.clips:
                    with errors_name(folder / member.filename):
                        opened.extract(member, folder)
        for place in archive.places(directory):
            if is_empty(place):
                place.parent.mkdir(exist_ok=True)
                if place.exists():
                    place.rmdir()
                (folder / place.relative_to(directory)).replace(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- all together ----


def obtain(archive: Archive, directory: Path, server: Server, bar: tqdm) -> Path:
    """Fetch an archive as one whole file; UserError if its MD5 is another one, the second time too."""
    part = archive.part(directory)
    for _ in range(2):  # pieces may have come from different files
        bar.set_description(archive.name)
        server.fetch(archive, part, bar)
        bar.set_description(f"checking {archive.name}")
        digest = md5_of(part)
        if digest == archive.md5:
            return part
        logger.warning("%s: not the official file by its MD5", archive.name)
        bar.update(-size_of(part))
        part.unlink()
    raise UserError(
        f"{server.url(archive)}: not the official archive: MD5 {digest}; expected {archive.md5}\n"
        f"Try again later, or {FETCH_BY_HAND}"
    )


def given_files(archives: Sequence[Archive], directory: Path, source: Path | None, server: Server) -> dict[str, Path]:
    """Name of an archive -> file that the user has put into ``source``, or into the dataset's folder.

    Raises
    ------
    UserError : naming those that ``source`` lacks, and those with another MD5.
    """
    paths = {archive.name: source / archive.name if source else archive.file(directory) for archive in archives}
    given = {name: path for name, path in paths.items() if path.is_file()}
    missing = [server.url(archive) for archive in archives if archive.name not in given]
    if source and missing:
        advice = "Fetch them into it by hand, or name the other machine types with --machine-type."
        raise common.fault_list(f"Files that are not in {source}", missing, advice)
    faults = [
        f"{given[archive.name]}: MD5 {digest}; expected {archive.md5}"
        for archive in archives
        if archive.name in given and (digest := md5_of(given[archive.name])) != archive.md5
    ]
    if faults:
        raise common.fault_list("Files that are damaged or not whole", faults, "Move them away, and fetch them again.")
    return given


def install_all(
    archives: Sequence[Archive], directory: Path, server: Server, *, source: Path | None, kept: bool
) -> None:
    """Unpack one archive after the other, fetched where it is not there.

    Parameters
    ----------
    source : folder with archives that were fetched by hand, where they stay; None: they are fetched
    kept : whether what is fetched stays in the dataset's folder

    Raises
    ------
    UserError : with the addresses of the archives that are not there yet, if the server cannot be reached.
    """
    given = given_files(archives, directory, source, server)
    to_fetch = [archive for archive in archives if archive.name not in given]
    check_space(archives, directory, to_fetch, kept=kept)
    bar = tqdm(
        total=sum(archive.most_bytes for archive in archives),
        initial=sum(size_of(archive.part(directory)) for archive in to_fetch),
        unit="B",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 30,  # [s] a log file gets a line now and then
    )
    with logging_redirect_tqdm(), bar:  # one bar over all, with the time left; log lines appear above it
        for number, archive in enumerate(archives):
            try:
                path = given.get(archive.name) or obtain(archive, directory, server, bar)
            except HindranceError as error:
                raise unreachable(server, [a for a in archives[number:] if a in to_fetch], error) from error
            bar.total += size_of(path) - archive.most_bytes
            bar.set_description(f"unpacking {archive.name}")
            if archive.clips:
                unpack(archive, path, directory)
            else:
                with write_whole(archive.file(directory)) as beside:
                    shutil.copyfile(path, beside)
            logger.info("%s -> %s", archive.name, ", ".join(map(str, archive.places(directory))))
            if archive.name in given:
                bar.update(size_of(path))
            elif kept:
                path.replace(archive.file(directory))
            else:
                path.unlink()


def unreachable(server: Server, archives: Sequence[Archive], error: HindranceError) -> UserError:
    """What the user can do where a server does not go on."""
    urls = "\n".join(f"  {server.url(archive)}" for archive in archives)
    reason, pause = error.args
    again = f", to be asked again in {pause:.0f} s" if pause > LONGEST_PAUSE else ""
    return UserError(
        f"No connection to {server.base_url} ({reason}{again}): give the same command again when there is one, or "
        f"fetch these files by hand into one folder and name it with --from:\n{urls}"
    )


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Make ``directory``, and keep a second run out of it (UserError); it is removed again if nothing came."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / ".download.lock"
    with path.open("w") as stream:
        if not _lock(stream):
            raise UserError(f"{directory}: another run is fetching into it; wait for its end")
        try:
            yield
        finally:
            stream.close()  # an open file cannot be removed everywhere
            path.unlink(missing_ok=True)
            if is_empty(directory):
                directory.rmdir()


def _lock(stream: TextIO) -> bool:
    """Whether the file could be locked; the system releases the lock of a killed process."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # others: a network file system without locks
        return not isinstance(error, BlockingIOError | PermissionError)
    return True
