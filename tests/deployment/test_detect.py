"""04_detect.py: equal to 01_test.py, windows of long recordings, every form of input and output, every refusal."""

import csv
import dataclasses
import importlib
import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import yaml
from conftest import FAMILIES, OPTIONS, merge, official_scores

import common
import config
import make_demo_data
from audio import bands
from audio.clips import Clip, load_clip, parse_clip_name
from deployment import detection, hearing
from deployment.hearing import Hearing
from detectors import decision
from storage import records
from training.families import family_of
from training.model_records import RECORD
from years.year import read_year

RATE = make_demo_data.SAMPLE_RATE
N_SAMPLES = int(OPTIONS.seconds * RATE)
detect = importlib.import_module("04_detect")


@pytest.fixture
def work(families) -> Path:
    return families


@pytest.fixture
def test_folder(dataset) -> Path:
    return dataset / "dev_data" / "fan" / "test"


def run(work: Path, *arguments) -> None:
    options = ["--config", work / "settings.yaml", "--machine-type", "fan", "--system", "small"]
    detect.main([*map(str, [*options, *arguments])])


def verdicts(work: Path, tmp_path: Path, *arguments) -> list[dict]:
    """What the command says, by its JSON."""
    run(work, *arguments, "--output", tmp_path / "x.json")
    return json.loads((tmp_path / "x.json").read_text())


def training_scores(work: Path, system: str = "small"):
    from training.run import Run, progress_bar

    settings = config.load_config(work / "settings.yaml")
    with progress_bar(0, 0) as bar:
        chosen = settings.systems[system]
        return family_of(chosen).training_scores(Run(settings, "dev", bar), chosen, "fan")


# ---- what is said ----


@pytest.mark.parametrize("system", FAMILIES)
def test_scores_are_those_of_01_test(work, tmp_path, test_folder, system):
    expected = official_scores(work, system)
    found = verdicts(work, tmp_path, test_folder, "--system", system)
    assert {Path(v["recording"]).name: v["score"] for v in found} == pytest.approx(expected, rel=1e-9)
    assert len(expected) == 8
    one = sorted(test_folder.iterdir())[5]
    alone = verdicts(work, tmp_path, one, "--system", system)[0]["score"]
    assert alone == pytest.approx(expected[one.name], rel=1e-9)  # a product of one row is rounded otherwise


@pytest.mark.parametrize("system", FAMILIES)
def test_verdicts_follow_from_the_scores_of_the_training_clips(work, tmp_path, test_folder, system):
    trained = training_scores(work, system)
    for found in verdicts(work, tmp_path, test_folder, "--system", system):
        machine_id = parse_clip_name(Path(found["recording"]).name).machine_id
        own = trained.of(machine_id)
        assert (found["machine_type"], found["machine_id"]) == ("fan", machine_id)
        assert found["threshold"] == decision.threshold(own, quantile=0.9, method="gamma")
        assert found["percentile"] == pytest.approx(100 * np.mean(own <= found["score"]))
        assert found["verdict"] == ("anomaly" if found["score"] > found["threshold"] else "normal")
        assert (found["start"], found["duration"]) == (0, OPTIONS.seconds)


def test_a_recording_of_the_training_is_as_01_test_would_score_it(work, tmp_path, dataset):
    trained = training_scores(work)
    found = verdicts(work, tmp_path, dataset / "dev_data" / "fan" / "train")
    scores = dict(zip(trained.names, trained.scores, strict=True))
    assert {Path(v["recording"]).name: v["score"] for v in found} == pytest.approx(scores, rel=1e-6)


def test_a_recording_of_any_name(work, tmp_path, test_folder, caplog):
    source = test_folder / "normal_id_02_00000001.wav"
    path = Path(shutil.copy(source, tmp_path / "tuesday morning.wav"))
    with pytest.raises(
        common.UserError, match=r"(?s)tuesday morning.wav: no ID\nName it with --machine-id.*id_00, id_02"
    ):
        run(work, path)
    found = verdicts(work, tmp_path, path, "--machine-id", "id_02")
    assert [(v["machine_id"], v["score"]) for v in found] == [("id_02", official_scores(work)[source.name])]
    assert (
        "fan id_02: the threshold of 3 training clips is rough: 2 to 63 % false alarms are to be expected"
        in caplog.text
    )


def test_a_long_recording_window_by_window(work, tmp_path, test_folder, capsys):
    parts = [common.load_wav(path)[0] for path in sorted(test_folder.glob("*_id_00_*"))[:3]]
    whole = np.concatenate(parts)[: 5 * N_SAMPLES // 2]
    soundfile.write(tmp_path / "long.wav", whole, RATE, subtype="PCM_16")
    found = verdicts(work, tmp_path, tmp_path / "long.wav", "--machine-id", "id_00")
    assert [(v["start"], v["duration"]) for v in found] == [(0, 1), (1, 1), (1.5, 1)]
    assert "of 3 anomalous" in capsys.readouterr().out
    for number, window in enumerate(found):
        first = round(window["start"] * RATE)
        path = tmp_path / f"normal_id_00_{number}.wav"
        soundfile.write(path, whole[first : first + N_SAMPLES], RATE, subtype="PCM_16")
        assert verdicts(work, tmp_path, path)[0]["score"] == window["score"]


def test_standard_input(work, tmp_path, test_folder, monkeypatch):
    path = test_folder / "anomaly_id_00_00000001.wav"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    found = verdicts(work, tmp_path, "-", "--machine-id", "id_00")
    assert [(v["recording"], v["score"]) for v in found] == [("-", official_scores(work)[path.name])]


def test_standard_input_named_twice_is_read_once(work, tmp_path, test_folder, monkeypatch):
    path = test_folder / "anomaly_id_00_00000001.wav"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    found = verdicts(work, tmp_path, "-", "-", "--machine-id", "id_00")
    assert [(v["recording"], v["score"]) for v in found] == [("-", official_scores(work)[path.name])]


@pytest.mark.parametrize(("network_per", "n_samples"), [("all", 16_000), ("machine_type", 80_000)])
def test_a_record_of_another_network_per_says_nothing(work, tmp_path, network_per, n_samples):
    """Both records may be there; windows are as long as the clips of the network that scores."""
    settings = yaml.safe_load((work / "settings.yaml").read_text())
    settings["systems"]["dense"]["model"]["network_per"] = network_per
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(settings | {"model_directory": str(tmp_path)}))
    loaded = config.load_config(tmp_path / "x.yaml")
    folder = tmp_path / "dev" / "dense"
    shutil.copytree(work / "model" / "dev" / "dense", folder)
    record = records.read(folder / "record_classifier.yaml", RECORD)
    records.write(folder / "record_fan.yaml", record | {"n_samples": {"fan": 80_000}})
    assert Hearing.of(loaded, "dev", loaded.systems["dense"], "fan").n_samples == n_samples


def test_a_channel_of_several(tmp_path, test_folder):
    waveform, _ = common.load_wav(test_folder / "normal_id_00_00000001.wav")
    path = tmp_path / "two.wav"
    soundfile.write(path, np.stack([np.zeros_like(waveform), waveform], axis=1), RATE)
    one = Hearing("fan", N_SAMPLES, RATE, min_samples=1, channel=1)
    (clip,), faults = one.heard(path)
    assert faults == []
    np.testing.assert_array_equal(load_clip(clip)[0], waveform)
    clips, (fault,) = dataclasses.replace(one, channel=None).heard(path)
    assert clips == []
    assert fault.startswith("2 channels; expected one. Set channel: 0")
    for channels in ((), (0, 1)):
        (clip,), faults = dataclasses.replace(one, channels=channels).heard(path)
        assert (clip.channel, faults) == (1, ["channel 0: silent: every sample is zero"])


def test_the_same_file_twice_is_judged_once(work, tmp_path, test_folder):
    path = test_folder / "normal_id_00_00000000.wav"
    assert len(verdicts(work, tmp_path, path, path, path.parent)) == 8


def test_table_and_csv(work, tmp_path, test_folder, capsys):
    path = test_folder / "normal_id_00_00000000.wav"
    run(work, path, "--output", tmp_path / "x.csv")
    title, line, summary = capsys.readouterr().out.splitlines()
    assert title.split() == ["recording", "ID", "start", "[s]", "score", "threshold", "percentile", "verdict"]
    found = verdicts(work, tmp_path, path)[0]
    assert line.split()[:2] == [str(path), "id_00"]
    assert float(line.split()[3]) == pytest.approx(found["score"], rel=1e-4)
    assert line.split()[-1] == found["verdict"]
    assert summary == f"{int(found['verdict'] == 'anomaly')} of 1 anomalous"
    text = (tmp_path / "x.csv").read_bytes().decode()
    assert text.splitlines()[0] == "recording,machine_type,machine_id,start,duration,score,threshold,percentile,verdict"
    assert [*csv.DictReader(io.StringIO(text))] == [{name: str(value) for name, value in found.items()}]
    assert "\r" not in text


@pytest.mark.parametrize("system", ["small", "windows"])
def test_nothing_is_left_behind(work, test_folder, system):
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    run(work, test_folder, "--system", system)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before


def test_exit_codes(work, test_folder, monkeypatch):
    monkeypatch.setattr(decision, "threshold", lambda *args, **settings: 0.0)
    run(work, test_folder)
    with pytest.raises(SystemExit) as caught:
        run(work, test_folder, "--fail-on-anomaly")
    assert caught.value.code == 3
    monkeypatch.setattr(decision, "threshold", lambda *args, **settings: 1e9)
    run(work, test_folder, "--fail-on-anomaly")


# ---- the picture ----


def test_a_picture(work, tmp_path, test_folder):
    path = test_folder / "normal_id_00_00000000.wav"
    soundfile.write(tmp_path / "long.wav", np.tile(common.load_wav(path)[0], 3)[:40_000], RATE)
    run(work, tmp_path / "long.wav", "--machine-id", "id_00", "--plot", tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(common.UserError, match="--plot draws one recording, in one channel; there are 8"):
        run(work, test_folder, "--plot", tmp_path / "x.png")


def test_frequencies_of_the_picture(official_feature):
    centres = bands.mel_centres(official_feature, RATE)
    assert len(centres) == 128
    assert (np.diff(centres) > 0).all()
    assert centres[0] == pytest.approx(25, abs=10)
    assert centres[-1] == pytest.approx(7800, rel=0.02)


# ---- windows and IDs ----


def clip(name: str = "x.wav", n_samples: int = 10) -> Clip:
    return Clip(Path(name), "fan", "", None, n_samples, RATE, 1, 1, 1)


@pytest.mark.parametrize(
    ("n_samples", "starts"),
    [(1, [0]), (10, [0]), (11, [0]), (12, [0, 2]), (20, [0, 10]), (25, [0, 10, 15])],
)
def test_windows(n_samples, starts):
    windows = hearing.windows([clip(n_samples=n_samples)], 10)
    assert [window.first for window in windows] == starts
    assert {window.n_samples for window in windows} == {n_samples if n_samples <= 11 else 10}


def test_machine_ids():
    official = read_year(2020)

    def ids(trained, wanted="", names=("normal_id_02_1.wav", "b.wav"), year=official):
        clips = [dataclasses.replace(clip(name), machine_id=wanted) for name in names]
        shown = {Path(name): name for name in names}
        found, errors = detection.with_machine_ids(clips, trained, shown, year=year)
        if errors:
            raise errors[0]
        assert [dataclasses.replace(one, machine_id=wanted) for one in found] == clips
        return [one.machine_id for one in found]

    assert ids(["id_02"]) == ["id_02", "id_02"]
    assert ids(["id_00"], year=None) == ["id_00", "id_00"]
    assert ids(["id_00", "id_02"], "id_00") == ["id_00", "id_00"]
    assert ids(["id_00", "id_02"], names=("id_00_1.wav", "anomaly_id_02_1.wav")) == ["id_00", "id_02"]
    with pytest.raises(common.UserError, match="normal_id_02_1.wav: id_02, of which there are no training clips"):
        ids(["id_00"])


def test_a_machine_id_without_training_clips(work, test_folder):
    with pytest.raises(common.UserError, match="--machine-id id_9: no training clips of it; there are some of id_00"):
        run(work, test_folder, "--machine-id", "id_9")


# ---- refusals ----


def test_recordings_that_cannot_be_judged(work, tmp_path, test_folder):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, N_SAMPLES)
    soundfile.write(tmp_path / "slow.wav", noise, 8000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([noise, noise], axis=1), RATE)
    soundfile.write(tmp_path / "short.wav", noise[:100], RATE)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(common.UserError) as caught:
        run(work, tmp_path, test_folder)
    error = str(caught.value)
    assert error.startswith("4 of 12 recordings cannot be judged:")
    assert "slow.wav: 8000 Hz; the system was trained with 16000 Hz. Resample it, for example with: ffmpeg" in error
    assert "stereo.wav: 2 channels" in error
    assert "short.wav: 100 samples" in error
    assert "text.wav: " in error


def test_recordings_shorter_than_the_training_clips(work, tmp_path, test_folder, caplog):
    waveform, _ = common.load_wav(test_folder / "normal_id_00_00000000.wav")
    for share in (1, 0.8, 0.4):
        soundfile.write(tmp_path / f"id_00_{share}.wav", waveform[: round(share * N_SAMPLES)], RATE)
    verdicts(work, tmp_path, tmp_path / "id_00_1.wav")
    assert "usual" not in caplog.text
    for system, share in (("small", 0.8), ("small", 0.4), ("near", 0.8), ("all", 0.8)):
        caplog.clear()
        verdicts(work, tmp_path, tmp_path / f"id_00_{share}.wav", "--system", system)
        assert f"1 of 1 recordings are shorter than usual: {share} s; the training clips have 1.0 s" in caplog.text
    for system in ("near", "dense", "all"):
        with pytest.raises(
            common.UserError, match=r"of which \w+ can say nothing:\n.*0.4 s; the training clips have 1"
        ):
            run(work, tmp_path / "id_00_0.4.wav", "--system", system)


def test_recordings_unlike_the_training_clips_are_scored_as_ever(work, tmp_path, test_folder, caplog):
    path = Path(shutil.copy(test_folder / "normal_id_00_00000000.wav", tmp_path))
    before = verdicts(work, tmp_path, path)[0]["score"]
    assert before == official_scores(work)[path.name]
    waveform, _ = common.load_wav(path)
    soundfile.write(path, 0.01 * waveform, RATE)
    assert verdicts(work, tmp_path, path)[0]["score"] != before
    assert "1 of 1 recordings are quieter than usual" in caplog.text


def test_a_channel_of_a_recording_fits_a_system_trained_on_one(work, tmp_path, test_folder):
    source = test_folder / "normal_id_00_00000000.wav"
    waveform, _ = common.load_wav(source)
    soundfile.write(tmp_path / "id_00_two.wav", np.stack([waveform, 0.5 * waveform], axis=1), RATE)
    settings = yaml.safe_load((work / "settings.yaml").read_text())
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings | {"channel": 0}))
    found = verdicts(work, tmp_path, tmp_path / "id_00_two.wav", "--config", tmp_path / "settings.yaml")
    assert found[0]["score"] == official_scores(work)[source.name]


@pytest.mark.usefixtures("without_xla")
def test_one_long_training_clip_does_not_lengthen_the_windows(dataset, tmp_path, yaml_file, caplog):
    shutil.copytree(dataset / "dev_data" / "fan", tmp_path / "dev_data" / "fan")
    folder = tmp_path / "dev_data" / "fan" / "train"
    clips = [common.load_wav(path)[0] for path in sorted(folder.iterdir())]
    soundfile.write(folder / "normal_id_00_uncut.wav", np.concatenate(clips), RATE)
    path = yaml_file({"dev_directory": str(tmp_path / "dev_data")})
    importlib.import_module("00_train").main(["-d", "--config", str(path)])
    assert "fan: 1 of 7 training clips are longer than usual: 6.0 s; the training clips have 1.0" in caplog.text
    found = verdicts(tmp_path, tmp_path, folder / "normal_id_00_uncut.wav")
    assert [window["duration"] for window in found] == [1] * 6


def test_recordings_as_people_name_them(work, tmp_path, test_folder, monkeypatch):
    for name in ("-id.wav", "id_00_1.wav", "id_00_2.wav"):
        shutil.copy(test_folder / "normal_id_00_00000000.wav", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    found = verdicts(work, tmp_path, "-id.wav", "id_*.wav", "--machine-id", "id_00")
    assert [Path(v["recording"]).name for v in found] == ["-id.wav", "id_00_1.wav", "id_00_2.wav"]


def test_recordings_that_are_not_there(work, tmp_path):
    with pytest.raises(common.UserError, match=r"gone.wav: no such file or folder"):
        run(work, tmp_path / "gone.wav")
    with pytest.raises(common.UserError, match="~nobody-of-this-name/x.wav: Could not determine home directory"):
        run(work, "~nobody-of-this-name/x.wav")
    with pytest.raises(common.UserError, match="no wav file in this folder"):
        run(work, tmp_path)


def test_a_system_that_is_not_trained(work, tmp_path, test_folder):
    options = ["--config", str(work / "settings.yaml"), "--system", "small", str(test_folder), "--machine-type"]
    with pytest.raises(common.UserError) as caught:
        detect.main([*options, "pump"])
    assert "no finished model for pump" in str(caught.value)
    assert "00_train.py -d --system small --machine-type pump" in str(caught.value)
    assert "models of small are there for --training-data dev: ToyCar, fan" in str(caught.value)
    with pytest.raises(common.UserError, match=r"00_train.py -e --training-data dev\+eval --system small"):
        detect.main([*options, "fan", "--training-data", "dev+eval"])
    with pytest.raises(common.UserError, match=r"no finished model for pump.*models of (dense|near|small) are there"):
        detect.main([*options, "pump", "--system", "all"])


def test_an_edited_yaml(work, tmp_path, test_folder):
    path = tmp_path / "settings.yaml"
    settings = yaml.safe_load((work / "settings.yaml").read_text())
    path.write_text(yaml.safe_dump(merge(settings, {"feature": {"n_mels": 16}})))
    with pytest.raises(common.UserError, match="feature.n_mels: 32 -> 16"):
        run(work, test_folder, "--config", path)


def test_one_system_judges(work, test_folder):
    with pytest.raises(common.UserError, match=f"--system: name one of {', '.join(FAMILIES)}"):
        detect.main(["--config", str(work / "settings.yaml"), "--machine-type", "fan", str(test_folder)])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--output", "x.txt", "ends in .csv or .jsonl or .json"), ("--plot", "x.pdf", "ends in .png")],
)
def test_endings(capsys, option, value, message):
    with pytest.raises(SystemExit) as caught:
        detect.main(["--machine-type", "fan", "x.wav", option, value])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
