"""Fetching the recordings from a real HTTP server on this machine that has every fault which servers have."""

import dataclasses
import email.utils
import functools
import hashlib
import io
import json
import logging
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import tiny_settings

import common
import download_data
from challenge import archives, download, server
from years import year as years

ROOT = Path(common.__file__).parent
REFUSED = ("python-requests", "python-urllib")  # what zenodo.org has refused since January 2026
SAMPLES = 20_000
CLIPS = {"train": 3, "test": 2}
Request = namedtuple("Request", "name first_byte path")


@functools.cache
def clip_bytes(seed: int) -> bytes:
    """What stands for a wav file; noise, which no archive makes smaller."""
    return bytes(44) + np.random.default_rng(seed).bytes(2 * SAMPLES)


@functools.cache
def archive_of(machine_type: str, folders=tuple(CLIPS), more: Callable[[zipfile.ZipFile], None] | None = None) -> bytes:
    """An archive as the official ones; ``more`` writes further members."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in folders:
            for number in range(CLIPS[folder]):
                archive.writestr(f"{machine_type}/{folder}/normal_id_00_{number:08d}.wav", clip_bytes(number))
        if more:
            more(archive)
    return content.getvalue()


class Mirror(ThreadingHTTPServer):
    """Serves ``files``; ``faults`` of a file are done one per request, the last one for ever if ``persistent``."""

    daemon_threads = True

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Callable]] = {}
        self.persistent = False
        self.requests: list[Request] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that has gone is no fault of these tests."""


class Handler(BaseHTTPRequestHandler):
    """One request: whole files, ranges, or a fault."""

    def do_GET(self):
        """Do the next fault of the file, or send it."""
        name = self.path.partition("?")[0].rpartition("/")[2]
        asked = self.headers.get("Range")
        self.server.requests.append(Request(name, int(asked[6:].partition("-")[0]) if asked else None, self.path))
        agent = self.headers.get("User-Agent", "").lower()
        if not agent or agent.startswith(REFUSED):
            return self.send_error(403)
        faults = self.server.faults.get(name)
        if faults:
            (faults[0] if self.server.persistent else faults.pop(0))(self, name)
        else:
            self.send_file(name)

    def send_file(self, name: str, *, ranges=True, drop=None, pause=0.0, length=True):
        """Send a file or its end; break off after ``drop`` bytes of it."""
        content = self.server.files.get(name)
        if content is None:
            return self.send_error(404)
        first, last = 0, len(content) - 1
        if ranges and (asked := self.headers.get("Range")):
            low, _, high = asked[6:].partition("-")
            first, last = int(low), int(high or last)
            if first >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        else:
            self.send_response(200)
        if length:
            self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        body = content[first : last + 1][:drop]
        for start in range(0, len(body), 2**14):
            self.wfile.write(body[start : start + 2**14])
            if pause:
                time.sleep(pause)

    def log_message(self, *args):
        """Not on the screen."""


def fault(**options) -> Callable:
    return lambda handler, name: handler.send_file(name, **options)


def status(code: int, **headers) -> Callable:
    def answer(handler, name):
        handler.send_response(code)
        for header, value in {"Content_Length": "0", **headers}.items():
            handler.send_header(header.replace("_", "-"), value)
        handler.end_headers()

    return answer


def sends(content: bytes, **headers) -> Callable:
    def answer(handler, name):
        status(200, Content_Length=str(len(content)), **headers)(handler, name)
        handler.wfile.write(content)

    return answer


@functools.cache
def shipped_year(year: int) -> dict:
    content = yaml.safe_load((ROOT / f"years/{year}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key != "published"}


def write_year(folder: Path, year: int, **changes) -> None:
    """Write the file of a year with other archives; JSON is YAML, and fast."""
    path = folder / "years" / f"{year}.yaml"
    path.write_text(json.dumps(shipped_year(year) | changes), encoding="utf-8")
    years.read_year.cache_clear()


class World:
    """A server with a small dataset, the file of its year, and a YAML whose folders are empty."""

    def __init__(self, folder: Path, mirror: Mirror):
        self.folder, self.mirror = folder, mirror
        self.dev, self.eval = folder / "dev_data", folder / "eval_data"
        self.list = b"fan\nid_01_00000000.wav,normal_id_01_00000000.wav,0\n"
        self.entries = {"dev": [], "eval": []}
        (folder / "years").mkdir(exist_ok=True)
        self.serve("eval", "eval_data_list.csv", self.list)
        for machine_type in ("ToyCar", "fan"):
            self.serve("dev", f"dev_data_{machine_type}.zip", archive_of(machine_type), machine_type, CLIPS)
            for name, number in CLIPS.items():
                content = archive_of(machine_type, (name,))
                self.serve("eval", f"eval_data_{name}_{machine_type}.zip", content, machine_type, {name: number})
        self.config = folder / "settings.yaml"
        settings = tiny_settings(folder, folder / "work")
        self.config.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def serve(self, split, name, content, machine_type=None, clips=None, *, size_known=True):
        """Put a file onto the server and into the year's file, in the place of one of this name."""
        self.mirror.files[name] = content
        entry = {"name": name, "record": 7, "md5": hashlib.md5(content).hexdigest()}
        entry |= {"bytes": len(content)} if size_known else {}
        entry |= {"machine_type": machine_type, "clips": dict(clips)} if machine_type else {}
        self.entries[split] = [e for e in self.entries[split] if e["name"] != name] + [entry]
        write_year(self.folder, 2020, samples=dict.fromkeys(("ToyCar", "fan"), SAMPLES), archives=self.entries)

    def run(self, *options):
        """Call the script."""
        source = [] if "--from" in options or "--base-url" in options else ["--base-url", self.mirror.url]
        download_data.main([*map(str, options), "--config", str(self.config), *source])

    def fails(self, *options) -> str:
        """The message of a call that must fail."""
        with pytest.raises(common.UserError) as error:
            self.run(*options)
        return str(error.value)

    def asked(self, name="dev_data_fan.zip") -> list:
        """First bytes of the ranges that a file was asked for, None where all of it was."""
        return [request.first_byte for request in self.mirror.requests if request.name == name]

    def files(self) -> set[str]:
        """All that a call has left."""
        return {
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file() and path.parent.name != "years" and path.name != "settings.yaml"
        }


def clip_names(*machine_types, split="dev", folders=tuple(CLIPS)) -> set[str]:
    return {
        f"{split}_data/{machine_type}/{folder}/normal_id_00_{number:08d}.wav"
        for machine_type in machine_types
        for folder in folders
        for number in range(CLIPS[folder])
    }


FAN = clip_names("fan")


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(years, "FOLDER", tmp_path / "years")
    monkeypatch.setattr(server, "PAUSES_AT_FIRST", (0, 0))
    monkeypatch.setattr(server, "PAUSES", (0, 0.002, 0.004, 0.008))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    mirror = Mirror()
    thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield World(tmp_path, mirror)
    mirror.shutdown()
    mirror.server_close()
    thread.join()
    years.read_year.cache_clear()


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Lengths of the pauses, which are not made."""
    made = []
    monkeypatch.setattr(server.time, "sleep", made.append)
    return made


# ---- what is shipped ----


def test_the_official_archives_have_all_clips():
    of_split = {split: archives.read_archives(2020, split, None) for split in ("dev", "eval")}
    every = [archive for of_one in of_split.values() for archive in of_one]
    assert sum(sum(archive.clips.values()) for archive in every) == 54_254
    assert len({archive.md5 for archive in every}) == len(every) == 6 + 12 + 1
    assert all(len(archive.md5) == 32 for archive in every)
    hours = sum(sum(archive.clips.values()) * archive.samples for archive in every) / 16_000 / 3600
    assert hours == pytest.approx(153.8, abs=0.05)
    for split, test_clips in years.read_year(2020).test_clips.items():
        numbers = {a.machine_type: a.clips["test"] for a in of_split[split] if "test" in a.clips}
        assert numbers == {name: sum(sum(pair) for pair in ids.values()) for name, ids in test_clips.items()}
    url = server.Server("https://zenodo.org/").url(of_split["dev"][2])
    assert url == "https://zenodo.org/records/3678171/files/dev_data_fan.zip?download=1"


@pytest.mark.parametrize("split", ["dev", "eval"])
@pytest.mark.parametrize("number", years.known_years())
def test_the_archives_of_every_year(number, split):
    year = years.read_year(number)
    of_split = archives.read_archives(number, split, None)
    assert len({archive.name for archive in of_split}) == len(of_split)
    for archive in of_split:
        assert isinstance(archive.record, int)
        assert archive.md5 is None or re.fullmatch("[0-9a-f]{32}", archive.md5)
        assert archive.bytes is None or archive.bytes > 10**8
        assert re.fullmatch(r"[\w-]+\.zip", archive.name) if archive.clips else archive.md5
        assert set(archive.clips) <= {"train", "supplemental", *year.test_folders}
        assert all(n_clips is None or n_clips > 99 for n_clips in archive.clips.values())
    for folder in ("train", *year.test_folders):  # one archive has it of each machine type
        types = [archive.machine_type for archive in of_split if folder in archive.clips]
        assert sorted(types) == sorted(year.test_clips[split])


@pytest.mark.parametrize("number", years.known_years())
def test_the_archives_have_the_years_test_clips(number):
    year = years.read_year(number)
    for split, of_split in year.test_clips.items():
        for archive in archives.read_archives(number, split, None):
            for folder in set(year.test_folders) & set(archive.clips):
                domain = folder.rpartition("_")[0]  # of source_test; none of test
                units = [counts for unit, counts in of_split[archive.machine_type].items() if domain in unit]
                known = None if None in units else sum(map(years.total, units))
                assert archive.clips[folder] == known, (archive.name, folder)


# ---- what arrives ----


def test_development_data(world, caplog):
    caplog.set_level(logging.INFO)
    world.run("--dev")
    assert world.files() == clip_names("ToyCar", "fan")
    assert (world.dev / "fan/train/normal_id_00_00000001.wav").read_bytes() == clip_bytes(1)
    assert f"{world.dev}: all 10 clips are there; 2 of 2 files unpacked now" in caplog.text
    asked = len(world.mirror.requests)
    world.run("--dev")
    assert len(world.mirror.requests) == asked  # what is there and whole is not fetched again
    assert "0 of 2 files unpacked now" in caplog.text


def test_evaluation_data_with_the_ground_truth(world):
    world.run("--eval", "--machine-type", "fan")
    assert world.files() == clip_names("fan", split="eval") | {"eval_data_list.csv"}
    assert (world.folder / "eval_data_list.csv").read_bytes() == world.list
    world.run("--eval")
    assert world.files() == clip_names("fan", "ToyCar", split="eval") | {"eval_data_list.csv"}
    assert world.asked("eval_data_list.csv") == [None]


def test_archives_can_be_kept(world):
    world.run("--eval", "--keep-archives")
    archives = {f"eval_data/{name}" for name in world.mirror.files if name.startswith("eval_data") and ".zip" in name}
    assert world.files() == clip_names("fan", "ToyCar", split="eval") | {"eval_data_list.csv"} | archives
    shutil.rmtree(world.eval / "fan")
    asked = len(world.mirror.requests)
    world.run("--eval")
    assert clip_names("fan", split="eval") | archives <= world.files()  # what lies there by its own name is the user's
    assert len(world.mirror.requests) == asked


def test_one_bar_over_all_archives(world, capfd, monkeypatch):
    monkeypatch.setattr(download.sys.stderr, "isatty", lambda: True, raising=False)
    world.mirror.faults["dev_data_fan.zip"] = [fault(drop=100_000)]
    world.run("--dev")
    total = sum(len(world.mirror.files[f"dev_data_{name}.zip"]) for name in ("ToyCar", "fan"))
    last = capfd.readouterr().err.split("\r")[-1]
    assert f"{total / 1000:.0f}k/{total / 1000:.0f}k" in last
    assert "100%" in last


def test_unknown_machine_type(world):
    assert world.fails("--dev", "--machine-type", "fann") == "--machine-type fann: the dataset has ToyCar, fan"
    assert not world.dev.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--base-url", "zenodo.org"], "expected an address that begins with http"),
        (["--from", "nowhere"], "--from nowhere: no such folder"),
        (["--base-url", "http://a.b", "--from", "."], "not allowed with"),
    ],
)
def test_options_that_do_not_fit(world, options, words, capsys):
    with pytest.raises(SystemExit):
        world.run("--dev", *options)
    assert words in capsys.readouterr().err


# ---- transfers that break off ----


def test_a_broken_transfer_goes_on_where_it_stopped(world):
    world.mirror.faults["dev_data_fan.zip"] = [fault(drop=70_000), fault(drop=0), fault(drop=70_000)]
    world.run("--dev", "--machine-type", "fan")
    first, *others = world.asked()
    assert first is None
    assert others == sorted(others)
    assert 0 < others[0] <= 70_000 < others[-1]
    assert world.files() == FAN


def test_a_server_without_ranges_starts_anew(world):
    world.mirror.faults["dev_data_fan.zip"] = [
        fault(drop=70_000),
        fault(ranges=False, drop=90_000),
        fault(ranges=False),
    ]
    world.run("--dev", "--machine-type", "fan")
    assert len(world.asked()) == 3
    assert world.files() == FAN


def test_a_transfer_that_never_gets_further_ends(world):
    world.mirror.persistent = True
    world.mirror.faults["dev_data_fan.zip"] = [fault(ranges=False, drop=70_000)]
    assert "No connection to" in world.fails("--dev", "--machine-type", "fan")
    assert 4 <= len(world.asked()) <= 6
    assert world.files() == {"dev_data/dev_data_fan.zip.part"}


def test_a_silent_server_is_asked_again(world, monkeypatch):
    monkeypatch.setattr(server, "TIMEOUTS", (0.2, 0.2))
    world.mirror.faults["dev_data_fan.zip"] = [lambda handler, name: time.sleep(0.5), fault(pause=0.5, drop=40_000)]
    world.run("--dev", "--machine-type", "fan")
    assert world.files() == FAN
    assert len(world.asked()) >= 3


def test_killed_in_mid_transfer(world):
    world.mirror.faults["dev_data_fan.zip"] = [fault(pause=0.1)]
    code = (
        "import pathlib, sys, download_data; from years import year; "
        "year.FOLDER = pathlib.Path(sys.argv.pop(1)); download_data.main()"
    )
    options = ["--dev", "--machine-type", "fan", "--config", str(world.config), "--base-url", world.mirror.url]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(world.folder / "years"), *options],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    part = world.dev / "dev_data_fan.zip.part"
    deadline = time.monotonic() + 15
    while not (part.exists() and part.stat().st_size > 60_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    size = part.stat().st_size
    assert 60_000 < size < len(world.mirror.files["dev_data_fan.zip"])
    world.run("--dev", "--machine-type", "fan")
    assert world.asked() == [None, size]
    assert world.files() == FAN


def test_killed_when_unpacking(world):
    world.run("--dev", "--machine-type", "fan", "--keep-archives")
    (world.dev / "dev_data_fan.zip").rename(world.dev / "dev_data_fan.zip.part")  # not removed yet
    shutil.rmtree(world.dev / "fan")
    half = world.dev / ".unpacking/fan/train"
    half.mkdir(parents=True)
    (half / "normal_id_00_00000099.wav").write_bytes(b"half")
    world.run("--dev", "--machine-type", "fan")
    assert world.files() == FAN
    shutil.rmtree(world.dev / "fan/test")  # moved one of two folders
    (world.dev / "dev_data_fan.zip.part").write_bytes(world.mirror.files["dev_data_fan.zip"])
    world.run("--dev", "--machine-type", "fan")
    assert world.files() == FAN
    assert world.asked() == [None]


def test_two_runs_at_once(world):
    with download.alone(world.dev):
        assert "another run is fetching into it" in world.fails("--dev")
    world.run("--dev")


# ---- servers that are busy ----


def test_retry_after_is_honoured(world, pauses):
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    world.mirror.faults["dev_data_fan.zip"] = [status(429, Retry_After="7"), status(503, Retry_After=date)]
    world.run("--dev", "--machine-type", "fan")
    assert pauses[0] == 7
    assert 95 < pauses[1] <= 100
    assert world.files() == FAN


def test_pauses_grow(world, pauses, monkeypatch, caplog):
    monkeypatch.setattr(server, "PAUSES", (0, 4, 8, 16, 32, 64))
    codes = (500, 502, 503, 504, 429, 408)
    world.mirror.faults["dev_data_fan.zip"] = [status(code) for code in codes]
    world.mirror.faults["dev_data_fan.zip"][2] = status(503, Retry_After="soon")
    world.run("--dev", "--machine-type", "fan")
    assert pauses == [0, 4, 8, 16, 32, 64]
    assert "dev_data_fan.zip: the server answers 502 Bad Gateway; going on in 4 s" in caplog.text


def test_the_server_stays_busy(world, pauses):
    world.mirror.persistent = True
    world.mirror.faults["dev_data_fan.zip"] = [status(503)]
    message = world.fails("--dev", "--machine-type", "fan")
    assert "the server answers 503 Service Unavailable" in message
    assert f"  {world.mirror.url}/records/7/files/dev_data_fan.zip?download=1" in message
    assert len(world.asked()) == 5


def test_a_pause_that_nobody_waits_for(world, pauses):
    world.mirror.faults["dev_data_fan.zip"] = [status(429, Retry_After="3600")]
    assert "to be asked again in 3600 s" in world.fails("--dev", "--machine-type", "fan")
    assert pauses == []


def test_no_such_file(world):
    del world.mirror.files["dev_data_fan.zip"]
    assert "dev_data_fan.zip?download=1: the server answers 404 Not Found; look" in world.fails("--dev")
    assert world.files() == clip_names("ToyCar")


def test_redirections_without_end(world):
    world.mirror.persistent = True
    world.mirror.faults["dev_data_fan.zip"] = [status(302, Location="/dev_data_fan.zip")]
    assert "Exceeded 30 redirects" in world.fails("--dev", "--machine-type", "fan")


# ---- no network, proxies, archives fetched by hand ----


def test_no_network(world):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    message = world.fails("--eval", "--base-url", url)
    first, *urls = message.splitlines()
    assert first.startswith(f"No connection to {url} (")
    assert "fetch these files by hand into one folder and name it with --from" in first
    assert urls == [f"  {url}/records/7/files/{entry['name']}?download=1" for entry in world.entries["eval"]]
    assert world.files() == set()
    assert not world.eval.exists()


def test_proxy_of_the_environment(world, monkeypatch):
    monkeypatch.setenv("http_proxy", world.mirror.url)
    world.run("--dev", "--machine-type", "fan", "--base-url", "http://recordings.invalid")
    assert world.mirror.requests[0].path == "http://recordings.invalid/records/7/files/dev_data_fan.zip?download=1"
    assert world.files() == FAN


def test_archives_fetched_by_hand(world):
    source = world.folder / "Downloads"
    source.mkdir()
    for name in ("eval_data_list.csv", "eval_data_train_fan.zip"):
        (source / name).write_bytes(world.mirror.files[name])
    message = world.fails("--eval", "--machine-type", "fan", "--from", source)
    assert message.splitlines()[:2] == [
        f"Files that are not in {source}:",
        "  https://zenodo.org/records/7/files/eval_data_test_fan.zip?download=1",
    ]
    given = {f"Downloads/{path.name}" for path in source.iterdir()}
    assert world.files() == given
    (source / "eval_data_test_fan.zip").write_bytes(world.mirror.files["eval_data_test_fan.zip"])
    given.add("Downloads/eval_data_test_fan.zip")
    for _ in range(2):
        world.run("--eval", "--machine-type", "fan", "--from", source)
        assert world.files() == given | clip_names("fan", split="eval") | {"eval_data_list.csv"}
    assert world.mirror.requests == []


@pytest.mark.parametrize("folder", ["Downloads", "dev_data"])
def test_a_damaged_archive_fetched_by_hand(world, folder):
    (world.folder / folder).mkdir()
    path = world.folder / folder / "dev_data_fan.zip"
    path.write_bytes(world.mirror.files["dev_data_fan.zip"][:-100])
    source = ["--from", path.parent] if folder == "Downloads" else []
    message = world.fails("--dev", "--machine-type", "fan", *source)
    assert message.startswith(f"Files that are damaged or not whole:\n  {path}: MD5 ")
    assert world.files() == {f"{folder}/dev_data_fan.zip"}


# ---- wrong files ----


def test_a_wrong_file(world):
    content = world.mirror.files["dev_data_fan.zip"]
    world.mirror.files["dev_data_fan.zip"] = content[:500] + b"?" + content[501:]
    message = world.fails("--dev", "--machine-type", "fan")
    assert f"not the official archive: MD5 {hashlib.md5(world.mirror.files['dev_data_fan.zip']).hexdigest()}" in message
    assert f"expected {hashlib.md5(content).hexdigest()}" in message
    assert world.files() == set()
    assert world.asked() == [None, None]


def test_the_login_page_of_a_network(world):
    world.mirror.faults["dev_data_fan.zip"] = [sends(b"<html>", Content_Type="text/html")]
    message = world.fails("--dev", "--machine-type", "fan")
    assert "6 bytes (text/html); dev_data_fan.zip has" in message


@pytest.mark.parametrize("damage", [lambda content: b"x" * 70_000, lambda content: content * 2])
def test_a_damaged_part_is_fetched_anew(world, damage, caplog):
    content = world.mirror.files["dev_data_fan.zip"]
    world.dev.mkdir()
    (world.dev / "dev_data_fan.zip.part").write_bytes(damage(content))
    world.run("--dev", "--machine-type", "fan")
    assert world.files() == FAN
    assert "dev_data_fan.zip: not the official file by its MD5" in caplog.text


@pytest.mark.parametrize("start", [-1, 1])
def test_a_range_that_was_not_asked_for(world, start, caplog):
    def answer(handler, name):
        content = handler.server.files[name]
        first = world.asked()[-1] + start
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - first))
        handler.end_headers()
        handler.wfile.write(content[first:])

    world.mirror.faults["dev_data_fan.zip"] = [fault(drop=70_000), answer]
    world.run("--dev", "--machine-type", "fan")
    assert ("MD5" in caplog.text) == (start > 0)  # a byte is missing
    assert world.files() == FAN


@pytest.mark.parametrize("drop", [None, 50_000])
def test_a_part_without_content_range(world, drop):
    """RFC 9110 demands the header; without it, the part is taken for the one that was asked for."""

    def answer(handler, name):
        first = world.asked()[-1]
        content = handler.server.files[name][first:]
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:drop])

    world.mirror.faults["dev_data_fan.zip"] = [fault(drop=70_000), answer]
    world.run("--dev", "--machine-type", "fan")
    first, *others = world.asked()
    assert first is None
    assert all(others) and len(others) == (1 if drop is None else 2)  # it never began anew
    assert world.files() == FAN


# ---- sizes that are not known before ----


def test_a_size_that_is_not_known(world, capfd):
    content = world.mirror.files["dev_data_fan.zip"]
    world.serve("dev", "dev_data_fan.zip", content, "fan", CLIPS, size_known=False)
    world.mirror.faults["dev_data_fan.zip"] = [fault(drop=70_000)]
    world.run("--dev", "--machine-type", "fan")
    assert f"{len(content) / 1000:.0f}k/{len(content) / 1000:.0f}k" in capfd.readouterr().err.split("\r")[-1]
    assert len(world.asked()) == 2
    assert world.files() == FAN


def test_a_server_that_does_not_say_the_size(world):
    content = world.mirror.files["dev_data_fan.zip"]
    world.serve("dev", "dev_data_fan.zip", content, "fan", CLIPS, size_known=False)
    world.mirror.faults["dev_data_fan.zip"] = [fault(ranges=False, length=False)]
    world.run("--dev", "--machine-type", "fan")
    assert world.files() == FAN
    shutil.rmtree(world.dev / "fan")
    (world.dev / "dev_data_fan.zip.part").write_bytes(content)  # whole; the server says 416
    world.run("--dev", "--machine-type", "fan")
    assert world.asked()[-1] == len(content)
    assert world.files() == FAN


# ---- archives that are not safe to unpack ----


def member(name: str, kind: int = stat.S_IFREG, content: bytes = b"x", **attributes) -> Callable:
    def write(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = (kind | 0o644) << 16
        archive.writestr(info, content)
        for attribute, value in attributes.items():
            setattr(archive.filelist[-1], attribute, value)  # what the directory at the archive's end says

    return write


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (member("../evil.wav"), "'../evil.wav': unsafe name"),
        (member("fan/train/normal_id_00_00000003.wav", stat.S_IFIFO), "a symbolic link or a device"),
        (member("fan/train/normal_id_00_00000003.wav", flag_bits=1), "encrypted"),
        (member("fan/train/normal_id_00_00000003.wav", compress_type=97), "compressed in a way that not every"),
        (member("fan/train/normal_id_00_00000099.wav", content=bytes(2**24 + 1)), "16777217 bytes; not read"),
    ],
)
def test_an_archive_that_is_not_safe(world, more, words):
    world.serve("dev", "dev_data_fan.zip", archive_of("fan", more=more), "fan", CLIPS)
    assert words in world.fails("--dev", "--machine-type", "fan")
    assert world.files() == {"dev_data/dev_data_fan.zip.part"}
    assert not (world.folder / "evil.wav").exists()


# ---- folders with something in them, and disks without room ----


def test_data_unpacked_by_hand_is_recognised(world):
    with zipfile.ZipFile(io.BytesIO(archive_of("fan"))) as archive:
        archive.extractall(world.dev)
    (world.dev / "fan/train/notes.txt").write_text("mine")
    for name in CLIPS:
        (world.dev / "ToyCar" / name).mkdir(parents=True)  # empty folders are nothing
    world.run("--dev")
    assert world.asked() == []
    assert world.files() == clip_names("ToyCar", "fan") | {"dev_data/fan/train/notes.txt"}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "normal_id_00_00000002.wav").unlink(), "train: 2 wav files; expected 3"),
        (
            lambda folder: (folder / "normal_id_00_00000002.wav").write_bytes(b"RIFF"),
            "train: 3 wav files, 1 of them cut short; expected 3",
        ),
        (lambda folder: (folder / "other.wav").write_bytes(clip_bytes(9)), "train: 4 wav files; expected 3"),
        (lambda folder: shutil.rmtree(folder) or folder.write_text("a file"), "train: 0 wav files; expected 3"),
    ],
)
def test_what_is_there_is_not_overwritten(world, spoil, words):
    world.run("--dev", "--machine-type", "fan")
    spoil(world.dev / "fan/train")
    before = {name: (world.folder / name).read_bytes() for name in world.files()}
    message = world.fails("--dev")
    assert words in message
    assert "move it away" in message
    assert {name: (world.folder / name).read_bytes() for name in world.files()} == before
    world.run("--dev", "--machine-type", "ToyCar")


def test_a_file_where_the_machine_type_should_be(world):
    world.dev.mkdir()
    (world.dev / "fan").write_text("mine")
    assert "fan/train: 0 wav files".replace("/", os.sep) in world.fails("--dev")
    assert world.files() == {"dev_data/fan"}


def test_another_list_is_not_overwritten(world):
    (world.folder / "eval_data_list.csv").write_text("mine")
    assert "eval_data_list.csv: not the official file" in world.fails("--eval")
    assert (world.folder / "eval_data_list.csv").read_text() == "mine"


def test_the_disk_is_too_small(world, monkeypatch):
    of_dev = archives.read_archives(2020, "dev", None)
    unpacked = sum(CLIPS.values()) * (2 * SAMPLES + archives.HEADER_BYTES)
    assert [archive.unpacked_bytes for archive in of_dev] == [unpacked] * 2
    sizes = [archive.bytes for archive in of_dev]
    world.dev.mkdir()
    (world.dev / "dev_data_ToyCar.zip.part").write_bytes(bytes(1000))
    needed = {True: sum(sizes) - 1000 + 2 * unpacked, False: max(sizes[0] - 1000, sizes[1]) + 2 * unpacked}
    usage = namedtuple("usage", "total used free")
    for kept, need in needed.items():
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=need: usage(0, 0, free))
        download.check_space(of_dev, world.dev, of_dev, kept=kept)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=need - 1: usage(0, 0, free))
        with pytest.raises(common.UserError, match=r"0.00 GB are needed and 0.00 GB are free on this disk"):
            download.check_space(of_dev, world.dev, of_dev, kept=kept)
    download.check_space(of_dev, world.dev, [], kept=True)
    assert "are needed and" in world.fails("--dev")
    assert world.mirror.requests == []
    unknown = dataclasses.replace(of_dev[0], bytes=None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 2 * unpacked - 1001))
    with pytest.raises(common.UserError, match="are needed"):
        download.check_space([unknown], world.dev, [unknown], kept=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no bound on what a process writes")
@pytest.mark.parametrize(
    ("n_bytes", "words"), [(100_000, "dev_data_fan.zip.part"), (30_000, "normal_id_00_00000000.wav")]
)
def test_the_disk_is_full_after_all(world, n_bytes, words):
    import resource

    if n_bytes < 2 * SAMPLES:  # the archive is there
        world.dev.mkdir()
        (world.dev / "dev_data_fan.zip.part").write_bytes(world.mirror.files["dev_data_fan.zip"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        with pytest.raises(OSError, match=words):
            world.run("--dev", "--machine-type", "fan")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert world.files() == {"dev_data/dev_data_fan.zip.part"}
    world.run("--dev", "--machine-type", "fan")
    assert world.files() == FAN


# ---- other years: names with dots, more folders, lists of attributes, MD5 from the record ----

RECORD = 24
PRINTER = {"train": 3, "test": 2, "supplemental": 1}
ATTRIBUTES = b"file_name,d1p,d1v\n3DPrinter/train/section_00_source_train_normal_0000_volt_3.0_m-n.wav,volt,3.0\n"


def later_names(machine_type: str, clips: dict[str, int]) -> list[str]:
    return [
        f"{machine_type}/{folder}/section_00_source_train_normal_{number:04d}_volt_3.0_m-n.wav"
        for folder, n_clips in clips.items()
        for number in range(n_clips)
    ]


def later_archive(machine_type: str, clips: dict[str, int], attributes=ATTRIBUTES, more=None) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, name in enumerate(later_names(machine_type, clips)):
            archive.writestr(name, clip_bytes(number))
        if attributes:
            archive.writestr(f"{machine_type}/attributes_00.csv", attributes)
        if more:
            more(archive)
    return content.getvalue()


def listing(files: dict[str, bytes]) -> dict:
    """What the interface of zenodo.org answers."""
    entries = [
        {"key": name, "size": len(content), "checksum": f"md5:{hashlib.md5(content).hexdigest()}"}
        for name, content in files.items()
    ]
    return {"id": RECORD, "files": entries}


class LaterWorld(World):
    """The same, with a later year whose archives nobody but their record knows."""

    def __init__(self, folder: Path, mirror: Mirror):
        super().__init__(folder, mirror)
        self.archives = {"dev": [], "eval": []}
        self.serve_later("dev", "dev_3DPrinter.zip", later_archive("3DPrinter", PRINTER), "3DPrinter", PRINTER)
        for name, attributes in (("train", ATTRIBUTES), ("test", b"file_name\n")):
            clips = {name: PRINTER[name]}
            content = later_archive("3DPrinter", clips, attributes)
            self.serve_later("eval", f"eval_data_3DPrinter_{name}.zip", content, "3DPrinter", clips)

    def serve_later(self, split, name, content, machine_type, clips, *, year=2024, **more):
        """Put an archive onto the server, into its record's answer and into the later year's file."""
        self.mirror.files[name] = content
        entry = {"name": name, "record": RECORD, "machine_type": machine_type, "clips": dict(clips), **more}
        self.archives[split] = [e for e in self.archives[split] if e["name"] != name] + [entry]
        names = [e["name"] for of_split in self.archives.values() for e in of_split]
        self.answer(listing({name: self.mirror.files[name] for name in names}))
        write_year(self.folder, year, archives=self.archives)

    def answer(self, content) -> None:
        """Have the record's interface answer this."""
        self.mirror.files[str(RECORD)] = content if isinstance(content, bytes) else json.dumps(content).encode()

    def source(self) -> Path:
        """Folder with the archive of the development dataset, fetched by hand."""
        folder = self.folder / "Downloads"
        folder.mkdir()
        (folder / "dev_3DPrinter.zip").write_bytes(self.mirror.files["dev_3DPrinter.zip"])
        return folder


LATER = ("--dev", "--year", 2024)
IN_DEV = {f"dev_data/{name}" for name in later_names("3DPrinter", PRINTER)} | {
    "dev_data/3DPrinter/attributes_00.csv",
    "dev_data/3DPrinter/.year",
}
PART = "dev_data/dev_3DPrinter.zip.part"


@pytest.fixture
def later(world):
    return LaterWorld(world.folder, world.mirror)


def test_another_year(later, caplog):
    caplog.set_level(logging.INFO)
    later.serve_later("dev", "dev_gearbox.zip", later_archive("gearbox", {"train": 1}, None), "gearbox", {"train": 1})
    gearbox = {f"dev_data/{name}" for name in later_names("gearbox", {"train": 1})} | {"dev_data/gearbox/.year"}
    later.run(*LATER)
    assert later.files() == IN_DEV | gearbox
    assert (later.dev / "3DPrinter/attributes_00.csv").read_bytes() == ATTRIBUTES
    assert [request.path for request in later.mirror.requests] == [
        f"/api/records/{RECORD}",  # once
        f"/records/{RECORD}/files/dev_3DPrinter.zip?download=1",
        f"/records/{RECORD}/files/dev_gearbox.zip?download=1",
    ]
    assert "all 7 clips are there; 2 of 2 files unpacked now" in caplog.text
    assert f"For the other scripts, set `year: 2024` in {later.config}." in caplog.text
    later.run(*LATER)
    assert len(later.mirror.requests) == 3


def test_the_year_of_the_yaml(later, caplog):
    caplog.set_level(logging.INFO)
    settings = yaml.safe_load(later.config.read_text(encoding="utf-8"))
    later.config.write_text(yaml.safe_dump(settings | {"year": 2024}), encoding="utf-8")
    later.run("--dev")
    assert later.files() == IN_DEV
    assert "For the other scripts" not in caplog.text


def test_a_year_that_nobody_knows(later, capsys):
    with pytest.raises(SystemExit):
        later.run("--dev", "--year", 2019)
    assert "argument --year: invalid choice: 2019 (choose from 2020, 2024)" in capsys.readouterr().err


def test_help_is_cheap():
    code = (
        "import sys, contextlib, download_data\n"
        "with contextlib.suppress(SystemExit): download_data.main(['--help'])\n"
        "sys.exit(bool({'yaml', 'tensorflow', 'requests'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0


def test_machine_types_are_those_of_the_year_and_the_dataset(later):
    assert later.fails(*LATER, "--machine-type", "fan") == "--machine-type fan: the dataset has 3DPrinter"


def test_folders_of_tests_apart(later):
    clips = {"train": 2, "source_test": 2, "target_test": 1}
    content = later_archive("gearbox", clips, None)
    later.serve_later("dev", "dev_data_gearbox.zip", content, "gearbox", dict.fromkeys(clips))
    later.run(*LATER, "--machine-type", "gearbox")
    expected = {f"dev_data/{name}" for name in later_names("gearbox", clips)} | {"dev_data/gearbox/.year"}
    assert later.files() == expected
    later.run(*LATER, "--machine-type", "gearbox")
    assert later.asked("dev_data_gearbox.zip") == [None]
    for path in (later.dev / "gearbox/source_test").iterdir():
        path.rename(path.with_suffix(".txt"))
    message = later.fails(*LATER, "--machine-type", "gearbox")
    assert "source_test: 0 wav files; expected some" in message


# ---- what the record says ----


@pytest.mark.parametrize(
    "form",
    [
        lambda entries: entries,
        lambda entries: [{"key": e["key"], "checksum": e["checksum"]} for e in entries],
        lambda entries: [{"key": "other.pdf", "checksum": None}, *entries],
    ],
)
def test_forms_of_a_records_answer(later, form):
    answer = json.loads(later.mirror.files[str(RECORD)])
    later.answer(answer | {"files": form(answer["files"])})
    later.mirror.faults["dev_3DPrinter.zip"] = [fault(drop=70_000)]
    later.run(*LATER)
    assert later.files() == IN_DEV
    assert later.asked("dev_3DPrinter.zip")[0] is None
    assert 0 < later.asked("dev_3DPrinter.zip")[1] <= 70_000  # went on where it stopped


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"<html>", "expected the record's files and their MD5, found something else"),
        (b"[" * 100_000, "found something else"),
        ({"message": "gone"}, "found something else"),
        ({"files": ["dev_3DPrinter.zip"]}, "found something else"),
        ({"files": [{"key": "dev_3DPrinter.zip", "checksum": "sha256:" + 32 * "0"}]}, "Files whose MD5 is not stated"),
        (listing({"dev_fan.zip": b""}), "dev_3DPrinter.zip?download=1\nPlease look with a browser"),
    ],
)
def test_an_answer_that_is_of_no_use(later, answer, words):
    later.answer(answer)
    message = later.fails(*LATER)
    assert words in message
    assert f"{later.mirror.url}/api/records/{RECORD}" in message
    assert "fetch the archive by hand and unpack it with --from" in message
    assert later.files() == set()


def test_no_such_record(later):
    del later.mirror.files[str(RECORD)]
    message = later.fails(*LATER)
    assert f"/api/records/{RECORD}: the server answers 404 Not Found; look with a browser" in message


def test_a_record_that_never_comes(later, pauses):
    later.mirror.persistent = True
    later.mirror.faults[str(RECORD)] = [status(503)]
    message = later.fails(*LATER)
    assert message.startswith(f"No connection to {later.mirror.url} (the server answers 503 Service Unavailable)")
    assert f"  {later.mirror.url}/records/{RECORD}/files/dev_3DPrinter.zip?download=1" in message
    assert not later.dev.exists()


def test_the_record_has_another_size(later):
    answer = listing({"dev_3DPrinter.zip": later.mirror.files["dev_3DPrinter.zip"]})
    answer["files"][0]["size"] = 6
    later.answer(answer)
    assert "dev_3DPrinter.zip has 6, so this is another file" in later.fails(*LATER)


def test_an_md5_that_is_known_is_not_asked_for(later):
    content = later.mirror.files["dev_3DPrinter.zip"]
    md5 = hashlib.md5(content).hexdigest()
    later.serve_later("dev", "dev_3DPrinter.zip", content, "3DPrinter", PRINTER, md5=md5)
    later.run(*LATER)
    assert later.asked(str(RECORD)) == []
    assert later.files() == IN_DEV


def test_sizes_come_with_the_md5_of_others(later):
    known = archives.Archive(
        name="a.zip", record=RECORD, year=2024, md5="0" * 32, machine_type="fan", clips={"test": 1}
    )
    same, other = dataclasses.replace(known, name="b.zip", md5=None), dataclasses.replace(known, name="c.zip")
    answer = listing({"a.zip": b"a", "b.zip": b"bb", "c.zip": b"ccc"})
    answer["files"][0]["checksum"] = "md5:" + "0" * 32
    later.answer(answer)
    found = server.Server(later.mirror.url).identified([known, same, other])
    assert [archive.bytes for archive in found] == [1, 2, None]  # the last one's record has another file by this name
    assert [archive.md5 for archive in found] == ["0" * 32, hashlib.md5(b"bb").hexdigest(), "0" * 32]


def test_the_users_own_archive_is_compared_with_the_record(later):
    later.dev.mkdir()
    (later.dev / "dev_3DPrinter.zip").write_bytes(later.mirror.files["dev_3DPrinter.zip"])
    later.run(*LATER)
    assert later.files() == IN_DEV | {"dev_data/dev_3DPrinter.zip"}
    assert later.asked("dev_3DPrinter.zip") == []
    shutil.rmtree(later.dev / "3DPrinter")
    (later.dev / "dev_3DPrinter.zip").write_bytes(b"other")
    assert "damaged or not whole" in later.fails(*LATER)


# ---- without the network, where no MD5 is known ----


def test_an_archive_that_nobody_knows(later, caplog):
    later.run(*LATER, "--from", later.source())
    assert later.files() == IN_DEV | {"Downloads/dev_3DPrinter.zip"}
    assert "Nothing could be checked but the zip's own checksums, as no MD5 is known: dev_3DPrinter.zip" in caplog.text
    assert later.mirror.requests == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda content: content[:5000] + b"?" + content[5001:], "damaged, or no zip file"),
        (lambda content: b"<html>", "damaged, or no zip file"),
        (lambda content: later_archive("3DPrinter", {"train": 3, "test": 2}), "supplemental: 0 wav files; expected 1"),
        (lambda content: later_archive("3DPrinter", PRINTER | {"train": 9}), "train: 9 wav files; expected 3"),
        (
            lambda content: later_archive("fan", PRINTER),
            "not the archive of 2024:\n  3DPrinter/train: 0 wav files; expected 3",
        ),
    ],
)
def test_a_wrong_archive_that_nobody_knows(later, spoil, words):
    source = later.source()
    path = source / "dev_3DPrinter.zip"
    path.write_bytes(spoil(path.read_bytes()))
    assert words in later.fails(*LATER, "--from", source)
    assert later.files() == {"Downloads/dev_3DPrinter.zip"}


def test_the_publishers_archive_has_other_numbers(later, caplog):
    content = later_archive("3DPrinter", {"train": 3, "test": 1})
    later.serve_later("dev", "dev_3DPrinter.zip", content, "3DPrinter", PRINTER)
    later.run(*LATER)
    assert "dev_3DPrinter.zip: 3DPrinter/test: 1 wav files; expected 2" in caplog.text
    assert "dev_3DPrinter.zip: 3DPrinter/supplemental: 0 wav files; expected 1" in caplog.text
    expected = {f"dev_data/{name}" for name in later_names("3DPrinter", {"train": 3, "test": 1})}
    assert later.files() == expected | {"dev_data/3DPrinter/attributes_00.csv", "dev_data/3DPrinter/.year"}


# ---- what else is in the archives ----


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (member("3DPrinter/../../attributes_00.csv"), "unsafe name"),
        (member("3DPrinter/attributes_01.csv", stat.S_IFLNK, b"/etc/passwd"), "a symbolic link or a device"),
    ],
)
def test_attributes_that_are_not_safe(later, more, words):
    content = later_archive("3DPrinter", PRINTER, None, more)
    later.serve_later("dev", "dev_3DPrinter.zip", content, "3DPrinter", PRINTER)
    assert words in later.fails(*LATER)
    assert later.files() == {PART}


def test_what_is_no_clip_and_no_list_of_attributes(later):
    def others(archive):
        for name in ("README.txt", "__MACOSX/3DPrinter/train/._x.wav", "fan/train/a.wav", "fan/attributes_00.csv"):
            archive.writestr(name, b"x")
        for name in ("readme.csv", "attributes_00.csv.exe", "train/._a.wav", "train/.wav", "deep/train/a.wav", ".year"):
            archive.writestr(f"3DPrinter/{name}", b"x")
        archive.writestr("3DPrinter/attributes_01_more-2.csv", b"x")

    content = later_archive("3DPrinter", PRINTER, more=others)
    later.serve_later("dev", "dev_3DPrinter.zip", content, "3DPrinter", PRINTER)
    later.run(*LATER)
    assert later.files() == IN_DEV | {"dev_data/3DPrinter/attributes_01_more-2.csv"}
    assert (later.dev / "3DPrinter/.year").read_text() == "2024\n"


def test_two_lists_of_attributes(later, caplog):
    """Training and test archives may both have one."""
    later.run("--eval", "--year", 2024)
    path = later.eval / "3DPrinter/attributes_00.csv"
    assert path.read_bytes() == ATTRIBUTES
    assert f"{path}: kept; the one in eval_data_3DPrinter_test.zip differs from it" in caplog.text
    caplog.clear()
    shutil.rmtree(later.eval / "3DPrinter/train")
    later.run("--eval", "--year", 2024)
    assert "differs" not in caplog.text


def test_killed_before_the_clips_were_moved(later):
    (later.dev / "3DPrinter").mkdir(parents=True)
    (later.dev / "3DPrinter/.year").write_text("2024\n")
    later.run(*LATER)
    assert later.files() == IN_DEV


# ---- another year's dataset in the folder ----


def test_a_dataset_of_another_year_with_the_same_numbers(later):
    later.run(*LATER)
    write_year(later.folder, 2023, archives=later.archives)
    message = later.fails("--dev", "--year", 2023)
    assert "3DPrinter/train: 3 wav files of 2024; expected 3 of 2023".replace("/", os.sep) in message
    assert "3DPrinter/supplemental: 1 wav files of 2024; expected 1 of 2023".replace("/", os.sep) in message
    assert "Each year needs folders of its own: name others in the YAML, dev_directory and eval_directory." in message
    for name in PRINTER:
        shutil.rmtree(later.dev / "3DPrinter" / name)
    later.run("--dev", "--year", 2023)
    assert (later.dev / "3DPrinter/.year").read_text() == "2023\n"


def test_names_tell_another_year(later):
    later.run("--dev", "--machine-type", "fan")
    later.serve_later("dev", "dev_fan.zip", later_archive("fan", CLIPS), "fan", CLIPS)
    message = later.fails(*LATER, "--machine-type", "fan")
    assert "fan/train: 3 wav files of 2020; expected 3 of 2024".replace("/", os.sep) in message
    for name in CLIPS:
        shutil.rmtree(later.dev / "fan" / name)
    later.run(*LATER, "--machine-type", "fan")
    message = later.fails("--dev", "--machine-type", "fan")
    assert "fan/train: 3 wav files of 2024; expected 3 of 2020".replace("/", os.sep) in message
    for name in CLIPS:
        shutil.rmtree(later.dev / "fan" / name)
    for _ in range(2):  # and no mark of the other year stays
        later.run("--dev", "--machine-type", "fan")


def test_clips_of_unknown_length_have_samples(later):
    later.run(*LATER)
    path = later.folder / min(name for name in IN_DEV if "/train/" in name)
    path.write_bytes(bytes(44))
    assert "train: 3 wav files, 1 of them cut short; expected 3" in later.fails(*LATER)
    path.write_bytes(bytes(46))
    later.run(*LATER)


def test_space_for_clips_of_unknown_length():
    archive = archives.Archive(name="a.zip", record=1, year=2024, machine_type="fan", clips={"train": 10, "test": None})
    assert archive.unpacked_bytes == archive.most_bytes == 10 * (320_000 + archives.HEADER_BYTES)
    known = dataclasses.replace(archive, bytes=1000)
    assert (known.unpacked_bytes, known.most_bytes) == (1500, 1000)
