"""benchmarks/real_features.py: which files it takes, what it refuses, what it prints."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import common
import config

ROOT = Path(config.__file__).parent


@pytest.fixture(autouse=True)
def real_features(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("real_features")


def arrays(machine_types=("fan", "pump"), shape=(6, 2), n_ids=2, seed=0) -> dict[str, np.ndarray]:
    """Training clips of each ID about a place of its own, normal test clips as these, anomalies away from them."""
    rng = np.random.default_rng(seed)
    found = {}
    for machine_type in machine_types:
        for number in range(n_ids):
            key, place = f"{machine_type}_id_{number:02d}", rng.normal(0, 5, shape)
            found[f"train_{key}"] = (place + rng.normal(size=(20, *shape))).astype(np.float16)
            test = place + rng.normal(size=(12, *shape))
            test[6:] += rng.normal(0, 4, (6, *shape))
            found |= {f"test_{key}": test.astype(np.float16), f"labels_{key}": np.repeat([0, 1], 6).astype(np.int8)}
    return found


def write(path: Path, content: dict[str, np.ndarray]) -> Path:
    np.savez(path, **content)
    return path


@pytest.fixture
def small_yaml(tmp_path) -> Path:
    """The shipped YAML with small networks, trained for a few steps."""
    settings = yaml.safe_load((ROOT / "baseline.yaml").read_text(encoding="utf-8"))
    for system in settings["systems"].values():
        if system["model"]["type"] in ("dense_l2_softmax", "neighbors"):
            system["model"] |= {"n_neighbors": 3, "n_nearest": 2}
        if system["model"]["type"] == "dense_l2_softmax":
            system["model"] |= {"units": [16], "embedding": 8, "networks": 1, "min_steps": 20}
            system["model"]["folds"] = 2 if system["model"]["network_per"] == "all" else 1
            system["fit"] |= {"epochs": 2, "batch_size": 16}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def last_figures(out: str) -> tuple[float, float]:
    found = re.fullmatch(r"fusion mean AUC/pAUC (\d+\.\d\d)/(\d+\.\d\d)", out.splitlines()[-1])
    return float(found[1]), float(found[2])


def test_figures_of_each_id_type_and_system(real_features, small_yaml, tmp_path, capsys):
    content = arrays()
    del content["test_pump_id_01"], content["labels_pump_id_01"]  # for training alone
    tests = {name: content.pop(name) for name in list(content) if not name.startswith("train_")}
    files = [write(tmp_path / "train.npz", content), write(tmp_path / "test.npz", tests | {"columns": np.arange(3)})]
    real_features.main([*map(str, files), "--seeds", "2", "--config", str(small_yaml)])
    out = capsys.readouterr().out
    assert [line.split(",")[0] for line in out.splitlines() if line.startswith("seed")] == ["seed 0", "seed 1"]
    table = [re.split(r"\s{2,}", line) for line in out[out.index("mean of 2 seeds") :].splitlines()[1:]]
    assert table[0][1:] == ["neighbors", "dense_l2_softmax", "dense_l2_softmax_type", "fusion"]
    rows = {row[0]: row[1:] for row in table}
    assert {"fan id_00", "fan id_01", "pump id_00", "fan", "pump", "mean"} <= set(rows) and "pump id_01" not in rows
    ids = np.array([[float(figure) for figure in rows[name][3].split("/")] for name in ("fan id_00", "fan id_01")])
    assert np.allclose(ids.mean(axis=0), [float(figure) for figure in rows["fan"][3].split("/")], atol=0.006)
    auc, pauc = last_figures(out)
    assert f"{auc:.2f}/{pauc:.2f}" == rows["mean"][3] and auc > 90


def test_one_type_one_id_and_clips_without_bands(real_features, small_yaml, tmp_path, capsys):
    path = write(tmp_path / "a.npz", arrays(["fan"], shape=(12,)))
    real_features.main([str(path), "--seeds", "1", "--config", str(small_yaml)])
    assert last_figures(capsys.readouterr().out)[0] > 90
    path = write(tmp_path / "b.npz", arrays(["fan"], n_ids=1))
    real_features.main([str(path), "--seeds", "1", "--config", str(small_yaml)])
    out = capsys.readouterr().out
    assert "dense" not in out and last_figures(out)[0] > 90


def test_same_array_in_two_files(real_features, tmp_path):
    content = arrays()
    paths = [write(tmp_path / name, content) for name in ("a.npz", "b.npz")]
    found = real_features.read_features(paths)
    assert found.tested == ["fan", "pump"] and found.train["fan", "id_00"].shape == (20, 12)
    assert np.array_equal(found.rows, [np.arange(0, 12, 2), np.arange(1, 12, 2)])
    content["train_fan_id_00"] = content["train_fan_id_00"] + 1
    with pytest.raises(common.UserError, match="b.npz: train_fan_id_00: another file has other values"):
        real_features.read_features([paths[0], write(paths[1], content)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels_fan_id_00": None}, "test_fan_id_00: no labels_fan_id_00"),
        ({"test_fan_id_00": None}, "labels_fan_id_00: no test_fan_id_00"),
        ({"train_fan_id_00": None}, "test_fan_id_00: no train_fan_id_00"),
        ({"labels_fan_id_00": np.ones(11)}, "12 clips and 11 labels"),
        ({"labels_fan_id_00": np.ones(12)}, "expected 0 .normal. and 1 .anomaly., and some of both"),
        ({"labels_fan_id_00": np.ones((12, 1))}, r"labels_fan_id_00: shape \(12, 1\); expected \(n_clips,\)"),
        ({"train_fan_id_00": np.ones(12)}, r"train_fan_id_00: shape \(12,\)"),
        ({"train_fan_id_00": np.ones((0, 6, 2))}, r"train_fan_id_00: shape \(0, 6, 2\)"),
        ({"train_fan_id_00": np.ones((20, 5))}, "clips of different shapes"),
        ({"train_fan_id_00": np.full((20, 6, 2), np.nan)}, "train_fan_id_00: expected finite numbers"),
        ({"train_fan_id_00": np.full((20, 6, 2), "a")}, "train_fan_id_00: expected finite numbers"),
    ],
)
def test_arrays_that_cannot_be_used(real_features, tmp_path, changes, message):
    content = arrays() | changes
    path = write(tmp_path / "a.npz", {name: array for name, array in content.items() if array is not None})
    with pytest.raises(common.UserError, match=message):
        real_features.read_features([path])


def test_files_that_cannot_be_used(real_features, small_yaml, tmp_path):
    trains = {name: array for name, array in arrays().items() if name.startswith("train_")}
    with pytest.raises(common.UserError, match="no test clips"):
        real_features.read_features([write(tmp_path / "a.npz", trains)])
    with pytest.raises(common.UserError, match="b.npz: no array is called train_"):
        real_features.read_features([write(tmp_path / "b.npz", {"x": np.ones(3)})])
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04 nothing")
    np.save(tmp_path / "d.npy", np.ones(3))
    np.savez(tmp_path / "e.npz", train_fan_id_00=np.array([{}], object))
    for name in ("c.npz", "d.npy", "e.npz", "missing.npz"):
        with pytest.raises(common.UserError, match=f"{name}: not an npz file that can be read"):
            real_features.read_features([tmp_path / name])
    with pytest.raises(SystemExit, match="missing.npz: not an npz file"):
        real_features.main([str(tmp_path / "missing.npz")])


def test_too_few_training_clips(real_features, small_yaml, tmp_path):
    content = {name: array[:3] if name == "train_fan_id_00" else array for name, array in arrays().items()}
    with pytest.raises(SystemExit, match="id_00: 3 training clips, no more than model.n_neighbors"):
        real_features.main([str(write(tmp_path / "a.npz", content)), "--config", str(small_yaml)])


def test_yaml_without_a_fusion_of_descriptors(real_features, small_yaml, tmp_path):
    settings = yaml.safe_load(small_yaml.read_text(encoding="utf-8"))
    settings["systems"]["fusion"]["model"]["members"] = {"tuned_ae": 1}
    small_yaml.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with pytest.raises(SystemExit, match="no fusion with a member that stands on descriptors"):
        real_features.main([str(write(tmp_path / "a.npz", arrays())), "--config", str(small_yaml)])


def test_number_of_seeds(real_features, tmp_path, capsys):
    with pytest.raises(SystemExit):
        real_features.main([str(write(tmp_path / "a.npz", arrays())), "--seeds", "0"])
    assert "expected 1 or more" in capsys.readouterr().err
