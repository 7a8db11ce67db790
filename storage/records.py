"""Records: what files consist of and what decided them, as YAML whose last line tells of any change.

A record is written last, or says what must be there: without it, or with another content, a file does not count.
"""

import copy
import functools
import hashlib
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common import UserError
from storage.files import write_text
from storage.strict_yaml import parse_yaml

CHECKSUM = "# SHA-256 of the lines above: "  # begins the last line of a record
SHOWN = 200  # characters of another library's message; it may quote the whole file
# What NumPy and zipfile raise on a file that is not as it was written.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def record_path(folder: Path, name: str) -> Path:
    """Record of the files of a model, or of the CSVs of a machine type."""
    return folder / f"record_{name}.yaml"


def plain(values: Any) -> Any:
    """Values as they will be when read back: tuples become lists."""
    return json.loads(json.dumps(values))


def write(path: Path, record: Mapping) -> None:
    """Write a record, with a last line by which any change of it is found out."""
    text = yaml.safe_dump(plain(record), sort_keys=False, allow_unicode=True)
    write_text(path, f"{text}{CHECKSUM}{digest(text.encode())}\n")


def read(path: Path, fields: Mapping[str, type]) -> dict:
    """Record of a file, as plain values.

    Parameters
    ----------
    fields : keys that it must have, and the type of each value; ``files`` are names with their SHA-256

    Raises
    ------
    FileNotFoundError : if there is none.
    ValueError : if it is not as it was written.
    """
    try:
        whole = path.read_text(encoding="utf-8")
        text, found, checksum = whole.rpartition(CHECKSUM)
        record = copy.deepcopy(_parsed(whole))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"unreadable ({str(error)[:SHOWN]})") from error
    if not isinstance(record, dict):
        raise ValueError("no keys with values in it")
    if found and checksum.strip() != digest(text.encode()):
        raise ValueError("changed after it was written")
    for name, kind in fields.items():
        if type(record.get(name)) is not kind:
            raise ValueError(f"{name}: {str(record.get(name))[:SHOWN]}")
    files = record.get("files", {})
    if not isinstance(files, dict) or not all(_is_file_entry(*entry) for entry in files.items()):
        raise ValueError("files: expected names with their SHA-256")
    return record


@functools.lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """Content of a record; a stream asks for it window by window, and parsing takes longer than to judge one."""
    return parse_yaml(text, aliases=False)


def _is_file_entry(name: Any, checksum: Any) -> bool:
    is_name = isinstance(name, str) and name not in ("", "..") and Path(name).name == name and "\0" not in name
    return is_name and isinstance(checksum, str) and len(checksum) == 64


def differences(old: Mapping, new: Mapping, prefix: str = "") -> list[str]:
    """Keys of ``new`` whose value in ``old`` is another, as ``key: old -> new``; of blocks, all keys of both."""
    lines = []
    for name in sorted(new.keys() | (old.keys() if prefix else set()), key=str):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {str(before)[:SHOWN]} -> {str(after)[:SHOWN]}")
    return lines


# ---- files and their digests ----


def digest(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file; of a file that has not changed, it is computed once in a process."""
    stat = path.stat()
    return _file_digest(path.resolve(), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=1024)
def _file_digest(path: Path, *_state: int) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            found.update(block)
    return found.hexdigest()


def file_fault(folder: Path, record: Mapping, name: str) -> str | None:
    """What is wrong with a file of a record, None if nothing is."""
    path = folder / name
    if name not in record.get("files", {}):
        return f"{path}: no file of this model"
    try:
        same = file_digest(path) == record["files"][name]
    except FileNotFoundError:
        return f"{path}: missing"
    except OSError as error:
        return f"{path}: unreadable ({error})"
    return None if same else f"{path}: is not the file that was saved with the model"


def read_arrays(path: Path, kinds: Mapping[str, tuple[str, int]]) -> dict[str, np.ndarray]:
    """Arrays of an npz file, as they should be; nothing in it is executed.

    Parameters
    ----------
    kinds : array -> (kinds of NumPy's ``dtype.kind`` that it may have, its number of dimensions), such as
        ``{"embeddings": ("f", 2), "machine_ids": ("U", 1)}``

    Raises
    ------
    UserError : naming the file, if one is missing, of another kind or shape, or not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in kinds}
    except UNREADABLE as error:
        raise UserError(f"{path}: unreadable ({str(error)[:SHOWN]}); train anew") from error
    for name, (kind, n_dimensions) in kinds.items():
        array = arrays[name]
        fits = array.dtype.kind in kind and array.ndim == n_dimensions
        if not fits or (array.dtype.kind in "fc" and not np.isfinite(array).all()):
            raise UserError(f"{path}: {name} is not as it was written ({array.dtype}, {array.shape}); train anew")
    return arrays
