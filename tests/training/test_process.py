"""What is done to the process: tried in processes of its own where it lasts."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training import process

ROOT = Path(process.__file__).parent.parent


def python(code: str) -> subprocess.CompletedProcess:
    """Run ``code`` with this project's modules."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)


def test_keras_comes_lean_and_silent_and_what_was_hidden_can_be_imported_afterwards():
    run = python(
        "import sys\nfrom training import run\n"
        "print(sorted({'sklearn', 'matplotlib', 'PIL', 'scipy'} & set(sys.modules)))\n"
        "import sklearn.neighbors, matplotlib.figure, scipy.stats\n"
        "run.tf.constant(1.0) + 1\n"
    )
    assert run.stdout == "[]\n"
    assert run.stderr == ""


def test_settings_of_keras_for_other_programs_have_no_say(tmp_path, monkeypatch):
    settings = '{"floatx": "float16", "image_data_format": "channels_first", "backend": "jax", "epsilon": 1}'
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(settings)
    for name, value in {"HOME": tmp_path, "KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": 1}.items():
        monkeypatch.setenv(name, str(value))
    run = python(
        "import os\nfrom training import run\n"
        "from keras import config\n"
        "print(config.backend(), config.floatx(), config.image_data_format(), config.epsilon())\n"
        "print(config.max_epochs(), os.environ['KERAS_BACKEND'])\n"
    )
    assert run.stdout == "tensorflow float32 channels_last 1e-07\nNone jax\n"


def test_packages_that_are_loaded_stay():
    import scipy

    with process.lean_import():
        assert sys.modules["scipy"] is scipy


def test_what_raises_within_leaves_nothing_hidden(monkeypatch):
    monkeypatch.setattr(process, "UNUSED", ("colorsys",))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(ImportError, match="colorsys"), process.lean_import():
        importlib.import_module("colorsys")
    importlib.import_module("colorsys")


def test_silence_covers_what_libraries_write_past_python(capfd):
    with process.quiet():
        os.write(2, b"of interest to nobody\n")
    os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"


def test_memory_of_every_gpu_is_taken_as_needed(monkeypatch):
    import tensorflow as tf

    grown = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu, on)))
    process.share_gpus()
    assert grown == [("GPU:0", True), ("GPU:1", True)]

    def in_use(gpu, on):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", in_use)
    process.share_gpus()  # nothing to be done, and no reason to stop


@pytest.mark.parametrize(
    ("gpus", "platform", "wanted"), [(0, "linux", False), (1, "linux", True), (1, "darwin", False)]
)
def test_xla_is_for_gpus_that_it_knows(monkeypatch, gpus, platform, wanted):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * gpus)
    monkeypatch.setattr(sys, "platform", platform)
    assert process.compiles_with_xla() is wanted


def test_other_c_libraries_are_left_alone(monkeypatch):
    called = []
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: called.append(name) or object())  # has no mallopt
    process.keep_freed_memory()
    assert called
    called.clear()
    monkeypatch.setattr(sys, "platform", "win32")
    process.keep_freed_memory()
    assert called == []


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory")
def test_a_training_step_gives_no_memory_back_to_fault_it_in_anew():
    run = python(
        "import sys; sys.path[:0] = ['benchmarks']\n"
        "import benchmark_step as step\n"
        "step.EPOCHS, systems = 4, step.config.load_config(step.ROOT / 'baseline.yaml').systems\n"
        "print(*(step.step_cost(systems[name], {})[1] for name in ('baseline_ae', 'dense_l2_softmax')))\n"
    )
    assert all(float(faults) < 50 for faults in run.stdout.split()), run.stdout
