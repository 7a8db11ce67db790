"""fusion.py: standardised log scores by hand, and the whole chain with members of every family."""

import importlib
import json
import shutil

import numpy as np
import pytest
import soundfile
import yaml
from conftest import merge

import common
import fusion
from detectors.standardised import standardised
from storage.files import write_text
from training import workload
from training.families import family_of


def test_standardised_log_scores_by_hand():
    own = np.exp([1.0, 3.0])  # logs 1 and 3: mean 2, deviation 1
    assert np.allclose(standardised(np.exp([2.0, 5.0, 0.0]), own), [0, 3, -2])
    least = 1 + np.log(1e-3)  # what 0 counts as, which has no logarithm
    logs = np.array([least, 1, 3])
    of_zero = standardised(np.array([0.0]), np.exp([-np.inf, 1.0, 3.0]))
    assert np.allclose(of_zero, [(least - logs.mean()) / logs.std()])
    assert np.allclose(standardised(np.array([2.0]), np.array([2.0, 2.0])), [0])  # no deviation
    assert np.isfinite(standardised(np.array([0.0, 1.0]), np.zeros(3))).all()


def test_joined_scores_are_log_scores_already():
    """Of any sign; a fusion of them is that of their exponentials, which they were before."""
    rng = np.random.default_rng(0)
    own, new = rng.normal(2, 3, size=50), rng.normal(size=7)
    assert np.allclose(standardised(new, own, joined=True), standardised(np.exp(new), np.exp(own)))
    assert np.allclose(standardised(new, new[:1], joined=True), new - new[0])


def test_scores_equal_but_for_rounding():
    own = 2.0 + 1e-15 * np.arange(10)
    assert np.allclose(standardised(np.array([1.0, 4.0]), own), [-np.log(2), np.log(2)])


def test_the_unit_of_a_members_scores_is_irrelevant():
    rng = np.random.default_rng(0)
    own, new = rng.gamma(3, size=50), rng.gamma(3, size=7)
    assert np.allclose(standardised(new, own), standardised(1000 * new, 1000 * own))


# ---- the whole chain, by the scripts ----

NEAR = {"score": "density", "lof_per": "machine_id", "n_neighbors": 1, "n_nearest": 1, "metric": "manhattan"}
NEAR["combine"] = "max"
DENSE = {
    **{"classes": "machine_id", "alpha": 16, "mixup": 1.0, "mixup_share": 0.5},
    **{
        "network_per": "all",
        "networks": 2,
        "units": [16, 8],
        "embedding": 4,
        "exchange": 0.5,
        "shift": 0.5,
        "min_steps": 5,
        "folds": 3,
    },
    **{"score": "knn", "lof_per": "machine_id", "n_neighbors": 1, "metric": "euclidean", "min_steps": 5, "folds": 3},
}
COMPILE = {"loss": "categorical_crossentropy", "optimizer": "adamw", "learning_rate": 1.0e-3}
SYSTEMS = {
    "near": {"model": {"type": "neighbors", **NEAR}},
    "dense": {
        "model": {"type": "dense_l2_softmax", **DENSE},
        "fit": {"epochs": 3, "batch_size": 4, "validation_split": 0, "compile": COMPILE},
    },
    "typed": {
        "model": {"type": "dense_l2_softmax", **DENSE, "network_per": "machine_type"},
        "fit": {"epochs": 3, "batch_size": 4, "validation_split": 0, "compile": COMPILE},
    },
    "both": {"model": {"type": "fusion", "members": {"near": 1, "dense": 0.5, "small": 0.5}}},
}


ALL = {"model": {"type": "fusion", "members": {"dense": 1, "typed": 1, "near": 1}}}
RECORDS = ("model/dev/near", "model/dev/small", "result/dev/both", "result/dev/small")


def run_script(name, *arguments):
    importlib.import_module(name).main(list(arguments))


def scores_in(folder) -> dict[str, np.ndarray]:
    return {
        path.name: np.array([float(row.split(",")[1]) for row in path.read_text().splitlines()])
        for path in folder.glob("anomaly_score_*.csv")
    }


def test_members_are_trained_and_summed(yaml_file, tmp_path):
    path = str(yaml_file({"systems": SYSTEMS}))
    run_script("00_train", "-d", "--config", path, "--system", "both")
    assert sorted(p.name for p in (tmp_path / "model/dev").iterdir()) == ["both", "dense", "near", "small"]
    before = {p: p.read_bytes() for p in (tmp_path / "model").rglob("*") if p.is_file()}
    run_script("00_train", "-d", "--config", path, "--system", "near", "--system", "both")
    assert before == {p: p.read_bytes() for p in (tmp_path / "model").rglob("*") if p.is_file()}  # all kept
    members = ("near", "dense", "small")
    run_script("01_test", "-d", "--config", path, *(f"--system={name}" for name in (*members, "both")))
    of = {name: scores_in(tmp_path / "result/dev" / name) for name in (*members, "both")}
    assert set(of["both"]) == set(of["near"]) and len(of["both"]) == 4

    import config
    from training.run import Run, progress_bar

    settings = config.load_config(tmp_path / "settings.yaml")
    with progress_bar(0, 0) as bar:
        run = Run(settings, "dev", bar)
        for file_name, fused in of["both"].items():
            machine_type, machine_id = file_name.removeprefix("anomaly_score_").removesuffix(".csv").split("_", 1)
            by_hand = 0
            for name, weight in (("near", 1), ("dense", 0.5), ("small", 0.5)):
                system = settings.systems[name]
                trained = family_of(system).training_scores(run, system, machine_type)
                assert trained.unit == {"near": "deviations", "dense": "deviations", "small": "error"}[name]
                own, scores = trained.of(machine_id), of[name][file_name]
                if name == "small":
                    own, scores = np.log(own), np.log(np.maximum(scores, 1e-3 * own.min()))
                by_hand += weight * (np.append(scores, own) - own.mean()) / own.std()
            usual = by_hand[len(fused) :]
            assert np.allclose(fused, (by_hand[: len(fused)] - usual.mean()) / usual.std())
        own = fusion.training_scores(run, settings.systems["both"], "fan")
        assert own.scores.shape == (6,) and set(own.machine_ids) == {"id_00", "id_02"}
        assert np.allclose([own.of("id_00").mean(), own.of("id_00").std(), own.joined], [0, 1, True])
    records = [yaml.safe_load((tmp_path / f"{place}/record_fan.yaml").read_text()) for place in RECORDS]
    assert [record["score_unit"] for record in records] == ["deviations", "error", "deviations", "error"]


def test_a_member_that_differs_is_named(yaml_file, tmp_path):
    path = str(yaml_file({"systems": SYSTEMS}))
    run_script("00_train", "-d", "--config", path, "--system", "both", "--machine-type", "fan")
    with pytest.raises(common.UserError, match=r"both: member near: (.|\n)*near/model_ToyCar"):
        run_script("01_test", "-d", "--config", path, "--system", "both")
    changed = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    changed["systems"]["dense"]["model"]["alpha"] = 12
    write_text(tmp_path / "settings.yaml", yaml.safe_dump(changed))
    with pytest.raises(common.UserError, match=r"both: member dense: (.|\n)*model.alpha: 16.0 -> 12.0"):
        run_script("01_test", "-d", "--config", path, "--system", "both", "--machine-type", "fan")


def test_members_of_other_clips_under_the_same_names_are_refused(yaml_file, tmp_path):
    path = str(yaml_file({"systems": SYSTEMS}))
    run_script("00_train", "-d", "--config", path, "--system", "near", "--system", "small", "--machine-type", "fan")
    import config

    folder = config.load_config(tmp_path / "settings.yaml").dev_directory / "fan/train"
    first = min(folder.glob("*.wav"))
    waveform, sample_rate = soundfile.read(first)
    soundfile.write(first, waveform[::-1], sample_rate)
    run_script("00_train", "-d", "--config", path, "--system", "near", "--machine-type", "fan")
    settings = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    settings["systems"]["both"]["model"]["members"] = {"near": 1, "small": 1}
    write_text(tmp_path / "settings.yaml", yaml.safe_dump(settings))
    with pytest.raises(
        common.UserError, match="near and small were trained on different clips of the same names.*train.py -d --system"
    ):
        run_script("01_test", "-d", "--config", path, "--system", "both", "--machine-type", "fan")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, r"systems.both.model.members: \{\}; expected keys with values \(a system and its weight"),
        ({"nere": 1}, r"systems.both.model.members: nere: did you mean near\?"),
        ({"near": 0}, "systems.both.model.members.near: 0; expected a number above 0"),
        ({"both": 1}, "systems.both.model.members: both: is a fusion itself"),
    ],
)
def test_members_are_checked(yaml_file, members, words):
    import config

    systems = {**SYSTEMS, "both": {"model": {"type": "fusion", "members": members}}}
    with pytest.raises(common.UserError, match=words):
        config.load_config(yaml_file({"systems": systems}))


def test_blocks_without_effect_are_refused(yaml_file):
    import config

    for name, block in (("near", "fit"), ("both", "feature"), ("both", "fit"), ("small", "descriptor")):
        with pytest.raises(common.UserError, match=f"systems.{name}.{block}: has no effect"):
            config.load_config(yaml_file({"systems": {**SYSTEMS, name: {**SYSTEMS.get(name, {}), block: {}}}}))


def test_a_network_for_each_machine_type(yaml_file, tmp_path):
    path = str(yaml_file({"systems": SYSTEMS}))
    run_script("00_train", "-d", "--config", path, "--system", "typed", "--machine-type", "fan")
    folder = tmp_path / "model/dev/typed"
    fan = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {"record_fan.yaml", "model_fan.keras", "embeddings_fan.npz"} <= set(fan)
    run_script("00_train", "-d", "--config", path, "--system", "typed")
    assert all((folder / name).read_bytes() == content for name, content in fan.items())  # kept
    run_script("01_test", "-d", "--config", path, "--system", "typed")
    assert len(scores_in(tmp_path / "result/dev/typed")) == 4


def test_two_systems_on_one_machine_type_differ(yaml_file, tmp_path):
    path = str(yaml_file({"systems": SYSTEMS}))
    for system in ("dense", "typed"):
        run_script("00_train", "-d", "--config", path, "--system", system, "--machine-type", "fan")
    found = [np.load(tmp_path / f"model/dev/{system}/embeddings_fan.npz") for system in ("dense", "typed")]
    assert found[0]["vectors"].shape == found[1]["vectors"].shape
    assert not np.allclose(found[0]["vectors"], found[1]["vectors"])


def test_on_one_machine_a_fusion_goes_without_classifiers(yaml_file, dataset, tmp_path, caplog, capsys):
    own, source = tmp_path / "own/fan", dataset / "dev_data/fan"

    def record_machine(machine_id):
        for path in source.glob(f"*/*_{machine_id}_*"):
            (own / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, own / path.parent.name)

    record_machine("id_00")
    systems = merge(SYSTEMS, {"dense": {"model": {"networks": 1, "folds": 1}}})
    systems["both"] = {"model": {"type": "fusion", "members": {"dense": 2, "near": 1}}}
    systems["none"] = {"model": {"type": "fusion", "members": {"dense": 1, "typed": 1}}}
    config = ["--config", str(yaml_file({"dev_directory": str(own.parent), "systems": systems}))]
    for system in ("dense", "none"):
        with pytest.raises(common.UserError, match=r"one class, fan/id_00(.|\n)*--system small, near, both can be"):
            run_script("00_train", "-d", *config, "--system", system)
    run_script("00_train", "-d", *config, "--system", "both")
    said = [line for line in caplog.messages if "goes without" in line]
    assert said == [
        "both goes without dense, whose network would hear clips of one class alone, and a classifier needs two"
    ]
    assert sorted(path.name for path in (tmp_path / "model/dev").iterdir()) == ["both", "near"]
    run_script("01_test", "-d", *config, "--system", "near", "--system", "both")
    near, both = (scores_in(tmp_path / "result/dev" / name) for name in ("near", "both"))
    assert near.keys() == both.keys() == {"anomaly_score_fan_id_00.csv"}
    assert np.allclose(*near.values(), *both.values())
    run_script("04_detect", str(next(own.glob("test/normal*"))), "--machine-type", "fan", *config, "--system", "both")
    export = ["--system", "both", "--format", "saved_model", "--output", str(tmp_path / "export")]
    run_script("05_export", *config, *export)
    said = json.loads((tmp_path / "export/dev/saved_model/both_fan.json").read_text())
    assert list(said["score"]["members"]) == ["near"]

    record_machine("id_02")  # now there is something to tell apart
    run_script("00_train", "-d", *config, "--system", "near")
    with pytest.raises(
        common.UserError, match=r"members know id_00, id_02; it goes without dense since it was trained"
    ):
        run_script("01_test", "-d", *config, "--system", "both")
    run_script("00_train", "-d", *config, "--system", "both")
    with pytest.raises(common.UserError, match=r"of another model than the present one, .*both.record_fan.yaml"):
        run_script("02_evaluate", str(tmp_path / "result/dev/both"), *config)
    run_script("01_test", "-d", *config, "--system", "both")
    assert len(scores_in(tmp_path / "result/dev/both")) == 2


def test_which_members_have_something_to_tell_apart(yaml_file, train_clips):
    """A network over all types hears several machines where each type has one."""
    import config

    systems = config.load_config(yaml_file({"systems": SYSTEMS | {"all": ALL}})).systems
    train_clips["ToyCar"] = [clip for clip in train_clips["ToyCar"] if clip.machine_id == "id_01"]
    assert workload.trainable(systems["typed"], train_clips).keys() == {"fan"}
    assert workload.trainable(systems["dense"], train_clips) == train_clips
    assert workload.left_out(systems["all"], train_clips).startswith("all goes without typed (for ToyCar), whose")
    one = {"ToyCar": train_clips["ToyCar"]}
    assert workload.left_out(systems["all"], one).startswith("all goes without dense, typed, whose")
    assert workload.workload(systems["all"], one) == workload.workload(systems["near"], one) == 3
