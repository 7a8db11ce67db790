"""The package: built from results, checked whole, refused with the right reason, file and line."""

import dataclasses
import importlib
import subprocess
import sys
import tracemalloc
import typing
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import yaml

import common
import config
from audio.clips import Clip
from audio.settings import PARTS
from challenge import meta_file, package, submission
from evaluation import result_record, score_files
from storage.files import write_text
from years.year import read_year

ROOT = Path(common.__file__).parent
EXAMPLE = ROOT / "examples/authors.yaml"
TEAM = "Doe_EXU_task2"
KEYS = [("ToyCar", "id_05"), ("fan", "id_01"), ("fan", "id_03")]
N_CLIPS = 4
SUBMISSIONS = {1: config.Submission("baseline_ae", "eval"), 3: config.Submission("tuned_ae", "dev+eval")}
PARAMETERS = {"baseline_ae": 269_992, "tuned_ae": 2_710_992}

script = importlib.import_module("03_submit")


def clip_names(machine_id, n=N_CLIPS):
    return [f"{machine_id}_{number:08d}.wav" for number in range(n)]


def write_run(directory, *, clips):
    """Clips, results, records and a YAML as the other scripts leave them; the path of the YAML."""
    for (machine_type, _), names in clips.items():
        folder = directory / "eval_data" / machine_type / "test"
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).touch()
    for name, scores in {"ToyCar_id_01": (0, 1), "ToyCar_id_02": (2, 2), "fan_id_00": (1, 1)}.items():
        names = [f"{label}_{name[-5:]}_00000000.wav" for label in ("normal", "anomaly")]
        write_text(directory / f"result/dev/tuned_ae/anomaly_score_{name}.csv", score_files.scores_text(names, scores))
    block = yaml.safe_load((ROOT / "baseline.yaml").read_text(encoding="utf-8"))
    for name in ("dev", "eval", "model", "result"):
        folder = f"{name}_data" if name in ("dev", "eval") else name
        block[f"{name}_directory"] = str(directory / folder)
    block["submissions"] = {number: dataclasses.asdict(entry) for number, entry in SUBMISSIONS.items()}
    write_text(directory / "run.yaml", yaml.safe_dump(block, sort_keys=False))
    for entry in SUBMISSIONS.values():
        for machine_type in dict.fromkeys(machine_type for machine_type, _ in clips):
            record = {"system": entry.system, "parameters": PARAMETERS[entry.system], "sample_rate": 16_000}
            path = directory / "model" / entry.training_data / entry.system / f"record_{machine_type}.yaml"
            write_text(path, yaml.safe_dump(record))
        write_scores(directory, entry, clips)
    return directory / "run.yaml"


def write_scores(directory, entry, clips):
    """Scores of a submission with their records, as 01_test.py writes them."""
    settings, rng = config.load_config(directory / "run.yaml"), np.random.default_rng(0)
    for machine_type in dict.fromkeys(machine_type for machine_type, _ in clips):
        model = settings.model_directory / entry.training_data / entry.system / f"record_{machine_type}.yaml"
        if not model.exists():
            write_text(model, "model")
        ids = {i: names for (t, i), names in clips.items() if t == machine_type}
        texts = {
            f"anomaly_score_{machine_type}_{i}.csv": score_files.scores_text(names, rng.normal(size=len(names)))
            for i, names in ids.items()
        }
        test_clips = [Clip(Path(n), machine_type, i, None, 1, 16_000, 1, 1, 1) for i in ids for n in ids[i]]
        record = result_record.record_of(
            settings,
            settings.systems[entry.system],
            "eval",
            entry.training_data,
            test_clips,
            models=result_record.model_digests([model], settings.model_directory),
            thresholds={},
            score_unit="error",
            texts=texts,
        )
        result_record.write(settings.result_directory / entry.training_data / entry.system, record, texts)


def write_truth(path, clips):
    """``clips`` in the form of the official eval_data_list.csv."""
    lines = []
    for (machine_type, _), names in clips.items():
        lines.append(machine_type)
        lines += [f"{name},{'anomaly' if n % 2 else 'normal'}_{name},{n % 2}" for n, name in enumerate(names)]
    write_text(path, "\n".join(lines) + "\n")
    return path


def yaml_block(directory, **values):
    """Change keys of the run's YAML."""
    block = yaml.safe_load((directory / "run.yaml").read_text(encoding="utf-8"))
    (directory / "run.yaml").write_text(yaml.safe_dump(block | values), encoding="utf-8")


@pytest.fixture
def clips():
    return {key: clip_names(key[1]) for key in KEYS}


@pytest.fixture
def run(tmp_path, clips):
    """Arguments of the script that build a package in ``tmp_path``."""
    yaml_path = write_run(tmp_path, clips=clips)
    truth = write_truth(tmp_path / "eval_data_list.csv", clips)
    output = tmp_path / "package.zip"
    return ["--authors", str(EXAMPLE), "--config", str(yaml_path), "--truth", str(truth), "--output", str(output)]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Files of a good package. Not to be changed."""
    clips = {key: clip_names(key[1]) for key in KEYS}
    settings = config.load_config(write_run(tmp_path_factory.mktemp("good"), clips=clips))
    built = submission.build(settings, meta_file.read_authors(EXAMPLE), report=None, clips=clips)
    return built.files | {f"{TEAM}.technical_report.pdf": b"%PDF-1.5\n"}


@pytest.fixture
def files(good):
    """The same, to be changed."""
    return dict(good)


def faults_of(files, clips):
    findings = package.check_package(package.Package(files, [], True), clips, read_year(2020))
    return [finding for finding in findings if finding.is_fault]


# ---- building ----


def test_a_package_from_results_passes_its_own_check(tmp_path, run, clips):
    report = tmp_path / "report.pdf"
    report.write_bytes(b"%PDF-1.5\n%%EOF\n")
    script.main([*run, "--report-pdf", str(report)])
    script.main(["--check", run[-1], "--truth", run[5]])
    with zipfile.ZipFile(run[-1]) as archive:
        names = archive.namelist()
        scores = archive.read(f"task2/{TEAM}_3/anomaly_score_fan_id_03.csv")
        pdf = archive.read(f"task2/{TEAM}.technical_report.pdf")
    assert names == sorted(
        [f"task2/{TEAM}.technical_report.pdf"]
        + [f"task2/{TEAM}_{number}/{TEAM}_{number}.meta.yaml" for number in (1, 3)]
        + [f"task2/{TEAM}_{number}/anomaly_score_{t}_{i}.csv" for number in (1, 3) for t, i in KEYS]
    )
    assert scores == (tmp_path / "result/dev+eval/tuned_ae/anomaly_score_fan_id_03.csv").read_bytes()
    assert pdf == report.read_bytes()


def test_the_meta_file_says_what_the_project_knows(files):
    meta = yaml.safe_load(files[f"{TEAM}_3/{TEAM}_3.meta.yaml"])
    assert list(meta) == ["submission", "system", "results"]
    assert meta["submission"]["label"] == f"{TEAM}_3"
    assert [author["lastname"] for author in meta["submission"]["authors"]] == ["Doe", "Roe"]
    description = meta["system"]["description"]
    assert description["input_sampling_rate"] == "16kHz"
    assert description["acoustic_features"] == "log-mel energies"
    assert (description["machine_learning_method"], description["aggregation_method"]) == ("AE", "average")
    assert description["external_data_usage"] is None
    assert description["development_data_usage"] == "development, training"
    assert meta["system"]["complexity"]["total_parameters"] == 2_710_992
    assert meta["results"]["development_dataset"] == {
        "ToyCar": {"averaged_auc": 75.0, "averaged_pauc": 75.0},
        "fan": {"averaged_auc": 50.0, "averaged_pauc": 50.0},
    }


def test_names_of_the_authors_file_or_made_up_ones(files):
    first, third = (yaml.safe_load(files[f"{TEAM}_{n}/{TEAM}_{n}.meta.yaml"])["submission"] for n in (1, 3))
    assert (first["name"], first["abbreviation"]) == ("Doe_EXU_L2-softmax", "EXU_L2")
    assert (third["name"], third["abbreviation"]) == ("Doe_EXU tuned_ae dev+eval", "EXU_3")


def test_without_development_results_the_figures_stay_empty(files, clips, caplog):
    meta = yaml.safe_load(files[f"{TEAM}_1/{TEAM}_1.meta.yaml"])
    assert meta["results"]["development_dataset"]["fan"] == {"averaged_auc": None, "averaged_pauc": None}
    package.check(package.Package(files, [], True), clips, read_year(2020), "", "")
    assert "no figure for ToyCar.averaged_auc" in caplog.text


def description_of(**settings):
    """Description of a classifier, with these settings of its model."""
    model = config.load_config(ROOT / "baseline.yaml").systems["l2_softmax"].model
    system = config.System("s", dataclasses.replace(model, **settings), feature=None, fit=None)
    return submission._system_block(system, "eval", 16_000, 1, None, read_year(2020))["description"]


def test_description_of_the_classifier():
    report = description_of()
    assert (report["machine_learning_method"], report["embeddings"]) == ("CNN, LOF", "MobileNetV2")
    assert (report["aggregation_method"], report["data_augmentation"], report["external_data_usage"]) == (None,) * 3
    assert description_of(weights="imagenet")["external_data_usage"] == "pre-trained model"
    assert description_of(mixup=0.2)["data_augmentation"] == "mixup"
    assert description_of(score="softmax")["machine_learning_method"] == "CNN"


def test_every_model_and_detector_has_its_words():
    assert set(config.MODELS) == set(submission.METHODS)
    (score,) = [field for field in dataclasses.fields(config.L2Softmax) if field.name == "score"]
    assert set(typing.get_args(score.type)) == set(submission.DETECTORS)
    assert set(PARTS) == set(submission.FEATURES)
    assert set(config.AGGREGATES) == set(submission.AGGREGATES)


def test_every_system_of_the_yaml_has_a_description():
    settings = config.load_config(ROOT / "baseline.yaml")
    for system in settings.systems.values():
        description = submission._system_block(system, "eval", 16_000, 1, None, read_year(2020))["description"]
        assert description["machine_learning_method"], system.name
        assert description["acoustic_features"], system.name
    neighbors = settings.systems["neighbors"]
    description = submission._system_block(neighbors, "eval", 16_000, 0, None, read_year(2020))["description"]
    assert description["machine_learning_method"] == "k-NN"
    assert description["acoustic_features"] == "modulation spectrum, log-mel energies"
    assert (description["embeddings"], description["aggregation_method"]) == (None, None)
    fusion = dataclasses.replace(settings.systems["tuned_ae"], members=(settings.systems["tuned_ae"], neighbors))
    description = submission._system_block(fusion, "eval", 16_000, 1, None, read_year(2020))["description"]
    assert description["machine_learning_method"] == "AE, k-NN"
    assert description["ensemble_method_subsystem_count"] == 2
    assert (description["aggregation_method"], description["decision_making"][:12]) == ("average", "weighted sum")


def test_parameters_of_a_detector_and_of_a_fusion(tmp_path):
    systems = config.load_config(ROOT / "baseline.yaml").systems
    for name, text in (("neighbors", ""), ("tuned_ae", "parameters: 7\n"), ("baseline_ae", "parameters: 5\n")):
        write_text(tmp_path / name / "record_fan.yaml", f"{text}sample_rate: 16000\n")
    members = tuple(systems[name] for name in ("neighbors", "tuned_ae", "baseline_ae"))
    assert submission.model_facts(tmp_path, systems["neighbors"]) == (0, 16_000)
    fusion = dataclasses.replace(systems["tuned_ae"], name="fusion", members=members)
    assert submission.model_facts(tmp_path, fusion) == (12, 16_000)


def test_the_same_results_give_the_same_bytes(tmp_path, run):
    script.main(run)
    first = Path(run[-1]).read_bytes()
    script.main(run)
    assert Path(run[-1]).read_bytes() == first


def test_clips_replaced_since_they_were_scored_are_told(tmp_path, run, clips):
    for name in clips["fan", "id_01"] + clips["fan", "id_03"]:
        soundfile.write(tmp_path / "eval_data/fan/test" / name, np.sin(np.arange(16_000)), 16_000)
    with pytest.raises(common.UserError, match="of clips that have changed in .*/eval_data/fan/test: id_01_00000000"):
        script.main(run)
    assert not Path(run[-1]).exists()


def test_without_truth_the_clips_are_those_of_the_dataset(tmp_path, run):
    run = run[:4] + run[6:]
    script.main(run)
    assert Path(run[-1]).exists()
    (tmp_path / "eval_data/fan/test/id_01_00000009.wav").touch()
    with pytest.raises(common.UserError, match="anomaly_score_fan_id_01.csv: 1 of 5 clips missing: id_01_00000009.wav"):
        script.main(run)
    (tmp_path / "eval_data/fan/test/fan.wav").touch()
    with pytest.raises(common.UserError, match="fan.wav: name is not of the form"):
        script.main(run)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda d: (d / "result/eval/baseline_ae").rename(d / "away"), r"01_test.py -e --system baseline_ae"),
        (
            lambda d: (d / "model/dev+eval").rename(d / "away"),
            r"no record_.*-e --training-data dev\+eval --system tuned",
        ),
        (
            lambda d: (d / "model/eval/baseline_ae/record_fan.yaml").write_text("a: 1"),
            "record_fan.yaml: sample_rate: None",
        ),
        (lambda d: yaml_block(d, submissions={}), "block `submissions` is empty"),
        (
            lambda d: (d / "result/dev/tuned_ae/anomaly_score_fan_id_00.csv").write_text("a,b\n"),
            "dev.tuned_ae: score files with",
        ),
        (
            lambda d: (d / "result/eval/baseline_ae/anomaly_score_fan_id_01.csv").write_text(
                "id_01_00000000.wav,nan\n"
            ),
            "anomaly_score_fan_id_01.csv: not as it was written; edited",
        ),
        (lambda d: yaml_block(d, seed=7), r"_fan_id_03.csv: scored with other settings than the YAML's: seed: 0 -> 7"),
        (
            lambda d: write_scores(d, SUBMISSIONS[1], {("fan", "id_01"): clip_names("id_01")}),
            f"{TEAM}_1/: 1 of 4 files missing: anomaly_score_fan_id_03.csv",
        ),
    ],
)
def test_no_package_of_incomplete_results(tmp_path, run, broken, message):
    broken(tmp_path)
    with pytest.raises(common.UserError, match=message):
        script.main(run)
    assert not Path(run[-1]).exists()


def test_development_figures_of_other_settings_are_refused(tmp_path, run, clips):
    yaml_block(tmp_path, seed=7)
    write_scores(tmp_path, SimpleNamespace(system="tuned_ae", training_data="dev"), clips)
    yaml_block(tmp_path, seed=0)
    with pytest.raises(common.UserError, match=r"dev.tuned_ae: files that do not fit(.|\n)*seed: 7 -> 0"):
        script.main(run)


def test_no_technical_report_at_the_path(run):
    with pytest.raises(common.UserError, match="--report-pdf: nowhere.pdf cannot be read"):
        script.main([*run, "--report-pdf", "nowhere.pdf"])


def test_a_report_that_is_no_pdf(tmp_path, run):
    (tmp_path / "report.pdf").write_text("text")
    with pytest.raises(common.UserError, match=f"{TEAM}.technical_report.pdf: not a PDF file"):
        script.main([*run, "--report-pdf", str(tmp_path / "report.pdf")])


def test_parameters_of_the_largest_model(tmp_path, run):
    path = tmp_path / "model/eval/baseline_ae/record_fan.yaml"
    path.write_text("parameters: 300_000\nsample_rate: 16000\n")
    system = config.load_config(Path(run[3])).systems["baseline_ae"]
    assert submission.model_facts(path.parent.parent, system) == (300_000, 16_000)


def test_a_dataset_without_test_clips(tmp_path):
    (tmp_path / "fan" / "train").mkdir(parents=True)
    with pytest.raises(common.UserError, match="no wav file in"):
        package.clips_at(tmp_path, "eval_directory", read_year(2020))


# ---- faults of a package ----

META = f"{TEAM}_1/{TEAM}_1.meta.yaml"
FAN = f"{TEAM}_1/anomaly_score_fan_id_01.csv"
ONE_DIGIT, UPPER_CASE = FAN.replace("01.csv", "1.csv"), FAN.replace("fan", "Fan")
OF_DEV, OF_PUMP = FAN.replace("id_01", "id_00"), FAN.replace("fan", "pump")
PDF = f"{TEAM}.technical_report.pdf"


def edited(name, old, new):
    """Change of a package that replaces ``old`` in the file ``name``."""

    def edit(files):
        assert old in files[name].decode()
        files[name] = files[name].decode().replace(old, new, 1).encode()

    return edit


def renamed(old, new):
    """Change of a package that gives files another name."""

    def rename(files):
        for name in [name for name in files if old in name]:
            files[name.replace(old, new)] = files.pop(name)

    return rename


def row(number, text):
    """Change of a package that replaces a line of a score file."""

    def edit(files):
        lines = files[FAN].decode().splitlines(keepends=True)
        lines[number - 1] = text
        files[FAN] = "".join(lines).encode()

    return edit


@pytest.mark.parametrize(
    ("change", "file", "line", "message"),
    [
        (lambda files: files.pop(FAN), f"{TEAM}_1/", None, "1 of 4 files missing: anomaly_score_fan_id_01.csv"),
        (renamed(FAN, ONE_DIGIT), ONE_DIGIT, None, "expected anomaly_score_fan_id_01.csv"),
        (renamed(FAN, UPPER_CASE), UPPER_CASE, None, "expected anomaly_score_fan_id_01.csv"),
        (lambda files: files.update({OF_DEV: b""}), OF_DEV, None, "unexpected file"),
        (lambda files: files.update({OF_PUMP: b""}), OF_PUMP, None, "unexpected file"),
        (lambda files: files.update({f"{TEAM}_1/.DS_Store": b""}), f"{TEAM}_1/.DS_Store", None, "unexpected file"),
        (lambda files: files.update({"notes.txt": b""}), "notes.txt", None, "unexpected file"),
        (lambda files: files.update({"figures/a.png": b""}), "figures/", None, "unexpected folder"),
        (lambda files: files.pop(META), f"{TEAM}_1/", None, f"1 of 4 files missing: {TEAM}_1.meta.yaml"),
        (lambda files: files.update({PDF: b"text"}), PDF, None, "not a PDF"),
        (lambda files: files.update({"report.pdf": b"%PDF-"}), "report.pdf", None, f"report is {PDF}"),
        (row(2, "id_01_00000001.wav,nan\n"), FAN, 2, "score nan is not finite"),
        (row(2, "id_01_00000001.wav,inf\n"), FAN, 2, "score inf is not finite"),
        (row(2, "id_01_00000001.wav,high\n"), FAN, 2, "score 'high' is not a number"),
        (row(2, "id_01_00000001.wav\n"), FAN, 2, "1 columns; expected two"),
        (row(1, "\ufeffid_01_00000000.wav,1\n"), FAN, 1, "byte-order mark"),
        (row(1, "file,score\nid_01_00000000.wav,1\n"), FAN, 1, "not of the form"),
        (row(4, "id_01_00000003.wav,1\nid_01_00000003.wav,1\n"), FAN, 5, "id_01_00000003.wav again, first in row 4"),
        (row(4, "id_01_00000003.wav,1\nid_01_00000004.wav,1\n"), FAN, 5, "not a clip of the evaluation list"),
        (row(4, ""), FAN, None, "1 of 4 clips missing: id_01_00000003.wav"),
        (edited(META, "averaged_auc: null", "averaged_auc: 0.775"), META, 40, "expected a percentage such as 66.30"),
    ],
)  # fmt: skip
def test_broken_package_with_file_and_line(files, clips, change, file, line, message):
    assert faults_of(files, clips) == []
    change(files)
    (fault,) = faults_of(files, clips)
    assert (fault.file, fault.line) == (file, line), fault
    assert message in fault.text


def test_id_with_one_digit_in_the_rows(files, clips):
    files[FAN] = files[FAN].replace(b"id_01_", b"id_1_")
    faults = [str(fault) for fault in faults_of(files, clips)]
    assert "line 1: 'id_1_00000000.wav'" in faults[0]
    assert "4 of 4 clips missing" in faults[-1]


def test_two_files_of_one_machine(files, clips):
    files[FAN.replace("01.csv", "1.csv")] = files[FAN]
    assert "unexpected file" in faults_of(files, clips)[0].text


def test_binary_score_file(files, clips):
    files[FAN] = b"id_01_00000000.wav,1\n\xff\xfe"
    (fault,) = faults_of(files, clips)
    assert (fault.line, fault.text) == (2, "not UTF-8 text")


@pytest.mark.parametrize("number", ["0", "5"])
def test_number_of_a_submission(files, clips, number):
    renamed(f"{TEAM}_1", f"{TEAM}_{number}")(files)
    edited(f"{TEAM}_{number}/{TEAM}_{number}.meta.yaml", f"{TEAM}_1", f"{TEAM}_{number}")(files)
    (fault,) = faults_of(files, clips)
    assert "unexpected folder; expected <last name" in fault.text


def test_two_teams_in_one_package(files, clips):
    renamed(f"{TEAM}_1", "Roe_EXU_task2_1")(files)
    faults = [fault.text for fault in faults_of(files, clips)]
    assert f"different labels in one package: {TEAM}, Roe_EXU_task2" in faults
    assert "the label begins with Roe, but the corresponding author is Doe" in faults


def test_all_faults_of_all_files_in_one_error(files, clips):
    for change in (
        row(2, "id_01_00000001.wav,nan\n"),
        edited(META, "name: Doe", "name:\tDoe"),
        edited(META.replace("_1", "_3"), "averaged_auc: 50.0", "averaged_auc: 0.5"),
        lambda files: files.pop(f"{TEAM}_3/anomaly_score_ToyCar_id_05.csv"),
    ):
        change(files)
    with pytest.raises(common.UserError) as caught:
        package.check(package.Package(files, [], True), clips, read_year(2020), "my.zip", "")
    text = str(caught.value)
    assert "my.zip: 4 faults" in text
    for part in (
        f"{FAN}, line 2: ",
        f"{META}, line 3: not valid YAML",
        f"{META.replace('_1', '_3')}, line 43: ",
        f"{TEAM}_3/: 1 of 4 files missing",
    ):
        assert part in text


def test_an_empty_package(clips):
    (fault,) = faults_of({}, clips)
    assert fault.text.startswith("no submission; expected folders")


# ---- where a package may lie ----


def unpacked(directory, files):
    for name, content in files.items():
        path = directory / "task2" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory / "task2"


def test_folder_its_parent_and_a_single_submission(tmp_path, run, files, clips, caplog):
    task2 = unpacked(tmp_path / "package", files)
    for path in (task2, task2.parent, task2 / f"{TEAM}_1"):
        caplog.clear()
        with caplog.at_level("INFO"):
            script.main(["--check", str(path), "--truth", run[5]])
        assert "no faults" in caplog.text
        assert "technical report" not in caplog.text  # a single submission has none; the others have theirs


def test_folder_with_another_name(tmp_path, files, clips):
    task2 = unpacked(tmp_path, files)
    found = package.read_package(task2.rename(tmp_path / "upload"))
    assert [fault.text for fault in package.check_package(found, clips, read_year(2020))][0] == (
        "the folder is called upload; expected task2"
    )
    assert len(found.files) == len(files)


def test_official_evaluation_clips(tmp_path, caplog):
    clips = read_year(2020).eval_clips()
    assert len(clips) == 18
    assert sum(map(len, clips.values())) == 3 * (515 + 555 + 278) + 426 + 458 + 458 + 216 + 213 + 348 + 220 + 220 + 500
    assert clips["valve", "id_05"][-1] == "id_05_00000499.wav"
    run = write_run(tmp_path, clips=clips)
    authors = meta_file.read_authors(EXAMPLE)
    built = submission.build(config.load_config(run), authors, report=None, clips=clips)
    package.write_zip(tmp_path / "official.zip", built.files)
    with caplog.at_level("INFO"):
        script.main(["--check", str(tmp_path / "official.zip")])
    assert "2 submissions" in caplog.text
    assert "36 score files" in caplog.text
    assert "no technical report yet" in caplog.text


def test_a_demo_package_without_its_truth_is_not_the_official_one(run):
    script.main(run)
    with pytest.raises(common.UserError, match="checked for the official evaluation clips") as caught:
        script.main(["--check", run[-1]])
    assert "15 of 19 files missing" in str(caught.value)
    assert str(caught.value).splitlines()[-1].startswith("If the package is for other clips")


@pytest.mark.parametrize(("folder", "top"), [("up/task2/", "up"), ("Task2/", "Task2"), ("", f"{TEAM}_1")])
def test_task2_in_the_wrong_place_of_a_zip(tmp_path, files, clips, folder, top):
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(folder + name, content)
    findings = package.check_package(package.read_package(tmp_path / "package.zip"), clips, read_year(2020))
    assert f"{top}: not in the folder task2 at the top of the zip" in str(findings[0])


def test_submissions_at_the_top_of_a_zip_are_checked(tmp_path, files, clips):
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        for name, content in files.items():
            if "anomaly_score_fan_id_03" not in name:
                archive.writestr(name, content)
    findings = package.check_package(package.read_package(tmp_path / "package.zip"), clips, read_year(2020))
    assert any("files missing" in str(finding) for finding in findings)
    assert "no submission" not in "".join(map(str, findings))


def test_a_submission_at_the_top_of_a_zip_does_not_take_the_right_ones_place(tmp_path, files, clips):
    package.write_zip(tmp_path / "package.zip", files)
    with zipfile.ZipFile(tmp_path / "package.zip", "a") as archive:
        for name in files:
            archive.writestr(name, "")
    findings = package.check_package(package.read_package(tmp_path / "package.zip"), clips, read_year(2020))
    faults = [str(finding) for finding in findings if finding.is_fault]
    assert faults and all("not in the folder task2" in fault for fault in faults)


def with_member(path, files, name, **attributes):
    """A good package's zip with one more member."""
    package.write_zip(path, files)
    member = zipfile.ZipInfo(name)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"content")
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("../evil.csv", {}, "unsafe name"),
        ("task2/../../evil.csv", {}, "unsafe name"),
        ("/etc/evil.csv", {}, "unsafe name"),
        ("C:/evil.csv", {}, "unsafe name"),
        ("task2\\evil.csv", {}, "backslash"),
        ("task2/link.csv", {"external_attr": 0o120777 << 16}, "symbolic link"),
        (f"task2/{FAN}", {}, "twice in the zip"),
        ("task2/a.csv", {"compress_type": zipfile.ZIP_BZIP2}, "not every program"),
        (f"task2/{300 * 'a'}.csv", {}, "name of more than 255 bytes"),
        (f"task2/{100 * '字'}/a.csv", {}, "name of more than 255 bytes"),
        ("__MACOSX/task2/._a.csv", {}, "not in the folder task2 at the top of the zip (1 file)"),
        ("task2/\x1b[31m.csv", {}, "unexpected file"),
    ],
)
def test_unsafe_member_of_a_zip(tmp_path, files, clips, monkeypatch, name, attributes, message):
    folder = tmp_path / "two" / "below"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    path = with_member(folder / "package.zip", files, name, **attributes)
    before = set(tmp_path.rglob("*"))
    findings = package.check_package(package.read_package(path), clips, read_year(2020))
    (fault,) = [str(finding) for finding in findings if finding.is_fault]
    assert message in fault
    assert "\x1b" not in fault
    assert set(tmp_path.rglob("*")) == before  # nothing is extracted


def test_bounds_of_a_zip(tmp_path, files, clips, monkeypatch):
    path = with_member(tmp_path / "package.zip", files, "task2/notes.txt")
    monkeypatch.setattr(package, "MAX_BYTES_OF_OTHERS", 6)
    faults = package.check_package(package.read_package(path), clips, read_year(2020))
    assert "task2/notes.txt: 7 bytes; not read, as a file of this kind has at most 6" in map(str, faults)
    for bound in ("MAX_TOTAL_BYTES", "MAX_FILES"):
        with monkeypatch.context() as context, pytest.raises(common.UserError, match="no submission package"):
            context.setattr(package, bound, 6)
            package.read_package(path)


def test_a_directory_that_lies_about_sizes(tmp_path, files, clips):
    """Memory is bounded by what is read, also where a member unpacks to far more than its directory entry says."""
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("task2/bomb.csv", bytes(30 * 2**20))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")  # the size that the directory states
    path.write_bytes(content)
    tracemalloc.start()
    try:
        findings = package.read_package(path).findings
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "cannot be read: " in str(findings[0])
    assert peak < 5 * 2**20


def test_a_zip_with_a_broken_member(tmp_path, files, clips):
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"task2/{name}", content)
    path.write_bytes(path.read_bytes().replace(files[FAN], files[FAN].replace(b"wav", b"WAV")))
    faults = [
        str(fault)
        for fault in package.check_package(package.read_package(path), clips, read_year(2020))
        if fault.is_fault
    ]
    assert any(fault.startswith(f"task2/{FAN}: cannot be read: Bad CRC") for fault in faults)


def test_damaged_zips_are_user_errors_or_findings(tmp_path, files, clips):
    package.write_zip(tmp_path / "package.zip", files)
    content = (tmp_path / "package.zip").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for position in rng.integers(len(content), size=20):
            damaged[position] = rng.integers(256)
        (tmp_path / "damaged.zip").write_bytes(damaged)
        try:
            assert package.check_package(package.read_package(tmp_path / "damaged.zip"), clips, read_year(2020))
        except common.UserError as error:
            assert "damaged.zip" in str(error)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is no zip file, and no folder"),
        (lambda path: path.write_text("text"), "is no zip file, and no folder"),
        (lambda path: path.mkdir(), "no submission; expected folders"),
    ],
)
def test_what_is_no_package(tmp_path, make, message):
    make(tmp_path / "package")
    with pytest.raises(common.UserError, match=message):
        script.main(["--check", str(tmp_path / "package")])


def test_a_folder_of_thousands_of_files_is_not_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "MAX_FILES", 3)
    for number in range(4):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(common.UserError, match="more than 3 files"):
        package.read_package(tmp_path)


# ---- command line ----


@pytest.mark.parametrize(
    "arguments",
    [[], ["--check", "a.zip", "--authors", "b.yaml"], ["--check", "a.zip", "--output", "b.zip"]],
)
def test_arguments_that_do_not_go_together(arguments):
    with pytest.raises(SystemExit) as caught:
        script.main(arguments)
    assert caught.value.code == 2


def test_checking_and_building_do_not_load_tensorflow(run):
    code = f"import sys, importlib; importlib.import_module('03_submit').main({run!r})"
    code += "; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'librosa')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
