"""The synthetic dataset: layout, format, the same bytes each time, resuming, and that nothing else is overwritten."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

import common
import config
import make_demo_data as demo
from audio.clips import check_clips, machine_types_in, parse_clip_name
from challenge.demo_clips import DemoClip, name_of, specimen
from challenge.demo_machines import MACHINES
from years.year import read_year

SHORT = ["--seconds", "0.5", "--clips", "2", "--test-clips", "3"]
GOLDEN = Path(__file__).parents[1] / "golden" / "demo_2020.npz"
DIGESTS = {  # SHA-256 of what release 1.0.0 writes with these options, the wav files' names being a text of lines
    "wav files": "02132dd501ed8bcc0970a8d3b8a4a9c547a7830f6c6767da2370d0ee070d03c9",
    "eval_data_list.csv": "30a3990e7377e189a922a47faabff17ee08c4bce16b986d04209fa4192b93963",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "demo"
    demo.main(["--directory", str(directory), *SHORT])
    return directory


def data_files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*.*") if path.suffix != ".yaml"]  # its folders are the directory's


def contents(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in data_files(directory)}


def times(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in data_files(directory)}


def ids_of(machine_type: str, split: str) -> list[str]:
    return read_year(2020).units(split, machine_type)


def test_the_same_as_ever(dataset):
    """A clip's samples may differ by one step where another processor rounds otherwise; each 80th is compared."""
    paths = sorted(dataset.rglob("*.wav"))
    names = "\n".join(path.relative_to(dataset).as_posix() for path in paths).encode()
    digests = (names, (dataset / "eval_data_list.csv").read_bytes())
    assert [hashlib.sha256(text).hexdigest() for text in digests] == list(DIGESTS.values())
    samples = np.array([soundfile.read(path, dtype="int16")[0][::80] for path in paths])
    assert np.abs(samples - np.load(GOLDEN)["samples"]).max() <= 1
    assert (dataset / "demo_data.txt").read_text().splitlines()[2:] == [
        "seed: 0", "clips: 2", "test_clips: 3", "seconds: 0.5", "all_machine_ids: False"
    ]  # fmt: skip


def test_layout(dataset):
    for split, n_ids in (("dev", 2), ("eval", 1)):
        folder = dataset / f"{split}_data"
        assert machine_types_in(folder, "directory") == sorted(MACHINES)
        for machine_type in MACHINES:
            ids = ids_of(machine_type, split)[:n_ids]
            train, test = (
                check_clips([(machine_type, folder / machine_type / name)], min_samples=1, normal_only=normal)
                for name, normal in (("train", True), ("test", False))
            )
            assert [(clip.machine_id, clip.label) for clip in train] == [(name, 0) for name in ids for _ in range(2)]
            labels = [None] * 6 if split == "eval" else [1] * 3 + [0] * 3
            found = sorted(((clip.machine_id, clip.label) for clip in test), key=str)
            assert found == sorted(((name, label) for name in ids for label in labels), key=str)


def test_official_machine_ids_and_lengths():
    options = demo.Options(seed=0, clips=1, test_clips=1, seconds=None, all_machine_ids=True)
    files, _ = demo.layout(options)
    assert len({(clip.machine_type, clip.machine_id) for _, clip in files}) == 23 + 18
    assert {name: machine.seconds for name, machine in MACHINES.items()} == {
        "fan": 10, "pump": 10, "slider": 10, "valve": 10, "ToyCar": 11, "ToyConveyor": 10
    }  # fmt: skip


def test_ground_truth(dataset):
    lines = (dataset / "eval_data_list.csv").read_bytes().decode("ascii").split("\n")
    assert lines.pop() == ""  # the last line ends with LF, as all others
    heads = [index for index, line in enumerate(lines) if "," not in line]
    assert [lines[index] for index in heads] == ["fan", "pump", "slider", "valve", "ToyCar", "ToyConveyor"]
    labels_in_order = set()
    for start, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        rows = [line.split(",") for line in lines[start + 1 : end]]
        test = dataset / "eval_data" / lines[start] / "test"
        assert [row[0] for row in rows] == sorted(path.name for path in test.iterdir())
        parsed = [parse_clip_name(row[1]) for row in rows]
        assert [clip.label for clip in parsed] == [int(row[2]) for row in rows]
        assert [clip.machine_id for clip in parsed] == [parse_clip_name(row[0]).machine_id for row in rows]
        labels_in_order.add(tuple(row[2] for row in rows))
    assert len(labels_in_order) > 1  # shuffled: the order of the names does not tell the labels


def test_eval_test_clips_are_those_of_the_ground_truth():
    options = demo.Options(seed=3, clips=1, test_clips=4, seconds=0.5, all_machine_ids=False)
    files, texts = demo.layout(options)
    year = read_year(2020)
    hidden = {(clip.machine_type, Path(path).name): name_of(clip, year) for path, clip in files if "eval_data" in path}
    machine_type = ""
    for line in texts["eval_data_list.csv"].splitlines():
        name, *known = line.split(",")
        if known:
            assert hidden[machine_type, name] == known[0]
        else:
            machine_type = name


def test_wav_format(dataset):
    for path in dataset.rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (16_000, 1, "PCM_16", 8_000)


def test_another_seed_gives_other_bytes(dataset, tmp_path):
    demo.main(["--directory", str(tmp_path), *SHORT, "--seed", "1"])
    first, other = contents(dataset), contents(tmp_path)
    assert other.keys() == first.keys()
    assert not any(other[name] == first[name] for name in first if name.endswith(".wav"))


def test_all_clips_differ(dataset):
    clips = [path.read_bytes() for path in dataset.rglob("*.wav")]
    assert len(set(clips)) == len(clips) == 6 * (3 * (2 + 6))


def test_a_clip_depends_on_neither_the_others_nor_their_number(dataset, tmp_path):
    demo.main(["--directory", str(tmp_path), "--seconds", "0.5", "--clips", "1", "--test-clips", "1"])
    name = "dev_data/valve/test/anomaly_id_02_00000000.wav"
    assert (tmp_path / name).read_bytes() == (dataset / name).read_bytes()


def test_complete_dataset_is_kept(dataset, caplog):
    caplog.set_level("INFO")
    before = times(dataset)
    demo.main(["--directory", str(dataset), *SHORT])
    assert times(dataset) == before
    assert "nothing to do" in caplog.text


def test_interrupted_dataset_is_completed_with_the_same_bytes(dataset, tmp_path, monkeypatch):
    written = []

    def interrupt(path, *args, **kwargs):
        if len(written) == 5:
            Path(path).write_bytes(b"RIFF")  # half a clip
            raise KeyboardInterrupt
        written.append(path)
        return write(path, *args, **kwargs)

    write = soundfile.write
    monkeypatch.setattr(soundfile, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo.main(["--directory", str(tmp_path), *SHORT])
    assert len(list(tmp_path.rglob("*.wav"))) == 5
    monkeypatch.undo()
    demo.main(["--directory", str(tmp_path), *SHORT])
    assert contents(tmp_path) == contents(dataset)


def test_other_options_are_refused(dataset):
    before = contents(dataset)
    with pytest.raises(common.UserError, match=r"(?s)other options.*seed: 0.*--directory"):
        demo.main(["--directory", str(dataset), *SHORT, "--seed", "1"])
    assert contents(dataset) == before


@pytest.mark.parametrize("name", ["dev_data/fan/train/a.wav", "eval_data/fan/test/a.wav", "eval_data_list.csv"])
def test_another_dataset_is_not_touched(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.raises(common.UserError, match=f"already holds {name.split('/')[0]}"):
        demo.main(["--directory", str(tmp_path), *SHORT])
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_unwritable_folder(tmp_path):
    (tmp_path / "demo").write_bytes(b"")
    with pytest.raises(common.UserError, match=r"cannot be written .*\n.*--directory"):
        demo.main(["--directory", str(tmp_path / "demo"), *SHORT])


@pytest.mark.parametrize(
    "option", [["--clips", "0"], ["--test-clips", "0"], ["--seconds", "0.1"], ["--seconds", "nan"], ["--seed", "-1"]]
)
def test_impossible_option(option, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        demo.main(["--directory", str(tmp_path), *option])
    assert stop.value.code == 2
    assert f"{option[0]} {option[1]}: expected at least" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def band_statistics(clip: DemoClip) -> np.ndarray:
    waveform = demo.synthesise(clip, seconds=4.0, seed=0).astype(np.float32)
    bands = common.log_mel_energies(waveform, demo.SAMPLE_RATE, n_mels=64, n_fft=1024, hop_length=512, power=2.0)
    return np.concatenate([bands.mean(axis=1), bands.std(axis=1)])


def test_machine_types_and_ids_can_be_told_apart():
    """The clip nearest to a clip is nearly always of its machine type, and mostly of its machine ID."""
    clips = [
        DemoClip(machine_type, machine_id, "train", 0, number)
        for machine_type in MACHINES
        for machine_id in ids_of(machine_type, "dev")[:2]
        for number in range(4)
    ]
    points = np.array([band_statistics(clip) for clip in clips])
    distances = ((points[:, None] - points) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = [clips[index] for index in distances.argmin(axis=1)]
    same_type = np.mean([a.machine_type == b.machine_type for a, b in zip(clips, nearest, strict=True)])
    same_machine = np.mean([a.key[:2] == b.key[:2] for a, b in zip(clips, nearest, strict=True)])
    assert same_type > 0.85
    assert same_machine > 0.75  # about half of them if all machine IDs of a type were the same machine


@pytest.mark.parametrize("machine_type", MACHINES)
def test_every_fault_is_in_the_sound(machine_type):
    """With the same random numbers, each fault changes the machine's sound, and the more the severer it is."""
    machine = MACHINES[machine_type]
    m = specimen(DemoClip(machine_type, ids_of(machine_type, "dev")[0], "test", 1, 0), seed=0)

    def sound(fault: str, severity: float) -> np.ndarray:
        bad = dict.fromkeys(machine.faults, 0.0) | {fault: severity}
        return machine.sound(m, bad, 4 * demo.SAMPLE_RATE, np.random.default_rng(0))

    for fault in machine.faults:
        slight, severe = (np.std(sound(fault, severity) - sound(fault, 0.0)) for severity in (0.4, 1.0))
        assert severe > slight > 0


def test_levels_fit_16_bits():
    for machine_type in MACHINES:
        for number in range(6):
            clip = DemoClip(machine_type, ids_of(machine_type, "dev")[0], "test", 1, number)
            waveform = demo.synthesise(clip, seconds=4.0, seed=0)
            assert np.abs(waveform).max() < 1.0  # never clipped
            assert 0.005 < np.std(waveform) < 0.1


def test_config_is_complete_and_points_into_the_folder(dataset):
    settings = config.load_config(dataset / "baseline.yaml")
    shipped = config.load_config(demo.CONFIG)
    assert settings.dev_directory == dataset / "dev_data"
    assert set(settings.system) == set(shipped.systems)
    for name, system in settings.systems.items():
        assert system.fit.epochs < shipped.systems[name].fit.epochs
