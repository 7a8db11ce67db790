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

import common

ROOT = Path(common.__file__).parent
BOUND = 1e-5  # of scores, relative
TIMEOUT = 240  # [s] no process of these tests outlives it
# 168 windows, 151 to train on: batches of 47 windows and a last one of 10, in parts of 24 and 23, and of 5.
COMPILE = {"optimizer": "sgd", "learning_rate": 0.001, "learning_rate_schedule": "cosine", "use_ema": True}
FIT = {"epochs": 12, "batch_size": 47, "compile": COMPILE}
# 151 is 3 * 50 + 1: of the last batch, the second of two replicas gets nothing.
VAE = {"model": {"type": "vae", "units": [16], "latent": 3, "kl_weight": 1}, "fit": {"batch_size": 50}}
TWO_DEVICES = """
import importlib, sys
import common, training
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
common.run_main(lambda: importlib.import_module("00_train").main(sys.argv[1:]))
"""


def start(command: list, yaml: Path, tf_config: dict | None = None) -> subprocess.Popen:
    """Training of the fan in a process of its own, in the YAML's folder; its output goes to a file there."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps(tf_config or {})}
    arguments = ["-d", "--config", yaml, "--machine-type", "fan"]
    with (yaml.parent / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *map(str, command + arguments)],
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


def start_workers(yamls: list[Path]) -> list[subprocess.Popen]:
    """One process per YAML; the first is the chief."""
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("localhost", 0))
        hosts = [f"localhost:{one.getsockname()[1]}" for one in (first, second)]
    return [
        start([ROOT / "00_train.py"], yaml, {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": i}})
        for i, yaml in enumerate(yamls)
    ]


def output(yaml: Path) -> str:
    """What the processes have printed."""
    return (yaml.parent / "output.txt").read_text(encoding="utf-8", errors="replace")


def model_folder(yaml: Path, system: str = "small") -> Path:
    return yaml.parent / "model" / "dev" / system


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory) -> Path:
    """YAML file of the training on one device."""
    import keras
    from conftest import merge, tiny_settings

    keras.utils.clear_session()  # layer names count from the start again, as in the other processes

    work = tmp_path_factory.mktemp("alone")
    both = {"fit": FIT, "systems": {"vae": VAE}, "system": ["small", "vae"]}
    settings = merge(tiny_settings(dataset, work), both)
    common.write_text(work / "settings.yaml", json.dumps(settings))
    importlib.import_module("00_train").main(["-d", "--config", str(work / "settings.yaml"), "--machine-type", "fan"])
    return work / "settings.yaml"


@pytest.fixture
def yaml_of(yaml_file, tmp_path) -> Callable[..., Path]:
    """Writer of a process's YAML, in a folder of its own."""

    def write(distribution: str, name: str = "run", system: tuple[str, ...] = ("small",)) -> Path:
        (tmp_path / name).mkdir()
        changes = {"distribution": distribution, "fit": FIT, "systems": {"vae": VAE}, "system": list(system)}
        return yaml_file(changes, work=tmp_path / name)

    return write


@pytest.fixture(scope="module")
def log_mels(dataset) -> list[np.ndarray]:
    """Log-mel energies of the test clips."""
    paths = sorted((dataset / "dev_data" / "fan" / "test").glob("*.wav"))
    settings = {"n_mels": 32, "n_fft": 1024, "hop_length": 512, "power": 2.0}
    return [common.log_mel_energies(*common.load_wav(path), **settings).T for path in paths]


def assert_same_model(folder: Path, expected: Path, log_mels: list[np.ndarray]) -> None:
    """The same records, and the same scores within rounding."""
    import keras_model
    import records
    import training

    both = [records.read_record(path, "fan") for path in (folder, expected)]
    assert both[0].pop("files").keys() == both[1].pop("files").keys()  # the weights differ within rounding
    assert both[0] == both[1]
    models = [training.load_model(records.model_path(path, "fan")) for path in (folder, expected)]
    assert models[0].get_config() == models[1].get_config()  # how it was trained does not show
    scores = [keras_model.reconstruction_errors(model, log_mels, frames=5) for model in models]
    np.testing.assert_allclose(*scores, rtol=BOUND)


def test_two_devices_train_what_one_does(yaml_of, alone, log_mels):
    yaml = yaml_of("mirrored", system=("small", "vae"))
    assert finish(start(["-c", TWO_DEVICES], yaml)) == 0, output(yaml)
    assert "it trains alone" not in output(yaml)
    for system in ("small", "vae"):
        assert_same_model(model_folder(yaml, system), model_folder(alone, system), log_mels)


@pytest.mark.skipif(sys.platform == "win32", reason="workers are tested on Unix alone")
def test_workers_go_on_after_one_was_killed(yaml_of, alone, log_mels):
    yamls = [yaml_of("multi_worker", name) for name in ("chief", "other")]
    state = model_folder(yamls[0]) / "resume_fan.npz"
    chief, other = start_workers(yamls)
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
    assert_same_model(model_folder(yamls[0]), model_folder(alone), log_mels)
    assert not state.exists()
    assert not model_folder(yamls[1]).exists()  # the chief alone writes


def test_mirrored_on_one_device_trains_as_usual(caplog):
    import distribution

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
    import distribution

    with pytest.raises(common.UserError, match="TF_CONFIG is .*"):
        distribution.check_tf_config(tf_config)


@pytest.mark.parametrize("task", [{"type": "worker", "index": 1}, {"type": "chief", "index": 0}])
def test_a_tf_config_that_names_a_worker(task):
    import distribution

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
