"""The fault battery: what is spoilt, which command meets it, and what that must end in.

A tiny dataset is trained and scored once; each fault gets a copy of it. A command must either name what is wrong, in
one screen, without a traceback and without touching a file, or end with the scores of the unspoilt run.
"""

import functools
import importlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import merge, tiny_settings
from test_fusion import SYSTEMS

import common
from audio.clips import check_clips
from storage.files import remove_leftovers_once
from training import dataset
from training.fit import TrainingState

ROOT = Path(common.__file__).parent
TRAIN, TEST, DETECT = "00_train", "01_test", "04_detect"
MAX_LINES = 25  # of a message: one screen


# ---- a place with everything in it ----


@dataclass(frozen=True)
class Place:
    """The current folder of the commands: ``dev_data``, ``eval_data``, ``model``, ``result``, ``cache``, the YAML."""

    folder: Path

    def path(self, name: str) -> Path:
        """The only file that a pattern stands for, or a file that is to be made."""
        found = sorted(self.folder.glob(name)) if "*" in name else []
        return found[0] if found else self.folder / name

    def clip(self, number: int = 0, folder: str = "dev_data/fan/train") -> Path:
        """One of the clips of a folder."""
        return sorted((self.folder / folder).glob("*.wav"))[number]

    def change(self, **changes) -> None:
        """Put keys into the YAML."""
        path = self.folder / "settings.yaml"
        settings = merge(yaml.safe_load(path.read_text(encoding="utf-8")), changes)
        path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    def contents(self, pattern: str = "**/*") -> dict[str, bytes]:
        """Path -> content of the files, without the log and the cache."""
        return {
            name: path.read_bytes()
            for path in self.folder.glob(pattern)
            if path.is_file()
            and not (name := path.relative_to(self.folder).as_posix()).startswith(("baseline.log", "cache/"))
        }

    def scores(self) -> dict[str, bytes]:
        """What all commands are about."""
        return self.contents("result/**/*.csv")


def call(script: str, *arguments: str) -> int:
    """Run a script's main as the shell does, but in this process; its exit code."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    main = functools.partial(importlib.import_module(script).main, list(arguments))
    try:
        common.run_main(main)
    except SystemExit as end:
        return end.code or 0
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
    return 0


def command(text: str) -> tuple[str, ...]:
    """A command of the table in full."""
    script, *arguments = text.split()
    return script, *arguments, *(["--config", "settings.yaml"] if script in (TRAIN, TEST, DETECT) else [])


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory) -> Path:
    """Folder in which every system was trained and scored. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    for name in ("dev_data", "eval_data"):
        shutil.copytree(dataset / name, folder / name)
    settings = merge(tiny_settings(Path(), Path()), {"systems": SYSTEMS})
    settings["submissions"] = {1: {"system": "small", "training_data": "eval"}}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    shutil.copy(ROOT / "examples/authors.yaml", folder / "authors.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (
            "00_train -d --system both",
            "01_test -d --system small --system near --system dense --system both",
            "00_train -e",
            "01_test -e",
        ):
            assert call(*command(line)) == 0
        interrupt(patch)
        patch.chdir(tmp_path_factory.mktemp("interrupted"))
        for name in ("dev_data", "settings.yaml"):
            Path(name).symlink_to(folder / name)
        assert call(*command("00_train -d --machine-type fan")) == 130
        shutil.copy("model/dev/small/resume_fan.npz", folder)
    shutil.rmtree(folder / "cache")
    (folder / "baseline.log").unlink()
    return folder


def interrupt(patch: pytest.MonkeyPatch) -> None:
    """Have every training interrupted after its first epoch."""
    from training.fit import TrainingState

    after = TrainingState.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        after(self, epoch, logs)
        raise KeyboardInterrupt

    patch.setattr(TrainingState, "on_epoch_end", on_epoch_end)


@pytest.fixture
def place(trained, tmp_path, monkeypatch) -> Place:
    folder = tmp_path / "place"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    remove_leftovers_once.cache_clear()  # it knows folders by their names in another current folder
    return Place(folder)


# ---- ways to spoil something ----


@dataclass(frozen=True)
class Fault:
    """One line of the table."""

    name: str
    spoil: Callable[[Place], object]
    command: str
    words: tuple[str, ...] = ()  # that must stand on the screen
    code: int = 1  # exit code; 0: the scores must be those of the unspoilt run in the end
    late: bool = False  # spoilt after the clips were checked
    writes: bool = False  # although it fails: some machine types are scored, or the figures of old scores removed


def both(*spoils: Callable[[Place], object]) -> Callable[[Place], None]:
    def spoil(place: Place) -> None:
        for one in spoils:
            one(place)

    return spoil


def flip(name: str, where: float = 0.5, mask: int = 0x40) -> Callable[[Place], None]:
    """Flip a bit of a file."""

    def spoil(place: Place) -> None:
        content = bytearray(place.path(name).read_bytes())
        content[int(where * (len(content) - 1))] ^= mask
        place.path(name).write_bytes(content)

    return spoil


def cut(name: str, share: float = 0.5) -> Callable[[Place], None]:
    """Keep the beginning of a file."""

    def spoil(place: Place) -> None:
        content = place.path(name).read_bytes()
        place.path(name).write_bytes(content[: int(share * len(content))])

    return spoil


def put(name: str, content: bytes | str) -> Callable[[Place], None]:
    """Write a file."""
    content = content.encode() if isinstance(content, str) else content

    def spoil(place: Place) -> None:
        place.path(name).parent.mkdir(parents=True, exist_ok=True)
        place.path(name).write_bytes(content)

    return spoil


def remove(name: str) -> Callable[[Place], None]:
    """Remove a file or a folder."""

    def spoil(place: Place) -> None:
        for path in sorted(place.folder.glob(name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def replace(name: str, other: str) -> Callable[[Place], None]:
    """Put another file in the place of one."""
    return lambda place: shutil.copyfile(place.path(other), place.path(name))


def change(**changes) -> Callable[[Place], None]:
    """Put keys into the YAML."""
    return lambda place: place.change(**changes)


def file_instead_of(folder: str) -> Callable[[Place], None]:
    return both(remove(folder), put(folder, "a file"))


def yaml_text(pattern: str, text: str, name: str = "settings.yaml") -> Callable[[Place], None]:
    """Replace what a pattern matches in a YAML file."""

    def spoil(place: Place) -> None:
        path = place.path(name)
        old = path.read_text(encoding="utf-8")
        new = re.sub(pattern, lambda match: text, old, count=1, flags=re.MULTILINE)
        assert new != old
        path.write_text(new, encoding="utf-8")

    return spoil


def arrays(name: str, change: Callable[[np.ndarray], np.ndarray] | None) -> Callable[[Place], None]:
    """Change the numbers of an npz file, or leave them out."""

    def spoil(place: Place) -> None:
        with np.load(place.path(name)) as stored:
            content = dict(stored)
        largest = max((key for key, array in content.items() if array.dtype.kind == "f"), key=lambda k: content[k].size)
        content[largest] = change and change(content[largest])
        with place.path(name).open("wb") as stream:
            np.savez(stream, **{key: value for key, value in content.items() if value is not None})

    return spoil


def sound(
    number: int = 0,
    *,
    folder: str = "dev_data/fan/train",
    samples: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    rate: int = 16_000,
    keep: float = 1.0,
    **options,
) -> Callable[[Place], None]:
    """Write a clip anew: other samples, another rate, format or subtype; cut off at the end."""

    def spoil(place: Place) -> None:
        path = place.clip(number, folder)
        waveform, _ = soundfile.read(path)
        options.setdefault("format", "WAV")
        soundfile.write(path, samples(waveform), rate, **options)
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])

    return spoil


def one_id(place: Place) -> None:
    """Remove the test clips of a machine ID."""
    for path in (place.folder / "dev_data/fan/test").glob("*_id_02_*"):
        path.unlink()


def foreign_csv(place: Place) -> None:
    source = place.path("result/dev/small/anomaly_score_fan_id_00.csv")
    text = source.read_text().replace("id_00", "id_04")
    source.with_name("anomaly_score_fan_id_04.csv").write_text(text)


def first_score(text: str) -> Callable[[Place], None]:
    return yaml_text(r"(?<=,)[^,\n]+$", text, "result/dev/small/anomaly_score_fan_id_00.csv")


def without_records(place: Place) -> None:
    """Leave the scores as somebody else's."""
    remove("result/dev/small/record_*.yaml")(place)


def lambda_model(place: Place) -> None:
    """A model file that runs code when it is loaded unsafely."""
    path = place.path("model/dev/small/model_fan.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    settings = json.loads(members["config.json"])
    layer = settings["config"]["layers"][1]
    layer["class_name"], layer["module"] = "Lambda", "keras.layers"
    code = ["4wAAAAAAAAAAAAAAAAEAAAADAAAA8wAAAAA=", None, None]
    layer["config"] = {"name": layer["name"], "function": {"class_name": "__lambda__", "config": {"code": code}}}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {"config.json": json.dumps(settings).encode()}).items():
            archive.writestr(name, content)


class Evil:
    """Pickled into a file, it makes another one when it is unpickled."""

    def __reduce__(self):
        """What unpickling calls."""
        return Path.touch, (Path("executed"),)


CLIP_TO_HEAR = "dev_data/fan/test/anomaly_id_00_00000000.wav"
NESTED = "[" * 20_000
CLIP = "fan/train/normal_id_00_00000000.wav"
MODEL, RECORD, RESUME, TRAINING_SCORES = (
    f"model/dev/small/{name}" for name in ("model_fan.keras", "record_fan.yaml", "resume_fan.npz", "scores_fan.npz")
)
EMBEDDINGS, DESCRIPTORS = "model/dev/dense/embeddings_fan.npz", "model/dev/near/descriptors_fan.npz"
SCORES = "result/dev/small/anomaly_score_fan_id_00.csv"


def unfinished(spoil: Callable[[Place], object]) -> Callable[[Place], None]:
    """A training that was interrupted after its first epoch, and then something."""
    return both(remove("model/dev/small/*_fan*"), lambda place: shutil.move("resume_fan.npz", RESUME), spoil)


def cached(spoil: Callable[[Place], object]) -> Callable[[Place], None]:
    """A cache from an earlier run, and then something."""

    def run(place: Place) -> None:
        assert call(*command("01_test -d --machine-type fan")) == 0
        spoil(place)

    return run


def in_cache(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Place], None]:
    """Change the values in the file of the cache, and nothing else of it."""

    def spoil(place: Place) -> None:
        path = place.path("cache/*.npy")
        content = path.read_bytes()
        begin = content.index(b"\n") + 1
        values = np.frombuffer(content[begin : begin + 32 * 40 * 4], "<f4").copy()
        path.write_bytes(content[:begin] + change(values).tobytes() + content[begin + values.nbytes :])

    return spoil


def with_nan(values: np.ndarray) -> np.ndarray:
    values[100:132] = np.nan
    return values


stereo = functools.partial(np.repeat, repeats=2, axis=1)

# ---- the table ----

CLIPS = [
    Fault("empty clip", lambda place: place.clip().write_bytes(b""), "00_train -d", (CLIP, "empty")),
    Fault("text as clip", lambda place: place.clip().write_text("sound"), "00_train -d", (CLIP,)),
    Fault("stereo clip", sound(samples=lambda x: stereo(x[:, np.newaxis])), "00_train -d", (CLIP, "2 channels")),
    Fault("other sample rate", sound(rate=8000), "00_train -d", (CLIP, "8000 Hz")),
    Fault("silent clip", sound(samples=np.zeros_like), "00_train -d", (CLIP, "silent")),
    Fault("dead microphone", sound(samples=lambda x: np.full_like(x, 0.25)), "00_train -d", (CLIP, "constant")),
    Fault("short clip", sound(samples=lambda x: x[:900]), "00_train -d", (CLIP, "900 samples")),
    Fault("not finite", sound(samples=lambda x: x * np.nan, subtype="FLOAT"), "00_train -d", (CLIP, "finite")),
    Fault(
        "huge samples", sound(samples=lambda x: x * 1e30, subtype="FLOAT"), "00_train -d", (CLIP, "expected -1 to 1")
    ),
    *(
        Fault(f"truncated {form}", sound(keep=0.5, format=form, **options), "00_train -d", (CLIP,))
        for form, options in {
            "WAV": {},
            "WAVEX": {},
            "RF64": {},
            "W64": {},
            "AIFF": {},
            "FLAC": {},
            "AU": {},
            "CAF": {},
            "OGG": {},
            "MP3": {},
        }.items()
    ),
    Fault("truncated RIFX", sound(keep=0.5, format="WAV", endian="BIG"), "00_train -d", (CLIP,)),
    Fault(
        "name in other digits",
        lambda place: place.clip().rename(place.clip().with_name("normal_id_٠٠_00000000.wav")),
        "00_train -d",
        ("normal_id_٠٠_00000000.wav", "not of the form"),
    ),
    Fault(
        "anomaly among the training clips",
        lambda place: shutil.copy(place.clip(0, "dev_data/fan/test"), place.folder / "dev_data/fan/train"),
        "00_train -d",
        ("fan/train/anomaly_id_00_00000000.wav", "normal clips only"),
    ),
    Fault("no clips", remove("dev_data/fan/train/*"), "00_train -d", ("fan", "no wav file")),
    Fault("no dataset", remove("dev_data"), "00_train -d", ("dev_directory", "no folder dev_data")),
    Fault("a file as dataset", file_instead_of("dev_data"), "00_train -d", ("dev_directory",)),
    *(
        Fault(f"{what} after the check", spoil, f"{script} -d --machine-type fan", (path,), late=True)
        for script, folder, path in (
            (TRAIN, "dev_data/fan/train", CLIP),
            (TEST, "dev_data/fan/test", "anomaly_id_00_00000000.wav"),
        )
        for what, spoil in {
            "shorter": sound(folder=folder, samples=lambda x: x[:8000]),
            "longer": sound(folder=folder, samples=lambda x: np.tile(x, 2)),
            "truncated": sound(folder=folder, keep=0.6),
            "other rate": sound(folder=folder, rate=8000),
            "stereo": sound(folder=folder, samples=lambda x: stereo(x[:, np.newaxis])),
            "silent": sound(folder=folder, samples=np.zeros_like),
            "gone": lambda place, folder=folder: place.clip(0, folder).unlink(),
            "text": lambda place, folder=folder: place.clip(0, folder).write_text("no sound"),
        }.items()
    ),
]

RESULTS = [
    Fault(
        "other model of one type",
        both(replace(RECORD, "model/dev/small/record_ToyCar.yaml")),
        "01_test -d",
        ("fan",),
        writes=True,
    ),
    Fault(
        "another run's scores beside",
        both(change(seed=1), remove("model"), lambda place: call(*command("00_train -d"))),
        "01_test -d --machine-type fan",
        ("anomaly_score_ToyCar_id_01.csv",),
        writes=True,
    ),
    Fault("edited score", first_score("0.5"), "02_evaluate result/dev/small", ("anomaly_score_fan_id_00.csv",)),
    Fault("missing score file", remove(SCORES), "02_evaluate result/dev/small", ("anomaly_score_fan_id_00.csv",)),
    Fault("foreign score file", foreign_csv, "02_evaluate result/dev/small", ("anomaly_score_fan_id_04.csv",)),
    Fault(
        "foreign score file, scored anew",
        foreign_csv,
        "01_test -d --machine-type ToyCar",
        ("anomaly_score_fan_id_04.csv",),
        writes=True,
    ),
    Fault(
        "damaged result record", flip("result/dev/small/record_fan.yaml", 0.3), "02_evaluate result/dev/small", ("fan",)
    ),
    Fault(
        "nested result record",
        put("result/dev/small/record_fan.yaml", NESTED),
        "02_evaluate result/dev/small",
        ("record_fan",),
    ),
    *(
        Fault(
            f"score {text}",
            both(without_records, first_score(text)),
            "02_evaluate result/dev/small",
            ("anomaly_score_fan_id_00.csv", text),
        )
        for text in ("1_000.5", "１２", "nan", "inf", "", "0x10", "1e999")
    ),
    Fault(
        "scores not in UTF-8",
        both(without_records, put(SCORES, b"\xfe\xfd")),
        "02_evaluate result/dev/small",
        (SCORES, "UTF-8"),
    ),
    Fault(
        "package of edited scores",
        yaml_text(r"(?<=,)[^,\n]+$", "0.5", "result/eval/small/anomaly_score_fan_id_01.csv"),
        "03_submit --authors authors.yaml --config settings.yaml",
        ("anomaly_score_fan_id_01.csv",),
    ),
    Fault(
        "package of another model's scores",
        both(change(seed=1), remove("model/eval"), lambda place: call(*command("00_train -e"))),
        "03_submit --authors authors.yaml --config settings.yaml",
        ("anomaly_score_fan_id_01.csv",),
    ),
]

MODELS = [
    *(
        Fault(f"{what} model", spoil, "01_test -d", ("model_fan.keras",))
        for what, spoil in {
            "empty": put(MODEL, b""),
            "no": remove(MODEL),
            "garbage": put(MODEL, b"garbage"),
            "truncated": cut(MODEL),
            "flipped": flip(MODEL),
            "another type's": replace(MODEL, "model/dev/small/model_ToyCar.keras"),
            "executable": lambda_model,
        }.items()
    ),
    Fault("empty model, trained again", put(MODEL, b""), "00_train -d", ("model_fan.keras",), code=0),
    Fault(
        "another type's model, trained again",
        replace(MODEL, "model/dev/small/model_ToyCar.keras"),
        "00_train -d",
        code=0,
    ),
    Fault(
        "autoencoder in the classifier's place",
        replace("model/dev/dense/model_classifier.keras", MODEL),
        "01_test -d --system dense",
        ("model_classifier.keras",),
    ),
    *(
        Fault(f"record {what}", spoil, "01_test -d", ("record_fan.yaml",))
        for what, spoil in {
            "without sample rate": yaml_text(r"^sample_rate:.*\n", "", RECORD),
            "with a word as number": yaml_text(r"^clips: .*", "clips: many", RECORD),
            "empty": put(RECORD, ""),
            "a list": put(RECORD, "[1, 2]"),
            "nested": put(RECORD, NESTED),
            "executable": put(RECORD, "!!python/object/apply:os.mkdir [executed]"),
            "truncated": cut(RECORD),
            "not text": put(RECORD, b"\xff\x00\xfe"),
        }.items()
    ),
    Fault("no record", remove(RECORD), "01_test -d", ("model_fan.keras", "00_train.py -d")),
    *(
        Fault(f"{name} {what}", spoil, f"01_test -d --system {system}", (Path(path).name,))
        for name, system, path, other in (
            ("embeddings", "dense", EMBEDDINGS, "model/dev/dense/embeddings_ToyCar.npz"),
            ("descriptors", "near", DESCRIPTORS, "model/dev/near/descriptors_ToyCar.npz"),
            ("descriptors of a member", "both", DESCRIPTORS, "model/dev/near/descriptors_ToyCar.npz"),
            ("training scores", "both", TRAINING_SCORES, "model/dev/small/scores_ToyCar.npz"),
        )
        for what, spoil in {
            "of zeros": arrays(path, np.zeros_like),
            "with NaN": arrays(path, lambda x: x * np.nan),
            "as text": arrays(path, lambda x: x.astype(str)),
            "in another dimension": arrays(path, lambda x: x[np.newaxis]),
            "of another width": arrays(path, lambda x: x[..., :-1]),
            "left out": arrays(path, None),
            "pickled": arrays(path, lambda x: np.array([Evil()], object)),
            "empty": put(path, b""),
            "missing": remove(path),
            "another type's": replace(path, other),
        }.items()
        if name == "embeddings" or what in ("of zeros", "missing", "another type's")  # all are read by one function
    ),
    *(
        Fault(f"resume {what}", unfinished(spoil), "00_train -d --machine-type fan", words, code=0)
        for what, spoil, words in (
            ("as it was written", lambda place: None, ("going on after epoch 1 of 2",)),
            ("truncated", cut(RESUME), ("resume_fan.npz",)),
            ("empty", put(RESUME, b""), ("resume_fan.npz",)),
            ("garbage", put(RESUME, b"garbage"), ("resume_fan.npz",)),
            ("flipped at its start", flip(RESUME, 0.01), ("resume_fan.npz",)),
            ("flipped", flip(RESUME), ("resume_fan.npz",)),
            ("flipped at its end", flip(RESUME, 0.95), ("resume_fan.npz",)),
        )
    ),
]

CACHE = [
    Fault(f"cache {what}", cached(spoil), "01_test -d --machine-type fan", ("cache", "damaged"), code=0)
    for what, spoil in {
        "flipped": flip("cache/*.npy"),
        "flipped at its end": flip("cache/*.npy", 1.0),
        "with NaN": in_cache(with_nan),
        "with other values": in_cache(lambda values: values + 1),
        "truncated": cut("cache/*.npy"),
        "empty": lambda place: place.path("cache/*.npy").write_bytes(b""),
        "with a damaged header": flip("cache/*.npy", 0.001),
    }.items()
] + [Fault("a file as cache", file_instead_of("cache"), "01_test -d", ("cached",), code=0)]

DETECTION = [
    Fault("no recording", lambda place: None, "04_detect none.wav --machine-type fan", ("none.wav",)),
    Fault(
        "text as recording", put("a.wav", "sound"), "04_detect a.wav --machine-type fan --machine-id id_00", ("a.wav",)
    ),
    Fault("folder without recordings", put("a/b.txt", ""), "04_detect a --machine-type fan", ("a: no wav file",)),
    Fault(
        "recording of no known machine",
        lambda place: shutil.copy(place.clip(), "a.wav"),
        "04_detect a.wav --machine-type fan",
        ("a.wav", "--machine-id"),
    ),
    Fault("unknown machine type", lambda place: None, "04_detect dev_data/fan/test --machine-type valve", ("valve",)),
    Fault(
        "recording at another rate",
        sound(folder="dev_data/fan/test", rate=8000),
        "04_detect dev_data/fan/test --machine-type fan",
        ("anomaly_id_00_00000000.wav", "8000"),
    ),
    *(
        Fault(f"{what}, detecting", spoil, f"04_detect {CLIP_TO_HEAR} --machine-type fan", (name,))
        for what, spoil, name in (
            ("flipped model", flip(MODEL), "model_fan.keras"),
            ("no training scores", remove(TRAINING_SCORES), "scores_fan.npz"),
            ("flipped record", flip(RECORD), "record_fan.yaml"),
        )
    ),
    Fault(
        "verdicts that cannot be written",
        put("file", "a file"),
        f"04_detect {CLIP_TO_HEAR} --machine-type fan --output file/x.csv",
        ("file",),
    ),
]

SETTINGS = [
    Fault("no YAML", remove("settings.yaml"), "00_train -d", ("settings.yaml",)),
    Fault("nested YAML", put("settings.yaml", NESTED), "00_train -d", ("settings.yaml",)),
    Fault("nested in a key", yaml_text("^seed: .*", f"seed: {NESTED}"), "00_train -d", ("settings.yaml",)),
    Fault(
        "executable YAML",
        yaml_text("^seed: .*", "seed: !!python/object/apply:os.mkdir [executed]"),
        "00_train -d",
        ("seed",),
    ),
    Fault("YAML not in UTF-8", put("settings.yaml", b"\xff\xfe"), "00_train -d", ("settings.yaml",)),
    Fault("huge batch size", change(fit={"batch_size": 99999999999999999999}), "00_train -d", ("fit.batch_size",)),
    Fault("large batch size", change(fit={"batch_size": 3_000_000_000}), "00_train -d", ("fit.batch_size",)),
    Fault("huge n_fft", change(feature={"n_fft": 10**10}), "00_train -d", ("feature.n_fft",)),
    Fault("odd n_fft", change(feature={"n_fft": 1023}), "00_train -d", ("feature.n_fft", "multiple of 2")),
    Fault("tiny power", change(feature={"power": 1e-9}), "00_train -d", ("feature.power",)),
    Fault(
        "NUL in a path",
        yaml_text("^model_directory: .*", 'model_directory: "a\\0b"'),
        "00_train -d",
        ("model_directory",),
    ),
    Fault(
        "key twice",
        yaml_text("^seed: 0", "seed: 0\nseed: 1"),
        "00_train -d",
        ("key seed stands there twice", "    seed: 1"),
    ),
    Fault("result file elsewhere", change(result_file=".."), "01_test -d", ("result_file",)),
    Fault("result file with folders", change(result_file="a/b.csv"), "01_test -d", ("result_file",)),
    Fault("unknown key", change(sede=1), "00_train -d", ("sede", "seed")),
    *(
        Fault(f"{what} as {folder} folder", spoil, f"{script} -d", (f"{folder}",))
        for folder, script in (("model", TRAIN), ("result", TEST))
        for what, spoil in {
            "a file": file_instead_of(folder),
            "no possible": both(put("file", "a file"), change(**{f"{folder}_directory": f"file/{folder}"})),
        }.items()
    ),
]

PLACES = [
    Fault(
        "a folder as log",
        lambda place: (place.folder / "baseline.log").mkdir(),
        "01_test -d",
        ("baseline.log",),
        code=0,
    ),
    Fault(
        "log in a folder that is not there",
        lambda place: (place.folder / "baseline.log").symlink_to("nowhere/baseline.log"),
        "01_test -d",
        ("baseline.log",),
        code=0,
    ),
]

FAULTS = DETECTION + PLACES + CLIPS + RESULTS + MODELS + CACHE + SETTINGS


def test_names_of_faults_differ():
    assert len({(fault.name, fault.command) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.usefixtures("without_xla")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.name}, {fault.command.split()[0]}")
def test_fault(fault, place, trained, capfd, monkeypatch):
    if fault.late:
        spoil_after_the_check(fault, place, monkeypatch)
    else:
        fault.spoil(place)
    before = place.contents()
    epochs = count_epochs(monkeypatch)
    capfd.readouterr()
    code = call(*command(fault.command))
    screen = "".join(capfd.readouterr())
    assert code == fault.code, screen
    message = screen[screen.index("ERROR - ") :] if code else screen
    assert all(word in message for word in fault.words), screen
    assert "Traceback" not in screen
    assert not Path("executed").exists()
    assert not [path for path in place.folder.rglob(".*")], "half-written files"
    if code:
        assert epochs == [], "found after the training"
        assert fault not in SETTINGS or not list(place.folder.glob("cache/*.npy")), "found after the clips were read"
        if not (fault.late or fault.writes):
            assert place.contents() == before
        assert message.count("\n") <= MAX_LINES, message
        assert len(message) < 4000, message
        return
    if "train" in fault.command:
        assert call(*command("01_test -d")) == 0
    assert place.scores() == Place(trained).scores()


def count_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that are trained from now on."""
    epochs: list[int] = []
    after = TrainingState.on_epoch_end
    monkeypatch.setattr(
        TrainingState,
        "on_epoch_end",
        lambda self, epoch, logs=None: epochs.append(epoch) or after(self, epoch, logs),
    )
    return epochs


def spoil_after_the_check(fault: Fault, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the fault come when the clips have been checked and nothing has been trained or scored."""

    def then_spoilt(*arguments, **options):
        clips = check_clips(*arguments, **options)
        fault.spoil(place)
        return clips

    if fault.command.startswith(TRAIN):
        remove("model/dev/small")(place)
    monkeypatch.setattr(dataset, "check_clips", then_spoilt)


# ---- what needs more than one line ----


@pytest.mark.usefixtures("without_xla")
def test_scores_of_an_id_that_is_gone_go(place):
    one_id(place)
    assert call(*command("02_evaluate result/dev/small")) == 0  # it looks at the scores alone
    assert call(*command("01_test -d")) == 0
    left = {f"result/dev/small/anomaly_score_{name}.csv" for name in ("ToyCar_id_01", "ToyCar_id_02", "fan_id_00")}
    assert set(place.contents("result/dev/small/anomaly*")) == left
    assert "\n02," not in place.path("result/dev/small/result.csv").read_text().partition("fan")[2]


def test_the_largest_score_there_is(place, capfd):
    both(without_records, first_score("1.7e308"))(place)
    assert call(*command("02_evaluate result/dev/small --report r.html")) == 0
    assert "RuntimeWarning" not in capfd.readouterr().err
    assert (place.folder / "r.html").stat().st_size > 10_000


def test_an_edited_result_file_is_not_sent_in(place):
    packages = []
    for text in (None, "0.99"):
        if text:
            yaml_text(r"(?<=,)[^,\n]+$", text, "result/dev/small/result.csv")(place)
        assert call(*command("03_submit --authors authors.yaml --config settings.yaml --output p.zip")) == 0
        with zipfile.ZipFile("p.zip") as archive:
            packages.append({name: archive.read(name) for name in archive.namelist()})
    assert packages[0] == packages[1]
    (meta,) = (content for name, content in packages[0].items() if name.endswith("meta.yaml"))
    assert yaml.safe_load(meta)["results"]["development_dataset"]["ToyCar"]["averaged_auc"] == 37.5


@pytest.mark.usefixtures("without_xla")
def test_embeddings_of_an_earlier_network_go(place, capfd):
    assert call(*command("00_train -d --system dense --machine-type fan")) == 0
    assert not (place.folder / "model/dev/dense/embeddings_ToyCar.npz").exists()
    assert call(*command("01_test -d --system dense")) == 1
    assert "ToyCar" in capfd.readouterr().err


@pytest.mark.usefixtures("without_xla")
def test_a_changed_sample_trains_anew(place, capfd):
    clip = place.clip()
    stat, content = clip.stat(), bytearray(clip.read_bytes())
    content[20_000] ^= 1  # far behind the header
    clip.write_bytes(content)
    os.utime(clip, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert call(*command("00_train -d --machine-type fan")) == 0
    assert "trained anew, since the model there differs: fingerprint" in capfd.readouterr().err


@pytest.mark.usefixtures("without_xla")
def test_half_written_files_of_a_killed_run_go(place):
    code = (
        "import os, pathlib, sys\n"
        "from storage.files import write_whole\n"
        "whole = write_whole(pathlib.Path(sys.argv[1]))\n"
        "whole.__enter__().write_bytes(b'half')\n"
        "os._exit(9)"
    )
    for name in (MODEL, SCORES):
        subprocess.run([sys.executable, "-c", code, name], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    half = list(place.folder.rglob(".*"))
    assert len(half) == 2
    for path in half:
        os.utime(path, (0, 0))
    remove(RECORD)(place)
    assert call(*command("00_train -d --machine-type fan")) == 0
    assert call(*command("01_test -d --machine-type fan")) == 0
    assert list(place.folder.rglob(".*")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no bound on what a process writes")
@pytest.mark.parametrize(
    ("line", "n_bytes", "words"),
    [
        ("00_train -d", 15_000, "model/dev/small/"),
        ("01_test -d", 300, "result/dev/small/record_ToyCar.yaml"),
        ("02_evaluate result/dev/small", 50, "result/dev/small/result.csv"),
        ("02_evaluate result/dev/small --report r.html", 2000, "r_figures"),
        ("03_submit --authors authors.yaml --config settings.yaml --output p.zip", 500, "p.zip"),
    ],
)
def test_full_disk(place, capsys, line, n_bytes, words):
    import resource

    if line.startswith(TRAIN):
        remove("model")(place)
    before = set(place.contents())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        code = call(*command(line))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = capsys.readouterr().err
    assert code == 1, message
    assert words in message[message.index("ERROR - ") :], message
    left = set(place.contents()) - before
    assert left <= {"result/dev/small/decision_result.csv"} if "--report" in line else left == set()
    assert list(place.folder.rglob(".*")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8(place, capfd):
    os.rename(os.fsencode(place.clip()), os.fsencode(place.clip().parent) + b"/normal_id_00_\xff.wav")  # noqa: PTH104
    assert call(*command("00_train -d")) == 1
    assert "normal_id_00_" in capfd.readouterr().err
