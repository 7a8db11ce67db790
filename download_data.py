"""Fetch the official recordings from zenodo.org, check them, and unpack them into the folders that the YAML names.

What is there and whole is not fetched again, and a transfer that broke off goes on where it stopped: after any
mishap, give the same command again. Which archives there are stands in ``archives.yaml``.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import logging
import re
import shutil
import stat
import sys
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import requests
import urllib3
import yaml
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import common
from common import UserError

EXAMPLES = """examples:
  python download_data.py --dev                        the development dataset
  python download_data.py --eval                       additional training clips, evaluation clips, ground truth
  python download_data.py --dev --machine-type fan     one machine type
  python download_data.py --dev --from ~/Downloads     archives that were fetched by hand
"""

ARCHIVES_FILE = Path(__file__).with_name("archives.yaml")
BASE_URL = "https://zenodo.org"
UNPACKING = ".unpacking_"  # begins the names of folders that are not whole yet
FETCH_BY_HAND = "look with a browser what is there, fetch the archive by hand and unpack it with --from"
CHUNK_BYTES = 2**16  # so much is lost at most where a transfer breaks off
HEADER_BYTES = 4096  # what a wav file may have beside its samples
MAX_LIST_BYTES = 16 * 2**20  # of a file that is no archive; the official list has 0.6 MB
MAX_OTHER_FILES = 1000  # in an archive, beside the clips
TIMEOUTS = (10, 60)  # to connect, and without a byte [s]
AT_FIRST = urllib3.Retry(total=2, backoff_factor=1)  # a server that has not answered yet: pauses of 0 and 2 s
LATER = urllib3.Retry(
    total=8, backoff_factor=1, backoff_max=120
)  # 0, 4, 8 ... s; from 0 when the transfer gets further
LONGEST_PAUSE = 900  # that a server may ask for [s]; beyond it the user is told
PASSING = (408, 425, 429, 500, 502, 503, 504)  # status codes of a server that may do it later
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
CLIP_IN_ARCHIVE = re.compile(r"([\w-]+)/(train|test)/([\w-]+\.wav)", re.ASCII | re.IGNORECASE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A file of the official dataset: an archive of clips, or the ground truth's list."""

    name: str
    record: int
    md5: str
    bytes: int | None = None  # None: not known before the server says it
    machine_type: str | None = None  # None: the list, which goes beside the dataset's folder
    clips: dict[str, int] = field(default_factory=dict)  # folder, train or test -> number of clips
    samples: int = 0  # in each clip

    @property
    def unpacked_bytes(self) -> int:
        """More than it can unpack to; no archive is larger either."""
        return sum(self.clips.values()) * (2 * self.samples + HEADER_BYTES) or MAX_LIST_BYTES

    def folders(self, directory: Path) -> dict[Path, int]:
        """Folder in the dataset's ``directory`` -> number of clips."""
        return {directory / self.machine_type / name: number for name, number in self.clips.items()}

    def place(self, directory: Path) -> Path:
        """Where the file itself lies: in the dataset's ``directory``, the list beside it."""
        return (directory if self.clips else directory.absolute().parent) / self.name


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


def is_empty(folder: Path) -> bool:
    """Whether there is no such folder, or nothing in it."""
    try:
        return not any(folder.iterdir())
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def lacking(archives: Sequence[Archive], directory: Path) -> list[Archive]:
    """The archives that are not unpacked in ``directory`` yet.

    Raises
    ------
    UserError : naming the folders with something else in them than the archive's clips; it is never overwritten.
    """
    wanted, faults = [], []
    for archive in archives:
        found = [
            _fault_of(archive, place, directory) for place in (archive.folders(directory) or [archive.place(directory)])
        ]
        faults += [fault for fault in found if fault]
        if None in found:
            wanted.append(archive)
    if faults:
        raise common.fault_list(
            "What is there is not what would be unpacked there",
            faults,
            "Nothing is overwritten: move it away to fetch it anew, or name other machine types with --machine-type.",
        )
    return wanted


def _fault_of(archive: Archive, place: Path, directory: Path) -> str | None:
    """None where nothing is at ``place``, "" where it is whole, else what is wrong with it."""
    if is_empty(place):
        return None
    if not archive.clips:
        return "" if place.is_file() and md5_of(place) == archive.md5 else f"{place}: not the official file"
    expected = archive.folders(directory)[place]
    sizes = [path.stat().st_size for path in common.wav_paths(place)]
    short = sum(size < 2 * archive.samples for size in sizes)
    if len(sizes) == expected and not short:
        return ""
    return f"{place}: {len(sizes)} wav files" + f", {short} of them cut short" * bool(short) + f"; expected {expected}"


def check_space(archives: Sequence[Archive], directory: Path, *, fetched: bool, kept: bool) -> None:
    """Raise UserError unless the disk holds what will be unpacked, and the archives while they are needed.

    ``fetched``: the archives come onto the same disk, less what of them is there; ``kept``: they stay.
    """
    used = peak = 0
    for archive in archives:
        arriving = (archive.bytes or archive.unpacked_bytes) if fetched and not archive.place(directory).exists() else 0
        used += max(0, arriving - size_of(part_of(archive, directory))) + archive.unpacked_bytes
        peak = max(peak, used)
        if not kept:
            used -= arriving
    free = shutil.disk_usage(directory).free
    if peak > free:
        raise UserError(
            f"{directory}: {_gigabytes(peak)} are needed and {_gigabytes(free)} are free on this disk\n"
            "Make room, name another folder in the YAML, or fetch some machine types alone with --machine-type."
        )


def _gigabytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB"


# ---- from the server ----


class HindranceError(Exception):
    """A transfer broke off and may go on, at the earliest after ``pause`` [s]."""

    def __init__(self, reason: str, pause: float = 0):
        super().__init__(reason)
        self.pause = pause


class UnreachableError(Exception):
    """The server does not deliver, however often it is asked."""


def part_of(archive: Archive, directory: Path) -> Path:
    """The file that an archive is fetched to; one that bears the archive's own name is the user's."""
    path = archive.place(directory)
    return path.with_name(f"{path.name}.part")


class Server:
    """Where the archives are fetched from, by HTTP with all its mishaps."""

    def __init__(self, base_url: str):
        self.base_url = base_url.rstrip("/")
        self.session = requests.Session()  # takes proxies from the environment
        self.session.headers["Accept-Encoding"] = "identity"  # bytes as they are: they are counted
        self.has_answered = False

    def url(self, archive: Archive) -> str:
        """Address of an archive."""
        return f"{self.base_url}/records/{archive.record}/files/{archive.name}?download=1"

    def with_size(self, archive: Archive) -> Archive:
        """The archive with its size, asked for where it is not known; some servers do not say it."""
        if archive.bytes is not None:
            return archive

        def ask() -> int | None:
            with self._answer(archive, "bytes=0-0") as response:
                return _whole_size(response)

        return dataclasses.replace(archive, bytes=self._persist(archive, ask))

    def fetch(self, archive: Archive, path: Path, bar: tqdm) -> bool:
        """Fetch what ``path`` lacks of the archive, however often it takes; whether it came in one piece.

        Raises
        ------
        UserError : if the server has no such file, or another one under this name.
        UnreachableError : if it does not go on.
        """
        starts = []  # sizes of ``path`` when a transfer began

        def go_on() -> None:
            if archive.bytes is None or size_of(path) != archive.bytes:
                starts.append(size_of(path))
                self._receive(archive, path, bar)

        self._persist(archive, go_on, reached=lambda: size_of(path))
        return starts == [0]

    def _receive(self, archive: Archive, path: Path, bar: tqdm) -> None:
        """One transfer: from the end of ``path``, or from the beginning where the server knows no ranges."""
        offset = size_of(path)
        if archive.bytes is not None and offset > archive.bytes:  # nothing of ours
            offset = 0
        with self._answer(archive, f"bytes={offset}-" if offset else None) as response:
            _check_size(archive, response)
            if response.status_code == 416:  # the file ends where we are, or the MD5 will tell
                return
            if _start(response) > offset:
                raise HindranceError(f"asked for byte {offset}, it sends from byte {_start(response)}")
            path.touch()
            with path.open("r+b") as stream:
                offset = _cut(stream, _start(response), bar)
                for chunk in response.iter_content(CHUNK_BYTES):
                    offset += len(chunk)
                    if offset > (archive.bytes or archive.unpacked_bytes):
                        raise UserError(f"{response.url}: sends more than the archive has; {FETCH_BY_HAND}")
                    with common.errors_name(path):
                        stream.write(chunk)
                    bar.update(len(chunk))
        if archive.bytes is not None and offset < archive.bytes:
            raise HindranceError("the connection broke off")

    @contextlib.contextmanager
    def _answer(self, archive: Archive, byte_range: str | None) -> Iterator[requests.Response]:
        """Response to a GET, its status checked; 416, too, is an answer where a range was asked for."""
        headers = {"Range": byte_range} if byte_range else {}
        try:
            with self.session.get(self.url(archive), headers=headers, stream=True, timeout=TIMEOUTS) as response:
                self.has_answered = True
                if response.status_code in PASSING:
                    raise HindranceError(_status(response), _retry_after(response))
                if response.status_code not in ((200, 206, 416) if byte_range else (200,)):
                    raise UserError(f"{response.url}: {_status(response)}; {FETCH_BY_HAND}")
                yield response
        except (requests.ConnectionError, requests.Timeout) as error:
            raise HindranceError(_reason(error)) from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise HindranceError("the connection broke off") from error
        except requests.RequestException as error:  # a malformed address, redirections without end
            raise UserError(f"{self.url(archive)}: {error}; {FETCH_BY_HAND}") from error

    def _persist(self, archive: Archive, attempt: Callable, reached: Callable[[], int] = lambda: 0):
        """What ``attempt`` gives when it succeeds at last; the pauses begin anew whenever it got further."""
        furthest, patience = reached(), None
        while True:
            try:
                return attempt()
            except HindranceError as hindrance:
                if patience is None or reached() > furthest:
                    furthest, patience = reached(), LATER if self.has_answered else AT_FIRST
                try:
                    patience = patience.increment(error=hindrance)
                except urllib3.exceptions.MaxRetryError:
                    raise UnreachableError(str(hindrance)) from hindrance
                pause = max(hindrance.pause, patience.get_backoff_time())
                if pause > LONGEST_PAUSE:
                    raise UnreachableError(f"{hindrance}, to be asked again in {pause:.0f} s") from hindrance
                logger.warning("%s: %s; going on in %.0f s", archive.name, hindrance, pause)
                time.sleep(pause)


def _cut(stream: BinaryIO, length: int, bar: tqdm) -> int:
    """Keep the first ``length`` bytes of the file alone, and go to their end."""
    bar.update(length - stream.seek(0, 2))
    stream.truncate(length)
    return stream.seek(length)


def _range(response: requests.Response) -> tuple[str | None, str | None]:
    """First byte and whole size of a Content-Range, None where it is not said."""
    match = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return match.groups() if match else (None, None)


def _start(response: requests.Response) -> int:
    """Where in the file the response begins."""
    return int(_range(response)[0] or 0) if response.status_code == 206 else 0


def _whole_size(response: requests.Response) -> int | None:
    """Size of the whole file by the response's headers, None where they do not say it."""
    size = response.headers.get("Content-Length") if response.status_code == 200 else _range(response)[1]
    return int(size) if size and size.isdecimal() else None


def _check_size(archive: Archive, response: requests.Response) -> None:
    """Raise UserError where the server has a file of another size, the log-in page of a network perhaps."""
    size = _whole_size(response)
    if archive.bytes is not None and size is not None and size != archive.bytes:
        kind = response.headers.get("Content-Type", "of no stated type")
        raise UserError(
            f"{response.url}: {size} bytes ({kind}); {archive.name} has {archive.bytes}, so this is another file; "
            f"{FETCH_BY_HAND}"
        )


def _status(response: requests.Response) -> str:
    return f"the server answers {response.status_code} {response.reason}"


def _retry_after(response: requests.Response) -> float:
    """Pause that the server asks for [s]."""
    try:
        return LATER.get_retry_after(response.raw) or 0
    except urllib3.exceptions.InvalidHeader:
        return 0


def _reason(error: requests.RequestException) -> str:
    """The last words of an error of requests: names of classes and of pools stand before them."""
    cause = error.args[0] if error.args else error
    return str(getattr(cause, "reason", None) or cause).rpartition(": ")[2]


# ---- unpacking ----


def unpack(archive: Archive, path: Path, directory: Path) -> None:
    """Unpack the archive's clips into the folders of ``directory`` that are empty; all of them or none.

    Raises
    ------
    UserError : if the archive is damaged, holds paths that leave the folder or links, or unpacks to more than it may.
    """
    folder = directory / f"{UNPACKING}{uuid.uuid4().hex[:8]}"
    try:
        with zipfile.ZipFile(path) as opened:
            _extract(archive, opened, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it and fetch it again") from error
    except UnsafeArchiveError as error:
        raise UserError(f"{path}: {error}; nothing of it was unpacked") from error
    else:
        _move(archive, folder, directory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class UnsafeArchiveError(Exception):
    """An archive that is not unpacked, and why."""


def _extract(archive: Archive, opened: zipfile.ZipFile, folder: Path) -> None:
    """Write the clips below ``folder``; other files that an archive may hold are left out."""
    members = opened.infolist()
    if len(members) > sum(archive.clips.values()) + MAX_OTHER_FILES:
        raise UnsafeArchiveError(f"{len(members)} files; expected {sum(archive.clips.values())}")
    for member in members:
        if fault := _member_fault(member):
            raise UnsafeArchiveError(f"{member.orig_filename!r} {fault}")
    left = archive.unpacked_bytes
    for member in members:
        match = CLIP_IN_ARCHIVE.fullmatch(member.filename)
        if not match or match[1] != archive.machine_type or match[2] not in archive.clips:
            continue
        target = folder / member.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise UnsafeArchiveError(f"{member.filename!r} stands in it twice")
        with _opened(opened, member) as source, target.open("xb") as stream:
            while block := source.read(2**20):
                left -= len(block)
                if left < 0:
                    raise UnsafeArchiveError(f"unpacks to more than {_gigabytes(archive.unpacked_bytes)}")
                with common.errors_name(target):
                    stream.write(block)
    for place in archive.folders(folder):
        if is_empty(place):
            raise UnsafeArchiveError(f"no clips in {place.relative_to(folder).as_posix()}")


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> BinaryIO:
    """A member to read from, where the archive's directory points into the archive."""
    try:
        return archive.open(member)
    except OSError as error:
        raise zipfile.BadZipFile(str(error)) from error


def _member_fault(member: zipfile.ZipInfo) -> str | None:
    """Why a member must not be unpacked, None where it may be."""
    name = member.orig_filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or ".." in name.split("/") or re.search(r"[\\:\0]", name):
        return "leaves the folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in a way that is not known here"
    return None


def _move(archive: Archive, folder: Path, directory: Path) -> None:
    """Give what was unpacked in ``folder`` its names, in one step where the machine type is new."""
    whole = directory / archive.machine_type
    if not whole.exists():
        (folder / archive.machine_type).replace(whole)
        return
    for place, unpacked in zip(archive.folders(directory), archive.folders(folder), strict=True):
        if is_empty(place):
            if place.exists():
                place.rmdir()
            unpacked.replace(place)


# ---- all together ----


def obtain(archive: Archive, directory: Path, server: Server, bar: tqdm) -> Path:
    """The archive as one whole file: one that lies there already, or fetched; its MD5 is right.

    Raises
    ------
    UserError : if the MD5 is another one.
    """
    given = archive.place(directory)
    if given.exists():
        return checked(archive, given, bar)
    part = part_of(archive, directory)
    for attempt in (1, 2):
        bar.set_description(archive.name)
        in_one_piece = server.fetch(archive, part, bar)
        bar.set_description(f"checking {archive.name}")
        digest = md5_of(part)
        if digest == archive.md5:
            return part
        bar.update(-size_of(part))
        part.unlink()
        if in_one_piece or attempt == 2:
            break
        logger.warning("%s: the pieces do not fit (MD5); fetched anew", archive.name)
    raise UserError(
        f"{server.url(archive)}: not the official archive: MD5 {digest}; expected {archive.md5}\n"
        f"Try again later, or {FETCH_BY_HAND}"
    )


def checked(archive: Archive, path: Path, bar: tqdm) -> Path:
    """``path``, an archive that the user has put there.

    Raises
    ------
    UserError : if its MD5 is another one.
    """
    bar.set_description(f"checking {archive.name}")
    digest = md5_of(path)
    if digest != archive.md5:
        raise UserError(
            f"{path}: damaged, or not whole: MD5 {digest}; expected {archive.md5}\nMove it away, and fetch it again."
        )
    return path


def install(archive: Archive, path: Path, directory: Path, bar: tqdm) -> None:
    """Unpack an archive, or put the list in its place."""
    bar.set_description(f"unpacking {archive.name}")
    if archive.clips:
        unpack(archive, path, directory)
    else:
        with common.write_whole(archive.place(directory)) as beside:
            shutil.copyfile(path, beside)
    logger.info("%s -> %s", archive.name, ", ".join(map(str, archive.folders(directory) or [archive.place(directory)])))


def fetch_all(archives: Sequence[Archive], directory: Path, server: Server, *, kept: bool) -> None:
    """Fetch and unpack one archive after the other.

    Raises
    ------
    UserError : with the addresses of the archives that are not there yet, if the server cannot be reached.
    """
    remaining = list(archives)
    try:
        remaining = [a if a.place(directory).exists() else server.with_size(a) for a in archives]
        check_space(remaining, directory, fetched=True, kept=kept)
        there = [size_of(part_of(archive, directory)) for archive in remaining]
        sizes = [archive.bytes or 0 for archive in remaining if not archive.place(directory).exists()]
        with progress_bar(sum(sizes), sum(there)) as bar:
            while remaining:
                archive = remaining[0]
                path = obtain(archive, directory, server, bar)
                install(archive, path, directory, bar)
                if path == part_of(archive, directory):
                    if kept:
                        path.replace(archive.place(directory))
                    else:
                        path.unlink()
                del remaining[0]
    except UnreachableError as error:
        urls = "\n".join(f"  {server.url(archive)}" for archive in remaining)
        raise UserError(
            f"No connection to {server.base_url} ({error}): give the same command again when there is one, or fetch "
            f"these files by hand into one folder and name it with --from:\n{urls}"
        ) from error


def unpack_all(archives: Sequence[Archive], directory: Path, source: Path, server: Server) -> None:
    """Unpack archives that were fetched by hand into ``source``, where they stay.

    Raises
    ------
    UserError : naming those that are not there.
    """
    missing = [server.url(archive) for archive in archives if not (source / archive.name).is_file()]
    if missing:
        raise common.fault_list(
            f"Files that are not in {source}",
            missing,
            "Fetch them into it by hand, or name the other machine types with --machine-type.",
        )
    check_space(archives, directory, fetched=False, kept=True)
    with progress_bar(sum(size_of(source / archive.name) for archive in archives), 0) as bar:
        for archive in archives:
            path = checked(archive, source / archive.name, bar)
            install(archive, path, directory, bar)
            bar.update(size_of(path))


@contextlib.contextmanager
def progress_bar(total: int, initial: int) -> Iterator[tqdm]:
    """One bar over all archives, counted in bytes, with the time left; log lines appear above it."""
    interval = 0.5 if sys.stderr.isatty() else 30  # [s] a log file gets a line now and then
    bar = tqdm(total=total, initial=initial, unit="B", unit_scale=True, mininterval=interval, smoothing=0.05)
    with logging_redirect_tqdm(), bar:
        yield bar


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep a second run out of ``directory``, and clear away what a killed one left half unpacked.

    Raises
    ------
    UserError : if another run is at work there.
    """
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / ".download.lock"
    with path.open("w") as stream:
        if not _lock(stream):
            raise UserError(f"{directory}: another run is fetching into it; wait for its end")
        for leftover in directory.glob(f"{UNPACKING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            yield
        finally:
            stream.close()  # an open file cannot be removed everywhere
            path.unlink(missing_ok=True)
            if is_new and is_empty(directory):
                directory.rmdir()


def _lock(stream) -> bool:
    """Whether the file could be locked; the system releases the lock of a killed process."""
    try:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a network file system without locks
        return True
    return True


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line -> namespace."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-v", "--version", action="version", version=f"%(prog)s {common.__version__}")
    split = parser.add_mutually_exclusive_group(required=True)
    split.add_argument("-d", "--dev", dest="split", action="store_const", const="dev", help="development dataset")
    split.add_argument(
        "-e",
        "--eval",
        dest="split",
        action="store_const",
        const="eval",
        help="additional training clips, evaluation "
        "clips, and their ground truth, eval_data_list.csv, beside their folder",
    )
    add("--machine-type", action="append", metavar="NAME", help="only this one; may be repeated (default: all)")
    add("--config", type=Path, default=Path("baseline.yaml"), metavar="PATH", help="default: %(default)s")
    add("--keep-archives", action="store_true", help="keep the archives in the dataset's folder when unpacked")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--base-url",
        default=BASE_URL,
        metavar="URL",
        help="a mirror, with files at URL/records/<record>/files/<name> (default: %(default)s); proxies are taken from "
        "HTTP_PROXY and HTTPS_PROXY",
    )
    source.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", help="unpack archives from this folder, where they stay"
    )
    args = parser.parse_args(argv)
    if not re.match(r"https?://[^/]", args.base_url):
        parser.error(f"--base-url {args.base_url}: expected an address that begins with http:// or https://")
    if args.source and not args.source.is_dir():
        parser.error(f"--from {args.source}: no such folder")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch and unpack what the YAML's folder for the dataset lacks."""
    args = parse_arguments(argv)
    import config  # not above: --help answers without pydantic

    directory = config.load_config(args.config).directory(args.split)
    archives = read_archives(args.split, args.machine_type)
    server = Server(args.base_url)
    with alone(directory):
        wanted = lacking(archives, directory)
        for archive in archives:
            if archive not in wanted:  # unpacked, and the run killed before it could remove the archive
                part_of(archive, directory).unlink(missing_ok=True)
        if wanted and args.source:
            unpack_all(wanted, directory, args.source, server)
        elif wanted:
            fetch_all(wanted, directory, server, kept=args.keep_archives)
    n_clips = sum(sum(archive.clips.values()) for archive in archives)
    logger.info(
        "%s: all %d clips are there; %d of %d files unpacked now", directory, n_clips, len(wanted), len(archives)
    )


if __name__ == "__main__":
    common.run_main(main)
