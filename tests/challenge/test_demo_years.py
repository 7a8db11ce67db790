"""The synthetic dataset of years with sections and domains: names, counts, truth, attributes, sound, settings."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

import common
import config
import make_demo_data as demo
from audio.clips import Clip, check_clips
from challenge.demo_clips import CONDITIONS, DemoClip, layout, specimen, synthesise
from challenge.demo_machines import MACHINES, machine_of
from years import year as years
from years.year import read_year

TRAIN, TARGET, TEST = 16, 2, 2  # clips of a section: normal source and target ones; test ones of each domain and label
SHORT = ["--seconds", "0.5", "--clips", str(TRAIN), "--test-clips", str(TEST)]
MADE_UP = 1999
YEARS = [2021, 2023, MADE_UP]  # domains apart; one section; two channels, several sections


@pytest.fixture(scope="module", autouse=True)
def made_up_year(tmp_path_factory):
    """A year beside the others: 2024's names, two channels, sections of another name, machine types nobody heard of."""
    folder = tmp_path_factory.mktemp("years")
    for path in years.FOLDER.glob("*.yaml"):
        (folder / path.name).write_bytes(path.read_bytes())
    block = yaml.safe_load((folder / "2024.yaml").read_text(encoding="utf-8"))
    block["names"]["id"] = r"part_\d\d"
    block["test_clips"] = {
        "dev": {"Loom": {"part_03": 200, "part_07": 200}, "Organ": {"part_00": 200}},
        "eval": {"3DLathe": {"part_01": 200}},
    }
    block |= {"first_number": {"3DLathe": 5}, "channel": 1}
    (folder / f"{MADE_UP}.yaml").write_text(yaml.safe_dump(block), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(years, "FOLDER", folder)
        read_year.cache_clear()
        yield
    read_year.cache_clear()


@pytest.fixture(scope="module", params=YEARS)
def dataset(request, tmp_path_factory) -> tuple[years.Year, Path]:
    directory = tmp_path_factory.mktemp(f"demo_{request.param}")
    demo.main(["--year", str(request.param), "--directory", str(directory), *SHORT])
    return read_year(request.param), directory


def chosen(year: years.Year, split: str) -> list[str]:
    return list(year.test_clips[split])[:3]


def sections(year: years.Year, split: str, machine_type: str) -> list[str]:
    return sorted({year.id_of(unit) for unit in year.units(split, machine_type)})


def apart(year: years.Year) -> bool:
    return "{domain}" in year.unit


def checked(year: years.Year, directory: Path, split: str, machine_type: str, *, train: bool) -> list[Clip]:
    """The clips of a machine type, as the scripts take them."""
    folders = [(machine_type, directory / f"{split}_data" / machine_type / name) for name in year.test_folders]
    if train:
        folders = [(machine_type, directory / f"{split}_data" / machine_type / "train")]
    return check_clips(folders, min_samples=8000, normal_only=train, year=year, channel=year.channel)


@pytest.mark.parametrize("split", ["dev", "eval"])
def test_training_clips(dataset, split):
    year, directory = dataset
    assert sorted(path.name for path in (directory / f"{split}_data").iterdir()) == sorted(chosen(year, split))
    for machine_type in chosen(year, split):
        clips = checked(year, directory, split, machine_type, train=True)
        assert Counter((clip.machine_id, clip.label, clip.domain) for clip in clips) == {
            (section, 0, domain): count
            for section in sections(year, split, machine_type)
            for domain, count in (("source", TRAIN), ("target", TARGET))
        }
        for domain in (0, 1):
            told = {clip.attributes for clip in clips if clip.domain == year.domains[domain]}
            assert told == {"_".join(attributes_of(condition)) for condition in CONDITIONS[domain]}


def attributes_of(condition) -> list[str]:
    return [text for pair in condition.attributes.items() for text in pair]


def test_attributes_hold_every_character_that_a_reader_may_stumble_on():
    texts = ["_".join(attributes_of(condition)) for domain in CONDITIONS for condition in domain]
    assert len(set(texts)) == len(texts) == 4
    assert all(set("_-.") <= set(text) for text in texts)


def test_development_test_clips(dataset):
    year, directory = dataset
    for machine_type in chosen(year, "dev"):
        clips = checked(year, directory, "dev", machine_type, train=False)
        assert Counter((clip.machine_id, clip.label, clip.domain) for clip in clips) == {
            (section, label, domain): TEST
            for section in sections(year, "dev", machine_type)
            for label in (0, 1)
            for domain in year.domains
        }
        assert {clip.attributes is None for clip in clips} == {apart(year)}
        if apart(year):
            assert all(clip.path.parent.name == f"{clip.domain}_test" for clip in clips)


def test_evaluation_names_and_truth(dataset):
    year, directory = dataset
    orders = set()
    for machine_type in chosen(year, "eval"):
        clips = checked(year, directory, "eval", machine_type, train=False)
        found = {clip.name: clip for clip in clips}
        units = year.units("eval", machine_type)
        per_unit = 2 * TEST if apart(year) else 4 * TEST
        first = year.first_number.get(machine_type, 0)
        numbers = range(first, first + per_unit)
        assert sorted(found) == sorted(year.eval_clip.format(unit=unit, number=k) for unit in units for k in numbers)
        for unit in units:
            name = year.file_name("ground_truth", machine_type, unit)
            labels = rows(directory / "ground_truth" / "ground_truth_data" / name)
            assert list(labels) == [year.eval_clip.format(unit=unit, number=k) for k in numbers]
            assert Counter(labels.values()) == {"0": per_unit // 2, "1": per_unit // 2}
            domains = directory / "ground_truth" / "ground_truth_domain" / name
            assert domains.is_file() != apart(year)
            if not apart(year):
                assert list(rows(domains)) == list(labels)
                assert Counter(zip(labels.values(), rows(domains).values(), strict=True)) == {
                    (label, domain): TEST for label in "01" for domain in "01"
                }
            orders.add(tuple(labels.values()))
        assert {clip.label for clip in clips} == {None}
        assert {clip.attributes for clip in clips} == {None}
        assert {clip.domain for clip in clips} == (set(year.domains) if apart(year) else {None})
    assert len(orders) > 1 or len(units) == 1  # shuffled: the order of the names does not tell the labels


def rows(path: Path) -> dict[str, str]:
    text = path.read_bytes().decode("ascii")
    assert text.endswith("\n") and "\r" not in text
    return dict(line.split(",") for line in text.splitlines())


def test_truth_is_that_of_the_sounds(dataset):
    year, directory = dataset
    files, texts = layout(demo.Options(0, TRAIN, TEST, 0.5, False, year.year))
    for path, clip in files:
        split, machine_type, folder, name = path.split("/")
        told = year.parse(name)
        if split == "eval_data" and folder != "train":
            unit = year.unit_of(clip.machine_id, year.domains[clip.domain])
            file = year.file_name("ground_truth", machine_type, unit)
            assert f"{name},{clip.label}\n" in texts[f"ground_truth/ground_truth_data/{file}"]
            if not apart(year):
                assert f"{name},{clip.domain}\n" in texts[f"ground_truth/ground_truth_domain/{file}"]
        else:
            assert told[:3] == (clip.machine_id, clip.label, year.domains[clip.domain])
    assert all((directory / path).read_bytes().decode() == text for path, text in texts.items())


def test_lists_of_attributes(dataset):
    year, directory = dataset
    if apart(year):
        assert not list(directory.rglob("attributes_*.csv"))
        return
    for split in ("dev", "eval"):
        for machine_type in chosen(year, split):
            for section in sections(year, split, machine_type):
                folder = directory / f"{split}_data" / machine_type
                table = list(csv.reader((folder / f"attributes_{section[-2:]}.csv").open(encoding="utf-8")))
                assert table[0] == ["file_name", "d1p", "d1v", "d2p", "d2v", "d3p", "d3v"]
                of_section = [path for path in folder.glob("*/*.wav") if path.name.startswith(section)]
                told = [path for path in of_section if split == "dev" or path.parent.name == "train"]
                assert sorted(row[0] for row in table[1:]) == sorted(
                    path.relative_to(directory / f"{split}_data").as_posix() for path in told
                )
                assert all(row[0].endswith(f"_{'_'.join(row[1:])}.wav") for row in table[1:])


def test_wav_format(dataset):
    year, directory = dataset
    for path in directory.rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.subtype, info.frames) == (16_000, "PCM_16", 8_000)
        assert info.channels == (1 if year.channel is None else 2)


def test_all_clips_differ(dataset):
    clips = [path.read_bytes() for path in dataset[1].rglob("*.wav")]
    assert len(set(clips)) == len(clips)


def test_config(dataset):
    year, directory = dataset
    settings = config.load_config(directory / "baseline.yaml")
    assert (settings.year, settings.dev_directory) == (year.year, directory / "dev_data")
    assert settings.eval_directory == directory / "eval_data"
    assert set(settings.systems["fusion"].model.members) | {"fusion"} == set(settings.system)
    assert "dense_l2_softmax_type" not in settings.system  # which one section per machine type is not enough for


def test_a_year_s_folder_is_not_another_year_s(dataset):
    year, directory = dataset
    with pytest.raises(common.UserError, match=rf"(?s)other options.*year: {year.year}"):
        demo.main(["--year", "2020", "--directory", str(directory), *SHORT])


def test_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--seconds", "0.5", "--clips", "1", "--test-clips", "1"]
    demo.main(["--year", "2025", *short])
    assert [path.name for path in tmp_path.iterdir()] == ["demo_2025"]


def test_all_machine_types():
    year = read_year(2023)
    files, _ = layout(demo.Options(0, 1, 1, None, False, year=2023, all_machine_types=True))
    assert {clip.machine_type for _, clip in files} == {*year.test_clips["dev"], *year.test_clips["eval"]}


def test_hidden_attributes_stand_in_the_list_alone(tmp_path):
    options = ["--year", "2024", "--directory", str(tmp_path), "--seconds", "0.5", "--clips", "8", "--test-clips", "2"]
    demo.main([*options, "--hide-attributes", "fan"])
    for machine_type in ("fan", "gearbox"):
        folder = tmp_path / "dev_data" / machine_type
        hidden = {path.stem.endswith("_noAttribute") for path in folder.glob("*/*.wav")}
        assert hidden == {machine_type == "fan"}
    assert "hide_attributes: ('fan',)" in (tmp_path / "demo_data.txt").read_text()
    year = read_year(2024)
    clips = [clip for train in (True, False) for clip in checked(year, tmp_path, "dev", "fan", train=train)]
    assert {clip.attributes for clip in clips} == {
        "_".join(attributes_of(condition)) for domain in CONDITIONS for condition in domain
    }


@pytest.mark.parametrize(("year", "words"), [("2023", "bandsaw, bearing, fan"), ("2020", "none")])
def test_only_attributes_that_there_are_can_be_hidden(tmp_path, year, words):
    with pytest.raises(common.UserError, match=f"--hide-attributes Loom: .* are, by the other options, {words}"):
        demo.main(["--year", year, "--directory", str(tmp_path), *SHORT, "--hide-attributes", "Loom"])
    assert not list(tmp_path.iterdir())


def test_an_unknown_year(capsys):
    with pytest.raises(SystemExit):
        demo.main(["--year", "1998"])
    assert "--year" in capsys.readouterr().err


# ---- sounds ----


@pytest.mark.parametrize(
    ("machine_type", "like"),
    [("ToyTrain", "ToyCar"), ("gearboxEmu", "ToyConveyor"), ("valveEmu", "valve"), ("3DPrinter", "slider"),
     ("ToyCarEmu", "ToyCar"), ("Vacuum", "fan"), ("pump", "pump")],
)  # fmt: skip
def test_similar_machines_sound_alike(machine_type, like):
    assert machine_of(machine_type) is MACHINES[like]


def test_any_machine_type_has_a_sound():
    assert {id(machine_of(f"Engine{k}")) for k in range(60)} == {id(machine) for machine in MACHINES.values()}
    assert machine_of("Loom") is machine_of("Loom")


def spectrum(clip: DemoClip) -> np.ndarray:
    waveform = synthesise(clip, seconds=4.0, seed=0).astype(np.float32)
    bands = common.log_mel_energies(waveform, 16_000, n_mels=32, n_fft=1024, hop_length=512, power=2.0)
    return bands.mean(axis=1)


@pytest.mark.parametrize("machine_type", ["fan", "pump", "slider", "valve", "ToyCar", "gearbox"])
def test_domains_can_be_heard_apart(machine_type):
    """Every clip is nearer to the mean of its own domain, which it is no part of, than to that of the other."""
    clips = [[DemoClip(machine_type, "section_00", "train", 0, k, domain) for k in range(8)] for domain in (0, 1)]
    points = np.array([[spectrum(clip) for clip in of_domain] for of_domain in clips])
    for domain in (0, 1):
        for number, point in enumerate(points[domain]):
            own = np.delete(points[domain], number, axis=0).mean(axis=0)
            other = points[1 - domain].mean(axis=0)
            assert np.linalg.norm(point - own) < np.linalg.norm(point - other)


def test_the_machine_itself_is_run_otherwise():
    """Not only the noise around it: the same motor is slower."""
    source, target = (DemoClip("ToyCar", "section_00", "train", 0, 0, domain) for domain in (0, 1))
    hz = [specimen(clip, seed=0).motor_hz for clip in (source, target)]
    assert hz[1] == pytest.approx(0.7 * hz[0])


@pytest.mark.parametrize("channel", [0, 1])
def test_the_far_microphone_hears_the_noise_and_little_of_the_machine(channel):
    clip = DemoClip("valve", "section_00", "test", 1, 0, 0)  # its clicks stand out of the noise
    stereo = synthesise(clip, seconds=4.0, seed=0, channel=channel)
    near, far = stereo[:, channel], stereo[:, 1 - channel]
    assert np.array_equal(near, synthesise(clip, seconds=4.0, seed=0))
    assert np.std(far) == pytest.approx(0.01, rel=0.3)  # about as much noise
    assert np.abs(far).max() < 0.5 * np.abs(near).max()
    assert 0.2 < np.corrcoef(near, far)[0, 1] < 0.9
