"""Training and test clips compared by the scripts: what is unlike, copies, sample rates, one uncut recording."""

import importlib
import shutil

import numpy as np
import pytest
import soundfile
from conftest import FAMILIES

import common
from audio import likeness

RATE = 16_000  # [Hz]


def write(path, seed, *, level=0.1, rate=RATE, seconds=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, level * np.random.default_rng(seed).standard_normal(round(seconds * rate)), rate)


def call(script, yaml_file, tmp_path, system="near"):
    changes = {"names": "any", "dev_directory": str(tmp_path / "data"), "system": system, "systems": FAMILIES}
    importlib.import_module(script).main(["-d", "--config", str(yaml_file(changes))])


@pytest.fixture
def fan(tmp_path):
    for seed in range(6):
        write(tmp_path / "data" / "fan" / "train" / f"{seed}.wav", seed)
    return tmp_path / "data" / "fan"


def test_test_clips_unlike_the_training_clips_and_copies_of_these_are_named(fan, tmp_path, yaml_file, caplog):
    for seed in range(10, 14):
        write(fan / "test" / ("normal" if seed % 2 else "anomaly") / f"{seed}.wav", seed)
    call("00_train", yaml_file, tmp_path)
    call("01_test", yaml_file, tmp_path)
    assert "WARNING" not in caplog.text.replace("record_fan", "")
    scores = tmp_path / "result" / "dev" / "near" / "anomaly_score_fan_id_00.csv"
    before = scores.read_text().splitlines()
    for seed in (0, 1):
        shutil.copy(fan / "train" / f"{seed}.wav", fan / "test" / "normal" / f"copy{seed}.wav")
    write(fan / "test" / "normal" / "loud.wav", 20, level=0.4)
    write(fan / "test" / "normal" / "short.wav", 21, seconds=0.4)
    call("01_test", yaml_file, tmp_path)
    assert "fan: 2 of 8 test clips are copies of training clips" in caplog.text
    assert "fan: 1 of 8 test clips are louder than usual: -8 dB; the training clips have -20 dB" in caplog.text
    assert "fan: 1 of 8 test clips are shorter than usual: 0.4 s; the training clips have 1.0 s" in caplog.text
    assert set(before) < set(scores.read_text().splitlines())


def test_models_of_a_version_that_measured_less_are_scored_without_a_word(
    fan, tmp_path, yaml_file, caplog, monkeypatch
):
    write(fan / "test" / "normal" / "loud.wav", 20, level=0.4)
    with monkeypatch.context() as patch:
        patch.delitem(likeness.MEASURES, "offset")
        call("00_train", yaml_file, tmp_path)
    call("01_test", yaml_file, tmp_path)
    assert "louder than usual" not in caplog.text


def test_training_clips_are_compared_with_one_another(fan, tmp_path, yaml_file, caplog):
    write(fan / "train" / "uncut.wav", 30, seconds=5)
    shutil.copy(fan / "train" / "0.wav", fan / "train" / "copy.wav")
    call("00_train", yaml_file, tmp_path)
    assert "fan: 1 of 8 training clips are longer than usual: 5.0 s; the training clips have 1.0 " in caplog.text
    assert "2 of 8 training clips are copies of one another" in caplog.text


def test_one_uncut_recording_is_told_how_to_cut(tmp_path, yaml_file, caplog):
    write(tmp_path / "data" / "fan" / "train" / "all.wav", 0, seconds=61)
    with pytest.raises(common.UserError):
        call("00_train", yaml_file, tmp_path)
    assert "1 training clips, of up to 61 s" in caplog.text
    assert "ffmpeg -i IN.wav -f segment -segment_time 10 -c copy" in caplog.text


def test_each_machine_type_may_have_a_sample_rate_of_its_own_where_it_has_its_own_model(fan, tmp_path, yaml_file):
    for seed in range(6):
        write(fan.parent / "leak" / "train" / f"{seed}.wav", seed, rate=48_000)
        for machine_type, rate in (("fan", RATE), ("leak", 48_000)):
            write(fan.parent / machine_type / "test" / f"{seed}.wav", 10 + seed, rate=rate)
    call("00_train", yaml_file, tmp_path)
    call("01_test", yaml_file, tmp_path)
    assert len(list((tmp_path / "result" / "dev" / "near").glob("anomaly_score_*.csv"))) == 2
    with pytest.raises(
        common.UserError, match=r"(?s)one network hears all .*fan 16000 Hz, leak 48000 Hz.*small, near can be trained"
    ):
        call("00_train", yaml_file, tmp_path, "windows")
