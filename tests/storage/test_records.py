"""Records: files tied to their record by digests, schema-checked reading, what is not as it was written is named."""

import dataclasses
import hashlib
import importlib
import logging
import os
import shutil
import sys

import numpy as np
import pytest
import yaml
from conftest import SHIPPED, tiny_settings

import config
from common import UserError
from storage import records
from storage.files import require_writable, write_text
from storage.records import differences, file_digest, read_arrays, record_path
from training import families, model_records, process
from training.model_records import (
    TrainingScores,
    checked_file,
    file_faults,
    model_path,
    read_record,
    resume_path,
    versions,
)
from training.run import Job, Run


@pytest.fixture
def job(tmp_path):
    """What ``finish`` needs of a job."""
    record = {
        "system": "small",
        "training_data": "dev",
        "configuration": {"seed": 0},
        "clips": 3,
        "fingerprint": "f",
        "sample_rate": 16_000,
        "n_samples": {"fan": 160_000},
    }
    job = Job.__new__(Job)
    vars(job).update(name="fan", folder=tmp_path / "model", is_chief=True, record=record, clips=[])
    return job


def write(content):
    return lambda path: path.write_bytes(content)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- writing ----


def test_the_record_has_the_digest_of_each_file(job):
    job.finish({"model_fan.keras": write(b"one"), "scores_fan.npz": write(b"two")}, {"thresholds": {"a": 1.5}})
    record = read_record(job.folder, "fan")
    assert record["files"] == {
        "model_fan.keras": hashlib.sha256(b"one").hexdigest(),
        "scores_fan.npz": hashlib.sha256(b"two").hexdigest(),
    }
    assert record["thresholds"] == {"a": 1.5}
    assert {key: record[key] for key in job.record} == job.record
    assert checked_file(job.folder, record, "scores_fan.npz").read_bytes() == b"two"
    assert names(job.folder) == ["model_fan.keras", "record_fan.yaml", "scores_fan.npz"]


def test_a_changed_record_is_named(job):
    job.finish({"model_fan.keras": write(b"1")}, {"thresholds": {"a": 1.5}})
    path = record_path(job.folder, "fan")
    path.write_text(path.read_text().replace("1.5", "1.6"))
    with pytest.raises(
        UserError, match="record_fan.yaml: is not as it was written .changed after it was written.; delete it to train"
    ):
        read_record(job.folder, "fan")


def test_files_of_the_earlier_record_go_and_others_stay(job):
    job.finish({"model_fan.keras": write(b"1"), "embeddings_pump.npz": write(b"2")}, {})
    write_text(job.folder / "own.txt", "of somebody else")
    write_text(resume_path(job.folder, "fan"), "a state")
    job.finish({"model_fan.keras": write(b"3")}, {})
    assert names(job.folder) == ["model_fan.keras", "own.txt", "record_fan.yaml"]


def test_one_that_is_killed_while_it_writes_leaves_no_record(job):
    job.finish({"model_fan.keras": write(b"1"), "embeddings_pump.npz": write(b"2")}, {})

    def fail(path):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        job.finish({"model_fan.keras": write(b"3"), "scores_fan.npz": fail}, {})
    assert names(job.folder) == ["model_fan.keras"]
    assert read_record(job.folder, "fan") is None


def test_only_the_chief_writes(job):
    job.is_chief = False
    job.finish({"model_fan.keras": write(b"1")}, {})
    assert not job.folder.exists()


def test_a_damaged_record_does_not_keep_from_finishing(job):
    write_text(record_path(job.folder, "fan"), "files: {../own.txt: 1}")
    job.finish({"model_fan.keras": write(b"1")}, {})
    assert read_record(job.folder, "fan")["clips"] == 3


def test_an_unknown_package_is_no_error(monkeypatch):
    def missing(name):
        raise model_records.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(model_records.importlib.metadata, "version", missing)
    assert versions()["tensorflow"] == "unknown"


# ---- reading ----


def test_a_file_with_another_content_is_named(job):
    job.finish({"model_fan.keras": write(b"1?")}, {})
    record = read_record(job.folder, "fan")
    checked_file(job.folder, record, "model_fan.keras")  # its digest is known now
    (job.folder / "model_fan.keras").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"model_fan.keras: is not the file that was saved with the model; run 00_train"
    ):
        checked_file(job.folder, record, "model_fan.keras")


def test_a_file_that_is_missing_or_foreign_is_named(job):
    job.finish({"model_fan.keras": write(b"1"), "scores_fan.npz": write(b"2")}, {})
    record = read_record(job.folder, "fan")
    (job.folder / "model_fan.keras").unlink()
    (job.folder / "scores_fan.npz").unlink()
    (job.folder / "scores_fan.npz").mkdir()
    write_text(job.folder / "embeddings_pump.npz", "of another network")
    faults = [("model_fan.keras", "missing"), ("scores_fan.npz", ""), ("embeddings_pump.npz", "no file of this model")]
    for name, fault in faults:
        with pytest.raises(UserError, match=f"{name}: {fault}.*; run 00_train.py again"):
            checked_file(job.folder, record, name)
    assert len(file_faults(job.folder, record)) == 2


def test_a_digest_is_computed_once_for_a_file_that_does_not_change(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"1")
    assert file_digest(path) == hashlib.sha256(b"1").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(records.hashlib, "sha256", None)
        file_digest(path)
    path.write_bytes(b"22")
    assert file_digest(path) == hashlib.sha256(b"22").hexdigest()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"sample_rate": None}, "sample_rate: None"),
        ({"sample_rate": True}, "sample_rate: True"),
        ({"configuration": "none"}, "configuration: none"),
        ({"files": ["model_fan.keras"]}, "files: expected names with their SHA-256"),
        ({"files": {"model_fan.keras": 1}}, "files: expected"),
        ({"files": {"../model_fan.keras": 64 * "0"}}, "files: expected"),
        ({"files": {"..": 64 * "0"}}, "files: expected"),
        ({"files": {"a\0": 64 * "0"}}, "files: expected"),
    ],
)
def test_a_record_with_other_types_is_named(job, changes, fault):
    job.finish({"model_fan.keras": write(b"1")}, {})
    path = record_path(job.folder, "fan")
    records.write(path, yaml.safe_load(path.read_text()) | changes)
    with pytest.raises(UserError) as caught:
        read_record(job.folder, "fan")
    assert f"{path}: is not as it was written ({fault}" in str(caught.value)
    assert str(caught.value).endswith("; delete it to train anew")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"text", b"a: [1", b"\xff", b"[" * 1000, b"a: 2020-99-99", b"\0", b"a: &a 1\nb: *a"]
)
def test_a_record_that_is_no_record_is_named(job, content):
    path = record_path(job.folder, "fan")
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"(?s)record_fan.yaml: .*; delete it to train anew") as caught:
        read_record(job.folder, "fan")
    assert len(str(caught.value)) < 1000


# ---- folders ----


def test_a_folder_that_can_be_written(tmp_path):
    require_writable(tmp_path / "a" / "b", "model_directory")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "model").write_text("a file")
    for folder in (tmp_path / "model", tmp_path / "model" / "dev" / "small"):
        with pytest.raises(UserError, match=r"model_directory: .*model is no folder, so that .* cannot be made"):
            require_writable(folder, "model_directory")


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not write-protected there")
def test_a_folder_that_is_to_be_read_only(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(UserError, match=r"result_directory: .* is not yours to write into"):
        require_writable(tmp_path / "dev", "result_directory")


def test_a_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "model_fan.keras").mkdir()
    with pytest.raises(
        UserError, match=r"model_directory: .*model_fan.keras is a folder where a file is to be written"
    ):
        require_writable(tmp_path, "model_directory")


@pytest.mark.parametrize("key", ["model_directory", "result_directory"])
def test_what_cannot_be_written_is_found_before_the_first_epoch(yaml_file, tmp_path, monkeypatch, key):
    from training.run import Job

    (tmp_path / "a file").write_text("")
    monkeypatch.setattr(Job, "is_done", None)
    with pytest.raises(UserError, match=rf"{key}: .*a file is no folder"):
        importlib.import_module("00_train").main(["-d", "--config", str(yaml_file({key: str(tmp_path / "a file")}))])


def test_results_that_cannot_be_written_are_found_before_scoring(trained, monkeypatch):
    run, system = trained
    (folder := run.result_folder("small")).parent.mkdir(parents=True)
    folder.write_text("a file")
    monkeypatch.setattr(families, "family_of", None)
    with pytest.raises(UserError, match=r"result_directory: .*small is no folder"):
        importlib.import_module("01_test").main(
            ["-d", "--config", str(run.config.model_directory.parent / "settings.yaml")]
        )


def test_a_record_that_is_changed_anywhere_is_named(job):
    job.finish({"model_fan.keras": write(b"1")}, {"thresholds": {"id_00": 1.25}})
    path = record_path(job.folder, "fan")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    expected = read_record(job.folder, "fan")
    for place in rng.integers(0, len(whole), 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.integers(8))]) + whole[place + 1 :])
        try:
            record = read_record(job.folder, "fan")
        except UserError as error:
            assert "record_fan.yaml: " in str(error)
        else:
            assert record == expected  # it is the line with the checksum that was changed


def test_differences_of_odd_keys_are_sorted():
    assert differences({"a": {1: 2, "b": 3}}, {"a": {"b": 3}}) == ["a.1: 2 -> None"]
    assert len(differences({"a": "x" * 10_000}, {"a": 1})[0]) < 300


# ---- arrays ----

KINDS = {"values": ("f", 2), "names": ("U", 1)}
ARRAYS = {"values": np.ones((2, 3)), "names": np.array(["a", "b"])}


def test_arrays_come_back_as_they_were_written(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS, more=np.zeros(1))
    arrays = read_arrays(tmp_path / "a.npz", KINDS)
    assert arrays.keys() == KINDS.keys()
    np.testing.assert_array_equal(arrays["values"], ARRAYS["values"])
    assert arrays["names"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "changes",
    [
        {"values": None},
        {"values": np.ones(3)},
        {"values": np.ones((2, 3), int)},
        {"values": np.array([["a", "b"]])},
        {"values": np.array([[1, np.nan]])},
        {"values": np.array([[1, -np.inf]])},
        {"names": np.array([1.0, 2.0])},
        {"names": np.array([b"a"])},
        {"names": np.array("a")},
        {"names": np.array([object()])},
    ],
)
def test_arrays_of_another_kind_are_named(tmp_path, changes):
    arrays = {name: array for name, array in (ARRAYS | changes).items() if array is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=r"a.npz: .*; train anew"):
        read_arrays(tmp_path / "a.npz", KINDS)


def test_a_file_of_arrays_that_is_damaged_anywhere_is_named_or_reads_the_same(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **ARRAYS)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    contents = [b"", b"text", b"PK\x03\x04", whole[:-30], whole[:100]]
    for place in rng.integers(0, len(whole), 300):
        contents.append(whole[:place] + bytes([whole[place] ^ (1 << rng.integers(8))]) + whole[place + 1 :])
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            arrays = read_arrays(path, KINDS)
        except UserError as error:
            assert "a.npz: " in str(error)
            refused += 1
        else:
            assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in KINDS)
    assert refused > 100
    with pytest.raises(UserError, match=r"b.npz: unreadable"):
        read_arrays(tmp_path / "b.npz", KINDS)


# ---- scores ----


def test_training_scores_of_a_machine_id():
    scores = TrainingScores(
        ("a.wav", "b.wav", "c.wav"), np.array(["id_00", "id_02", "id_00"]), np.array([1.0, 2.0, 3.0])
    )
    assert scores.of("id_00").tolist() == [1, 3]
    assert scores.of("id_02").tolist() == [2]
    assert scores.of("id_04").tolist() == []


# ---- by the scripts ----


@pytest.fixture(scope="module")
def models(dataset, tmp_path_factory):
    """Folder of finished models of both machine types. Not to be changed."""
    work = tmp_path_factory.mktemp("small")
    path = work / "settings.yaml"
    path.write_text(yaml.safe_dump(tiny_settings(dataset, work)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "compiles_with_xla", lambda: False)
        importlib.import_module("00_train").main(["-d", "--config", str(path)])
    return work / "model"


@pytest.fixture
def trained(models, dataset, tmp_path):
    """(run, system) with these models."""
    from tqdm import tqdm

    shutil.copytree(models, tmp_path / "model")
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(tiny_settings(dataset, tmp_path)))
    settings = config.load_config(path)
    return Run(settings, "dev", tqdm(total=0, disable=True)), settings.select(None)[0]


@pytest.mark.parametrize("damage", ["other type", "earlier version"])
@pytest.mark.usefixtures("without_xla")
def test_a_model_that_is_not_its_records_is_refused_and_trained_anew(trained, train_clips, caplog, damage):
    import keras_model

    caplog.set_level(logging.INFO)
    run, system = trained
    folder = run.model_folder(system)
    path = model_path(folder, "fan")
    whole = path.read_bytes()
    if damage == "other type":
        path.write_bytes(model_path(folder, "ToyCar").read_bytes())
    else:
        record = read_record(folder, "fan")
        del record["files"]
        write_text(record_path(folder, "fan"), yaml.safe_dump(record))
    named = "by an earlier version" if damage == "earlier version" else "model_fan.keras: is not the"
    with pytest.raises(UserError, match=rf"(?s){named}.*00_train.py -d --system small"):
        keras_model.require(run, system, train_clips)
    with pytest.raises(UserError, match=named):
        keras_model.anomaly_scores(run, system, "fan", train_clips["fan"])
    keras_model.train(run, system, train_clips)
    assert "trained anew: " in caplog.text
    assert path.read_bytes() == whole
    keras_model.require(run, system, train_clips)


@pytest.mark.parametrize(
    ("name", "given", "key", "value", "decides"),
    [
        ("l2_softmax", {}, "resize", "nearest", True),
        ("l2_softmax", {"input_size": None}, "resize", "nearest", False),
        ("l2_softmax", {"mixup": 1.0}, "mixup_share", 0.25, True),
        ("l2_softmax", {"mixup": 0.0}, "mixup_share", 0.25, False),
        ("l2_softmax", {}, "n_neighbors", 3, False),
        ("tuned_ae", {}, "aggregate", "max", False),
        ("tuned_ae", {}, "ema_momentum", 0.5, False),
        ("tuned_ae", {"use_ema": True}, "ema_momentum", 0.5, True),
    ],
)
def test_keys_that_decide_a_model(name, given, key, value, decides):
    settings = config.load_config(SHIPPED)

    def decided(changes):
        system = settings.systems[name]
        compile_ = with_known(system.fit.compile, changes)
        system = dataclasses.replace(system, model=with_known(system.model, changes))
        return model_records.configuration(
            dataclasses.replace(system, fit=dataclasses.replace(system.fit, compile=compile_)), settings
        )

    assert (decided(given) != decided({**given, key: value})) is decides


def with_known(block, changes):
    known = {field.name for field in dataclasses.fields(block)}
    return dataclasses.replace(block, **{key: value for key, value in changes.items() if key in known})
