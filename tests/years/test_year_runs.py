"""Whole years through the scripts, on synthetic clips: one of each rule, one with two channels, one that is made up."""

import importlib
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import FAMILIES, merge, tiny_settings

import common
import make_demo_data
from evaluation import result_record, score_files
from years import year as years

train, test, evaluate, submit, detect, export = map(
    importlib.import_module, ("00_train", "01_test", "02_evaluate", "03_submit", "04_detect", "05_export")
)
AUTHORS = {
    "institute": "EXU",
    "authors": [
        {
            "lastname": "Doe",
            "firstname": "Jane",
            "email": "jane@example.org",
            "corresponding": True,
            "affiliation": {"institution": "Example University", "location": "Springfield"},
        }
    ],
}
SYSTEMS = {
    "small": merge(FAMILIES["small"], {"model": {"aggregate": "mahalanobis"}}),
    "near": FAMILIES["near"],
    "dense": merge(FAMILIES["dense"], {"model": {"classes": "attributes", "networks": 1}}),
}
MADE_UP = """
names:
  id: 'rig-\\d'
  id_form: rig-<N>
  pattern: >-
    (?P<id>{id})(?:_(?P<domain>source|target)_(?:train|test)_(?P<label>normal|anomaly))?_\\d{4}(?:_(?P<attributes>.*))?\\.wav
  form: rig-<N>_[<source|target>_<train|test>_<normal|anomaly>_]<NNNN>[_<attributes>].wav
unit: '{id}'
files: '{machine_type}.{unit}.csv'
decisions: true
rule: domains_mixed
domains: [source, target]
test_folders: [heard]
eval_clip: '{unit}_{number:04d}.wav'
test_clips:
  dev: {lathe: {rig-1: [4, 4], rig-2: [4, 4]}}
  eval: {mill: {rig-3: 8}}
meta:
  description: [input_sampling_rate, machine_learning_method]
  results: {AUC source: of_source, AUC target: of_target, pAUC: of_both}
archives: {dev: [], eval: []}
"""


def make(year: int, folder: Path, changes: dict | None = None, n_types: int = 2) -> Path:
    """Synthetic data of a year below ``folder``, of a few machine types; the YAML for it."""
    data = folder / "data"
    options = ["--clips", "8", "--test-clips", "2", "--seconds", "1"]
    make_demo_data.main(["--year", str(year), "--directory", str(data), *options])
    for split in ("dev", "eval"):
        for place in sorted((data / f"{split}_data").iterdir())[n_types:]:
            shutil.rmtree(place)
    path = folder / "settings.yaml"
    settings = tiny_settings(data, folder) | {"year": year, "systems": SYSTEMS, "system": list(SYSTEMS)}
    path.write_text(yaml.safe_dump(merge(settings, changes or {})))
    return path


def change(path: Path, **keys) -> None:
    """Give keys of a YAML other values."""
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | keys))


def truth_of(folder: Path) -> Path:
    """The evaluator's folders, of the machine types that are there."""
    types = [path.name for path in (folder / "data" / "eval_data").iterdir()]
    for path in (folder / "data" / "ground_truth").rglob("*.csv"):
        if not any(path.name.startswith(f"ground_truth_{name}") for name in types):
            path.unlink()
    return folder / "data" / "ground_truth"


@pytest.mark.usefixtures("without_xla")
@pytest.mark.parametrize(
    ("year", "n_types", "n_files", "columns", "systems"),
    [
        (2021, 1, 6, "AUC,pAUC", ["near"]),
        (2026, 2, 2, "AUC source,AUC target,pAUC", list(SYSTEMS)),  # make demo-years runs the others
    ],
)
def test_a_year_from_end_to_end(tmp_path, monkeypatch, capsys, year, n_types, n_files, columns, systems):
    monkeypatch.chdir(tmp_path)
    path = make(year, tmp_path, {"submissions": {1: {"system": "near", "training_data": "eval"}}}, n_types)
    config = ["--config", str(path)]
    for split, wanted in {"-d": systems, "-e": ["near"]}.items():
        options = [split, *config, *(f"--system={name}" for name in wanted)]
        train.main(options)
        test.main(options)
    assert "official score: " in capsys.readouterr().out
    challenge = years.read_year(year)
    for system in systems:
        folder = tmp_path / "result" / "dev" / system
        files = score_files.score_files(folder, challenge)
        assert len(files) == n_files
        assert len(score_files.files_of(folder, score_files.DECISIONS, challenge)) == n_files
        lines = (folder / "result.csv").read_text().splitlines()
        assert lines[1] == f"section,{columns}" and lines[-2].startswith("harmonic mean,")
    record = result_record.read(next((tmp_path / "result" / "dev" / "near").glob("record_*.yaml")))
    assert (record.year, len(record.thresholds)) == (year, 3 if year < 2023 else 1)  # one for both domains
    evaluate.main([str(tmp_path / "result" / "eval"), *config, "--truth", str(truth_of(tmp_path))])
    rank = ["--rank"] * (len(systems) > 1)
    evaluate.main([str(tmp_path / "result" / "dev"), *config, *rank, "--report", str(tmp_path / "report.html")])
    assert "target" in (tmp_path / "report.html").read_text()
    (tmp_path / "authors.yaml").write_text(yaml.safe_dump(AUTHORS))
    submit.main(["--authors", "authors.yaml", *config])
    submit.main(["--check", "Doe_EXU_task2.zip", "--truth", str(tmp_path / "data" / "eval_data")])
    recording = next((tmp_path / "data" / "dev_data").glob("*/*test/*.wav"))
    machine_type = recording.parent.parent.name
    detect.main([str(recording), "--machine-type", machine_type, *config, "--system", "near"])
    assert "section_0" in capsys.readouterr().out


def test_a_year_that_is_made_up_needs_nothing_but_its_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(years, "FOLDER", tmp_path / "years")
    monkeypatch.setattr(years, "read_year", years.read_year)
    years.FOLDER.mkdir()
    for path in Path(years.__file__).parent.glob("2*.yaml"):
        shutil.copy(path, years.FOLDER)
    (years.FOLDER / "2031.yaml").write_text(MADE_UP)
    path = make(2031, tmp_path)
    config = ["--config", str(path), "--system", "near"]
    train.main(["-d", *config])
    test.main(["-d", *config])
    folder = tmp_path / "result" / "dev" / "near"
    assert [p.name for p in sorted(folder.glob("anomaly*"))] == [f"anomaly_score_lathe.rig-{n}.csv" for n in (1, 2)]
    train.main(["-e", *config])
    test.main(["-e", *config])
    evaluate.main([str(tmp_path / "result/eval/near"), *config[:2], "--truth", str(truth_of(tmp_path))])
    assert "official score: " in capsys.readouterr().out


def test_a_year_that_does_not_fit_the_folders(tmp_path):
    path = make(2023, tmp_path, {"year": 2020})
    with pytest.raises(common.UserError, match=r"it is one of 2022 to 2025, and the YAML has year: 2020"):
        train.main(["-d", "--config", str(path)])
    change(path, year=2026)
    with pytest.raises(common.UserError, match=r"section_00 are no dev clips of 2026; they are of 2022 to 2025"):
        train.main(["-d", "--config", str(path)])
    change(path, year=2030)
    with pytest.raises(common.UserError, match="year: 2030; expected one of 2020, 2021"):
        train.main(["-d", "--config", str(path)])


def test_machine_types_and_test_folders_of_another_year(tmp_path):
    path = make(2021, tmp_path, {"year": 2022}, n_types=3)
    with pytest.raises(common.UserError, match=r"pump: section_00, .* are no dev clips of 2022; they are of 2021"):
        train.main(["-d", "--config", str(path)])
    change(path, year=2023)
    with pytest.raises(common.UserError, match=r"fan: .* are no dev clips of 2023; they are of 2021 or 2022"):
        train.main(["-d", "--config", str(path)])
    shutil.rmtree(tmp_path / "data" / "dev_data" / "pump")
    change(path, year=2022)
    with pytest.raises(common.UserError, match="fan/test; there are in the test folders of 2021, and the YAML"):
        test.main(["-d", "--config", str(path)])


def test_models_of_both_sets_in_a_year_with_other_machine_types(tmp_path, capsys):
    changes = {"systems": {"dense": {"model": {"classes": "machine_id"}}}}  # one network over all types
    path = make(2023, tmp_path, changes, n_types=1)
    (of_dev,), (of_eval,) = ([p.name for p in (tmp_path / f"data/{s}_data").iterdir()] for s in ("dev", "eval"))
    options = ["--training-data", "dev+eval", "--config", str(path), "--system", "near", "--system", "dense"]
    train.main(["-e", *options])
    folder = tmp_path / "model" / "dev+eval"
    assert {p.name for p in folder.glob("near/record*")} == {f"record_{n}.yaml" for n in (of_dev, of_eval)}
    record = yaml.safe_load((folder / "dense" / "record_classifier.yaml").read_text())
    assert record["classes"] == sorted(f"{name}/section_00" for name in (of_dev, of_eval))
    for split, name, scored_by in (("-d", of_dev, "dev_by_dev+eval"), ("-e", of_eval, "dev+eval")):
        test.main([split, *options])
        results = tmp_path / "result" / scored_by
        for system in ("near", "dense"):
            assert [p.name for p in results.glob(f"{system}/record*")] == [f"record_{name}.yaml"]
    assert "official score: " in capsys.readouterr().out
    export.main([*options[:4], "--system", "near", "--format", "saved_model", "--output", str(tmp_path / "export")])
    there = (tmp_path / "export/dev+eval/saved_model").glob("*.json")
    assert {p.name for p in there} == {f"near_{name}.json" for name in (of_dev, of_eval)}


def test_sections_of_both_sets(tmp_path, caplog):
    path = make(2021, tmp_path, n_types=1)
    train.main(["-d", "--training-data", "dev+eval", "--config", str(path), "--system", "near"])
    assert "no training clips" not in caplog.text
    (record,) = (tmp_path / "model/dev+eval/near").glob("record_*.yaml")
    assert len(next(iter(yaml.safe_load(record.read_text())["thresholds"].values()))) == 6


def test_sections_and_domains_without_clips_are_told(tmp_path, caplog):
    path = make(2022, tmp_path)
    dev = tmp_path / "data" / "dev_data"
    first = sorted(dev.iterdir())[0].name
    for clip in dev.glob(f"{first}/train/section_01_*"):
        clip.unlink()
    for clip in dev.glob(f"{first}/train/section_02_target_*"):
        clip.unlink()
    train.main(["-d", "--config", str(path), "--system", "near", "--machine-type", first])
    assert f"{first}: no training clips of section_01, which the year 2022 has" in caplog.text
    assert f"{first}: no training clips of the domain target in section_02" in caplog.text


def test_the_year_s_channel_is_heard_and_others_may_be(tmp_path):
    from config import load_config

    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(tiny_settings(tmp_path, tmp_path) | {"year": 2026}))
    assert load_config(path).channel == 0
    change(path, channel=1)
    assert load_config(path).channel == 1


def test_attributes_beside_the_clips_are_classes(tmp_path):
    from config import load_config
    from training import classes, dataset

    path = make(2023, tmp_path)
    settings = load_config(path)
    clips = dataset.train_clips(settings, "dev", settings.select(None), None)
    machine_type, own = next(iter(clips.items()))
    expected = sorted(classes.class_names(settings.systems["dense"].model, own))
    assert len(set(expected)) > 2
    for clip in own:  # hidden in the names, as in later years
        clip.path.rename(clip.path.with_name(re.sub(r"(_\d{4})_.*", r"\1_noAttribute.wav", clip.path.name)))
    csv = next((tmp_path / "data" / "dev_data" / machine_type).glob("attributes_00.csv"))
    rows = [
        re.sub(r"(train/\S*?_\d{4})_[^,]*\.wav", r"\1_noAttribute.wav", row) for row in csv.read_text().splitlines()
    ]
    csv.write_text("\n".join(rows) + "\n")
    again = dataset.train_clips(settings, "dev", settings.select(None), [machine_type])[machine_type]
    assert sorted(classes.class_names(settings.systems["dense"].model, again)) == expected


def test_supplemental_clips_are_trained_on_where_a_key_says_so(tmp_path, caplog):
    from config import load_config
    from training import dataset

    path = make(2025, tmp_path)
    for folder in (tmp_path / "data" / "dev_data").iterdir():
        (folder / "supplemental").mkdir()
        source = next(folder.glob("train/*.wav"))
        for name in ("section_00_machine_0001_.wav", "section_00_noise_0001_.wav"):
            shutil.copy(source, folder / "supplemental" / name)
    counts = []
    for wanted in (False, True):
        change(path, supplemental=wanted)
        settings = load_config(path)
        clips = dataset.train_clips(settings, "dev", settings.select(["near"]), None)
        counts.append([len(own) for own in clips.values()])
    assert [after - before for before, after in zip(*counts, strict=True)] == [1, 1]
