"""neighbor_model.py: how parts become one score; one machine and few clips are enough."""

import dataclasses
import importlib

import numpy as np
import pytest
import yaml

import common
import config
import neighbor_model
from audio import features
from storage.files import write_text

KEYS = {"score": "density", "lof_per": "machine_id", "n_neighbors": 1, "n_nearest": 1, "metric": "manhattan"}
SYSTEM = {"model": {"type": "neighbors", **KEYS, "combine": "max"}}


def test_each_group_of_a_descriptor_has_its_place():
    settings = config.load_config(config.Path(config.__file__).with_name("baseline.yaml"))
    groups = neighbor_model.groups(settings.systems["neighbors"])
    assert groups == {"widths": [240, 248], "combine": "max"}  # 60 x 4; 30 x 4 and 2 x 64


@pytest.fixture
def settings_file(yaml_file):
    return yaml_file(
        {"system": "near", "systems": {"near": {"model": {"type": "neighbors", **KEYS, "combine": "max"}}}}
    )


def run_script(name, *arguments):
    importlib.import_module(name).main(list(arguments))


def test_one_machine_is_enough(settings_file, tmp_path):
    path = str(settings_file)
    run_script("00_train", "-d", "--config", path, "--machine-type", "fan")
    folder = tmp_path / "model/dev/near"
    assert sorted(p.name for p in folder.iterdir()) == ["descriptors_fan.npz", "record_fan.yaml"]
    thresholds = yaml.safe_load((folder / "record_fan.yaml").read_text())["thresholds"]["fan"]
    assert set(thresholds) == {"id_00", "id_02"} and min(thresholds.values()) > 0
    run_script("01_test", "-d", "--config", path, "--machine-type", "fan")
    assert len(list((tmp_path / "result/dev/near").glob("anomaly_score_fan_*.csv"))) == 2
    before = (folder / "record_fan.yaml").read_bytes()
    settings = yaml.safe_load(settings_file.read_text())
    settings["systems"]["near"]["model"] |= {"score": "knn", "metric": "euclidean", "combine": "sum"}
    settings["fit"]["epochs"] = 7  # nothing of a network's training decides descriptors
    write_text(settings_file, yaml.safe_dump(settings))
    run_script("00_train", "-d", "--config", path, "--machine-type", "fan")
    assert (folder / "record_fan.yaml").read_bytes() == before
    settings["descriptor"]["fast"]["n_bands"] = 20
    write_text(settings_file, yaml.safe_dump(settings))
    with pytest.raises(common.UserError, match="descriptor.fast.n_bands: 30 -> 20"):
        run_script("01_test", "-d", "--config", path, "--machine-type", "fan")


def test_descriptor_that_the_sample_rate_cannot_hold(settings_file):
    settings = yaml.safe_load(settings_file.read_text())
    settings["descriptor"]["slow"]["high_frequency"] = 9000
    write_text(settings_file, yaml.safe_dump(settings))
    with pytest.raises(common.UserError, match="descriptor.slow.high_frequency: 9000 Hz"):
        run_script("00_train", "-d", "--config", str(settings_file))


def test_descriptors_are_cached_part_by_part_and_a_clip_is_read_once_for_all(train_clips, tmp_path, monkeypatch):
    read, load_clip = [], features.load_clip
    monkeypatch.setattr(features, "load_clip", lambda clip: read.append(clip) or load_clip(clip))
    settings = config.load_config(config.Path(config.__file__).with_name("baseline.yaml"))
    system = settings.systems["neighbors"]
    cache = features.Cache(tmp_path / "cache", 1)
    clips = train_clips["fan"]
    first = np.stack(list(features.descriptors(clips, system.descriptor, system.feature, cache)))
    assert first.shape == (len(clips), 488) and len(list((tmp_path / "cache").glob("*.npy"))) == 3
    assert len(read) == len(clips)
    only = dataclasses.replace(system.descriptor, parts=(("statistics",),))
    again = np.stack(list(features.descriptors(clips, only, system.feature, cache)))
    assert np.array_equal(again, first[:, 360:]) and len(list((tmp_path / "cache").glob("*.npy"))) == 3
    assert len(read) == len(clips)
    other = dataclasses.replace(system.descriptor, level=system.descriptor.level / 2)
    again = np.stack(list(features.descriptors(clips, other, system.feature, cache)))
    assert np.array_equal(again[:, :360], first[:, :360]) and not np.array_equal(again, first)
    assert len(read) == 2 * len(clips) and len(list((tmp_path / "cache").glob("*.npy"))) == 4
    assert np.array_equal(list(features.descriptors(clips, system.descriptor, system.feature, None)), first)
