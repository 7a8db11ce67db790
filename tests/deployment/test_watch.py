"""04_detect.py: what arrives in a folder or through a pipe, alarms, going on past what is broken, being killed."""

import argparse
import contextlib
import csv
import importlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import yaml
from conftest import OPTIONS, official_scores

import common
import make_demo_data
from deployment import watch
from deployment.alarm import Alarm
from deployment.arguments import channels, raw, rule
from deployment.verdict_log import VerdictLog
from detectors import decision

RATE = make_demo_data.SAMPLE_RATE
N_SAMPLES = int(OPTIONS.seconds * RATE)
detect = importlib.import_module("04_detect")


def options(work: Path, *arguments) -> list[str]:
    return [*map(str, ["--config", work / "settings.yaml", "--machine-type", "fan", "--system", "near", *arguments])]


@pytest.fixture
def sounds(dataset) -> list[Path]:
    return sorted((dataset / "dev_data" / "fan" / "test").iterdir())


def script(monkeypatch, *steps) -> None:
    """Do a step in place of each wait of a watch; after the last one it is asked to stop."""
    left = iter(steps)

    def wait(_seconds: float) -> None:
        step = next(left, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(watch, "sleep", wait)


def rest() -> None:
    """Nothing happens."""


def lines(folder: Path) -> list[dict]:
    with (folder / "verdicts_fan_near.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


# ---- a folder ----


def test_files_are_judged_once_they_are_whole(families, tmp_path, sounds, monkeypatch, capsys, caplog):
    content, path = sounds[0].read_bytes(), tmp_path / sounds[0].name

    def write(size: int):
        return lambda: path.write_bytes(content[:size])

    shutil.copy(sounds[5], tmp_path)
    growing = [write(size) for size in (0, 30, 1000, len(content) // 2)]
    script(monkeypatch, *growing, rest, rest, write(len(content)), rest, rest)
    detect.main(options(families, "--watch", tmp_path))
    found = lines(tmp_path)
    assert [row["recording"] for row in found] == [sounds[5].name, sounds[0].name]
    expected = official_scores(families, "near")
    assert [float(row["score"]) for row in found] == pytest.approx([expected[row["recording"]] for row in found])
    assert "not judged" not in caplog.text
    title, *shown = capsys.readouterr().out.splitlines()
    assert title.split()[:2] == ["time", "recording"]
    assert [line.split()[2] for line in shown] == [row["recording"] for row in found]


def test_a_file_that_never_becomes_whole_is_named_once(families, tmp_path, sounds, monkeypatch, caplog):
    path = tmp_path / sounds[0].name
    path.write_bytes(sounds[0].read_bytes()[:-100])
    monkeypatch.setattr(watch, "PATIENCE", 0)
    script(monkeypatch, *5 * [rest], lambda: shutil.copy(sounds[0], path), rest, rest)
    detect.main(options(families, "--watch", tmp_path))
    assert caplog.text.count("not judged: truncated: 100 bytes of sound are missing") == 1
    assert [row["recording"] for row in lines(tmp_path)] == [path.name]


def test_what_was_judged_is_not_judged_again(families, tmp_path, sounds, monkeypatch):
    for path in sounds[:3]:
        shutil.copy(path, tmp_path)
    script(monkeypatch, rest)
    detect.main(options(families, "--watch", tmp_path))
    before = (tmp_path / "verdicts_fan_near.csv").read_bytes()
    assert before.count(b"\n") == 4
    script(monkeypatch, rest, lambda: shutil.copy(sounds[3], tmp_path), rest, rest)
    detect.main(options(families, "--watch", tmp_path))
    after = (tmp_path / "verdicts_fan_near.csv").read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == 5


def test_another_recording_of_the_same_name_is_judged(families, tmp_path, sounds, monkeypatch):
    path = tmp_path / "normal_id_00_latest.wav"
    shutil.copy(sounds[0], path)
    script(monkeypatch, rest, lambda: shutil.copy(sounds[4], path), rest, rest)
    detect.main(options(families, "--watch", tmp_path, "--output", tmp_path / "x.jsonl", "--machine-id", "id_00"))
    found = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    expected = official_scores(families, "near")
    assert [row["score"] for row in found] == pytest.approx([expected[sounds[0].name], expected[sounds[4].name]])


def test_recordings_that_say_no_machine_do_not_end_a_watch(families, tmp_path, sounds, monkeypatch, caplog):
    shutil.copy(sounds[0], tmp_path / "tuesday.wav")
    soundfile.write(tmp_path / "id_00_short.wav", common.load_wav(sounds[0])[0][:4000], RATE)
    shutil.copy(sounds[1], tmp_path)
    script(monkeypatch, rest, rest)
    detect.main(options(families, "--watch", tmp_path))
    assert [row["recording"] for row in lines(tmp_path)] == [sounds[1].name]
    assert "tuesday.wav: no ID" in caplog.text
    assert "id_00_short.wav: 0.2 s" in caplog.text


def test_a_folder_that_is_not_there(families, tmp_path):
    with pytest.raises(common.UserError, match="--watch .*gone: no such folder"):
        detect.main(options(families, "--watch", tmp_path / "gone"))


# ---- killed, a full disk ----


def start(families: Path, folder: Path, *arguments, **keys) -> subprocess.Popen:
    command = [sys.executable, detect.__file__, *options(families, "--watch", *arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, **keys)


def test_killed_and_started_again(families, tmp_path, sounds):
    folder = tmp_path / "arriving"
    folder.mkdir()
    for path in sounds[:3]:
        shutil.copy(path, folder)
    with start(families, tmp_path, folder) as first:
        shown = [first.stdout.readline() for _ in range(3)]  # the title, and two of the three
        first.send_signal(signal.SIGKILL)
    assert len(shown[2]) > 1
    shutil.copy(sounds[3], folder)
    with start(families, tmp_path, folder, "--fail-on-anomaly") as second:
        while len(lines(folder)) < 4 and second.poll() is None:
            time.sleep(0.2)
        second.send_signal(signal.SIGTERM)
        second.communicate()
    anomalies = [row for row in lines(folder)[2:] if row["verdict"] == "anomaly"]
    assert second.returncode in ({0, 3} if anomalies else {0})
    assert sorted(row["recording"] for row in lines(folder)) == [path.name for path in sounds[:4]]


ROW = {"time": "t", "recording": "a, b.wav", "score": 0.1}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_line_that_was_not_finished_is_cut_off(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    rows = []
    log = VerdictLog(path, ROW, rows.append)
    assert rows == []
    log.add([ROW])
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(whole.splitlines()[-1][:-2])
    VerdictLog(path, ROW, rows.append)
    assert [[*map(str, row.values())] for row in rows] == [["t", "a, b.wav", "0.1"]]
    assert path.read_bytes() == whole
    with pytest.raises(common.UserError, match="has the columns time, recording, score; expected time, alarm"):
        VerdictLog(path, ["time", "alarm"], rows.append)
    assert path.read_bytes() == whole


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path):
    path, rows = tmp_path / "x.csv", []
    log = VerdictLog(path, ROW, rows.append)
    log.add([ROW])
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, limits[1]))
    try:
        with pytest.raises(OSError, match="x.csv"):
            log.add(5 * [ROW])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    log.add([ROW])
    VerdictLog(path, ROW, rows.append)
    assert len(rows) == 2


# ---- a stream ----


def pipe(monkeypatch, content: bytes, size: int = 777) -> None:
    """Standard input that gets the content in pieces."""
    reading, writing = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(writing, "wb", buffering=0) as file:  # noqa: PTH123
            for first in range(0, len(content), size):
                file.write(content[first : first + size])

    threading.Thread(target=write, daemon=True).start()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=open(reading, "rb")))  # noqa: PTH123, SIM115


def heard(families: Path, tmp_path: Path, *arguments) -> list[dict]:
    """What is said of a stream, without the time at which it was heard."""
    output = tmp_path / "stream.jsonl"
    output.unlink(missing_ok=True)
    detect.main(options(families, "--machine-id", "id_00", "--output", output, *arguments))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("time", "recording")} for row in rows]


def require_same(found: list[dict], expected: list[dict]) -> None:
    """The same but for rounding: a product of one row is rounded otherwise."""
    scores = [[row.pop("score") for row in rows] for rows in (found, [dict(row) for row in expected])]
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)
    assert found == [{name: value for name, value in row.items() if name != "score"} for row in expected]


@pytest.fixture
def long(tmp_path, sounds) -> Path:
    """Recording of three windows and a half."""
    parts = np.concatenate([common.load_wav(path)[0] for path in sounds if "_id_00_" in path.name])
    soundfile.write(tmp_path / "long.wav", parts[: 7 * N_SAMPLES // 2], RATE, subtype="PCM_16")
    return tmp_path / "long.wav"


def test_a_stream_is_judged_as_its_file(families, tmp_path, long, monkeypatch):
    samples = soundfile.read(long, dtype="int16")[0]
    of_file = heard(families, tmp_path, long)
    assert [row["start"] for row in of_file] == [0, 1, 2, 2.5]
    pipe(monkeypatch, samples.tobytes())
    require_same(heard(families, tmp_path, "--watch", "-", "--raw", f"{RATE},1"), of_file)
    for length in (None, 0, 0xFFFFFFFF, 0x80000000):
        content = bytearray(long.read_bytes())
        place = content.index(b"data") + 4
        if length is not None:
            content[place : place + 4] = length.to_bytes(4, "little")
        pipe(monkeypatch, bytes(content) + (b"LIST\4\0\0\0INFO" if length is None else b""))
        require_same(heard(families, tmp_path, "--watch", "-"), of_file)


@pytest.fixture
def three(long) -> np.ndarray:
    """Samples of three channels, (n_samples, 3), int16, the second of which is dead and the third like the first."""
    samples = soundfile.read(long, dtype="int16")[0]
    return np.stack([samples, 0 * samples, samples], axis=1)


def test_a_channel_of_a_stream(families, tmp_path, long, three, monkeypatch):
    settings = yaml.safe_load((families / "settings.yaml").read_text()) | {"channel": 2}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    of_file = heard(families, tmp_path, long)
    pipe(monkeypatch, three.tobytes(), 50_001)
    found = heard(families, tmp_path, "--watch", "-", "--raw", f"{RATE},3", "--config", tmp_path / "settings.yaml")
    require_same(found, of_file)
    for options, fault in (((), "3 channels; expected one. Set channel: 0"), (("--channels", "0,3"), "no channel 3")):
        pipe(monkeypatch, three.tobytes(), 50_001)
        with pytest.raises(common.UserError, match=f"-: {fault}"):
            heard(families, tmp_path, "--watch", "-", "--raw", f"{RATE},3", *options)


def test_each_channel_is_judged_as_a_recording_of_its_own(families, tmp_path, long, three, monkeypatch, caplog):
    monkeypatch.setattr(decision, "threshold", lambda *args, **settings: -1e9)  # all are anomalous
    of_file = heard(families, tmp_path, long, "--alarm", "2/3")
    pipe(monkeypatch, three.tobytes(), 50_001)
    found = heard(families, tmp_path, "--watch", "-", "--raw", f"{RATE},3", "--channels", "all", "--alarm", "2/3")
    assert [row["channel"] for row in found] == [0, 2] * 4
    assert caplog.text.count("not judged: channel 1: silent: every sample is zero") == 1
    assert caplog.text.count("ALARM of id_00, channel") == 2
    for channel in (0, 2):
        own = [row for row in found if row["channel"] == channel]
        require_same([{name: value for name, value in row.items() if name != "channel"} for row in own], of_file)


def test_channels_of_files(families, tmp_path, three, monkeypatch, capsys, caplog):
    soundfile.write(tmp_path / "x.wav", three, RATE)
    script(monkeypatch, rest, rest)
    two = ("--channels", "0,2", "--machine-id", "id_00,id_02")
    detect.main(options(families, "--watch", tmp_path, *two))
    assert [(row["channel"], row["machine_id"]) for row in lines(tmp_path)] == 4 * [("0", "id_00")] + 4 * [
        ("2", "id_02")
    ]
    capsys.readouterr()
    with pytest.raises(common.UserError, match="x.wav: channel 1: silent"):
        heard(families, tmp_path, tmp_path / "x.wav", "--channels", "all", "--keep-going")
    title, *shown, _ = capsys.readouterr().out.splitlines()
    assert title.split()[2] == "channel"
    assert [line.split()[2] for line in shown] == 4 * ["0"] + 4 * ["2"]
    with pytest.raises(common.UserError, match="--plot draws one recording, in one channel; there are 2"):
        heard(families, tmp_path, tmp_path / "x.wav", *two, "--plot", tmp_path / "x.png")


def test_windows_of_a_stream_that_cannot_be_judged_are_told_once(families, tmp_path, long, monkeypatch, caplog):
    samples = soundfile.read(long, dtype="int16")[0][:N_SAMPLES]
    silence = np.zeros(3 * N_SAMPLES, "<i2")
    pipe(monkeypatch, np.concatenate([samples, silence, samples]).tobytes())
    found = heard(families, tmp_path, "--watch", "-", "--raw", f"{RATE},1")
    assert [row["start"] for row in found] == [0, 4]
    assert found[0]["score"] == found[1]["score"]
    assert caplog.text.count("not judged: silent") == 1


def test_streams_that_cannot_be_judged(families, tmp_path, long, monkeypatch):
    for content, arguments, fault in (
        (b"no sound", [], "does not begin as a wav file"),
        (b"", [], "does not begin as a wav file"),
        (long.read_bytes()[:30], [], "no sound in it"),
        (long.read_bytes(), ["--raw", "8000,1"], "8000 Hz; the system was trained with 16000 Hz"),
    ):
        pipe(monkeypatch, content)
        with pytest.raises(common.UserError, match=fault):
            heard(families, tmp_path, "--watch", "-", *arguments)
    pipe(monkeypatch, long.read_bytes())
    with pytest.raises(common.UserError, match="Name the machine with --machine-id; there are id_00, id_02"):
        detect.main(options(families, "--watch", "-"))


def test_a_window_is_judged_before_the_stream_goes_on(families, tmp_path, long):
    """The verdict on the first window is there while the pipe waits for the second."""
    samples = soundfile.read(long, dtype="int16")[0]
    arguments = ("-", "--raw", f"{RATE},1", "--machine-id", "id_00", "--json", "--alarm", "1/1")
    with start(families, tmp_path, *arguments, stdin=subprocess.PIPE) as running:
        running.stdin.buffer.write(samples[: N_SAMPLES + 5].tobytes())
        running.stdin.flush()
        found = json.loads(running.stdout.readline())
        assert (found["start"], found["alarm"]) == (0, found["verdict"] == "anomaly")
        running.send_signal(signal.SIGINT)
        assert running.wait(300) == 0


# ---- alarms ----


def test_alarms_by_hand(caplog):
    caplog.set_level("INFO")
    alarm = Alarm(3, 5)
    windows = [0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]
    expect = [0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1]
    assert [alarm.hear("id_00", bool(one), f"x at {k} s") for k, one in enumerate(windows)] == expect
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "ALARM of id_00: 3 of the last 5 windows are anomalous, with x at 5 s",
        "end of the alarm of id_00: 2 of the last 5 windows are anomalous, with x at 9 s",
        "ALARM of id_00: 3 of the last 5 windows are anomalous, with x at 12 s",
    ]


def test_alarms_of_several_machines_and_of_an_earlier_run(caplog):
    alarm = Alarm(2, 2)
    assert [alarm.hear(name, True, "x") for name in ("id_00", "id_02", "id_00")] == [False, False, True]
    later = Alarm(2, 3)
    caplog.clear()
    for is_anomaly in (True, True):
        later.hear("id_00", is_anomaly, "")
    assert later.hear("id_00", False, "x")
    assert caplog.text == ""
    assert not Alarm(2, 3).hear("id_00", True, "x")


def test_numbers_in_arguments():
    assert (rule("3/5"), raw("16000,8"), channels("5,0,5"), channels("all")) == ((3, 5), (16000, 8), (5, 0), ())
    for parse, texts in (
        (rule, ["3", "0/5", "6/5", "3/x", "-1/5", "3/5/7", ""]),
        (raw, ["16000", "0,1", "16000,0", "16000,32768", "9999999,1"]),
        (channels, ["", "-1", "0,", "none"]),
    ):
        for text in texts:
            with pytest.raises(argparse.ArgumentTypeError, match=f"{text}: expected"):
                parse(text)


def test_an_alarm_decides_the_exit_code(families, tmp_path, long, sounds, monkeypatch):
    monkeypatch.setattr(decision, "threshold", lambda *args, **settings: -1e9)  # all are anomalous
    with pytest.raises(SystemExit) as caught:
        heard(families, tmp_path, long, "--alarm", "3/5", "--fail-on-anomaly")
    assert caught.value.code == 3
    found = [json.loads(line) for line in (tmp_path / "stream.jsonl").read_text().splitlines()]
    assert [row["alarm"] for row in found] == [False, False, True, True]
    heard(families, tmp_path, sounds[0], "--alarm", "2/3", "--fail-on-anomaly")


# ---- going on ----


def test_keep_going(families, tmp_path, sounds, capsys):
    for path in sounds[:2]:
        shutil.copy(path, tmp_path)
    (tmp_path / "text.wav").write_text("no sound")
    shutil.copy(sounds[0], tmp_path / "tuesday.wav")
    soundfile.write(tmp_path / "id_00_short.wav", common.load_wav(sounds[0])[0][:4000], RATE)
    with pytest.raises(common.UserError, match="1 of 5 recordings cannot be judged") as caught:
        detect.main(options(families, tmp_path))
    assert "tuesday" not in str(caught.value)
    with pytest.raises(common.UserError) as caught:
        detect.main(options(families, tmp_path, "--keep-going", "--json", "--output", tmp_path / "x.json"))
    for fault in ("text.wav: not a wav file", "tuesday.wav: no ID", "id_00_short.wav: 0.2 s"):
        assert fault in str(caught.value)
    found = json.loads((tmp_path / "x.json").read_text())
    assert [Path(row["recording"]).name for row in found] == [path.name for path in sounds[:2]]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == found
    with pytest.raises(common.UserError, match="1 of 1 recordings cannot be judged"):
        detect.main(options(families, tmp_path / "text.wav", "--keep-going"))
    detect.main(options(families, sounds[0], "--keep-going"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name recordings, or --watch FOLDER"),
        (["x.wav", "--watch", "x"], "name recordings, or --watch FOLDER"),
        (["x.wav", "--raw", "16000,1"], "--raw goes with --watch -"),
        (["--watch", "-", "--raw", "16000"], "such as 16000,8, sample rate and number of channels"),
        (["--watch", "x", "--output", "x.json"], "ends in .csv or .jsonl"),
        (["--watch", "x", "--plot", "x.png"], "go with recordings"),
        (["x.wav", "--machine-id", "id_00,id_02"], "go with as many --channels"),
        (["x.wav", "--alarm", "7"], "7: expected whole numbers such as 3/5"),
    ],
)
def test_arguments_that_do_not_go_together(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        detect.main(["--machine-type", "fan", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_standard_input_is_still_read_whole(families, tmp_path, sounds, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(sounds[0].read_bytes())))
    assert len(heard(families, tmp_path, "-")) == 1
