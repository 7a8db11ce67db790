"""00_train.py --check: what is found in the folders is told, all that is wrong in one error, nothing is made."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import common

train = importlib.import_module("00_train")


def check(path: Path, *arguments: str) -> None:
    train.main(["-d", "--check", "--config", str(path), *arguments])


@pytest.fixture
def own_data(dataset, tmp_path) -> Path:
    shutil.copytree(dataset / "dev_data", tmp_path / "data")
    return tmp_path / "data"


def test_folders_and_what_was_found(yaml_file, dataset, tmp_path, capsys):
    check(yaml_file())
    folder = dataset / "dev_data"
    assert capsys.readouterr().out.splitlines()[:7] == [
        "ToyCar",
        f"  {folder}/ToyCar/train: 6 clips, 1.0 s, 16000 Hz, channels: 1",
        *(f"    {name}: 3 normal" for name in ("id_01", "id_02")),
        f"  {folder}/ToyCar/test: 8 clips, 1.0 s, 16000 Hz, channels: 1",
        *(f"    {name}: 2 normal, 2 anomaly" for name in ("id_01", "id_02")),
    ]
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "settings.yaml"}


def test_domains_and_attributes_of_a_year(tmp_path, yaml_file, capsys):
    make = importlib.import_module("make_demo_data").main
    make(["--year", "2023", "--directory", str(tmp_path), "--clips", "8", "--test-clips", "1", "--seconds", "1"])
    check(yaml_file({"dev_directory": str(tmp_path / "dev_data"), "year": 2023}), "--machine-type", "fan")
    out = capsys.readouterr().out
    assert "section_00: 8 normal source, 1 normal target; attributes: " in out
    assert "section_00: 1 normal source, 1 normal target, 1 anomaly source, 1 anomaly target" in out


def test_all_that_is_wrong_is_told_at_once(yaml_file, own_data, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
    for path in (own_data / "fan" / "test").glob("*_id_00_*"):
        path.rename(path.with_name(path.name.replace("id_00", "id_06")))
    soundfile.write(own_data / "ToyCar" / "test" / "normal_id_01_00000009.wav", np.stack([noise, noise], 1), 16_000)
    (tmp_path / "model").write_text("in the way")
    near = {"model": {"type": "neighbors", "score": "density", "lof_per": "machine_id", "n_neighbors": 1}}
    near["model"] |= {"metric": "manhattan", "combine": "max"}
    path = yaml_file({"dev_directory": str(own_data), "systems": {"near": near}})
    with pytest.raises(common.UserError) as caught:
        check(path, "--system", "near")
    error = str(caught.value)
    assert "normal_id_01_00000009.wav: 2 channels" in error
    assert f"model_directory: {tmp_path / 'model'} is no folder" in error
    (own_data / "ToyCar" / "test" / "normal_id_01_00000009.wav").unlink()
    with pytest.raises(
        common.UserError, match="(?s)near: test clips that could not be scored:\n  fan id_06: no training"
    ):
        check(path, "--system", "near")
    (tmp_path / "model").unlink()
    check(path, "--system", "small")  # an autoencoder hears all machines alike


def test_a_system_that_cannot_be_trained(yaml_file):
    model = {"type": "neighbors", "score": "knn", "lof_per": "machine_id", "n_neighbors": 8, "metric": "euclidean"}
    with pytest.raises(common.UserError, match="no more training clips than that"):
        check(yaml_file({"systems": {"near": {"model": model | {"combine": "max"}}}}), "--system", "near")


def test_broken_training_clips_do_not_hide_the_test_clips(yaml_file, own_data, capsys):
    (own_data / "fan" / "train" / "normal_id_00_00000000.wav").write_text("no sound")
    with pytest.raises(common.UserError, match="1 of 12 clips cannot be used"):
        check(yaml_file({"dev_directory": str(own_data)}))
    assert f"{own_data}/fan/test: 8 clips" in capsys.readouterr().out


def test_without_test_clips(yaml_file, own_data, capsys, caplog):
    shutil.rmtree(own_data / "fan" / "test")
    check(yaml_file({"dev_directory": str(own_data)}))
    out = capsys.readouterr().out
    assert "fan/train: 6 clips" in out
    assert "fan/test" not in out
    assert "ToyCar/test" in out


def test_what_is_odd_is_warned_of(yaml_file, own_data, caplog):
    source = own_data / "fan" / "train" / "normal_id_00_00000000.wav"
    shutil.copy(source, own_data / "fan" / "test" / "normal_id_00_00000007.wav")
    check(yaml_file({"dev_directory": str(own_data)}))
    assert "fan: 1 of 9 test clips are copies of training clips" in caplog.text


def test_tensorflow_is_not_loaded(yaml_file):
    code = (
        "import importlib, sys; importlib.import_module('00_train').main(sys.argv[1:]); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "-d", "--check", "--config", str(yaml_file())]
    assert subprocess.run(command, cwd=Path(common.__file__).parent, capture_output=True).returncode == 0
