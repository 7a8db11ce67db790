"""The variational and the convolutional autoencoder: what is theirs, and what they share with the dense ones."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import SHIPPED, merge, reconstruction_errors
from tqdm import tqdm

import common
import config
import keras_model
from storage.records import record_path
from training import distribution, process
from training.fit import TrainingState
from training.model_records import model_path, resume_path
from training.models import load_model, save_model
from training.run import Job, Run

MODELS = {
    "vae": {"model": {"type": "vae", "units": [16, 8], "latent": 3, "kl_weight": 1}, "feature": {"frames": 5}},
    "conv_ae": {
        "model": {"type": "conv_ae", "filters": [2, 3, 4, 5, 6], "latent": 3, "hop": 4},
        "feature": {"frames": 8},
        "fit": {"batch_size": 16},
    },
}
VARIANTS = pytest.mark.parametrize("variant", MODELS)


@pytest.fixture
def start(yaml_file):
    """Maker of runs: (run, system) of one small variant with changes to its block; all output in ``work``."""

    def make(variant, changes=None, work=None):
        block = {"systems": {variant: merge(MODELS[variant], changes or {})}}
        path = yaml_file(block, **({"work": work} if work else {}))
        settings = config.load_config(path)
        return Run(settings, "dev", tqdm(total=0, disable=True)), settings.select([variant])[0]

    return make


@pytest.fixture
def network(start):
    """Small network of a variant, its noise and weights seeded."""

    def make(variant):
        _, system = start(variant)
        keras.utils.set_random_seed(1)
        return keras_model.build(system.model, system.feature), system

    return make


def some_vectors(model, n=6):
    return np.random.default_rng(0).normal(-30, 10, (n, model.input_shape[1])).astype(np.float32)


# ---- the networks ----


def test_parameters_of_the_shipped_variational_autoencoder():
    system = config.load_config(SHIPPED).systems["vae"]
    dense = 640 * 128 + 128 + 3 * (128 * 128 + 128)  # to the last layer of the encoder
    latent = 2 * (128 * 8 + 8)
    decoder = 8 * 128 + 128 + 3 * (128 * 128 + 128) + 128 * 640 + 640
    norms = 8 * 4 * 128
    assert keras_model.build(system.model, system.feature).count_params() == dense + latent + decoder + norms


def test_parameters_of_the_shipped_convolutional_autoencoder():
    system = config.load_config(SHIPPED).systems["conv_ae"]
    model = keras_model.build(system.model, system.feature)
    widths, kernels = [1, 32, 64, 128, 256, 512], [5, 5, 5, 3, 3]
    weights = 2 * sum(k * k * a * b for k, a, b in zip(kernels, widths[:-1], widths[1:], strict=True))
    biases_and_norms = 5 * (32 + 64 + 128 + 256) * 2 + 5 * 512 + 1
    bottleneck = 4 * 4 * 512 * 40 + 40 + 40 * 4 * 4 * 512 + 4 * 4 * 512
    scales = 4 * 128
    assert model.count_params() == weights + biases_and_norms + bottleneck + scales
    shapes = [layer.output.shape[1:] for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert shapes == [(32, 64, 32), (32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)]


@VARIANTS
@pytest.mark.parametrize("n", [1, 7])
def test_output_has_the_shape_of_the_input(network, variant, n):
    model, _ = network(variant)
    assert model(some_vectors(model, n)).shape == some_vectors(model, n).shape


@VARIANTS
def test_clips_of_any_length_get_the_mean_error_of_their_vectors(network, variant):
    model, system = network(variant)
    frames, hop = system.feature.frames, system.model.hop
    lengths = (frames, frames + 1, 31, 60)
    log_mels = [np.random.default_rng(n).normal(-30, 10, (n, 32)).astype(np.float32) for n in lengths]
    scores = reconstruction_errors(model, log_mels, frames=frames, hop=hop, batch=4)
    for log_mel, score in zip(log_mels, scores, strict=True):
        windows = [log_mel[i : i + frames].ravel() for i in range(0, len(log_mel) - frames + 1, hop)]
        outputs = model(np.stack(windows), training=False)
        assert outputs.shape == (len(windows), frames * 32)
        assert score == pytest.approx(np.mean((windows - outputs.numpy()) ** 2), rel=1e-5)


def test_training_windows_are_a_hop_apart(start):
    _, system = start("conv_ae")
    trainer = keras_model.make_trainer(system, 0)
    log_mel = np.arange(40 * 32, dtype=np.float32).reshape(40, 32)
    assert trainer.load([log_mel[:21], log_mel[21:]], np.array([0, 21, 40])) == 4 + 3  # 0 4 8 12, 21 25 29
    np.testing.assert_array_equal(trainer.vectors(np.array([1, 6])).numpy()[:, 0], [4 * 32, 29 * 32])


def test_patches_are_standardised_by_band(start):
    _, system = start("conv_ae")
    trainer = keras_model.make_trainer(system, 0)
    level = np.linspace(-60, -20, 32)
    log_mel = np.random.default_rng(0).normal(level, 7, (500, 32)).astype(np.float32)
    log_mel[:, 3] = -100  # silence: no division by nought
    trainer.load([log_mel], np.array([0, 500]))
    inward, outward = (layer for layer in trainer.autoencoder.layers if isinstance(layer, keras_model.BandScale))
    scaled = inward(log_mel[None]).numpy()[0]
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.delete(scaled, 3, axis=1).std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(outward(scaled[None])[0], log_mel, atol=1e-3)


# ---- the variational autoencoder ----


def test_divergence_by_hand():
    mean = tf.constant([[0.0, 0.0], [1.0, -2.0], [0.0, 0.0]])
    log_variance = tf.constant([[0.0, 0.0], [0.0, 0.0], [math.log(4), 0.0]])
    # (1 + 4) / 2; and (4 - 1 - log 4) / 2
    np.testing.assert_allclose(keras_model.divergence(mean, log_variance), [0, 2.5, 1.5 - math.log(2)], atol=1e-6)


def test_divergence_is_the_mean_of_the_log_ratio():
    rng = np.random.default_rng(0)
    mean, deviation = 0.7, 1.6
    z = rng.normal(mean, deviation, 200_000)
    log_ratio = -((z - mean) ** 2) / (2 * deviation**2) - np.log(deviation) + z**2 / 2
    divergence = keras_model.divergence(tf.constant([[mean]]), tf.constant([[2 * math.log(deviation)]]))
    assert float(divergence[0]) == pytest.approx(log_ratio.mean(), abs=0.02)


def test_loss_is_the_squared_error_and_the_divergence_over_the_size(network):
    model, system = network("vae")
    model.compile(loss="mean_squared_error")
    vectors = some_vectors(model)
    latent = keras.Model(model.input, [model.get_layer("z_mean").output, model.get_layer("z_log_var").output])
    divergence = np.mean(keras_model.divergence(*latent(vectors)))
    error = np.mean((vectors - model(vectors).numpy()) ** 2)
    assert divergence > 1e-3
    assert float(model.losses[0]) == pytest.approx(divergence / 160, rel=1e-5)  # kl_weight 1, 5 frames x 32 bands
    assert model.evaluate(vectors, vectors, verbose=0) == pytest.approx(error + divergence / 160, rel=1e-5)


def test_it_samples_in_training_only(network):
    model, _ = network("vae")
    vectors = some_vectors(model)
    np.testing.assert_array_equal(model(vectors), model(vectors))
    latent = model.get_layer(next(one.name for one in model.layers if isinstance(one, keras_model.GaussianLatent)))
    mean, log_variance = tf.ones((20_000, 1)), tf.fill((20_000, 1), math.log(0.25))
    np.testing.assert_array_equal(latent([mean, log_variance]), mean)
    one, other = (latent([mean, log_variance], training=True).numpy() for _ in range(2))
    assert not np.any(one == other)
    assert (one.mean(), one.std()) == pytest.approx((1, 0.5), abs=0.02)


@pytest.mark.parametrize("n", [1, 5, 6])
def test_replicas_draw_their_parts_of_the_noise_of_one_device(monkeypatch, n):
    mean = np.zeros((n, 3), np.float32)
    outputs = []
    for number, n_replicas in ((0, 1), (0, 2), (1, 2)):
        monkeypatch.setattr(distribution, "replica", lambda one=(number, n_replicas): one)
        keras.utils.set_random_seed(0)
        part = mean[number::n_replicas]
        outputs.append(keras_model.GaussianLatent(0.0)([part, part], training=True).numpy())
    alone, first, second = outputs
    np.testing.assert_array_equal(first, alone[::2])
    np.testing.assert_array_equal(second, alone[1::2])


# ---- training ----


def test_mixed_precision_scales_before_it_casts(start):
    """16 bits hold -60 dB within 0.03 dB; scaled, they are kept within 2^-11 of a deviation."""
    _, system = start("conv_ae", {"fit": {"precision": "mixed_float16"}})
    seen = []
    try:
        trainer = keras_model.make_trainer(system, 0)
        inward = next(layer for layer in trainer.autoencoder.layers if isinstance(layer, keras_model.BandScale))
        original = inward.call
        inward.call = lambda inputs: seen.append(inputs) or original(inputs)
        vectors = some_vectors(trainer.autoencoder)
        trainer(vectors)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(np.reshape(seen[-1], vectors.shape), vectors)


def trained(run, system, clips):
    keras_model.train(run, system, clips)
    path = model_path(run.model_folder(system), "fan")
    return path, load_model(path)


def scores_of(model, run, system, clips):
    return keras_model.score_clips(model, run, system, clips["fan"])


@VARIANTS
@pytest.mark.usefixtures("without_xla")
def test_saved_models_load_and_give_equal_scores(start, train_clips, variant):
    run, system = start(variant)
    clips = {"fan": train_clips["fan"]}
    job = Job(run, system, "fan", clips["fan"])
    trainer = keras_model.make_trainer(system, 0)
    history, errors = keras_model._train_one(job, trainer)
    save_model(trainer.autoencoder, job, history, {"scores_fan.npz": errors.save})
    loaded = load_model(model_path(job.folder, "fan"))
    scores = scores_of(trainer.autoencoder, run, system, clips)
    np.testing.assert_array_equal(scores_of(loaded, run, system, clips), scores)
    np.testing.assert_array_equal(keras_model.anomaly_scores(run, system, "fan", clips["fan"]), scores)
    assert np.isfinite(scores).all() and (scores > 0).all()
    stored = keras_model.training_scores(run, system, "fan").scores
    np.testing.assert_allclose(stored, keras_model.anomaly_scores(run, system, "fan", clips["fan"]), rtol=1e-5)
    record = yaml.safe_load(record_path(job.folder, "fan").read_text(encoding="utf-8"))
    assert record["parameters"] == loaded.count_params()
    assert record["configuration"]["model"] == {**MODELS[variant]["model"], "type": variant}


class PowerFailureError(Exception):
    """The power fails."""


@pytest.mark.parametrize(("variant", "xla"), [("vae", True)])
def test_a_resumed_training_equals_an_unbroken_one(start, train_clips, tmp_path, monkeypatch, variant, xla):
    monkeypatch.setattr(process, "compiles_with_xla", lambda: xla)
    clips = {"fan": train_clips["fan"]}
    folders = [tmp_path / name for name in ("unbroken", "again", "resumed")]
    for folder in folders:
        folder.mkdir()
    models = [trained(*start(variant, {"fit": {"epochs": 3}}, folder), clips)[1] for folder in folders[:2]]

    keep = TrainingState._keep

    def fail_after_the_first(state, epoch):
        keep(state, epoch)
        raise PowerFailureError

    run, system = start(variant, {"fit": {"epochs": 3}}, folders[2])
    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "_keep", fail_after_the_first)
        with pytest.raises(PowerFailureError):
            keras_model.train(run, system, clips)
    assert resume_path(run.model_folder(system), "fan").exists()
    models.append(trained(run, system, clips)[1])
    expected, *others = [model.get_weights() for model in models]
    for weights in others:
        for one, other in zip(expected, weights, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("without_xla")
def test_noise_depends_on_the_seed(start, train_clips):
    clips = {"fan": train_clips["fan"]}
    run, system = start("vae", {"fit": {"epochs": 1}})
    states = []
    for seed in (0, 0, 1):
        run = Run(dataclasses.replace(run.config, seed=seed), "dev", run.progress)
        trainer = keras_model.make_trainer(system, seed)
        keras_model._train_one(Job(run, system, "fan", clips["fan"]), trainer)
        resume_path(run.model_folder(system), "fan").unlink()
        states.append([v.numpy().tolist() for v in trainer.autoencoder.variables if "seed" in v.path])
    assert states[0] == states[1] != states[2]


# ---- the YAML ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature": {"frames": 12}}, r"systems.conv_ae.feature.frames: 12; expected a multiple of 8"),
        ({"feature": {"n_mels": 80}}, r"systems.conv_ae.feature.n_mels: 80; expected a multiple of 32"),
        ({"model": {"filters": [4, 8]}}, r"systems.conv_ae.model.filters: \[4, 8\]; expected 5 numbers"),
        ({"model": {"filters": [4, 8, 8, 8, 0]}}, r"systems.conv_ae.model.filters: 0; expected a whole number"),
        ({"model": {"hop": 0}}, r"systems.conv_ae.model.hop: 0; expected a whole number at least 1"),
        ({"model": {"units": [4]}}, r"systems.conv_ae.model.units: unknown key"),
        ({"fit": {"compile": {"loss": "categorical_crossentropy"}}}, r"systems.conv_ae.fit.compile.loss"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(yaml_file, changes, message):
    with pytest.raises(common.UserError, match=message):
        config.load_config(yaml_file({"systems": {"conv_ae": merge(MODELS["conv_ae"], changes)}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kl_weight": -1}, r"systems.vae.model.kl_weight: -1; expected a number at least 0"),
        ({"latent": 0}, r"systems.vae.model.latent: 0; expected a whole number at least 1"),
        ({"units": []}, r"systems.vae.model.units: \[\]; expected a list"),
    ],
)
def test_keys_of_the_variational_autoencoder(yaml_file, changes, message):
    with pytest.raises(common.UserError, match=message):
        config.load_config(yaml_file({"systems": {"vae": merge(MODELS["vae"], {"model": changes})}}))


@pytest.mark.parametrize("name", ["vae", "conv_ae"])
def test_keys_without_which_there_is_no_model(yaml_file, name):
    model = {k: v for k, v in MODELS[name]["model"].items() if k != "latent"}
    with pytest.raises(common.UserError, match=rf"systems.{name}.model.latent: missing"):
        config.load_config(yaml_file({"systems": {name: MODELS[name] | {"model": model}}}))
