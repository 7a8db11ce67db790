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
from conftest import FAMILIES, OPTIONS, merge

import common
import decision
import detection
import make_demo_data

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


def official_scores(work: Path, system: str = "small") -> dict[str, float]:
    """Clip name -> score that 01_test.py has written."""
    paths = (work / "result" / "dev" / system).glob("anomaly_score_fan_*.csv")
    return {name: float(score) for path in paths for name, score in csv.reader(path.read_text().splitlines())}


def training_scores(work: Path, system: str = "small"):
    import config
    import training

    settings = config.load_config(work / "settings.yaml")
    with training.progress_bar(0, 0) as bar:
        chosen = settings.systems[system]
        return chosen.module.training_scores(training.Run(settings, "dev", bar), chosen, "fan")


# ---- what is said ----


@pytest.mark.parametrize("system", FAMILIES)
def test_scores_are_those_of_01_test_to_the_bit(work, tmp_path, test_folder, system):
    expected = official_scores(work, system)
    found = verdicts(work, tmp_path, test_folder, "--system", system)
    assert {Path(v["recording"]).name: v["score"] for v in found} == expected
    assert len(expected) == 8
    one = sorted(test_folder.iterdir())[5]
    assert verdicts(work, tmp_path, one, "--system", system)[0]["score"] == expected[one.name]


@pytest.mark.parametrize("system", FAMILIES)
def test_verdicts_follow_from_the_scores_of_the_training_clips(work, tmp_path, test_folder, system):
    trained = training_scores(work, system)
    for found in verdicts(work, tmp_path, test_folder, "--system", system):
        machine_id, _ = common.parse_clip_name(Path(found["recording"]).name)
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


def test_a_channel_of_several(tmp_path, test_folder):
    waveform, _ = common.load_wav(test_folder / "normal_id_00_00000001.wav")
    path = tmp_path / "two.wav"
    soundfile.write(path, np.stack([np.zeros_like(waveform), waveform], axis=1), RATE)
    trained = detection.Trained(N_SAMPLES, RATE)
    checked = detection.check_recordings({path: "two"}, "fan", trained, min_samples=1, channel=1)
    np.testing.assert_array_equal(common.load_clip(checked[0])[0], waveform)
    with pytest.raises(common.UserError, match="two: 2 channels; expected one. Set channel in the YAML"):
        detection.check_recordings({path: "two"}, "fan", trained, min_samples=1, channel=None)


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
    with pytest.raises(common.UserError, match="--plot draws one recording; there are 8"):
        run(work, test_folder, "--plot", tmp_path / "x.png")


def test_columns_of_the_picture_cover_the_recording_once(monkeypatch):
    blocks = [np.full((10, 2), value, np.float32) for value in (1, 2, 3)]
    windows = [SimpleNamespace(start=start, duration=1.0) for start in (0.0, 1.0, 1.5)]
    edges, columns = detection._columns(blocks, windows)
    np.testing.assert_allclose(edges, np.linspace(0, 2.5, 26))
    assert columns[:, 0].tolist() == [1] * 10 + [2] * 10 + [3] * 5
    monkeypatch.setattr(detection, "MAX_COLUMNS", 6)
    edges, columns = detection._columns(blocks, windows)
    assert columns[:, 1].tolist() == [1, 1, 2, 2, 3, 3]
    assert edges.tolist() == [0, 0.5, 1, 1.5, 2, 2.25, 2.5]


def test_frequencies_of_the_picture(official_feature):
    centres = detection._band_centres(official_feature, RATE)
    assert len(centres) == 128
    assert (np.diff(centres) > 0).all()
    assert centres[0] == pytest.approx(25, abs=10)
    assert centres[-1] == pytest.approx(7800, rel=0.02)


# ---- windows and IDs ----


def clip(name: str = "x.wav", n_samples: int = 10) -> common.Clip:
    return common.Clip(Path(name), "fan", "", None, n_samples, RATE, 1, 1, 1)


@pytest.mark.parametrize(
    ("n_samples", "starts"), [(1, [0]), (10, [0]), (11, [0, 1]), (20, [0, 10]), (25, [0, 10, 15]), (30, [0, 10, 20])]
)
def test_windows(n_samples, starts):
    windows = detection.windows(clip(n_samples=n_samples), 10)
    assert [window.first for window in windows] == starts
    assert {window.n_samples for window in windows} == {min(n_samples, 10)}


def test_machine_ids():
    def ids(trained, wanted=None, names=("normal_id_02_1.wav", "b.wav"), official=True):
        clips = [clip(name) for name in names]
        shown = {Path(name): name for name in names}
        found = detection.with_machine_ids(clips, trained, wanted, shown, official=official)
        assert [dataclasses.replace(one, machine_id="") for one in found] == clips
        return [one.machine_id for one in found]

    assert ids(["id_02"]) == ["id_02", "id_02"]
    assert ids(["id_00"], official=False) == ["id_00", "id_00"]
    assert ids(["id_00", "id_02"], "id_00") == ["id_00", "id_00"]
    assert ids(["id_00", "id_02"], names=("id_00_1.wav", "anomaly_id_02_1.wav")) == ["id_00", "id_02"]
    with pytest.raises(common.UserError, match="normal_id_02_1.wav: id_02, of which there are no training clips"):
        ids(["id_00"])
    with pytest.raises(common.UserError, match="--machine-id id_9: no training clips of it; there are some of id_00"):
        ids(["id_00"], "id_9")


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


def test_recordings_that_are_not_there(work, tmp_path):
    with pytest.raises(common.UserError, match=r"gone.wav: no such file or folder"):
        run(work, tmp_path / "gone.wav")
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
    with pytest.raises(common.UserError, match="--system: name one of small, windows, dense, near, all"):
        detect.main(["--config", str(work / "settings.yaml"), "--machine-type", "fan", str(test_folder)])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--output", "x.txt", "ends in .csv or .json"), ("--plot", "x.pdf", "ends in .png")],
)
def test_endings(capsys, option, value, message):
    with pytest.raises(SystemExit) as caught:
        detect.main(["--machine-type", "fan", "x.wav", option, value])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
