"""05_export.py: what is exported scores as before, or is refused; the JSON says all; the example agrees."""

import csv
import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import yaml
from test_detect import official_scores

import common
import config
import keras_model
from audio.clips import Clip, parse_clip_name
from audio.settings import Feature
from deployment import export, runtimes
from detectors import outliers
from detectors.facts import plain_numbers
from training import embedding, metric_layers
from training.families import Part

EXAMPLE = Path(common.__file__).parent / "examples" / "score_onnx.py"
script = importlib.import_module("05_export")


def need(name: str) -> None:
    """Skip where a format cannot be written here."""
    try:
        runtimes.require_packages(name)
    except common.UserError as error:
        pytest.skip(str(error))


def run(work: Path, folder: Path, system: str, name: str, *options) -> Path:
    """Export a system for fan; the folder of its files."""
    need(name)
    settings = ["--config", work / "settings.yaml", "--system", system, "--format", name, "--output", folder]
    script.main([*map(str, [*settings, "--machine-type", "fan", *options])])
    return folder / "dev" / (name + ("_int8" if "--int8" in options else ""))


@pytest.fixture(scope="module")
def onnx(families, tmp_path_factory) -> Path:
    """Folder with what is exported of two systems, one of which has the others as members. Not to be changed."""
    folder = tmp_path_factory.mktemp("onnx")
    return [run(families, folder, system, "onnx") for system in ("windows", "all")][0]


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


# ---- formats and families ----


@pytest.mark.parametrize("name", runtimes.FORMATS)
def test_each_format_scores_as_before(families, tmp_path, capsys, name):
    folder = run(families, tmp_path, "small", name)
    file_name = f"small_fan{runtimes.FORMATS[name].suffix}"
    assert {path.name for path in folder.iterdir()} - {"small_fan.bin"} == {file_name, "small_fan.json"}
    model = read(folder, "small_fan")["model"]
    assert (model["file"], model["format"], model["int8"], model["input_shape"]) == (file_name, name, False, [160])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"files in {folder}:", f"small_fan: {file_name}, small_fan.json"]
    assert "8 clips scored again: largest difference" in lines[2]
    assert lines[2].endswith("AUC 0.5000 -> 0.5000, 0 verdicts changed")


@pytest.mark.parametrize("system", ["small", "windows", "dense"])
def test_the_network_has_one_input_and_one_output(onnx, system):
    import onnxruntime

    model = read(onnx, f"{system}_fan")["model"]
    session = onnxruntime.InferenceSession(onnx / model["file"])
    assert [source.name for source in session.get_inputs()] == ["input"]
    assert [result.name for result in session.get_outputs()] == [model["output"]["name"]]
    assert session.get_inputs()[0].shape[1:] == model["input_shape"]


def test_a_fusion_is_exported_by_members(families, onnx):
    files = {"windows.onnx", "dense.onnx", "small_fan.onnx"}
    files |= {f"{name}_fan.json" for name in ("windows", "dense", "small", "near", "all")}
    assert {path.name for path in onnx.iterdir()} == files
    assert read(onnx, "near_fan")["model"] is None
    assert [len(part["machine_ids"]["id_00"]["vectors"]) for part in read(onnx, "near_fan")["score"]["parts"]] == [
        3,
        3,
    ]
    fused = read(onnx, "all_fan")
    of_members = {name: official_scores(families, name) for name in ("dense", "small", "near")}
    for clip_name, score in official_scores(families, "all").items():
        total = 0.0
        for name, member in fused["score"]["members"].items():
            log = member["log"][parse_clip_name(clip_name)[0]]
            value = np.log(max(of_members[name][clip_name], log["least"]))
            total += member["weight"] * (value - log["mean"]) / log["deviation"]
        assert total == pytest.approx(score)


@pytest.fixture
def test_clips(dataset) -> list[Path]:
    return sorted((dataset / "dev_data" / "fan" / "test").iterdir())


def test_a_classifier_is_written_once_for_all_machine_types(families, tmp_path, monkeypatch):
    need("saved_model")
    written = []
    original = export.write_network
    monkeypatch.setattr(export, "write_network", lambda part, *rest: written.append(part.name) or original(part, *rest))
    settings = ["--config", families / "settings.yaml", "--system", "dense", "--format", "saved_model"]
    script.main([*map(str, [*settings, "--output", tmp_path])])
    assert written == ["dense_ToyCar"]
    folder = tmp_path / "dev" / "saved_model"
    assert {path.name for path in folder.iterdir()} == {"dense", "dense_ToyCar.json", "dense_fan.json"}
    assert {read(folder, f"dense_{name}")["model"]["file"] for name in ("ToyCar", "fan")} == {"dense"}


def test_again_takes_the_place_of_what_is_there(families, tmp_path):
    first = run(families, tmp_path, "small", "saved_model")
    before = {path.relative_to(first) for path in first.rglob("*")}
    (first / "small_fan" / "stray").touch()
    assert {path.relative_to(first) for path in run(families, tmp_path, "small", "saved_model").rglob("*")} == before


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["vae", "conv_ae", "windows"])
def test_networks_for_inference(kind, precision):
    feature = Feature(n_mels=32, frames=32, n_fft=1024, hop_length=512, power=2.0)
    keras.config.set_dtype_policy(precision)
    try:
        if kind == "windows":
            network = normalised_network()
        elif kind == "vae":
            network = keras_model.build(config.VariationalAutoencoder((8,), 2, 1.0), feature)
        else:
            network = keras_model.build(config.ConvAutoencoder((2, 2, 2, 2, 2), 4, 8), feature)
        inputs = np.random.default_rng(0).normal(size=(5, *network.input_shape[1:])).astype(np.float32)
        before = np.asarray(network(inputs, training=False), np.float32)
        copy = export.for_inference(network)
        for called in (copy(inputs), copy(inputs, training=False)):
            error = np.abs(np.asarray(called) - before).max() / np.abs(before).max()
            assert error <= (1e-6 if precision == "float32" else 0.05)
        assert {variable.dtype for variable in copy.weights} <= {"float32", "int64"}
        assert not any(isinstance(layer, keras.layers.Normalization) for layer in export._layers(copy))
    finally:
        keras.config.set_dtype_policy("float32")


def normalised_network() -> keras.Model:
    """What is hard about the classifiers: constants, a model within the model, layers that differ in training."""
    inner_inputs = keras.Input((4, 4, 3))
    h = keras.layers.Conv2D(4, 3)(inner_inputs)
    h = metric_layers.FusedBatchNormalization()(h)
    inner = keras.Model(inner_inputs, keras.layers.Flatten()(h))
    inputs = keras.Input((4, 4, 1))
    mean, variance = np.full((4, 4, 1), 2.0).tolist(), np.full((4, 4, 1), 9.0).tolist()
    h = keras.layers.Normalization((1, 2, 3), mean, variance, dtype="float32")(inputs)
    h = keras.layers.Concatenate()([h, h, h])
    return keras.Model(inputs, metric_layers.L2Constraint(16.0, False)(inner(h)))


# ---- what the JSON says ----


def test_the_json_says_how_to_score(families, onnx):
    system = read(onnx, "small_fan")
    settings = config.load_config(families / "settings.yaml")
    feature = settings.systems["small"].feature
    assert {name: system["feature"][name] for name in dataclasses.asdict(feature)} == dataclasses.asdict(feature)
    filters = np.zeros((32, 513), np.float32)
    for row, band in zip(filters, system["feature"]["mel_filters"], strict=True):
        row[band["first_bin"] : band["first_bin"] + len(band["weights"])] = band["weights"]
    np.testing.assert_array_equal(filters, common.mel_filters(16_000, 1024, 32).toarray())
    assert (system["sample_rate"], system["n_samples"], system["channel"]) == (16_000, 16_000, None)
    assert set(system["thresholds"]) == {"id_00", "id_02"}
    assert system["windows"]["frames"] == 5
    assert system["score"] == {"kind": "reconstruction", "aggregate": "mean"}
    assert system["trained_with"]["keras"] == keras.__version__
    assert (system["system"], system["machine_type"], system["training_data"]) == ("small", "fan", "dev")


def test_numbers_are_given_in_as_few_digits_as_give_the_same_again():
    values = np.array([0.1, 1 / 3, -2e-30, 0], np.float32)
    assert plain_numbers(values)[0] == 0.1
    np.testing.assert_array_equal(np.array(plain_numbers(values), np.float32), values)


# ---- integers ----


def test_int8(families, tmp_path, capsys):
    folder = run(families, tmp_path, "small", "litert", "--int8")
    model = read(folder, "small_fan")["model"]
    assert model["int8"]
    for name in ("input", "output"):
        assert model[name]["dtype"] == "int8"
        assert 0 < model[name]["scale"] < 2  # [dB]
        assert -128 <= model[name]["zero_point"] <= 127
    assert "0 verdicts changed" in capsys.readouterr().out


def test_rounding_to_integers_by_hand():
    tensor = {"dtype": np.int8, "quantization": (0.5, 90)}
    values = np.array([-110.0, -200.0, 0.0, 18.5, 40.0, 0.3], np.float32)
    integers = runtimes.quantised(values, tensor)
    assert integers.dtype == np.int8
    assert integers.tolist() == [-128, -128, 90, 127, 127, 91]
    assert runtimes.dequantised(integers, tensor).tolist() == [-109, -109, 0, 18.5, 18.5, 0.5]


@pytest.fixture(scope="module")
def hearing() -> SimpleNamespace:
    """An autoencoder that hears which vectors are anomalous, as a part, and the clips it was trained and tested on."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 40))

    def vectors(n: int, noise: float) -> np.ndarray:
        return (-40 + 8 * rng.normal(size=(n, 3)) @ mixing + noise * rng.normal(size=(n, 40))).astype(np.float32)

    train = vectors(6400, 1)
    keras.utils.set_random_seed(0)
    network = keras_model.dense_autoencoder(config.DenseAutoencoder((32, 8, 32)), 40)
    network.compile(keras.optimizers.Adam(0.01), "mean_squared_error")
    network.fit(train, train, epochs=30, batch_size=128, verbose=0)
    sounds = {f"train_{number}": train[20 * number :][:20] for number in range(320)}
    for label, noise in ((0, 1), (1, 1.6)):
        sounds |= {f"test_{label}_{number}": vectors(20, noise) for number in range(40)}
    clips = [
        Clip(Path(name), "fan", "id_00", int(name[5]) if name.startswith("test") else 0, 1, 1, 1, 1, 1)
        for name in sounds
    ]
    part = Part(
        SimpleNamespace(name="hearing"),
        "fan",
        {},
        export.for_inference(network),
        "hearing_fan",
        lambda clips: (sounds[clip.name] for clip in clips),
        lambda inputs, outputs: np.square(inputs - outputs).mean(axis=1),
        lambda clips, errors, counts: errors.reshape(len(clips), -1).mean(axis=1),
    )
    return SimpleNamespace(part=part, train=clips[:320], test=clips[320:])


def scores(part: Part, network: runtimes.Network, clips: list) -> np.ndarray:
    return export.scored_again(SimpleNamespace(watch=iter), part, network, clips)


def compared(hearing, tmp_path: Path) -> export.Comparison:
    """The part as integers beside the part as it is."""
    path = tmp_path / "hearing.tflite"
    export.write_network(hearing.part, path, "litert", hearing.train)
    network = hearing.part.network
    before = scores(hearing.part, runtimes.Network(lambda x: network.predict_on_batch(x), {}), hearing.test)
    after = scores(hearing.part, runtimes.load(path, "litert"), hearing.test)
    return export.compare(hearing.test, before, after, {"id_00": float(np.quantile(before[:40], 0.9))})


def test_careful_integers_hear_what_the_network_hears(hearing, tmp_path):
    need("litert")
    comparison = compared(hearing, tmp_path)
    assert comparison.aucs[0] > 0.8
    assert comparison.aucs[1] > comparison.aucs[0] - export.INT8_AUC_LOSS
    assert export.fault(comparison, int8=True, precision="float32") is None
    unlabelled = dataclasses.replace(comparison, aucs=None)
    assert export.fault(unlabelled, int8=True, precision="float32") is None


def test_careless_integers_are_refused(hearing, tmp_path, monkeypatch):
    """Calibrated with numbers from 0 to 1 in place of log-mel energies in dB, the network hears nothing."""
    need("litert")
    careless = np.random.default_rng(0).random((500, 40), np.float32)
    monkeypatch.setattr(export, "calibration_inputs", lambda part, clips: iter(careless))
    comparison = compared(hearing, tmp_path)
    assert comparison.aucs[0] > 0.8
    assert comparison.aucs[1] < 0.7
    assert "the AUC falls by more than 0.02" in export.fault(comparison, int8=True, precision="float32")
    unlabelled = dataclasses.replace(comparison, aucs=None)
    assert "correlate at less than 0.95" in export.fault(unlabelled, int8=True, precision="float32")


def test_calibration_takes_as_many_inputs_of_each_clip(hearing, monkeypatch):
    monkeypatch.setattr(export, "CALIBRATION_CLIPS", 10)
    monkeypatch.setattr(export, "CALIBRATION_INPUTS", 40)
    inputs = np.stack([*export.calibration_inputs(hearing.part, hearing.train)])
    first = next(hearing.part.inputs(hearing.train))
    assert inputs.shape == (40, 40)
    np.testing.assert_array_equal(inputs[:4], first[::5])


# ---- how much may change ----


def test_comparison_by_hand():
    clips = [Clip(Path("x"), "fan", "id_00", label, 1, 1, 1, 1, 1) for label in (0, 0, 1, 1)]
    before, after = np.array([1.0, 2, 3, 4]), np.array([1.0, 3.5, 3, 4])
    found = export.compare(clips, before, after, {"id_00": 2.5})
    assert (found.n_clips, found.largest, found.relative, found.n_changed) == (4, 1.5, 0.6, 1)
    assert found.aucs == (1.0, 0.75)
    assert found.correlation == pytest.approx(0.8)
    others = [dataclasses.replace(clip, label=None) for clip in clips]
    unlabelled = export.compare(others, before, after, {})
    assert (unlabelled.aucs, unlabelled.relative, unlabelled.n_changed) == (None, 0.75, 0)
    assert "no AUC without labels" in unlabelled.text()


@pytest.mark.parametrize(("relative", "precision", "wrong"), [
    (1e-4, "float32", False), (1e-2, "float32", True), (1e-2, "mixed_float16", False), (float("nan"), "float32", True),
])  # fmt: skip
def test_bounds(relative, precision, wrong):
    comparison = export.Comparison(1, 1.0, relative, None, 1.0, 0)
    assert bool(export.fault(comparison, int8=False, precision=precision)) is wrong


def test_a_network_that_scores_otherwise_is_refused(families, tmp_path, monkeypatch):
    original = runtimes.load

    def broken(path: Path, name: str) -> runtimes.Network:
        network = original(path, name)
        return runtimes.Network(lambda values: network.run(values) + 1, network.facts)

    monkeypatch.setattr(runtimes, "load", broken)
    with pytest.raises(
        common.UserError, match=r"small_fan, saved_model: a score differs by more than 0.001 of it or of the"
    ):
        run(families, tmp_path, "small", "saved_model")
    assert not list((tmp_path / "dev" / "saved_model").iterdir())


# ---- the example ----


@pytest.fixture
def example():
    need("onnx")
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("score_onnx", EXAMPLE))
    module.__spec__.loader.exec_module(module)
    return module


@pytest.fixture
def said(example, capsys):
    """What the example prints."""

    def call(*arguments) -> list[list[str]]:
        capsys.readouterr()
        example.main(*map(str, arguments))
        return [*csv.reader(capsys.readouterr().out.splitlines())]

    return call


@pytest.mark.parametrize("system", ["small", "windows"])
def test_the_example_gives_the_same_scores(families, onnx, test_clips, said, system):
    path = onnx / f"{system}_fan.json"
    expected = official_scores(families, system)
    for machine_id in ("id_00", "id_02"):
        clips = [clip for clip in test_clips if machine_id in clip.name]
        rows = said(path, machine_id, *clips)
        assert [row[0] for row in rows] == [str(clip) for clip in clips]
        found = [float(row[1]) for row in rows]
        assert found == pytest.approx([expected[clip.name] for clip in clips], rel=1e-3)
        assert {float(row[2]) for row in rows} == {json.loads(path.read_text())["thresholds"][machine_id]}
        assert [row[3] for row in rows] == ["anomaly" if float(r[1]) > float(r[2]) else "normal" for r in rows]


@pytest.mark.parametrize("score", ["lof", "density", "knn"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
def test_the_example_has_every_detector(example, score, metric):
    rng = np.random.default_rng(0)
    train, outputs = rng.normal(1, 1, (12, 5)), rng.normal(1, 1, (2, 5))
    outputs /= np.linalg.norm(outputs, axis=1, keepdims=True)
    settings = {"score": score, "n_neighbors": 4, "n_nearest": 3, "metric": metric}
    reference = {"machine_ids": {"id_00": {"vectors": train.tolist()}}}
    system = {"windows": {"frames": 3}, "score": {**settings, "parts": [reference]}}
    windows = []
    network = lambda inputs: windows.append(inputs) or outputs  # noqa: E731
    log_mel = rng.normal(size=(5, 7)).astype(np.float32)
    found = example.detector_score(log_mel, network, system, "id_00")
    np.testing.assert_array_equal(windows[0][..., 0], embedding.clip_windows(log_mel.astype(np.float16), 3))
    vector = embedding.clip_embeddings(outputs, [2])
    assert found == pytest.approx(outliers.outlier_scores(train, vector, **settings)[0])


def test_the_example_knows_softmax(example):
    logits = np.array([[1.0, 2.0], [3.0, 3.0]])
    score = {"classes": ["fan/id_00", "fan/id_02"], "class_is": "machine_id"}
    system = {"windows": {"frames": 3}, "score": score, "machine_type": "fan"}
    found = example.softmax_score(np.zeros((5, 7), np.float32), lambda inputs: logits, system, "id_02")
    assert found == pytest.approx((np.log(1 + np.exp(-1)) + np.log(2)) / 2)
    score |= {"classes": ["ToyCar", "fan"], "class_is": "machine_type"}
    assert example.softmax_score(np.zeros((5, 7), np.float32), lambda inputs: logits, system, "id_09") == found


def test_the_example_needs_nothing_of_the_project(onnx, tmp_path, test_clips):
    path = onnx / "small_fan.json"
    copy = shutil.copy(EXAMPLE, tmp_path / "alone.py")
    command = [sys.executable, "-X", "importtime", copy, str(path), "id_00", str(test_clips[0])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(test_clips[0]))
    modules = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert {"numpy", "soundfile", "onnxruntime"} <= modules
    assert not modules & {"common", "config", "tensorflow", "keras", "scipy", "librosa", "sklearn", "yaml"}
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 120


def test_the_example_says_what_it_cannot_score(onnx, test_clips, said):
    for name in ("near", "dense", "all"):
        with pytest.raises(SystemExit, match="this example scores those that do"):
            said(onnx / f"{name}_fan.json", "id_00", test_clips[0])


# ---- what is needed ----


def test_packages_that_are_missing(monkeypatch):
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(runtimes.importlib.metadata, "version", lambda name: "3.15.1")
    with pytest.raises(common.UserError, match=r'needs tf2onnx, onnx, onnxruntime, .*pip install -e "\.\[export\]"'):
        runtimes.require_packages("onnx")
    with pytest.raises(common.UserError, match=r'needs openvino, .*pip install -e "\.\[openvino\]"'):
        runtimes.require_packages("openvino")
    runtimes.require_packages("saved_model")


def test_a_keras_without_litert(monkeypatch):
    monkeypatch.setattr(runtimes.importlib.metadata, "version", lambda name: "3.12.4")
    with pytest.raises(
        common.UserError, match="needs Keras 3.13 or newer, which needs Python 3.11; there is Keras 3.12.4"
    ):
        runtimes.require_packages("litert")


def test_integers_go_with_litert(capsys):
    with pytest.raises(SystemExit) as caught:
        script.main(["--system", "small", "--format", "onnx", "--int8"])
    assert caught.value.code == 2
    assert "--int8 goes with --format litert" in capsys.readouterr().err


def test_without_test_clips_training_clips_are_scored(families, dataset, tmp_path, capsys, caplog):
    shutil.copytree(dataset / "dev_data" / "fan" / "train", tmp_path / "data" / "fan" / "train")
    settings = yaml.safe_load((families / "settings.yaml").read_text())
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings | {"dev_directory": str(tmp_path / "data")}))
    caplog.set_level("INFO")
    run(tmp_path, tmp_path, "small", "saved_model")
    assert "no test clips of fan: training clips are scored again" in caplog.text
    assert "6 clips scored again" in capsys.readouterr().out


def test_a_system_that_is_not_trained(families, tmp_path):
    with pytest.raises(common.UserError, match="no finished model; train it first"):
        run(families, tmp_path, "small", "saved_model", "--training-data", "eval")
    assert not list(tmp_path.iterdir())
