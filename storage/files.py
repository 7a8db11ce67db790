"""Files that appear whole or not at all: written beside their place, then renamed."""

import argparse
import contextlib
import functools
import os
import re
import sys
import time
import unicodedata
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import UserError, user_path

LEFTOVER = re.compile(r"\..*\.[0-9a-f]{8}-writing(\.[^.]*)?", re.DOTALL)  # see path_beside
ABANDONED = 3600  # [s] nobody writes to a file for so long and is still at it
WRITTEN = (".keras", ".yaml", ".npz", ".png", ".csv")  # endings of what is written into model and result folders


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


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends, whole or not at all."""
    with write_whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


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
    """Hidden name beside ``path`` for the time of writing, of this call alone.

    Two runs on a shared folder do not write into each other's file. The name keeps its ending: Keras and matplotlib
    choose the format by it.
    """
    return path.with_name(f".{path.stem[:40]}.{uuid.uuid4().hex[:8]}-writing{path.suffix}")


def remove_leftovers(folder: Path) -> None:
    """Delete the half-written files of runs that were killed: those that nobody has written to for an hour."""
    with contextlib.suppress(OSError):  # no such folder, or not ours
        for path in folder.iterdir():
            if LEFTOVER.fullmatch(path.name):
                with contextlib.suppress(OSError):  # gone, or on Windows, in use
                    if time.time() - path.stat().st_mtime > ABANDONED:
                        path.unlink()


remove_leftovers_once = functools.cache(remove_leftovers)  # of each folder, in a run


def require_writable(folder: Path, key: str) -> None:
    """Raise UserError unless files can be written into ``folder``, which need not exist; ``key`` is the YAML's.

    Found before hours of training. The folder is not made.
    """
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{key}: {place} is no folder, so that {folder} cannot be made; name another in the YAML")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{key}: {place} is not yours to write into; change its permissions, or name another folder")
    if place == folder:
        for path in place.iterdir():
            if path.suffix in WRITTEN and path.is_dir():
                raise UserError(f"{key}: {path} is a folder where a file is to be written; rename or remove it")


# ---- paths as people write them ----


def with_paths(argv: Sequence[str] | None) -> list[str]:
    """Arguments, of which a file whose name begins with a dash is no option."""
    argv = sys.argv[1:] if argv is None else argv
    return [f"./{text}" if text.startswith("-") and text != "-" and Path(text).exists() else text for text in argv]


def expanded(text: str) -> list[Path]:
    """Files and folders that an argument means.

    A pattern such as ``recordings/*.wav`` is left to the program by the Windows shell; a name may be in the other
    Unicode form, as Macs write it.
    """
    try:
        path = user_path(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(str(error)) from error
    if path.exists():
        return [path]
    for form in ("NFC", "NFD"):
        if (other := Path(unicodedata.normalize(form, str(path)))).exists():
            return [other]
    if set(text) & set("*?["):
        return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) or [path]
    return [path]
