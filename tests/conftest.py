"""What several test files share: a tiny synthetic dataset, and YAML files made from the shipped one."""

import csv
import gc
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
import yaml

import config
import make_demo_data as demo
from audio.clips import Clip, by_machine_type, check_clips
from audio.settings import Feature
from evaluation.score_files import SCORES, read_folder, scores_text
from storage.files import write_text
from training import process
from years.year import DEFAULT, read_year

SHIPPED = Path(config.__file__).with_name("baseline.yaml")
MACHINE_TYPES = ("ToyCar", "fan")
OPTIONS = demo.Options(seed=0, clips=3, test_clips=2, seconds=1.0, all_machine_ids=False)


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> None:
    """Keep what earlier tests have left out of the collections that each training asks for: a fifth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """Folder with dev_data and eval_data of two machine types; two machine IDs in dev, one in eval. Not to be changed.

    Per ID there are 3 training clips, and 2 normal and 2 anomalous test clips, of 1 s each.
    """
    directory = tmp_path_factory.mktemp("dataset")
    write_dataset(directory)
    return directory


def write_dataset(directory: Path) -> None:
    """Write the clips of the ``dataset``."""
    for name, clip in demo.layout(OPTIONS)[0]:
        if clip.machine_type in MACHINE_TYPES:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            waveform = demo.synthesise(clip, seconds=OPTIONS.seconds, seed=OPTIONS.seed)
            soundfile.write(directory / name, waveform, demo.SAMPLE_RATE, subtype="PCM_16")


def write_scores(path: Path, names: Sequence[str], scores: Sequence[float]) -> None:
    """Write a score CSV."""
    write_text(path, scores_text(names, scores))


def read_scores(path: Path, *, any_names: bool = False) -> dict[str, float]:
    """Clip name -> score of a score CSV, as the scripts read it."""
    year = read_year(DEFAULT)
    clips = read_folder(path.parent, any_names=any_names, unlabelled=True)[year.parse_file(path.name, SCORES)]
    return dict(zip(clips.names, clips.scores.tolist(), strict=True))


def merge(block: dict, changes: dict) -> dict:
    """``block`` with ``changes`` put into it, key by key."""
    merged = dict(block)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = merge(merged[name], value) if both else value
    return merged


def tiny_settings(dataset: Path, work: Path) -> dict:
    """YAML content: one small autoencoder, the dataset, all output below ``work``."""
    settings = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    settings |= {f"{split}_directory": str(dataset / f"{split}_data") for split in ("dev", "eval")}
    settings |= {f"{kind}_directory": str(work / kind) for kind in ("model", "result", "cache")}
    settings |= {
        "system": "small",
        "systems": {"small": {"model": {"type": "dense_ae", "units": [16, 4, 16]}}},
        "submissions": {},
    }
    return merge(settings, {"feature": {"n_mels": 32}, "fit": {"epochs": 2, "batch_size": 64, "verbose": 0}})


@pytest.fixture
def yaml_file(dataset, tmp_path) -> Callable[..., Path]:
    """Writer of YAML files: the tiny settings, or those in ``work``, with the given changes merged in."""

    def write(changes: dict | None = None, *, work: Path = tmp_path) -> Path:
        path = work / "settings.yaml"
        write_text(path, yaml.safe_dump(merge(tiny_settings(dataset, work), changes or {}), sort_keys=False))
        return path

    return write


SYSTEMS = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["systems"]
NEAREST = {"lof_per": "machine_id", "n_neighbors": 1, "n_nearest": 1}
FIT = {"epochs": 2, "batch_size": 4, "validation_split": 0}
WINDOWS = {"classes": "machine_id", "width": 0.35, "input_size": None, "score": "knn"}
DENSE = {
    "networks": 2,
    "units": [16, 8],
    "embedding": 4,
    "min_steps": 1,
    "folds": 3,
    "network_per": "all",
    "score": "knn",
}
MARGIN = {"margin": 0.3, "sub_centres": 0}
FAMILIES = {  # a small system of each model family
    "small": {"model": {"type": "dense_ae", "units": [16, 4, 16]}},
    "windows": merge(
        SYSTEMS["l2_softmax"],
        {"model": WINDOWS | NEAREST, "feature": {"n_mels": 32, "frames": 32}, "fit": FIT},
    ),
    "dense": merge(SYSTEMS["dense_l2_softmax"], {"model": DENSE | NEAREST, "feature": {"n_mels": 32}, "fit": FIT}),
    "spectral": merge(
        SYSTEMS["spectral_l2_softmax"],
        {
            "model": {"embedding": 4, "filters": [2], "min_steps": 1, "folds": 1, "score": "knn", **MARGIN} | NEAREST,
            "spectra": {"duration": 0.25, "windows": [0.064]},
            "fit": FIT,
        },
    ),
    "near": merge(SYSTEMS["neighbors"], {"model": NEAREST}),
    "all": {"model": {"type": "fusion", "members": {"near": 1, "dense": 0.5, "small": 0.5}}},
}


@pytest.fixture(scope="session")
def families(dataset, tmp_path_factory) -> Path:
    """Folder in which FAMILIES were trained and scored on the development data. Not to be changed.

    With a small network in MobileNetV2's place, and without XLA: what takes most of the time is made ready alike.
    """
    from training import backbone

    work = tmp_path_factory.mktemp("families")
    path = work / "settings.yaml"
    settings = tiny_settings(dataset, work) | {"systems": FAMILIES, "system": list(FAMILIES)}
    path.write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "mobilenet", small_backbone)
        patch.setattr(process, "compiles_with_xla", lambda: False)
        for script in ("00_train", "01_test"):
            importlib.import_module(script).main(["-d", "--config", str(path)])
    return work


def official_scores(work: Path, system: str = "small") -> dict[str, float]:
    """Clip name -> score that 01_test.py has written for fan."""
    paths = (work / "result" / "dev" / system).glob("anomaly_score_fan_*.csv")
    return {name: float(score) for path in paths for name, score in csv.reader(path.read_text().splitlines())}


@pytest.fixture
def train_clips(dataset) -> dict[str, list[Clip]]:
    """Machine type -> its checked development training clips."""
    folders = [(machine_type, dataset / "dev_data" / machine_type / "train") for machine_type in MACHINE_TYPES]
    return by_machine_type(check_clips(folders, min_samples=1, normal_only=True))


@pytest.fixture
def official_feature() -> SimpleNamespace:
    """The official values of the ``feature`` block."""
    return Feature(n_mels=128, frames=5, n_fft=1024, hop_length=512, power=2.0)


def reconstruction_errors(model, log_mels, *, frames, hop=1, batch=1024, aggregate="mean"):
    """Scores of the clips, shape (n_clips,)."""
    from training.vector_errors import aggregated, vector_errors

    return aggregated(*vector_errors(model, log_mels, frames=frames, hop=hop, batch=batch), aggregate)


@pytest.fixture
def without_xla(monkeypatch) -> None:
    """Do not compile the training step: for a network of this size that takes longer than the training."""
    monkeypatch.setattr(process, "compiles_with_xla", lambda: False)


def small_backbone(model, size):
    """Network of MobileNetV2's inputs and kinds of layers, (n, *size, 3) -> (n, 8)."""
    from keras import Model, layers

    from training import backbone
    from training.metric_layers import FusedBatchNormalization

    inputs = layers.Input((*size, 3))
    h = layers.Conv2D(8, 3, strides=2, use_bias=False)(inputs)
    h = layers.Activation("relu")(FusedBatchNormalization(momentum=backbone.BATCH_NORM_MOMENTUM)(h))
    return Model(inputs, layers.GlobalAveragePooling2D()(h))


@pytest.fixture
def without_mobilenet(monkeypatch) -> None:
    """A small network in MobileNetV2's place, which takes most of a minute to be made ready for training."""
    from training import backbone

    monkeypatch.setattr(backbone, "mobilenet", small_backbone)
