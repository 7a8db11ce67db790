"""The records of result folders: what does not belong to the models and clips at hand is named, not averaged."""

import dataclasses
import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import FAMILIES, SHIPPED, merge

import common
import config
from audio.clips import Clip, check_clips
from evaluation import result_record, results, score_files
from storage import records
from storage.files import write_text
from storage.records import CHECKSUM
from years.year import read_year

score = importlib.import_module("01_test")
evaluate = importlib.import_module("02_evaluate")
train = importlib.import_module("00_train")


def settings_with(tmp_path, **changes) -> config.Config:
    """The shipped YAML with its folders in ``tmp_path``."""
    block = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    block |= {f"{kind}_directory": str(tmp_path / kind) for kind in ("model", "result")} | changes
    write_text(tmp_path / "settings.yaml", yaml.safe_dump(block))
    return config.load_config(tmp_path / "settings.yaml")


def clips_of(machine_type, machine_ids):
    return [
        Clip(Path(f"{label}_{machine_id}_{k:08d}.wav"), machine_type, machine_id, int(label == "anomaly"),
                    16000, 16000, 32044, 0, k)
        for machine_id in machine_ids for label in ("normal", "anomaly") for k in range(3)
    ]  # fmt: skip


def write_scores(settings, machine_type, machine_ids=("id_00", "id_02"), *, add=0.0, model=None, clips=None) -> Path:
    """What 01_test.py writes for a machine type of tuned_ae, and the model's record; the result folder."""
    model_record = settings.model_directory / "dev" / "tuned_ae" / f"record_{machine_type}.yaml"
    write_text(model_record, model or f"the model of {machine_type}")
    system, clips = settings.systems["tuned_ae"], clips or clips_of(machine_type, machine_ids)
    texts = {
        f"anomaly_score_{machine_type}_{machine_id}.csv": score_files.scores_text(
            *zip(*[(c.name, c.label + c.crc / 2 + add) for c in clips if c.machine_id == machine_id], strict=True)
        )
        for machine_id in machine_ids
    }
    models = result_record.model_digests([model_record], settings.model_directory)
    record = result_record.record_of(
        settings, system, "dev", "dev", clips, models=models, thresholds={}, score_unit="error", texts=texts
    )
    folder = settings.result_directory / "dev" / "tuned_ae"
    result_record.write(folder, record, texts)
    return folder


def check(settings, folder):
    return result_record.check(folder, config=settings, system=settings.systems["tuned_ae"], required=True)


@pytest.fixture
def settings(tmp_path):
    return settings_with(tmp_path)


@pytest.fixture
def folder(settings):
    """Result folder of tuned_ae with two machine types."""
    return [write_scores(settings, machine_type) for machine_type in ("fan", "pump")][0]


def test_what_was_written_fits_and_reads_back(settings, folder):
    fan, pump = check(settings, folder)
    assert (fan.machine_type, pump.machine_type, fan.system, fan.training_data) == ("fan", "pump", "tuned_ae", "dev")
    assert list(fan.models) == ["dev/tuned_ae/record_fan.yaml"]
    assert (fan.clips, fan.result_file, fan.max_fpr) == (12, "result.csv", 0.1)
    assert fan.settings["model"]["units"][4] == 16
    assert "verbose" not in fan.settings["fit"]
    assert sorted(fan.files) == ["anomaly_score_fan_id_00.csv", "anomaly_score_fan_id_02.csv"]


def test_an_id_that_is_gone_takes_its_csv_with_it(settings, folder, caplog):
    caplog.set_level("INFO")
    (folder / "result.csv").write_text("figures of the scores before")
    write_scores(settings, "fan", ["id_02"])
    assert sorted(path.name for path in folder.glob("*fan*")) == ["anomaly_score_fan_id_02.csv", "record_fan.yaml"]
    assert not (folder / "result.csv").exists()
    assert "anomaly_score_fan_id_00.csv: removed, as there are no such test clips" in caplog.text
    check(settings, folder)


def test_scores_of_another_seed_beside_the_present_ones(tmp_path, settings, folder):
    other = settings_with(tmp_path, seed=1)
    write_scores(other, "fan", model="of another seed")
    with pytest.raises(common.UserError) as caught:
        check(other, folder)
    message = str(caught.value)
    assert "anomaly_score_pump_id_00.csv, anomaly_score_pump_id_02.csv: scored with other settings than the YAML's" in (
        message
    )
    assert "seed: 0 -> 1" in message
    assert "_fan_" not in message
    with pytest.raises(common.UserError, match=r"pump_id_02.csv: scored with other settings than fan's: seed: 0 -> 1"):
        result_record.check(folder)  # without the YAML


def test_a_model_trained_anew_with_the_same_settings(settings, folder):
    (settings.model_directory / "dev" / "tuned_ae" / "record_pump.yaml").write_text("on other clips")
    result_record.check(folder)
    with pytest.raises(common.UserError, match=r"pump_id_02.csv: of another model than the present one, .*record_pump"):
        result_record.check(folder, config=settings)
    (settings.model_directory / "dev" / "tuned_ae" / "record_pump.yaml").unlink()  # to save space
    assert len(check(settings, folder)) == 2


def test_one_model_over_all_types_must_be_in_the_same_state_for_all(settings, folder):
    records = result_record.read_all(folder)[0]
    for record, value in zip(records, ("old", "new"), strict=True):
        changed = dataclasses.replace(record, models={"dev/l2_softmax/record_classifier.yaml": value})
        write_text(result_record.record_path(folder, record.machine_type), yaml.safe_dump(dataclasses.asdict(changed)))
    with pytest.raises(
        common.UserError, match=r"pump_id_00.*: of another state of the model .*classifier.* than fan's"
    ):
        result_record.check(folder)


def write_otherwise(path, pattern, text):
    """Write a record in which a pattern is replaced, as if it had been written so."""
    written = path.read_text(encoding="utf-8").rpartition(CHECKSUM)[0]
    write_text(path, re.sub(pattern, text, written))


def test_machine_types_of_two_systems_in_one_folder(settings, folder):
    path = result_record.record_path(folder, "pump")
    write_otherwise(path, "training_data: dev\n", "training_data: eval\n")
    with pytest.raises(common.UserError, match="pump_id_00.csv, .*: of eval tuned_ae, beside dev tuned_ae"):
        result_record.check(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "anomaly_score_fan_id_00.csv").unlink(), r"fan_id_00.csv: missing; the run that scored it was"),
        (
            lambda f: (f / "anomaly_score_fan_id_00.csv").write_text("normal_id_00_00000000.wav,1\n"),
            "fan_id_00.csv: not as it was written; edited, or of a run that was interrupted",
        ),
        (
            lambda f: shutil.copy(f / "anomaly_score_fan_id_00.csv", f / "anomaly_score_valve_id_00.csv"),
            "valve_id_00.csv: no record says what made it",
        ),
        (
            lambda f: (f / "record_fan.yaml").write_text(
                (f / "record_fan.yaml").read_text().replace("seed: 0", "seed: 1")
            ),
            "record_fan.yaml: changed after it was written",
        ),
        (lambda f: (f / "record_fan.yaml").unlink(), "fan_id_02.csv: no record says what made it"),
        (lambda f: (f / "record_fan.yaml").write_text("a: ["), r"record_fan.yaml: unreadable"),
        (lambda f: (f / "record_fan.yaml").write_bytes(b"\xff"), r"record_fan.yaml: unreadable"),
        (lambda f: (f / "record_fan.yaml").write_text("[" * 1000), r"record_fan.yaml: unreadable"),
        (lambda f: (f / "record_fan.yaml").write_text("a: 1"), r"record_fan.yaml: machine_type: None"),
        (
            lambda f: write_otherwise(f / "record_fan.yaml", r"\nclips: .*", "\nclips: many"),
            r"record_fan.yaml: clips: many",
        ),
        (
            lambda f: write_otherwise(f / "record_fan.yaml", "anomaly_score_fan_id_00.csv: ", "anomaly_score: 1 #"),
            r"record_fan.yaml: files: expected names with their SHA-256",
        ),
        (
            lambda f: (f / "record_fan.yaml").rename(f / "record_valve.yaml"),
            r"record_valve.yaml: a record of fan; was the file renamed\?",
        ),
    ],
)
def test_files_that_do_not_fit_their_record_are_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(common.UserError, match=message):
        result_record.check(folder)
    with pytest.raises(common.UserError, match=message):
        evaluate.main([str(folder)])
    assert not (folder / "result.csv").exists()


def test_a_folder_of_others_has_no_records_and_is_taken_as_it_is(folder):
    for path in folder.glob("record_*"):
        path.unlink()
    assert result_record.check(folder) == []
    evaluate.main([str(folder)])
    with pytest.raises(common.UserError, match="no record says what made it"):
        result_record.check(folder, required=True)


@pytest.mark.parametrize("n_files", range(4))
def test_a_run_killed_while_it_writes_is_found_out(settings, folder, monkeypatch, n_files):
    written = []

    def write_some(path, text):
        if path.parent == folder:
            if len(written) == n_files:
                raise KeyboardInterrupt
            written.append(path)
        write_text(path, text)

    monkeypatch.setattr(result_record, "write_text", write_some)
    monkeypatch.setattr(records, "write_text", write_some)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    if n_files == 3:
        write_scores(settings, "fan", add=1.0)
        check(settings, folder)
        return
    with pytest.raises(KeyboardInterrupt):
        write_scores(settings, "fan", add=1.0)
    if n_files == 0:
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
        return
    with pytest.raises(common.UserError, match="not as it was written"):
        result_record.check(folder)
    shutil.rmtree(folder)
    written.clear()
    with pytest.raises(KeyboardInterrupt):
        write_scores(settings, "fan")
    with pytest.raises(common.UserError, match="missing; the run that scored it was interrupted"):
        result_record.check(folder)


def test_evaluating_leaves_the_result_file_of_another_max_fpr_alone(tmp_path, settings, folder):
    results.report(folder, ["fan", "pump"], settings, settings.systems["tuned_ae"])
    before = (folder / "result.csv").read_bytes()
    evaluate.main([str(folder), "--max-fpr", "0.3"])
    evaluate.main([str(folder), "--config", str(tmp_path / "settings.yaml")])
    assert (folder / "result.csv").read_bytes() == before
    assert (folder / "result_max_fpr_0.3.csv").read_bytes() != before


def test_evaluating_the_yamls_results_looks_at_its_models(tmp_path, settings, folder):
    options = [str(settings.result_directory / "dev"), "--config", str(tmp_path / "settings.yaml")]
    evaluate.main(options)
    (settings.model_directory / "dev" / "tuned_ae" / "record_pump.yaml").write_text("trained anew")
    with pytest.raises(common.UserError, match=r"_pump_id_02.csv: of another model than the present one"):
        evaluate.main(options)
    shutil.copytree(folder, tmp_path / "kept")
    evaluate.main([str(tmp_path / "kept"), *options[1:]])  # a copy is of the models of its time


def rewrite(folder, machine_type, names):
    """Give a machine type's id_00 other clips, with decisions; the record of the machine type says so."""
    (record,) = [record for record in result_record.read_all(folder)[0] if record.machine_type == machine_type]
    texts = {name: (folder / name).read_text() for name in record.files if "_id_02" in name}
    texts[f"anomaly_score_{machine_type}_id_00.csv"] = score_files.scores_text(names, range(len(names)))
    texts[f"decision_result_{machine_type}_id_00.csv"] = score_files.decisions_text(names, [1] + [0] * (len(names) - 1))
    files = {name: records.digest(text.encode()) for name, text in texts.items()}
    result_record.write(folder, dataclasses.replace(record, files=files), texts)


def test_ids_without_auc_are_passed_over_and_told(folder, tmp_path, capsys, caplog):
    """Of one's own machines there may be clips of one kind alone, or without labels."""
    rewrite(folder, "fan", ["normal_id_00_0.wav", "normal_id_00_1.wav"])
    rewrite(folder, "pump", ["id_00_0.wav"])
    other = shutil.copytree(folder, tmp_path / "other")
    arguments = [str(folder), str(other), "--rank", "--against", str(other), "--report", str(tmp_path / "report.html")]
    evaluate.main(arguments)
    out = capsys.readouterr().out
    assert "no AUC: fan id_00: 2 normal clips; 1 called anomalous\n" in out
    assert "no AUC: pump id_00: 1 clips without a label; 1 called anomalous\n" in out
    assert ["fan", "id_00", "-", "-", "-", "50.00"] in [line.split() for line in out.splitlines()]
    assert "Without AUC, left out of the comparison: fan id_00, pump id_00" in caplog.text
    rows = (folder / "result.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["fan", "id", "02", "Average", "", "pump", "id", "02", "Average", ""]
    assert (folder / "decision_result.csv").read_text().splitlines()[2] == "00,,,,0.5"
    text = (tmp_path / "report.html").read_text()
    assert "fan id_00: 2 normal clips; 1 called anomalous<br>no AUC: pump id_00: 1 clips without a label" in text


def test_clips_without_a_label_are_left_out_and_told(folder, tmp_path, capsys):
    names = ["normal_id_00_0.wav", "id_00_1.wav", "anomaly_id_00_0.wav", "id_00_2.wav"]
    rewrite(folder, "fan", names)
    other = shutil.copytree(folder, tmp_path / "other")
    evaluate.main([str(folder), "--against", str(other)])
    line = "fan id_00: 2 clips without a label are left out: id_00_1.wav, id_00_2.wav"
    assert f"\n{line}\n" in capsys.readouterr().out
    assert "\n00,1.0,1.0\n" in (folder / "result.csv").read_text()
    assert "\n00,0.0,0.0,0.0,1.0\n" in (folder / "decision_result.csv").read_text()


def test_nothing_gives_an_auc(folder):
    for machine_type in ("fan", "pump"):
        (folder / f"anomaly_score_{machine_type}_id_02.csv").unlink()
        path = result_record.record_path(folder, machine_type)
        write_otherwise(path, ".*_id_02.csv.*\n", "")
        rewrite(folder, machine_type, ["id_00_0.wav"])
    other = shutil.copytree(folder, folder.with_name("other"))
    with pytest.raises(common.UserError, match="no machine ID gives an AUC; nothing to rank by"):
        evaluate.main([str(folder), str(other), "--rank"])
    with pytest.raises(common.UserError, match="no machine ID in common that has an AUC"):
        evaluate.main([str(folder), "--against", str(other)])
    evaluate.main([str(folder)])
    assert not (folder / "result.csv").exists()


def test_runs_over_all_types_refuse_what_the_dataset_has_not(folder):
    result_record.require_only(folder, ["fan", "pump"], Path("dev_data"), read_year(2020))
    with pytest.raises(common.UserError, match=r"(?s)types that dev_data does not have:\s+anomaly_score_pump_id_00"):
        result_record.require_only(folder, ["fan"], Path("dev_data"), read_year(2020))


@pytest.mark.skipif(os.name == "nt", reason="a script for bash")
def test_the_jobs_of_the_slurm_array_are_every_machine_type_and_system(tmp_path):
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    jobs = []
    for number in range(13):
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(number)}
        script = SHIPPED.with_name("slurm_array.sh")
        out = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=True).stdout
        first, second = out.splitlines()
        assert first.startswith("00_train.py -d --system")
        assert second == first.replace("00_train.py -d", "01_test.py -d --scores-only")
        jobs.append(first.partition("--system ")[2])
    types = ("ToyCar", "ToyConveyor", "fan", "pump", "slider", "valve")
    wanted = [f"{system} --machine-type {name}" for system in ("baseline_ae", "tuned_ae") for name in types]
    assert jobs == [*wanted, "l2_softmax"]


# ---- the clips of now ----


def make_clip(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, 4000), 16000)


@pytest.fixture
def heard(tmp_path):
    """Settings, result folder of tuned_ae and folder of the clips of fan that it was made of."""
    directories = {f"{kind}_directory": str(tmp_path / kind) for kind in ("dev", "cache")}
    settings = settings_with(tmp_path, **directories)
    clips = tmp_path / "dev" / "fan" / "test"
    for number, clip in enumerate(clips_of("fan", ["id_00"])):
        make_clip(clips / clip.path.name, number)
    checked = check_clips([("fan", clips)], min_samples=1, normal_only=False, cache_directory=tmp_path / "cache")
    return settings, write_scores(settings, "fan", ["id_00"], clips=checked), clips


def test_clips_that_were_replaced_under_their_own_names_are_named(heard, tmp_path):
    settings, folder, clips = heard
    options = [str(folder), "--config", str(tmp_path / "settings.yaml")]
    evaluate.main(options)
    before = (folder / "result.csv").read_bytes()
    make_clip(clips / "normal_id_00_00000001.wav", 99)
    fault = "fan_id_00.csv: of clips that have changed in .*test: normal_id_00_00000001.wav\n"
    with pytest.raises(common.UserError, match=fault):
        evaluate.main(options)
    with pytest.raises(common.UserError, match=fault):
        results.report(folder, ["fan"], settings, settings.systems["tuned_ae"])
    assert (folder / "result.csv").read_bytes() == before
    shutil.copytree(folder, tmp_path / "kept")
    evaluate.main([str(tmp_path / "kept"), *options[1:]])  # a copy is of the clips of its time
    (clips / "normal_id_00_00000001.wav").unlink()
    with pytest.raises(common.UserError, match="fan_id_00.csv: of other clips than .*test has now"):
        evaluate.main(options)
    shutil.rmtree(clips)  # to save space
    evaluate.main(options)


def test_no_clip_is_read_that_has_not_changed(heard, tmp_path, monkeypatch):
    _, folder, clips = heard
    options = [str(folder), "--config", str(tmp_path / "settings.yaml")]
    calls, check_all = [], result_record.check_clips
    monkeypatch.setattr(
        result_record, "check_clips", lambda *args, **named: calls.append(args) or check_all(*args, **named)
    )
    evaluate.main(options)
    assert calls == []
    for path in clips.iterdir():
        path.touch()  # as of a copy of the dataset
    evaluate.main([*options[:1], *options])
    assert len(calls) == 1


# ---- end to end ----


NEAR = {"system": "near", "systems": {"near": FAMILIES["near"]}}  # the quickest to train


def test_retrained_and_scored_for_one_machine_type_alone(yaml_file, tmp_path):
    options = ["-d", "--config", str(yaml_file(NEAR))]
    train.main(options)
    score.main(options)
    path = yaml_file(merge(NEAR, {"systems": {"near": {"model": {"n_nearest": 2}}}}))
    train.main(options)
    folder = tmp_path / "result" / "dev" / "near"
    with pytest.raises(common.UserError, match=r"anomaly_score_ToyCar_id_01.csv, .*model.n_nearest: 1 -> 2") as caught:
        score.main([*options, "--machine-type", "fan"])
    assert "_fan_" not in str(caught.value)
    assert not (folder / "result.csv").exists()
    with pytest.raises(common.UserError, match=r"_fan_id_00.csv, .*: scored with other settings than ToyCar's"):
        evaluate.main([str(folder)])
    score.main(["-d", "--config", str(path), "--machine-type", "ToyCar"])
    evaluate.main([str(folder)])


def test_clips_of_an_id_removed_and_scored_again(yaml_file, dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    path = yaml_file(NEAR | {"dev_directory": str(tmp_path / "data" / "dev_data")})
    options = ["-d", "--config", str(path)]
    train.main(options)
    score.main(options)
    folder = tmp_path / "result" / "dev" / "near"
    for clip in (tmp_path / "data" / "dev_data" / "fan" / "test").glob("*_id_02_*"):
        clip.unlink()
    score.main(options)
    assert not (folder / "anomaly_score_fan_id_02.csv").exists()
    before = (folder / "result.csv").read_text()
    assert [line[:3] for line in before.splitlines()[6:]] == ["fan", "id,", "00,", "Ave", ""]
    evaluate.main([str(folder)])
    assert (folder / "result.csv").read_text() == before
    for clip in (tmp_path / "data" / "dev_data" / "ToyCar" / "test").glob("normal_id_01_00000000*"):
        clip.unlink()  # of another machine type than the one that is scored
    with pytest.raises(common.UserError, match="ToyCar_id_02.csv: of other clips than .*ToyCar.test has now"):
        score.main([*options, "--machine-type", "fan"])
    assert not (folder / "result.csv").exists()
    score.main([*options, "--machine-type", "fan", "--scores-only"])
    shutil.rmtree(tmp_path / "data" / "dev_data" / "fan")
    with pytest.raises(common.UserError, match=r"does not have:\s+anomaly_score_fan_id_00.csv"):
        score.main(options)
