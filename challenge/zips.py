"""Zip files from others: what in them is not read."""

import re
import stat
import zipfile
from pathlib import PurePosixPath

MAX_NAME_BYTES = 255  # of a file or folder; the usual file systems take no more


def member_fault(member: zipfile.ZipInfo, max_bytes: int) -> str:
    """Why a member of a zip is not read, "" if it is.

    A member unpacks to no more bytes than its entry says: zipfile stops there.
    """
    name = member.orig_filename
    if "\\" in name:
        return "backslash in the name; folders are separated by / in a zip"
    if name.startswith("/") or ".." in PurePosixPath(name).parts or re.search("[:\0]", name):
        return "unsafe name: it would unpack outside the folder"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in name.split("/")):
        return f"name of more than {MAX_NAME_BYTES} bytes; file systems take no more"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a symbolic link or a device; put the file itself into the zip"
    if member.flag_bits & 1:
        return "encrypted; expected a zip without a password"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed in a way that not every program can unpack; expected deflate"
    return too_large(member.file_size, max_bytes)


def too_large(n_bytes: int, max_bytes: int) -> str:
    """Fault of a file that is larger than any of its kind, "" if it is not."""
    return f"{n_bytes} bytes; not read, as a file of this kind has at most {max_bytes}" if n_bytes > max_bytes else ""
