"""Tests of distribution: two virtual devices, and two processes, against one device."""

import importlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import merge, small_backbone, tiny_settings

import common
from storage.files import write_text
from training.model_records import model_path, read_record
from training.models import load_model

ROOT = Path(common.__file__).parent
BOUND = 2e-4  # of outputs, relative to the largest
TIMEOUT = 1200  # [s] no process of these tests outlives it
COMPILE = {"optimizer": "sgd", "learning_rate": 0.001, "learning_rate_schedule": "cosine", "use_ema": True}
CLASSIFIER = {
    "fit": {
        "epochs": 3,
        "batch_size": 3,  # 4 clips to train on: batches of 3 and 1, which is less than one a replica
        "validation_split": 0.34,
        "compile": {"loss": "categorical_crossentropy"},
    },
}
HEAD = {
    "classes": "machine_id",
    "alpha": 4,
    "mixup": 1.0,
    "mixup_share": 0.5,
    "score": "lof",
    "lof_per": "machine_type",
    "n_neighbors": 2,
    "metric": "euclidean",
}
PICTURES = {"margin": 0.2, "width": 1.0, "weights": None, "input_size": None, "resize": "bilinear"}
DENSE = {"network_per": "all", "networks": 2, "units": [16], "embedding": 8, "noise": 0.1}
DENSE |= {"exchange": 0.5, "shift": 0.5}
SPECTRAL = {"network_per": "all", "networks": 1, "embedding": 8, "filters": [2], "sub_centres": 2}
SPECTRAL |= {"over_time": "max", "l2": 1e-5}
SYSTEMS = {
    # 168 windows, 151 to train on: batches of 47 windows and a last one of 10, in parts of 24 and 23, and of 5.
    "small": {"fit": {"epochs": 12}},
    # 151 is 3 * 50 + 1: of the last batch, the second of two replicas gets nothing.
    "vae": {"model": {"type": "vae", "units": [16, 8], "latent": 4, "kl_weight": 1}, "fit": {"batch_size": 50}},
    "l2_softmax": {
        "model": {"type": "l2_softmax", **HEAD, **PICTURES, "scaling": "standard"},
        "feature": {"frames": 40},  # longer than the clips, which are repeated
        **CLASSIFIER,
    },
    "dense_l2_softmax": {
        "model": {"type": "dense_l2_softmax", **HEAD, **DENSE, "min_steps": 0, "folds": 1},
        **CLASSIFIER,
    },
    "spectral_l2_softmax": {
        "model": {"type": "spectral_l2_softmax", **HEAD, **SPECTRAL, "min_steps": 0, "folds": 1},
        "spectra": {"duration": 0.1, "spectrum": False, "windows": [0.064]},  # of few weights
        **CLASSIFIER,
    },
}
SETTINGS = {
    "fit": {"epochs": 3, "batch_size": 47, "compile": COMPILE},
    "system": list(SYSTEMS),
    "systems": SYSTEMS,
}
PAUSE = "PAUSE_BETWEEN_EPOCHS"  # environment variable of these tests
PROCESS = "import common, test_distribution as here; common.run_main(here.train)"


def train() -> None:
    """``00_train.py`` on the number of virtual devices that is the first argument."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1]))
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get(PAUSE):
            slow_down(patch)
        run_script(sys.argv[2:])


def slow_down(patch: pytest.MonkeyPatch) -> None:
    """Leave time to kill a training between its epochs."""
    from training.fit import TrainingState

    keep = TrainingState._keep
    patch.setattr(TrainingState, "_keep", lambda *arguments: (keep(*arguments), time.sleep(1)))


def run_script(arguments: list) -> None:
    """``00_train.py`` with a small network in MobileNetV2's place."""
    from training import backbone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "mobilenet", small_backbone)
        importlib.import_module("00_train").main([*map(str, arguments), "--machine-type", "fan"])


def start(yaml: Path, devices: int, tf_config: dict | None = None, *, pause: str = "") -> subprocess.Popen:
    """Training of the fan in a process of its own, in the YAML's folder; its output goes to a file there."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": path, "TF_CONFIG": json.dumps(tf_config or {}), PAUSE: pause}
    with (yaml.parent / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(devices), "-d", "--config", str(yaml)],
            cwd=yaml.parent,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def finish(process: subprocess.Popen) -> int:
    """Exit code."""
    try:
        return process.wait(TIMEOUT)
    finally:
        process.kill()


def start_workers(yamls: list[Path], *, pause: str = "") -> list[subprocess.Popen]:
    """One process per YAML; the first is the chief."""
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("localhost", 0))
        hosts = [f"localhost:{one.getsockname()[1]}" for one in (first, second)]
    return [
        start(yaml, 1, {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": i}}, pause=pause)
        for i, yaml in enumerate(yamls)
    ]


def output(yaml: Path) -> str:
    """What the processes have printed."""
    return (yaml.parent / "output.txt").read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory) -> Path:
    """Folder of the training on one device."""
    work = tmp_path_factory.mktemp("alone")
    write_text(work / "settings.yaml", json.dumps(merge(tiny_settings(dataset, work), SETTINGS)))
    run_script(["-d", "--config", work / "settings.yaml"])
    return work


@pytest.fixture(scope="module")
def yaml_of(dataset, tmp_path_factory) -> Callable[..., Path]:
    """Writer of a process's YAML, in a folder of its own."""

    def write(distribution: str) -> Path:
        work = tmp_path_factory.mktemp(distribution)
        settings = merge(tiny_settings(dataset, work), {**SETTINGS, "distribution": distribution})
        write_text(work / "settings.yaml", json.dumps(settings))
        return work / "settings.yaml"

    return write


@pytest.fixture(scope="module")
def mirrored(yaml_of) -> Path:
    """Folder of the training on two devices."""
    yaml = yaml_of("mirrored")
    assert finish(start(yaml, 2)) == 0, output(yaml)
    assert "it trains alone" not in output(yaml)
    return yaml.parent


@pytest.fixture(scope="module")
def workers(yaml_of) -> Path:
    """Folder of the training by two workers, one of which was killed in its middle and started again."""
    yamls = [yaml_of("multi_worker") for _ in range(2)]
    state = yamls[0].parent / "model/dev/small/resume_fan.npz"
    chief, other = start_workers(yamls, pause="yes")
    deadline = time.monotonic() + TIMEOUT
    while not state.exists() and chief.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    other.kill()
    other.wait()
    assert finish(chief) == 1, output(yamls[0])
    assert "another worker has stopped" in output(yamls[0])
    assert state.exists()
    codes = [finish(worker) for worker in start_workers(yamls)]
    assert codes == [0, 0], output(yamls[0]) + output(yamls[1])
    assert "going on after epoch" in output(yamls[0])
    assert not state.exists()
    assert not (yamls[1].parent / "model").exists()  # the chief alone writes
    return yamls[0].parent


def assert_same_model(work: Path, expected: Path, system: str) -> None:
    """The same records and files, and the same outputs within rounding."""
    name = "classifier" if "softmax" in system else "fan"
    folders = [path / "model/dev" / system for path in (work, expected)]
    both = [read_record(folder, name) for folder in folders]
    assert both[0].pop("files").keys() == both[1].pop("files").keys()  # the weights differ within rounding
    thresholds = [record.pop("thresholds")["fan"] for record in both]
    assert thresholds[0] == pytest.approx(thresholds[1], rel=1e-5)
    assert both[0] == both[1]
    models = [load_model(model_path(folder, name)) for folder in folders]
    assert models[0].get_config() == models[1].get_config()  # how it was trained does not show
    inputs = np.random.default_rng(0).normal(-30, 8, (64, *models[0].input_shape[1:])).astype(np.float32)
    outputs = [model(inputs).numpy() for model in models]
    assert np.abs(outputs[1]).max() > 0.1
    np.testing.assert_allclose(*outputs, rtol=0, atol=BOUND * np.abs(outputs[1]).max())


@pytest.mark.parametrize("system", SYSTEMS)
def test_two_devices_train_what_one_does(mirrored, alone, system):
    assert_same_model(mirrored, alone, system)


@pytest.mark.skipif(sys.platform == "win32", reason="workers are tested on Unix alone")
@pytest.mark.parametrize("system", SYSTEMS)
def test_workers_go_on_after_one_was_killed(workers, alone, system):
    assert_same_model(workers, alone, system)


def test_mirrored_on_one_device_trains_as_usual(caplog):
    from training import distribution

    with caplog.at_level("WARNING"):
        used = distribution.strategy("mirrored")
    assert not distribution.is_distributed(used) and distribution.is_chief(used)
    assert "distribution: mirrored: there is one device" in caplog.text
    assert distribution.from_chief(used, b"own") == b"own"


CLUSTER = {"worker": ["a:1", "b:1"]}


@pytest.mark.parametrize(
    "tf_config",
    [
        "",
        "{",
        "[]",
        json.dumps({"cluster": CLUSTER}),
        json.dumps({"cluster": CLUSTER, "task": {"type": "worker", "index": 2}}),
        json.dumps({"cluster": CLUSTER, "task": {"type": "worker", "index": -1}}),
        json.dumps({"cluster": CLUSTER, "task": {"type": "ps", "index": 0}}),
        json.dumps({"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}),
    ],
)
def test_a_tf_config_that_names_no_worker(tf_config):
    from training import distribution

    with pytest.raises(common.UserError, match="TF_CONFIG is .*"):
        distribution.check_tf_config(tf_config)


@pytest.mark.parametrize("task", [{"type": "worker", "index": 1}, {"type": "chief", "index": 0}])
def test_a_tf_config_that_names_a_worker(task):
    from training import distribution

    distribution.check_tf_config(json.dumps({"cluster": {**CLUSTER, "chief": ["c:1"]}, "task": task}))


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_a_model_that_scores(yaml_file, precision):
    import keras

    yaml = yaml_file({"fit": {"precision": precision}})
    try:
        for script in ("00_train", "01_test"):
            importlib.import_module(script).main(["-d", "--config", str(yaml), "--machine-type", "fan"])
    finally:
        keras.config.set_dtype_policy("float32")
    rows = [line for path in yaml.parent.rglob("anomaly_score_fan_*.csv") for line in path.read_text().splitlines()]
    assert len(rows) == 8 and all(np.isfinite(float(row.split(",")[1])) for row in rows)
