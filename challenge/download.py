"""The official archives: what of them is there, fetching what is not, unpacking it.

Every archive that is fetched is known by its MD5; nothing else is unpacked.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import common
from audio.clips import wav_paths
from challenge.archives import MAX_FILE_BYTES, Archive, size_of
from challenge.server import FETCH_BY_HAND, LONGEST_PAUSE, HindranceError, Server
from challenge.zips import member_fault
from common import UserError
from storage.files import errors_name, write_text, write_whole
from years.year import in_words, that_read

WAV_HEADER_BYTES = 44  # at least; a clip has samples behind them
MARK = ".year"  # file beside the folders of clips: which year's they are, unless their numbers and lengths tell
# A clip in a folder of its machine type, or the list of attributes beside the folders; no name begins with a dot.
MEMBER = re.compile(r"([\w-]+)/(?:([\w-]+)/[\w-][\w.-]*\.wav|attributes_[\w-][\w.-]*\.csv)", re.ASCII | re.IGNORECASE)

logger = logging.getLogger(__name__)


# ---- what is there ----


def md5_of(path: Path) -> str:
    """MD5 of a file, which the publishers give for each archive."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


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
        advice = (
            "Nothing is overwritten: move it away to fetch it anew, or name other machine types with --machine-type."
        )
        if any(_other_year(archive, place) for archive, place in filled):
            advice += "\nEach year needs folders of its own: name others in the YAML, dev_directory and eval_directory."
        raise common.fault_list("What is there is not what would be unpacked there", faults, advice)
    return [archive for archive in archives if any(map(is_empty, archive.places(directory)))]


def _fault_of(archive: Archive, place: Path) -> str:
    """What is wrong with what lies at one of an archive's places, "" if it is whole."""
    if not archive.clips:
        return "" if place.is_file() and md5_of(place) == archive.md5 else f"{place}: not the official file"
    expected, other = archive.clips[place.name], _other_year(archive, place)
    sizes = [path.stat().st_size for path in wav_paths(place)]
    short = sum(size < (2 * archive.samples or WAV_HEADER_BYTES + 1) for size in sizes)
    as_expected = sizes if expected is None else len(sizes) == expected
    if as_expected and not short and not other:
        return ""
    found = f"{len(sizes)} wav files" + f" of {other}" * bool(other) + f", {short} of them cut short" * bool(short)
    return f"{place}: {found}; expected {expected or 'some'}" + f" of {archive.year}" * bool(other)


def _other_year(archive: Archive, place: Path) -> str:
    """Years whose clips lie where an archive's belong, in words: by the mark beside them, or the first one's name."""
    mark = place.with_name(MARK)
    if archive.clips and mark.is_file():
        marked = mark.read_text(encoding="utf-8", errors="replace").strip()
        return "" if marked == str(archive.year) else marked
    first = next(iter(wav_paths(place)), None)
    years = that_read(first.name, archive.machine_type) if first else []
    return "" if archive.year in years else in_words(years)


def count_clips(archives: Sequence[Archive], directory: Path) -> int:
    """Clips of the archives that are there."""
    return sum(len(wav_paths(place)) for archive in archives for place in archive.places(directory))


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


# ---- unpacking ----


def unpack(archive: Archive, path: Path, directory: Path) -> None:
    """Unpack the archive's clips into its folders in ``directory`` that are empty; other files are left out.

    Lists of attributes go beside these folders, unless there is one.

    Raises
    ------
    UserError : if a member would leave the folder, is no plain file, encrypted, or larger than any clip; if the archive
        is damaged; if nobody knows its MD5, and it has other clips than expected.
    """
    folder = directory / ".unpacking"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        (folder / archive.machine_type).mkdir(parents=True)
        _extract(archive, path, folder)
        faults = [_fault_of(archive, place) for place in archive.places(folder)]
        odd = [fault.removeprefix(f"{folder}{os.sep}") for fault in faults if fault]
        if odd and not archive.md5:
            raise common.fault_list(f"{path}: not the archive of {archive.year}", odd, "Nothing of it was unpacked.")
        for fault in odd:  # the publishers' archive for all that
            logger.warning("%s: %s", archive.name, fault)
        _move_in(archive, folder, directory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _extract(archive: Archive, path: Path, folder: Path) -> None:
    """Extract what belongs to the dataset."""
    try:
        with zipfile.ZipFile(path) as opened:
            for member in opened.infolist():
                if fault := member_fault(member, MAX_FILE_BYTES):
                    raise UserError(f"{path}: {member.orig_filename!r}: {fault}\nNothing of it was unpacked.")
                match = MEMBER.fullmatch(member.filename)
                if match and match[1] == archive.machine_type and match[2] in (None, *archive.clips):
                    with errors_name(folder / member.filename):
                        opened.extract(member, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged, or no zip file: {error}\nMove it away, and fetch it again.") from error


def _move_in(archive: Archive, folder: Path, directory: Path) -> None:
    """Move from ``folder`` what ``directory`` lacks; the clips last, as they tell that all of it is there."""
    own = directory / archive.machine_type
    own.mkdir(exist_ok=True)
    for path in filter(Path.is_file, (folder / archive.machine_type).iterdir()):
        target = own / path.name
        if not target.exists():
            path.replace(target)
        elif target.read_bytes() != path.read_bytes():
            logger.warning("%s: kept; the one in %s differs from it", target, archive.name)
    if archive.samples:
        (own / MARK).unlink(missing_ok=True)
    else:
        write_text(own / MARK, f"{archive.year}\n")
    for place in archive.places(directory):
        unpacked = folder / place.relative_to(directory)
        if is_empty(place) and unpacked.exists():
            if place.exists():
                place.rmdir()
            unpacked.replace(place)


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
        if archive.md5 and archive.name in given and (digest := md5_of(given[archive.name])) != archive.md5
    ]
    if faults:
        raise common.fault_list("Files that are damaged or not whole", faults, "Move them away, and fetch them again.")
    return given


def known_archives(archives: Sequence[Archive], server: Server, source: Path | None) -> list[Archive]:
    """The archives with the MD5 by which they are known; from a folder, without the network, as they are."""
    if source is None:
        try:
            return server.identified(archives)
        except HindranceError as error:
            raise unreachable(server, archives, error) from error
    if unknown := [archive.name for archive in archives if not archive.md5]:
        names = ", ".join(unknown)
        logger.warning("Nothing could be checked but the zip's own checksums, as no MD5 is known: %s", names)
    return list(archives)


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
    known = known_archives(archives, server, source)
    given = given_files(known, directory, source, server)
    to_fetch = [archive for archive in known if archive.name not in given]
    check_space(known, directory, to_fetch, kept=kept)
    bar = tqdm(
        total=sum(archive.most_bytes for archive in known),
        initial=sum(size_of(archive.part(directory)) for archive in to_fetch),
        unit="B",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 30,  # [s] a log file gets a line now and then
    )
    with logging_redirect_tqdm(), bar:  # one bar over all, with the time left; log lines appear above it
        for number, archive in enumerate(known):
            try:
                path = given.get(archive.name) or obtain(archive, directory, server, bar)
            except HindranceError as error:
                raise unreachable(server, [a for a in known[number:] if a in to_fetch], error) from error
            bar.total += size_of(path) - archive.most_bytes
            _install(archive, path, directory, bar)
            if archive.name in given:
                bar.update(size_of(path))
            elif kept:
                path.replace(archive.file(directory))
            else:
                path.unlink()


def _install(archive: Archive, path: Path, directory: Path, bar: tqdm) -> None:
    """Put what an archive has, or the list, into its place."""
    bar.set_description(f"unpacking {archive.name}")
    if archive.clips:
        unpack(archive, path, directory)
    else:
        with write_whole(archive.file(directory)) as beside:
            shutil.copyfile(path, beside)
    logger.info("%s -> %s", archive.name, ", ".join(map(str, archive.places(directory))))


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
