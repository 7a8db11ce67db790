"""00_train.py and 01_test.py end to end on tiny synthetic data: every CSV, every error, a run killed in its middle."""

import csv
import importlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import MACHINE_TYPES, OPTIONS, SHIPPED, merge, read_scores, tiny_settings
from sklearn.metrics import roc_auc_score

import common
import config
from detectors import decision
from evaluation import result_record
from training import process
from training.families import family_of

ROOT = Path(common.__file__).parent
DEV_IDS = {"ToyCar": ("id_01", "id_02"), "fan": ("id_00", "id_02")}
EVAL_IDS = {"ToyCar": ("id_05",), "fan": ("id_01",)}

evaluate = importlib.import_module("02_evaluate")
train = importlib.import_module("00_train")
score = importlib.import_module("01_test")


@pytest.fixture(scope="module")
def dev_work(dataset, tmp_path_factory) -> Path:
    """Folder in which the tiny system was trained and scored on the development data. Not to be changed."""
    work = tmp_path_factory.mktemp("dev")
    path = work / "settings.yaml"
    path.write_text(yaml.safe_dump(tiny_settings(dataset, work)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "compiles_with_xla", lambda: False)
        train.main(["-d", "--config", str(path)])
        score.main(["-d", "--config", str(path)])
    return work


@pytest.fixture
def trained(dev_work, yaml_file, tmp_path):
    """Writer of YAML files in a folder that already holds the models of ``dev_work``."""
    shutil.copytree(dev_work / "model", tmp_path / "model")
    return yaml_file


def contents(folder: Path, ending: str = "") -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name.endswith(ending)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def check_score_file(path: Path, names: list[str]) -> list[float]:
    """Check a score CSV to the byte; its scores."""
    text = path.read_bytes().decode("ascii")
    rows = [line.split(",") for line in text.removesuffix("\n").split("\n")]
    assert [row[0] for row in rows] == names
    scores = [float(row[1]) for row in rows]
    assert np.isfinite(scores).all()
    assert len(set(scores)) == len(scores)
    assert text == "".join(f"{name},{value!r}\n" for name, value in zip(names, scores, strict=True))
    return scores


# ---- what comes out ----


def test_development_scores_are_official_to_the_byte(dev_work):
    folder = dev_work / "result" / "dev" / "small"
    keys = [f"{name}_{machine_id}" for name, ids in DEV_IDS.items() for machine_id in ids]
    expected = {f"{kind}_{key}.csv" for kind in ("anomaly_score", "decision_result") for key in keys}
    records = {f"record_{machine_type}.yaml" for machine_type in DEV_IDS}
    assert {path.name for path in folder.iterdir()} == expected | records | {"result.csv"}
    lines = []
    for machine_type, ids in DEV_IDS.items():
        lines += [machine_type, "id,AUC,pAUC"]
        figures = []
        for machine_id in ids:
            names = [f"{label}_{machine_id}_{k:08d}.wav" for label in ("normal", "anomaly") for k in range(2)]
            scores = check_score_file(folder / f"anomaly_score_{machine_type}_{machine_id}.csv", names)
            labels = [0, 0, 1, 1]
            figures.append((roc_auc_score(labels, scores), roc_auc_score(labels, scores, max_fpr=0.1)))
            lines.append(f"{machine_id[3:]},{float(figures[-1][0])!r},{float(figures[-1][1])!r}")
        auc, pauc = np.mean(figures, axis=0)
        lines += [f"Average,{float(auc)!r},{float(pauc)!r}", ""]
    assert (folder / "result.csv").read_bytes().decode("ascii") == "".join(f"{line}\n" for line in lines)


def test_decisions_are_the_scores_against_the_recorded_thresholds(dev_work):
    from training.run import Run

    settings = config.load_config(dev_work / "settings.yaml")
    system = settings.systems["small"]
    folder = dev_work / "result" / "dev" / "small"
    for machine_type, ids in DEV_IDS.items():
        record = result_record.read(folder / f"record_{machine_type}.yaml")
        assert list(record.thresholds) == list(ids)
        trained = family_of(system).training_scores(Run(settings, "dev", None), system, machine_type)
        for machine_id in ids:
            threshold = decision.threshold(trained.of(machine_id), quantile=0.9, method="gamma")
            assert record.thresholds[machine_id] == threshold
            scores = read_scores(folder / f"anomaly_score_{machine_type}_{machine_id}.csv")
            text = "".join(f"{name},{int(value > threshold)}\n" for name, value in scores.items())
            assert (folder / f"decision_result_{machine_type}_{machine_id}.csv").read_bytes().decode() == text


def test_models_stand_beside_their_records(dev_work):
    folder = dev_work / "model" / "dev" / "small"
    kinds = ("model_{}.keras", "record_{}.yaml", "scores_{}.npz", "history_{}.png")
    assert {path.name for path in folder.iterdir()} == {kind.format(n) for kind in kinds for n in MACHINE_TYPES}
    for machine_type in MACHINE_TYPES:
        record = yaml.safe_load((folder / f"record_{machine_type}.yaml").read_text(encoding="utf-8"))
        assert record["clips"] == OPTIONS.clips * len(DEV_IDS[machine_type])
        assert set(record["thresholds"][machine_type]) == set(DEV_IDS[machine_type])
    records = [(folder / f"record_{name}.yaml").read_text() for name in MACHINE_TYPES]
    assert len({yaml.safe_load(record)["fingerprint"] for record in records}) == 2


@pytest.mark.usefixtures("without_xla")
def test_evaluation_after_development_trains_anew(trained, tmp_path, capsys):
    path = trained()
    dev_models = contents(tmp_path / "model" / "dev")
    train.main(["-e", "--config", str(path)])
    assert contents(tmp_path / "model" / "dev") == dev_models
    for machine_type in MACHINE_TYPES:
        record = yaml.safe_load((tmp_path / f"model/eval/small/record_{machine_type}.yaml").read_text())
        assert (record["training_data"], record["clips"]) == ("eval", OPTIONS.clips)
        name = f"small/model_{machine_type}.keras"
        assert (tmp_path / "model/eval" / name).read_bytes() != dev_models[name]
    score.main(["-e", "--config", str(path)])
    folder = tmp_path / "result" / "eval" / "small"
    expected = {f"{kind}_{n}_{i[0]}.csv" for n, i in EVAL_IDS.items() for kind in ("anomaly_score", "decision_result")}
    expected |= {f"record_{n}.yaml" for n in EVAL_IDS}
    assert {p.name for p in folder.iterdir()} == expected
    for machine_type, (machine_id,) in EVAL_IDS.items():
        names = [f"{machine_id}_{number:08d}.wav" for number in range(2 * OPTIONS.test_clips)]
        check_score_file(folder / f"anomaly_score_{machine_type}_{machine_id}.csv", names)
    assert f"small: anomaly scores of 8 clips -> {folder}" in capsys.readouterr().out


@pytest.mark.usefixtures("without_xla")
def test_training_on_both_sets(yaml_file, tmp_path):
    options = ["-e", "--training-data", "dev+eval", "--machine-type", "fan", "--config", str(yaml_file())]
    train.main(options)
    folder = tmp_path / "model" / "dev+eval" / "small"
    record = yaml.safe_load((folder / "record_fan.yaml").read_text())
    assert (record["training_data"], record["clips"]) == ("dev+eval", 3 * OPTIONS.clips)
    score.main(options)
    files = list((tmp_path / "result").rglob("anomaly_score_*.csv"))
    assert files == [tmp_path / "result" / "dev+eval" / "small" / "anomaly_score_fan_id_01.csv"]
    models, results = contents(tmp_path / "model"), contents(tmp_path / "result")
    options[0] = "-d"  # the same models score the development clips, whose CSVs have a folder of their own
    train.main(options)
    score.main(options)
    assert contents(tmp_path / "model") == models
    assert {name: contents(tmp_path / "result")[name] for name in results} == results
    folder = tmp_path / "result" / "dev_by_dev+eval" / "small"
    assert sorted(path.name for path in folder.glob("anomaly*")) == [f"anomaly_score_fan_id_0{k}.csv" for k in (0, 2)]
    figures = (folder / "result.csv").read_bytes()
    assert figures.startswith(b"fan\nid,AUC,pAUC\n00,")
    evaluate.main([str(folder.parent), "--config", options[-1]])
    assert (folder / "result.csv").read_bytes() == figures
    shutil.copy(tmp_path / "result/dev+eval/small/record_fan.yaml", folder / "record_fan.yaml")
    with pytest.raises(common.UserError, match="anomaly_score_fan_id_00.csv: no record says what made it"):
        evaluate.main([str(folder), "--config", options[-1]])
    (tmp_path / "model/dev+eval/small/record_fan.yaml").unlink()
    with pytest.raises(common.UserError, match=r"00_train.py -d --training-data dev\+eval --system small"):
        score.main(options)
    check_score_file(files[0], [f"id_01_{number:08d}.wav" for number in range(2 * OPTIONS.test_clips)])


def test_the_summary_says_which_figures(trained, dev_work, tmp_path, capsys):
    score.main(["-d", "--config", str(trained())])
    table = capsys.readouterr().out.splitlines()
    assert table[1] == str(tmp_path / "result" / "dev" / "small")
    assert table[2].split("  ")[0] == "machine type"
    assert [line.split()[0] for line in table[4:]] == ["ToyCar", "fan", "mean"]
    assert "published" not in "".join(table)  # not the official test set
    assert contents(tmp_path / "result", ".csv") == contents(dev_work / "result", ".csv")


# ---- what is kept, what is trained anew ----


def test_the_same_again_keeps_the_models(trained, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    before = contents(tmp_path / "model")
    train.main(["-d", "--config", str(trained({"fit": {"verbose": 1}}))])
    assert contents(tmp_path / "model") == before
    for machine_type in MACHINE_TYPES:
        assert (
            f"model_{machine_type}.keras: kept, trained with the same configuration on the same 6 clips" in caplog.text
        )


@pytest.mark.usefixtures("without_xla")
def test_an_edited_yaml_trains_anew_and_says_why(trained, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = trained({"fit": {"epochs": 1, "verbose": 2}})
    options = ["-d", "--machine-type", "fan", "--config", str(path)]
    with pytest.raises(
        common.UserError, match=r"(?s)model_fan.keras was .*fit.epochs: 2 -> 1\n.*00_train.py -d --system"
    ):
        score.main(options)
    assert not (tmp_path / "result").exists()
    before = contents(tmp_path / "model" / "dev" / "small")
    train.main(options)
    assert (
        "model_fan.keras: trained anew, since the model there differs: configuration.fit.epochs: 2 -> 1" in caplog.text
    )
    assert "small fan: epoch 1/1 - loss " in caplog.text
    after = contents(tmp_path / "model" / "dev" / "small")
    assert {name for name in before if before[name] != after[name]} == {
        "model_fan.keras",
        "record_fan.yaml",
        "scores_fan.npz",
        "history_fan.png",
    }
    score.main(options)
    assert len(list((tmp_path / "result").rglob("anomaly_score_fan_*.csv"))) == 2


@pytest.mark.usefixtures("without_xla")
def test_jobs_of_one_machine_type_add_up_and_a_seed_gives_the_same_bytes(dev_work, yaml_file, tmp_path):
    path = yaml_file()
    for machine_type in MACHINE_TYPES[::-1]:
        train.main(["-d", "--machine-type", machine_type, "--config", str(path)])
        score.main(["-d", "--machine-type", machine_type, "--config", str(path)])
    assert contents(tmp_path / "result", ".csv") == contents(dev_work / "result", ".csv")


@pytest.mark.usefixtures("without_xla")
def test_another_seed_gives_other_scores(dev_work, yaml_file, tmp_path):
    options = ["-d", "--machine-type", "fan", "--config", str(yaml_file({"seed": 1}))]
    train.main(options)
    score.main(options)
    name = "dev/small/anomaly_score_fan_id_00.csv"
    assert (tmp_path / "result" / name).read_bytes() != (dev_work / "result" / name).read_bytes()


# ---- models of the official baseline ----


def test_official_models_score_clips(yaml_file, tmp_path, dataset):
    import config
    import keras_model

    settings = config.load_config(yaml_file())
    for machine_type in MACHINE_TYPES:
        model = keras_model.build(config.DenseAutoencoder(units=(8, 2, 8)), settings.feature)
        model.compile("adam", "mean_squared_error")
        model.save(tmp_path / f"model_{machine_type}.hdf5")
    score.main(["-d", "--official-model", str(tmp_path), "--config", str(tmp_path / "settings.yaml")])
    folder = tmp_path / "result" / "dev" / "official"
    assert len(list(folder.iterdir())) == 7  # no decisions: an official model has no scores of training clips
    waveform, rate = common.load_wav(dataset / "dev_data" / "fan" / "test" / "normal_id_00_00000000.wav")
    log_mel = common.log_mel_energies(waveform, rate, n_mels=32, n_fft=1024, hop_length=512, power=2.0)
    vectors = common.stack_frames(log_mel, frames=5)
    expected = np.mean(np.square(vectors - model.predict(vectors, verbose=0)))
    first = (folder / "anomaly_score_fan_id_00.csv").read_text().splitlines()[0].split(",")
    assert first[0] == "normal_id_00_00000000.wav"
    assert float(first[1]) == pytest.approx(expected, rel=1e-5)


def test_official_models_that_are_not_there(yaml_file, tmp_path, capsys):
    with pytest.raises(common.UserError, match=r"--official-model: no file .*model_ToyCar.hdf5"):
        score.main(["-d", "--official-model", str(tmp_path), "--config", str(yaml_file())])
    with pytest.raises(SystemExit) as caught:
        score.main(["-d", "--official-model", str(tmp_path), "--system", "small"])
    assert caught.value.code == 2
    assert "takes the place of --system" in capsys.readouterr().err


def test_clips_are_checked_for_what_the_official_models_need(yaml_file, tmp_path):
    changes = {"feature": {"frames": 40}, "systems": {"small": {"feature": {"frames": 5}}}}
    with pytest.raises(common.UserError, match="16000 samples; one window of frames needs 19968"):
        score.main(["-d", "--official-model", str(tmp_path), "--config", str(yaml_file(changes))])


# ---- errors ----


@pytest.fixture
def own_data(dataset, tmp_path):
    """A copy of the dataset that a test may spoil."""
    shutil.copytree(dataset, tmp_path / "data")
    return tmp_path / "data"


def with_data(path: Path, data: Path) -> list[str]:
    """Arguments for the YAML file ``path``, made to read the dataset ``data``."""
    changes = {f"{split}_directory": str(data / f"{split}_data") for split in ("dev", "eval")}
    path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), changes)))
    return ["--config", str(path)]


def test_broken_clips_stop_both_scripts_before_anything_is_made(yaml_file, own_data, tmp_path):
    for folder in ("train", "test"):
        (own_data / "dev_data" / "fan" / folder / "normal_id_00_00000000.wav").write_bytes(b"")
        (own_data / "dev_data" / "ToyCar" / folder / "noname.wav").write_bytes(b"RIFF")
    options = ["-d", *with_data(yaml_file(), own_data)]
    for main, folder, n_clips in ((train.main, "train", 13), (score.main, "test", 17)):
        with pytest.raises(common.UserError) as caught:
            main(options)
        error = str(caught.value)
        assert error.startswith(f"2 of {n_clips} clips cannot be used:")
        assert f"{Path('fan') / folder / 'normal_id_00_00000000.wav'}: file is empty" in error
        assert f"{Path('ToyCar') / folder / 'noname.wav'}: name is not of the form" in error
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "result").exists()


def test_a_machine_type_without_training_clips(yaml_file, own_data):
    shutil.rmtree(own_data / "dev_data" / "fan" / "train")
    (own_data / "dev_data" / "readme.txt").write_text("a stray file beside the machine types")
    options = ["-d", *with_data(yaml_file(), own_data)]
    with pytest.raises(common.UserError) as caught:
        train.main(options)
    lines = str(caught.value).splitlines()
    assert lines[:1] == ["Machine types without clips:"]
    assert lines[1] == f"  fan: no wav file in {own_data / 'dev_data' / 'fan' / 'train'}"
    assert "--machine-type" in lines[2]
    assert "Folders that count:" in lines[2]


def test_dev_eval_wants_each_machine_type_in_both(yaml_file, own_data, caplog):
    shutil.rmtree(own_data / "dev_data" / "fan")
    options = ["-e", "--training-data", "dev+eval", *with_data(yaml_file(), own_data)]
    with pytest.raises(common.UserError, match=r"fan: only in .*eval_data"):
        train.main(options)
    train.main([*options, "--machine-type", "fan"])
    assert "fan: only in" in caplog.text


def test_test_clips_of_another_sample_rate_are_refused(trained, own_data, tmp_path):
    for path in (own_data / "dev_data" / "fan" / "test").iterdir():
        waveform, _ = soundfile.read(path)
        soundfile.write(path, waveform, 8000)
    options = ["-d", "--machine-type", "fan", *with_data(trained(), own_data)]
    with pytest.raises(common.UserError, match=r"clips have 8000 Hz; the model was trained with 16000 Hz"):
        score.main(options)
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("kind", ["2 normal clips", "2 normal clips and 2 clips without a label"])
def test_an_id_without_both_labels_gives_no_auc(trained, own_data, tmp_path, capsys, kind):
    for path in (own_data / "dev_data" / "fan" / "test").glob("anomaly_id_02_*"):
        if kind == "2 normal clips":
            path.unlink()
        else:
            path.rename(path.with_name(path.name.replace("anomaly_", "")))
    arguments = ["-d", *with_data(trained(), own_data)]
    score.main(arguments)
    out = capsys.readouterr().out
    assert f"\nno AUC: fan id_02: {kind}; " in out
    folder = tmp_path / "result" / "dev" / "small"
    assert (folder / "anomaly_score_fan_id_02.csv").exists()
    lines = (folder / "result.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[lines.index("fan") :]] == ["fan", "id", "00", "Average", ""]


def test_a_system_that_cannot_be_trained_names_those_that_can(yaml_file):
    shipped = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["systems"]
    systems = {"systems": {name: shipped[name] for name in ("l2_softmax", "neighbors", "baseline_ae")}}
    options = ["-d", "--machine-type", "fan", "--config", str(yaml_file(systems))]
    with pytest.raises(common.UserError, match=r"(?s)one class, fan, .*\nOn these clips, --system small, baseline_ae"):
        train.main([*options, "--system", "l2_softmax"])
    with pytest.raises(common.UserError, match=r"(?s)n_neighbors: \d+, and no more .*\nOn these clips, --system small"):
        train.main([*options, "--system", "neighbors"])


def test_machines_of_ones_own(dataset, yaml_file, tmp_path, capsys):
    """Recordings with names of any form: trained, scored without labels, then with the labels of folders."""
    machine = tmp_path / "own" / "press"
    source = dataset / "dev_data" / "fan"
    for number, path in enumerate(sorted((source / "train").glob("normal_id_00_*"))):
        (machine / "train").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, machine / "train" / f"Monday, {number}.wav")
    (machine / "test").mkdir()
    for path in sorted((source / "test").glob("*_id_00_*")):
        shutil.copy(path, machine / "test" / f"{path.stem[:7]}, {path.stem[-4:]}.wav")
    path = yaml_file({"names": "any", "dev_directory": str(tmp_path / "own")})
    train.main(["-d", "--config", str(path)])
    score.main(["-d", "--config", str(path)])
    out = capsys.readouterr().out
    folder = tmp_path / "result" / "dev" / "small"
    decisions = (folder / "decision_result_press_id_00.csv").read_text().splitlines()
    n_called = sum(line.endswith(",1") for line in decisions)
    assert f"{folder}\nno AUC: press id_00: 4 clips without a label; {n_called} called anomalous\n" in out
    assert not (folder / "result.csv").exists()
    evaluate.main([str(folder), "--report", str(tmp_path / "report.html"), "--config", str(path)])
    out = capsys.readouterr().out
    assert re.search(r"\nno AUC: press id_00: 4 clips without a label; \d called anomalous\n", out)
    assert "AUC [%]" not in out
    assert "no AUC: press id_00: 4 clips without a label" in (tmp_path / "report.html").read_text()
    assert not list(folder.glob("*result.csv"))
    with (folder / "anomaly_score_press_id_00.csv").open(encoding="utf-8", newline="") as stream:
        unlabelled = dict(csv.reader(stream))
    assert len(unlabelled) == 4
    for path_of_clip in sorted((machine / "test").iterdir()):
        label = "normal" if path_of_clip.name.startswith("normal") else "abnormal"
        (machine / "test" / label).mkdir(exist_ok=True)
        path_of_clip.rename(machine / "test" / label / path_of_clip.name)
    score.main(["-d", "--config", str(path)])
    assert "no AUC" not in capsys.readouterr().out
    with (folder / "anomaly_score_press_id_00.csv").open(encoding="utf-8", newline="") as stream:
        labelled = dict(csv.reader(stream))
    assert {name.split("/")[1]: value for name, value in labelled.items()} == unlabelled
    assert [name.split("/")[0] for name in labelled] == 2 * ["normal"] + 2 * ["abnormal"]
    assert (folder / "result.csv").read_text().startswith("press\nid,AUC,pAUC\n00,")
    before = (folder / "result.csv").read_bytes()
    evaluate.main([str(folder), "--config", str(path), "--report", str(tmp_path / "report.html")])
    assert (folder / "result.csv").read_bytes() == before
    figures = (folder / "decision_result.csv").read_text()
    assert figures.startswith("press\nid,precision,recall,F1,false alarm rate\n00,")


def test_a_missing_model_is_named_with_what_to_do(trained, tmp_path):
    path = trained()
    (tmp_path / "model" / "dev" / "small" / "model_fan.keras").unlink()
    with pytest.raises(common.UserError, match=r"model_fan.keras: no finished model; .* 00_train.py -d --system small"):
        score.main(["-d", "--config", str(path)])
    with pytest.raises(common.UserError, match=r"00_train.py -e --training-data dev\+eval --system small"):
        score.main(["-e", "--training-data", "dev+eval", "--config", str(path)])
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("main", [train.main, score.main])
def test_names_that_are_not_there(yaml_file, main):
    options = ["-d", "--config", str(yaml_file())]
    with pytest.raises(common.UserError, match=r"--system smal: did you mean small\?"):
        main([*options, "--system", "smal"])
    with pytest.raises(common.UserError, match=r"--machine-type pump: no such folder .*there is ToyCar, fan"):
        main([*options, "--machine-type", "pump"])


# ---- as commands ----


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / script), *arguments]


def run(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(script, *arguments), cwd=folder, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("script", ["00_train.py", "01_test.py"])
def test_exit_codes_without_a_traceback(script, tmp_path):
    wrong = run(tmp_path, script, "-d", "-e")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    missing = run(tmp_path, script, "-d")
    assert missing.returncode == 1
    assert "--config: no file baseline.yaml" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert "no file baseline.yaml" in (tmp_path / "baseline.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", ["00_train.py", "01_test.py", "04_detect.py", "05_export.py", "download_data.py"])
def test_help_is_quick(script, tmp_path):
    before, start = os.times(), time.perf_counter()
    assert run(tmp_path, script, "--help").stdout.startswith("usage: ")
    after, wall = os.times(), time.perf_counter() - start
    used = sum(after[2:4]) - sum(before[2:4])  # by the child: the machine may be busy with other things
    assert (used or wall) < 1  # [s]; Windows does not count what a child uses
    arguments = [sys.executable, "-X", "importtime", str(ROOT / script), "--help"]
    imports = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=60).stderr
    modules = {line.split("|")[-1].strip().split(".")[0] for line in imports.splitlines()}
    assert "numpy" in modules
    assert not modules & {"tensorflow", "keras", "librosa", "matplotlib", "sklearn", "scipy"}


def test_a_killed_training_ends_as_an_unbroken_one(yaml_file, tmp_path):
    """The run is killed in one process and goes on in another; the unbroken one is made in a third."""
    changes = {"fit": {"epochs": 40, "verbose": 1}}
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    options = ["-d", "--machine-type", "fan", "--config"]
    folder = broken / "model" / "dev" / "small"
    resume = folder / "resume_fan.npz"
    path = yaml_file(changes, work=broken)
    with subprocess.Popen(
        command("00_train.py", *options, str(path)), cwd=broken, stderr=subprocess.DEVNULL
    ) as process:
        while not resume.exists():
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    assert process.returncode != 0
    assert not (folder / "model_fan.keras").exists()
    with np.load(resume) as stored:
        epoch = json.loads(str(stored["header"]))["epoch"]
    assert 1 <= epoch < 40

    again = run(broken, "00_train.py", *options, str(path))
    assert again.returncode == 0, again.stderr
    assert f"going on after epoch {epoch} of 40" in again.stderr
    assert "100%" in again.stderr
    assert not resume.exists()
    alone = run(unbroken, "00_train.py", *options, str(yaml_file(changes, work=unbroken)))
    assert alone.returncode == 0, alone.stderr
    for work in (broken, unbroken):
        score.main([*options, str(work / "settings.yaml")])
    assert contents(broken / "result", ".csv") == contents(unbroken / "result", ".csv")
    assert contents(broken / "model") == contents(unbroken / "model")
