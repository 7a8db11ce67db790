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
from conftest import SHIPPED, official_scores

import common
import config
import keras_model
from audio.clips import Clip
from audio.settings import Feature
from deployment import comparison, export, json_scores, networks, runtimes
from detectors import facts
from detectors.facts import plain_numbers
from detectors.memory import Memory
from training import embedding, metric_layers, residuals

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
    return [run(families, folder, system, "onnx") for system in ("windows", "spectral", "all")][0]


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


# ---- formats and families ----


@pytest.mark.parametrize("name", runtimes.FORMATS)
def test_each_format_scores_as_before(families, tmp_path, capsys, name):
    folder = run(families, tmp_path, "small", name)
    file_name = f"small_fan{runtimes.FORMATS[name].suffix}"
    assert {path.name for path in folder.iterdir()} - {"small_fan.bin"} == {file_name, "small_fan.json", "test_vectors"}
    model = read(folder, "small_fan")["model"]
    assert (model["file"], model["format"], model["int8"], model["input_shape"]) == (file_name, name, False, [160])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"files in {folder}:", f"small_fan: {file_name}, small_fan.json, test_vectors/small_fan"]
    assert "8 clips scored again: largest difference" in lines[2]
    assert lines[2].endswith("ranks correlate at 1.0000, AUC 0.5000 -> 0.5000, 0 verdicts changed")


@pytest.mark.parametrize("system", ["small", "windows", "dense", "spectral"])
def test_the_network_has_one_input_and_one_output(onnx, system):
    import onnxruntime

    model = read(onnx, f"{system}_fan")["model"]
    session = onnxruntime.InferenceSession(onnx / model["file"])
    assert [source.name for source in session.get_inputs()] == ["input"]
    assert [result.name for result in session.get_outputs()] == [model["output"]["name"]]
    assert session.get_inputs()[0].shape[1:] == model["input_shape"]


def test_a_fusion_is_exported_by_members(onnx):
    files = {"windows.onnx", "dense.onnx", "spectral.onnx", "small_fan.onnx", "test_vectors"}
    files |= {f"{name}_fan.json" for name in ("windows", "dense", "spectral", "small", "near", "all")}
    assert {path.name for path in onnx.iterdir()} == files
    assert read(onnx, "near_fan")["model"] is None
    assert set(read(onnx, "all_fan")["score"]["members"]) == {"near", "dense", "small"}


@pytest.fixture
def test_clips(dataset) -> list[Path]:
    return sorted((dataset / "dev_data" / "fan" / "test").iterdir())


def test_a_classifier_is_written_once_for_all_machine_types(families, tmp_path, monkeypatch):
    need("saved_model")
    written = []
    original = networks.write
    monkeypatch.setattr(
        networks, "write", lambda network, path, *rest: written.append(path.name) or original(network, path, *rest)
    )
    settings = ["--config", families / "settings.yaml", "--system", "dense", "--format", "saved_model"]
    script.main([*map(str, [*settings, "--output", tmp_path])])
    assert written == ["dense"]
    folder = tmp_path / "dev" / "saved_model"
    assert {path.name for path in folder.iterdir()} == {"dense", "dense_ToyCar.json", "dense_fan.json", "test_vectors"}
    assert {path.name for path in (folder / "test_vectors").iterdir()} == {"dense_ToyCar", "dense_fan"}
    assert {read(folder, f"dense_{name}")["model"]["file"] for name in ("ToyCar", "fan")} == {"dense"}


def test_again_takes_the_place_of_what_is_there(families, tmp_path):
    first = run(families, tmp_path, "small", "saved_model")
    before = {path.relative_to(first) for path in first.rglob("*")}
    for name in ("small_fan", "test_vectors/small_fan"):
        (first / name / "stray").touch()
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
        copy = networks.for_inference(network)
        for called in (copy(inputs), copy(inputs, training=False)):
            error = np.abs(np.asarray(called) - before).max() / np.abs(before).max()
            assert error <= (1e-6 if precision == "float32" else 0.05)
        assert {variable.dtype for variable in copy.weights} <= {"float32", "int64"}
        assert not any(isinstance(layer, keras.layers.Normalization) for layer in networks._layers(copy))
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


@pytest.fixture
def mahalanobis(families, tmp_path):
    """Maker of folders whose settings are those of the trained systems, with another aggregate."""

    def make(how: str) -> Path:
        settings = yaml.safe_load((families / "settings.yaml").read_text())
        settings["systems"]["small"]["model"]["aggregate"] = how
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
        return tmp_path

    return make


@pytest.mark.parametrize("how", config.OF_RESIDUALS)
def test_covariances_are_exported(families, mahalanobis, tmp_path, capsys, how):
    folder = run(mahalanobis(how), tmp_path, "small", "onnx")
    score = json_scores.example.read(folder / "small_fan.json")["score"]
    stored = np.load(families / "model" / "dev" / "small" / "scores_fan.npz")
    assert score["aggregate"] == how
    np.testing.assert_array_equal(score["inverse_covariances"], stored["inverse_covariances"])
    assert "ranks correlate at 1.0000" in capsys.readouterr().out
    rng = np.random.default_rng(0)
    inputs, outputs = rng.normal(size=(2, 28, 160)).astype(np.float32)
    ours = json_scores.example.reconstruction_score(inputs, outputs, {"score": score}, "id_00")
    moments = residuals.moments_of((inputs - outputs).reshape(-1, 32))
    assert ours == pytest.approx(residuals.mahalanobis(moments, stored["inverse_covariances"], how), rel=1e-9)


def test_integers_have_covariances_of_their_own(families, mahalanobis, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "INT8_CORRELATION", -1)  # of a network that has learnt as good as nothing
    monkeypatch.setattr(comparison, "INT8_CHANGED", 1)
    monkeypatch.setattr(comparison, "INT8_AUC_LOSS", 1)
    system = json_scores.example.read(
        run(mahalanobis("mahalanobis"), tmp_path, "small", "litert", "--int8") / "small_fan.json"
    )
    stored = np.load(families / "model" / "dev" / "small" / "scores_fan.npz")
    own, floats = system["score"]["inverse_covariances"], stored["inverse_covariances"]
    assert own.shape == floats.shape == (1, 32, 32)
    assert 1e-4 < np.abs(own - floats).max() / np.abs(floats).max() < 1
    assert system["thresholds"]["id_00"] == pytest.approx(
        np.quantile(stored["mahalanobis"][stored["machine_ids"] == "id_00"], 1), rel=0.2
    )


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
    assert set(system["thresholds"]) == {"id_00", "id_02", "all"}
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
    test = [vectors(20, noise) for noise in 40 * [1] + 40 * [1.6]]
    clips = [Clip(Path("x"), "fan", "id_00", number // 40, 1, 1, 1, 1, 1) for number in range(80)]
    return SimpleNamespace(network=networks.for_inference(network), train=np.split(train, 320), test=test, clips=clips)


def compared(hearing, tmp_path: Path, calibration: list) -> comparison.Comparison:
    """The network as integers beside the network as it is, each with a threshold of its own."""
    path = tmp_path / "hearing.tflite"
    networks.write(hearing.network, path, "litert", calibration)
    content = {"score": {"kind": "reconstruction", "aggregate": "mean"}}
    found = []
    for network in (runtimes.Network(hearing.network.predict_on_batch, {}), runtimes.load(path, "litert")):
        outputs = [(inputs, network.run(inputs)) for inputs in hearing.test]
        scores = json_scores.scores(content, hearing.clips, outputs)
        found.append((scores, {"all": float(np.quantile(scores[:40], 0.9))}))
    return comparison.compare(hearing.clips, *found)


def test_careful_integers_hear_what_the_network_hears(hearing, tmp_path):
    need("litert")
    found = compared(hearing, tmp_path, hearing.train[::4])
    assert found.aucs[0] > 0.8
    assert found.aucs[1] > found.aucs[0] - comparison.INT8_AUC_LOSS
    for one in (found, dataclasses.replace(found, aucs=None)):
        assert one.fault(int8=True, precision="float32") is None


def test_careless_integers_are_refused(hearing, tmp_path):
    """Calibrated with numbers from 0 to 1 in place of log-mel energies in dB, the network hears nothing."""
    need("litert")
    found = compared(hearing, tmp_path, [np.random.default_rng(0).random((500, 40), np.float32)])
    assert found.aucs[0] > 0.8
    assert found.aucs[1] < 0.7
    assert "the AUC falls by more than 0.02" in found.fault(int8=True, precision="float32")
    unlabelled = dataclasses.replace(found, aucs=None)
    assert "correlate at less than 0.95" in unlabelled.fault(int8=True, precision="float32")


def test_calibration_takes_as_many_inputs_of_each_clip(monkeypatch):
    monkeypatch.setattr(export, "CALIBRATION_CLIPS", 10)
    monkeypatch.setattr(export, "CALIBRATION_INPUTS", 40)
    monkeypatch.setattr(
        json_scores, "outputs", lambda run, system, facts, clips, network: ((np.arange(20) + c, 0) for c in clips)
    )
    part = SimpleNamespace(name="x_fan", network_name="x_fan", machine_type="fan", system=None, facts={})
    inputs = [*export.Export(None, None, "litert", {"fan": [*range(320)], "pump": []})._calibration(part)]
    assert [of_clip.tolist() for of_clip in inputs] == [[c, c + 5, c + 10, c + 15] for c in range(0, 320, 32)]


def test_integers_have_vectors_and_thresholds_of_their_own(families, tmp_path, monkeypatch):
    """Both are what the training clips give by the written network; thresholds of held-out clips stay."""
    monkeypatch.setattr(comparison, "INT8_CORRELATION", -1)  # of a network that has learnt as good as nothing
    monkeypatch.setattr(comparison, "INT8_CHANGED", 1)
    monkeypatch.setattr(comparison, "INT8_AUC_LOSS", 1)
    folder = run(families, tmp_path, "dense", "litert", "--int8")
    system = json_scores.example.read(folder / "dense_fan.json")
    stored = np.load(next((families / "model" / "dev" / "dense").glob("embeddings_fan.npz")))
    own = stored["vectors"][stored["machine_ids"] == "id_00"]
    found = [part["machine_ids"]["id_00"]["vectors"] for part in system["score"]["parts"]]
    step = system["model"]["output"]["scale"]  # of the integers
    for vectors, expected in zip(found, np.split(own, 2, axis=1), strict=True):
        assert np.abs(vectors - expected).max() > 1e-4  # the network's own
        np.testing.assert_allclose(vectors / step, np.round(vectors / step), atol=1e-3)
    floats = read(run(families, tmp_path, "dense", "saved_model"), "dense_fan")["thresholds"]
    assert system["thresholds"] == floats  # of networks that had not heard the clips
    small = [run(families, tmp_path, "small", *words) for words in (("litert", "--int8"), ("saved_model",))]
    ours, floats = (read(folder, "small_fan")["thresholds"] for folder in small)
    assert all(ours[name] != floats[name] for name in ("id_00", "id_02"))


def test_integers_learn_from_the_clips_of_the_training_alone(families, dataset, tmp_path):
    need("litert")
    shutil.copytree(dataset / "dev_data" / "fan", tmp_path / "data" / "fan")
    shutil.copy(
        dataset / "dev_data/fan/train/normal_id_00_00000000.wav", tmp_path / "data/fan/train/normal_id_00_9.wav"
    )
    settings = yaml.safe_load((families / "settings.yaml").read_text())
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings | {"dev_directory": str(tmp_path / "data")}))
    with pytest.raises(common.UserError, match="train: other clips than those that small was trained on"):
        run(tmp_path, tmp_path, "small", "litert", "--int8")


# ---- how much may change ----


def clips_of(*labels) -> list[Clip]:
    return [Clip(Path("x"), "fan", "id_00", label, 1, 1, 1, 1, 1) for label in labels]


def test_comparison_by_hand():
    before, after = np.array([1.0, 2, 3, 4]), np.array([1.0, 3.5, 3, 4])
    found = comparison.compare(clips_of(0, 0, 1, 1), (before, {"id_00": 2.5, "all": 9}), (after, {"all": 2.5}))
    assert (found.n_clips, found.largest, found.relative, found.n_changed) == (4, 1.5, 1.0, 1)  # quartiles 1.75, 3.25
    assert found.aucs == (1.0, 0.75)
    assert found.correlation == pytest.approx(0.8)
    unlabelled = comparison.compare(clips_of(*4 * [None]), (before, {"all": 0}), (after, {"all": 0}))
    assert (unlabelled.aucs, unlabelled.n_changed) == (None, 0)
    assert "no AUC without labels" in unlabelled.text()


def test_what_is_far_off_hides_no_difference():
    """Neither a threshold nor a clip; and far from zero, the same difference is the same."""
    scores = np.arange(12.0)
    changed = scores + 0.1 * (scores == 5)
    for offset, far, limit in ((0, 0, 1), (1e3, 0, 1), (0, 1e12, 1), (0, 0, 1e12)):
        one = np.array([*scores + offset, far])
        other = np.array([*changed + offset, far])
        found = comparison.compare(clips_of(*13 * [0]), (one, {"all": limit}), (other, {"all": limit}))
        assert found.relative > 1e-3


def test_each_set_of_thresholds_decides_for_its_scores():
    scores = np.arange(10.0)
    found = comparison.compare(clips_of(*5 * [0, 1]), (scores, {"all": 4.5}), (2 * scores, {"all": 9}))
    assert (found.n_changed, round(found.correlation, 9)) == (0, 1)
    found = comparison.compare(clips_of(*5 * [0, 1]), (scores, {"all": 4.5}), (2 * scores, {"all": 4.5}))
    assert found.n_changed == 2
    assert "more than 10% of the verdicts change" in found.fault(int8=True, precision="float32")


@pytest.mark.parametrize(("relative", "precision", "wrong"), [
    (1e-4, "float32", False), (1e-2, "float32", True), (1e-2, "mixed_float16", False), (float("nan"), "float32", True),
])  # fmt: skip
def test_bounds(relative, precision, wrong):
    found = comparison.Comparison(1, 1.0, relative, None, 1.0, 0)
    assert bool(found.fault(int8=False, precision=precision)) is wrong


def test_a_network_that_scores_otherwise_is_refused(families, tmp_path, monkeypatch):
    original = runtimes.load

    def broken(path: Path, name: str) -> runtimes.Network:
        network = original(path, name)
        return runtimes.Network(lambda values: network.run(values) + 1, network.facts)

    monkeypatch.setattr(runtimes, "load", broken)
    with pytest.raises(
        common.UserError, match=r"small_fan, saved_model: a score differs by more than 0.001 of the spread"
    ):
        run(families, tmp_path, "small", "saved_model")
    assert not list((tmp_path / "dev" / "saved_model").iterdir())


@pytest.mark.parametrize("system", ["near"])
def test_a_json_that_scores_otherwise_is_refused(families, tmp_path, monkeypatch, system):
    """One without the decorrelation, for instance; there is no network that could differ."""
    original = facts._reference_facts

    def incomplete(*arguments) -> dict:
        return {key: value for key, value in original(*arguments).items() if key != "matrix"}

    monkeypatch.setattr(facts, "_reference_facts", incomplete)
    with pytest.raises(common.UserError, match="near_fan, saved_model: a score differs by more than 0.001 of the sp"):
        run(families, tmp_path, system, "saved_model")
    assert not list((tmp_path / "dev" / "saved_model").iterdir())


# ---- the example ----


@pytest.fixture
def said(capsys):
    """What the example prints."""

    def call(*arguments) -> list[list[str]]:
        capsys.readouterr()
        json_scores.example.main(*map(str, arguments))
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
@pytest.mark.parametrize("kind", ["embeddings", "descriptors", "without decorrelation"])
@pytest.mark.parametrize("lof_per", ["machine_id", "machine_type"])
def test_the_json_has_every_detector(tmp_path, score, metric, kind, lof_per):
    """Scores from the JSON alone are those of the detectors."""
    model = config.load_config(SHIPPED).systems["dense_l2_softmax" if kind == "embeddings" else "neighbors"].model
    keys = {"score": score, "metric": metric, "lof_per": lof_per, "n_neighbors": 4, "n_nearest": 3}
    keys |= {"decorrelation": 0.0} if kind == "without decorrelation" else {}
    model = dataclasses.replace(model, **keys)
    rng = np.random.default_rng(0)
    vectors = (rng.normal(1, 1, (36, 16)) @ rng.normal(size=(16, 16))).astype(np.float32)
    vectors[:, 3] = 2  # never changes
    train, test, names = vectors[:24], vectors[24:], ["id_00", "id_02"]
    remembered = Memory(np.array(24 * ["x"]), np.array(12 * names), train, np.zeros(24, np.float32))
    for widths, combine in (([16], "sum"), ([6, 10], "sum"), ([6, 10], "max")):
        said = facts.detector_facts(model, remembered, widths=widths, combine=combine)
        (tmp_path / "x.json").write_text(json.dumps({"score": said}))
        content = json_scores.example.read(tmp_path / "x.json")
        clips = [SimpleNamespace(machine_id=name) for name in 6 * names]
        if lof_per == "machine_type":
            clips[0].machine_id = "id_09"  # without training clips
        found = json_scores.scores(content, clips, [(vector, vector) for vector in test[:, None]])
        ids = [clip.machine_id for clip in clips]
        expected = remembered.joint_scores(model, test, ids, widths=widths, combine=combine)
        np.testing.assert_allclose(found, expected, rtol=1e-3 if metric == "cosine" else 1e-4)


def test_windows_of_the_example():
    log_mel = np.random.default_rng(0).normal(size=(11, 7)).astype(np.float32)
    found = json_scores.example.network_inputs(log_mel, {"windows": {"frames": 3}})
    np.testing.assert_array_equal(found[..., 0], embedding.clip_windows(log_mel.astype(np.float16), 3))
    found = json_scores.example.network_inputs(log_mel, {"windows": {"frames": 3, "hop": 2}})
    np.testing.assert_array_equal(found, common.stack_frames(log_mel.T, frames=3)[::2])
    outputs = np.random.default_rng(1).normal(1, 1, (2, 5))
    outputs /= np.linalg.norm(outputs, axis=1, keepdims=True)
    np.testing.assert_allclose(json_scores.example.clip_vector(outputs), embedding.clip_embeddings(outputs, [2])[0])


def test_the_example_knows_softmax():
    logits = np.array([[1.0, 2.0], [3.0, 3.0]])
    score = {"classes": ["fan/id_00", "fan/id_02"], "class_is": "machine_id"}
    system = {"score": score, "machine_type": "fan"}
    found = json_scores.example.softmax_score(None, logits, system, "id_02")
    assert found == pytest.approx((np.log(1 + np.exp(-1)) + np.log(2)) / 2)
    of_networks = json_scores.example.softmax_score(None, logits[:, None].repeat(2, 1), system, "id_02")
    assert of_networks == pytest.approx(found)
    score |= {"classes": ["ToyCar", "fan"], "class_is": "machine_type"}
    assert json_scores.example.softmax_score(None, logits, system, "id_09") == found


def test_the_example_needs_nothing_of_the_project(onnx, tmp_path, test_clips):
    path = onnx / "small_fan.json"
    copy = shutil.copy(EXAMPLE, tmp_path / "alone.py")
    shutil.copy(EXAMPLE.with_name("frontend.py"), tmp_path)
    command = [sys.executable, "-X", "importtime", copy, str(path), "id_00", str(test_clips[0])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(test_clips[0]))
    modules = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert {"numpy", "soundfile", "onnxruntime"} <= modules
    assert not modules & {"common", "config", "tensorflow", "keras", "scipy", "librosa", "sklearn", "yaml"}
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 190


def test_the_example_says_what_it_cannot_score(onnx, test_clips, said):
    for name in ("near", "dense", "all"):
        with pytest.raises(SystemExit, match="this example hears those that do"):
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
