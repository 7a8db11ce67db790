"""The server that has the official archives: files by HTTP, with all its mishaps, and what its records say of them."""

import contextlib
import dataclasses
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import requests
import urllib3
from tqdm import tqdm

import common
from challenge.archives import Archive, size_of
from common import UserError
from storage.files import errors_name

FETCH_BY_HAND = "look with a browser what is there, fetch the archive by hand and unpack it with --from"
CHUNK_BYTES = 2**16  # so much is lost at most where a transfer breaks off
TIMEOUTS = (10, 60)  # to connect, and without a byte [s]
PAUSES_AT_FIRST = (0, 2)  # [s] before asking again a server that has not answered yet
PAUSES = (0, 4, 8, 16, 32, 64, 120, 120)  # [s] and one that has; from the first on when the transfer gets further
LONGEST_PAUSE = 900  # that a server may ask for [s]; beyond it the user is told
PASSING = (408, 425, 429, 500, 502, 503, 504)  # status codes of a server that may do it later
BROKE_OFF = "the connection broke off"
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
CHECKSUM = re.compile(r"md5:([0-9a-f]{32})", re.IGNORECASE)

T = TypeVar("T")
logger = logging.getLogger(__name__)


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

    def identified(self, archives: Sequence[Archive]) -> list[Archive]:
        """The archives, with what their records say of them where an MD5 is not known; each record is asked once.

        Raises
        ------
        UserError : if a record says no MD5 of them.
        HindranceError : if the server does not answer.
        """
        records = dict.fromkeys(archive.record for archive in archives if not archive.md5)
        listings = {record: self._listing(record) for record in records}
        missing = [self.url(a) for a in archives if not a.md5 and a.name not in listings[a.record]]
        if missing:
            asked = ", ".join(map(self._record_url, records))
            raise common.fault_list(f"Files whose MD5 is not stated at {asked}", missing, f"Please {FETCH_BY_HAND}.")
        return [_with_listed(archive, listings.get(archive.record, {}).get(archive.name)) for archive in archives]

    def _record_url(self, record: int) -> str:
        return f"{self.base_url}/api/records/{record}"

    def _listing(self, record: int) -> dict[str, tuple[str, int | None]]:
        """MD5 and size of each file of a record, by its name; those without an MD5 are left out."""
        url = self._record_url(record)

        def content() -> bytes:
            with self._answer(url) as response:
                return response.content

        listed = {}
        try:
            for entry in json.loads(self._patiently(f"record {record}", content))["files"]:
                if match := CHECKSUM.fullmatch(entry["checksum"] or ""):
                    size = entry.get("size")
                    listed[entry["key"]] = match[1].lower(), size if isinstance(size, int) and size > 0 else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{url}: expected the record's files and their MD5, found something else; "
                f"try again later, or {FETCH_BY_HAND}"
            ) from error
        return listed

    def fetch(self, archive: Archive, part: Path, bar: tqdm) -> None:
        """Fetch what ``part`` lacks of the archive, however often it takes.

        Raises
        ------
        UserError : if the server has no such file, or another one under this name.
        HindranceError : if it does not go on; the pauses begin anew whenever it got further.
        """
        self._patiently(archive.name, lambda: self._receive(archive, part, bar), lambda: size_of(part))

    def _patiently(self, name: str, attempt: Callable[[], T], got: Callable[[], int] = lambda: 0) -> T:
        """What ``attempt`` returns, made again after each hindrance; ``got``: how far the attempts have come."""
        pauses, furthest = None, got()
        while True:
            try:
                return attempt()
            except HindranceError as hindrance:
                if pauses is None or got() > furthest:
                    furthest, pauses = got(), iter(PAUSES if self.has_answered else PAUSES_AT_FIRST)
                reason, asked = hindrance.args
                pause = max(asked, next(pauses, math.inf))
                if pause > LONGEST_PAUSE:
                    raise
                logger.warning("%s: %s; going on in %.0f s", name, reason, pause)
                time.sleep(pause)

    def _receive(self, archive: Archive, part: Path, bar: tqdm) -> None:
        """One transfer: from the end of ``part``, or from the beginning where the server knows no ranges."""
        offset = size_of(part)
        if offset == archive.bytes:
            return
        with self._answer(self.url(archive), offset) as response:
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
    def _answer(self, url: str, offset: int = 0) -> Iterator[requests.Response]:
        """Response to a GET from byte ``offset`` on, its status checked; 416, too, is an answer to a range."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with self.session.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
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
            raise UserError(f"{url}: {error}; {FETCH_BY_HAND}") from error


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


def _with_listed(archive: Archive, listed: tuple[str, int | None] | None) -> Archive:
    """The archive, completed by what its record says, unless that is of another file."""
    md5, size = listed or (None, None)
    if archive.md5 not in (None, md5):
        return archive
    return dataclasses.replace(archive, md5=md5, bytes=archive.bytes or size)
