"""metric_model.py: the network's parts by hand, its batch normalisation, the detectors, saving, the whole chain."""

import dataclasses
import importlib
import itertools
import logging
import math
import sys
import types
import urllib.error

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import FAMILIES, SHIPPED, merge
from tqdm import tqdm

import common
import config
import metric_model
from audio.clips import Clip
from training import backbone, classes, clip_trainer, embedding, metric_layers, workload
from training.fit import TrainingState, epoch_batches
from training.folds import fold_of_each
from training.models import load_model
from training.optimizers import FusedAdam
from training.run import Run

MODEL = config.L2Softmax(
    classes="machine_type",
    alpha=16.0,
    margin=0.0,
    mixup=0.0,
    width=0.35,
    weights=None,
    input_size=None,
    resize="bilinear",
    scaling="standard",
    score="lof",
    lof_per="machine_type",
    n_neighbors=4,
    metric="euclidean",
)
N_MELS, FRAMES = 32, 40


def model_with(**changes) -> config.L2Softmax:
    return dataclasses.replace(MODEL, **changes)


def build(model=MODEL, *, n_mels=N_MELS, frames=FRAMES, n_classes=3, seed=0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return metric_model.build(
        model, n_mels=n_mels, frames=frames, n_classes=n_classes, mean=np.zeros(n_mels), deviation=np.full(n_mels, 10.0)
    )


CHECKSUMS = itertools.count()


def make_clip(path="normal_id_00_0.wav", machine_type="fan", machine_id="id_00", label=0, attributes=None) -> Clip:
    facts = (16000, 16000, 32044, 0, next(CHECKSUMS))
    return Clip(path, machine_type, machine_id, label, *facts, attributes=attributes)


def striped_log_mels(
    n_clips: int, frames: int, n_classes: int, seed: int, loud: float = 12
) -> tuple[list[np.ndarray], np.ndarray]:
    """Noise in which each class has a loud band of its own; (frames, N_MELS) [dB] each, and the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_clips) % n_classes
    log_mels = []
    for label in labels:
        log_mel = rng.normal(-30, 8, (frames, N_MELS))
        log_mel[:, 8 * label : 8 * label + 8] += loud
        log_mels.append(log_mel.astype(np.float32))
    return log_mels, labels


def make_trainer(network, model, log_mels, labels, *, learning_rate=1e-3):
    """Trainer of the clips, as ``metric_model.train`` makes it."""
    fit = types.SimpleNamespace(compile=config.Compile("adam", "categorical_crossentropy", learning_rate))
    log_mel = tf.Variable(np.concatenate(log_mels).astype(clip_trainer.FRAME_TYPE), trainable=False)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in log_mels])])
    source = clip_trainer.LogMelWindows(log_mel, offsets, np.arange(len(labels)), frames=network.input_shape[2])
    return clip_trainer.make_trainer(network, types.SimpleNamespace(model=model, fit=fit), source, labels, 0)


def embed(network, log_mels):
    """Embeddings and log probabilities of log-mel energies."""
    return embedding.embed(network, embedding.log_mel_examples(log_mels, network.input_shape[2]))


def fit_epochs(trainer, n_clips, epochs):
    """Loss of each epoch."""
    batches = epoch_batches(n_clips, seed=0, batch_size=16, shuffle=True)
    steps = math.ceil(n_clips / 16)
    return trainer.fit(batches, steps_per_epoch=steps, epochs=epochs, shuffle=False, verbose=0).history["loss"]


# ---- layers and loss ----


def test_embeddings_have_norm_alpha_per_sample():
    layer = metric_layers.L2Constraint(5.0, False)
    embeddings = layer(np.array([[3.0, 4.0], [0.3, 0.4], [0.0, -2.0]], np.float32))
    assert np.allclose(embeddings, [[3, 4], [3, 4], [0, -5]], atol=1e-5)
    assert not layer.trainable_weights


def test_l2_softmax_loss_by_hand():
    model = model_with(alpha=2.0)
    network = build(model)
    inputs = np.random.default_rng(0).normal(size=(4, N_MELS, FRAMES, 1)).astype(np.float32)
    features = keras.Model(network.inputs, network.get_layer("embedding").input)([inputs]).numpy()
    weights, bias = network.get_layer("logits").get_weights()
    logits = 2 * features / np.linalg.norm(features, axis=1, keepdims=True) @ weights + bias
    labels = np.eye(3, dtype=np.float32)[[0, 2, 1, 1]]
    by_hand = np.mean(np.log(np.exp(logits).sum(axis=1)) - (labels * logits).sum(axis=1))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)(labels, network(inputs, training=False))
    assert float(loss) == pytest.approx(by_hand, abs=1e-5)


def test_gradient_reaches_alpha_where_it_is_trained():
    inputs = np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)
    for trained in (True, False):
        layer = metric_layers.L2Constraint(5.0, trained)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(inputs))
        assert [w.name for w in layer.trainable_weights] == (["alpha"] if trained else [])
        assert float(tape.gradient(total, layer.alpha.value) or 0) == pytest.approx(2.4 if trained else 0)
    for alpha, trained in (("trained", True), (16.0, False)):
        names = [w.name for w in build(model_with(alpha=alpha)).trainable_weights]
        assert ("alpha" in names) is trained


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_margin_loss_by_hand(margin):
    angles = np.array([[0.5, 1.2, 2.0], [1.0, 0.9, 1.4], [1.0, 2.0, 2.9]])
    labels = np.array([[1, 0, 0], [0, 0.3, 0.7], [0, 0, 1]])
    terms = []
    for row, weights in zip(angles, labels, strict=True):
        for j in np.flatnonzero(weights):
            logits = 10 * np.cos(row)
            if j != weights.argmax():  # no margin
                terms.append(weights[j] * (np.log(np.exp(logits).sum()) - logits[j]))
                continue
            turned_away = row[j] > np.pi - margin
            logits[j] = 10 * (np.cos(row[j]) - margin * np.sin(margin) if turned_away else np.cos(row[j] + margin))
            terms.append(weights[j] * (np.log(np.exp(logits).sum()) - logits[j]))
    by_hand = [terms[0], terms[1] + terms[2], terms[3]]
    logits = tf.constant(10 * np.cos(angles), tf.float32)
    losses = metric_layers.margin_softmax_loss(tf.constant(labels, tf.float32), logits, alpha=10.0, margin=margin)
    assert np.allclose(losses, by_hand, atol=1e-3)
    of_networks = [tf.repeat(part[:, None], 2, axis=1) for part in (tf.constant(labels, tf.float32), logits)]
    of_networks = metric_layers.margin_softmax_loss(*of_networks, alpha=10.0, margin=margin)
    assert np.allclose(of_networks, np.repeat(np.array(by_hand)[:, None], 2, axis=1), atol=1e-3)


def test_margin_network_gives_cosines():
    network = build(model_with(margin=0.5, alpha=7.0))
    inputs = np.random.default_rng(0).normal(size=(4, N_MELS, FRAMES, 1)).astype(np.float32)
    vectors = keras.Model(network.inputs, network.get_layer("embedding").output)([inputs]).numpy()
    kernel = network.get_layer("logits").get_weights()[0]
    cosines = vectors @ kernel / np.linalg.norm(vectors, axis=1)[:, None] / np.linalg.norm(kernel, axis=0)
    assert np.allclose(network(inputs), 7 * cosines, atol=1e-4)


def test_lower_bound_of_alpha():
    # Ranjan et al. (2017), eq. 8, for six classes
    assert classes.alpha_lower_bound(6, 0.95) == pytest.approx(4.33, abs=0.005)
    assert classes.alpha_lower_bound(6, 0.99) == pytest.approx(5.98, abs=0.005)
    assert classes.alpha_lower_bound(2, 0.99) == 0


# ---- network ----


def test_network_of_the_report():
    network = metric_model.build(
        model_with(width=1.0, input_size=224),
        n_mels=64,
        frames=313,
        n_classes=6,
        mean=np.zeros(64),
        deviation=np.ones(64),
    )
    backbone = next(layer for layer in network.layers if isinstance(layer, keras.Model))
    assert network.input_shape == (None, 64, 313, 1)
    assert backbone.input_shape == (None, 224, 224, 3)
    assert network.get_layer("embedding").output.shape == (None, 1280)
    assert network.output_shape == (None, 6)
    # Keras's MobileNetV2 without top has 2,257,984 parameters; 1280 * 6 + 6 of the classifier, and alpha.
    scaling = 2 * 64 + 1 if any(w.name == "count" for w in network.weights) else 0
    assert network.count_params() - scaling == 2_257_984 + 7_686 + 1
    normalisations = [one for one in backbone.layers if isinstance(one, keras.layers.BatchNormalization)]
    assert len(normalisations) == 52
    assert all(type(one) is metric_layers.FusedBatchNormalization for one in normalisations)


def test_scaling_is_stored_with_the_network_and_channels_are_equal():
    mean, deviation = np.linspace(-60, -20, N_MELS), np.linspace(5, 10, N_MELS)
    network = metric_model.build(MODEL, n_mels=N_MELS, frames=FRAMES, n_classes=3, mean=mean, deviation=deviation)
    backbone = next(layer for layer in network.layers if isinstance(layer, keras.Model))
    log_mel = np.random.default_rng(0).normal(-40, 10, (2, N_MELS, FRAMES, 1)).astype(np.float32)
    image = keras.Model(network.inputs, network.layers[network.layers.index(backbone) - 1].output)([log_mel]).numpy()
    assert image.shape == (2, N_MELS, FRAMES, 3)
    scaled = (log_mel - mean[:, None, None]) / deviation[:, None, None]
    assert np.allclose(image, np.repeat(scaled, 3, axis=-1), atol=1e-5)


def test_input_too_small_for_mobilenet():
    with pytest.raises(common.UserError, match="16 bands x 40 frames; MobileNetV2 needs 32 x 32"):
        build(n_mels=16)
    assert build(model_with(input_size=32), n_mels=16).input_shape == (None, 16, FRAMES, 1)


def test_fused_batch_normalisation_equals_keras():
    rng = np.random.default_rng(0)
    ours, keras_own = metric_layers.FusedBatchNormalization(momentum=0.8), keras.layers.BatchNormalization(momentum=0.8)
    for _ in range(3):
        batch = rng.normal(3, 2, (4, 5, 6, 7)).astype(np.float32)
        with tf.GradientTape(persistent=True) as tape:
            outputs = [layer(batch, training=True) for layer in (ours, keras_own)]
            sums = [tf.reduce_sum(one**3) for one in outputs]
        assert np.allclose(*outputs, atol=1e-4)
        ours_gradient, keras_gradient = (
            tape.gradient(one, layer.gamma.value) for one, layer in zip(sums, (ours, keras_own), strict=True)
        )
        assert np.allclose(ours_gradient, keras_gradient, rtol=1e-3, atol=0.1)
    for weight, other in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        assert np.allclose(weight, other, atol=1e-4)
    assert np.allclose(ours(batch, training=False), keras_own(batch, training=False), atol=1e-4)


@pytest.mark.usefixtures("without_mobilenet")
def test_training_takes_the_steps_of_keras_own_layers():
    log_mels, labels = striped_log_mels(32, FRAMES, 3, seed=0)
    losses = []
    for own in (False, True):
        network = build()
        if own:
            network = with_keras_batch_normalisation(network)
        trainer = make_trainer(network, MODEL, log_mels, labels, learning_rate=1e-5)
        losses.append(fit_epochs(trainer, 32, epochs=3))
    assert np.allclose(*losses, rtol=1e-3)


def with_keras_batch_normalisation(network):
    """A copy of the network with Keras's own batch normalisation."""

    def clone(layer):
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=clone)
        kind = keras.layers.BatchNormalization if isinstance(layer, keras.layers.BatchNormalization) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(network, clone_function=clone)
    copy.set_weights(network.get_weights())
    return copy


def test_inference_separates_what_training_mode_separates_after_few_steps(monkeypatch):
    monkeypatch.setattr(backbone, "BATCH_NORM_MOMENTUM", 0.999)  # Keras's own
    log_mels, labels = striped_log_mels(96, FRAMES, 3, seed=0, loud=27)
    network = build()
    trainer = make_trainer(network, MODEL, log_mels, labels, learning_rate=3e-3)
    fit_epochs(trainer, 96, epochs=10)
    new, new_labels = striped_log_mels(48, FRAMES, 3, seed=1, loud=27)

    def inference_accuracy():
        return np.mean(np.argmax(embed(network, new)[1], axis=1) == new_labels)

    assert inference_accuracy() < 0.7  # the moving statistics are near their start
    clips = tf.data.Dataset.range(96).batch(16)
    assert trainer.evaluate(clips, verbose=0, return_dict=True)["accuracy"] > 0.9  # what a history shows
    weights = network.get_weights()
    in_training = np.argmax(network(np.stack(new).transpose(0, 2, 1)[..., None], training=True), axis=1)
    network.set_weights(weights)
    assert np.mean(in_training == new_labels) > 0.9
    clip_trainer.settle_statistics(trainer, n_train=96, batch_size=16, seed=0)
    assert inference_accuracy() > 0.9


def test_settled_statistics_are_means_over_batches():
    log_mels, labels = striped_log_mels(32, FRAMES, 3, seed=0)
    network = build()
    trainer = make_trainer(network, MODEL, log_mels, labels)
    clip_trainer.settle_statistics(trainer, n_train=32, batch_size=16, seed=0)
    mobilenet = next(layer for layer in network.layers if isinstance(layer, keras.Model))
    first = mobilenet.get_layer("bn_Conv1")
    convolved = keras.Model(mobilenet.inputs, mobilenet.get_layer("Conv1").output)
    images = np.repeat(np.stack(log_mels).transpose(0, 2, 1)[..., None] / 10, 3, axis=-1)
    outputs = convolved([images]).numpy()
    assert np.allclose(first.moving_mean, outputs.mean(axis=(0, 1, 2)), atol=1e-3)
    by_batch = [outputs[i].var(axis=(0, 1, 2)) for i in np.split(order_of_settling(32), 2)]
    assert np.allclose(first.moving_variance, np.mean(by_batch, axis=0), rtol=1e-3)
    assert first.momentum == backbone.BATCH_NORM_MOMENTUM


def order_of_settling(n):
    batches = epoch_batches(n, seed=0, batch_size=n, shuffle=True)
    return next(iter(batches)).numpy()


def test_saved_without_lambda_and_loaded_the_same(tmp_path):
    for model in (MODEL, model_with(margin=0.4, alpha="trained", input_size=64)):
        network = build(model)
        network.save(tmp_path / "model.keras")
        loaded = load_model(tmp_path / "model.keras")
        log_mels, _ = striped_log_mels(3, FRAMES, 3, seed=0)
        for one, other in zip(embed(network, log_mels), embed(loaded, log_mels), strict=True):
            assert np.allclose(one, other, atol=1e-5)
        layers = [*loaded.layers, *next(layer for layer in loaded.layers if isinstance(layer, keras.Model)).layers]
        assert not any(isinstance(layer, keras.layers.Lambda) for layer in layers)
        norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert len(norms) == 52


# ---- start weights ----


def test_weights_of_a_file(tmp_path):
    original = keras.applications.MobileNetV2(
        input_shape=(96, 96, 3), alpha=0.35, include_top=False, weights=None, pooling="avg"
    )
    path = tmp_path / "backbone.weights.h5"
    original.save_weights(path)
    network = build(model_with(weights=str(path)))
    backbone = next(layer for layer in network.layers if isinstance(layer, keras.Model))
    assert all(np.array_equal(a, b) for a, b in zip(backbone.get_weights(), original.get_weights(), strict=True))


def test_weights_that_do_not_fit(tmp_path):
    with pytest.raises(common.UserError, match="model.weights: .*none.h5: "):
        build(model_with(weights=str(tmp_path / "none.h5")))
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save_weights(path)
    with pytest.raises(common.UserError, match="(?s)other.weights.h5: .*or a file of weights of a MobileNetV2"):
        build(model_with(weights=str(path)))
    (tmp_path / "text.h5").write_text("not weights", encoding="utf-8")
    with pytest.raises(common.UserError, match="text.h5: .*signature"):
        build(model_with(weights=str(tmp_path / "text.h5")))


def test_imagenet_weights_without_network(monkeypatch):
    def refuse(*_, **__):
        try:
            raise urllib.error.URLError("refused")
        except urllib.error.URLError:
            raise Exception("URL fetch failure")  # noqa: B904, TRY002 as Keras does

    monkeypatch.setattr(sys.modules["keras.src.applications.mobilenet_v2"].file_utils, "get_file", refuse)
    with pytest.raises(common.UserError, match="model.weights: imagenet: URL fetch failure"):
        build(model_with(weights="imagenet"))
    with pytest.raises(common.UserError, match="(?s)imagenet: .*for a model.width of 0.35, 0.5"):
        build(model_with(weights="imagenet", width=0.4))


# ---- classes, split, scaling, windows ----


def test_stratified_split():
    names = ["a"] * 20 + ["b"] * 10 + ["c"] * 5
    order, n_train = classes.stratified_order(names, 0.1, seed=0)
    assert sorted(order) == list(range(35)) and n_train == 32
    assert sorted(np.array(names)[order[n_train:]]) == ["a", "a", "b"]
    assert not np.array_equal(order[n_train:], classes.stratified_order(names, 0.1, seed=1)[0][n_train:])
    assert classes.stratified_order(names, 0.0, seed=0)[1] == 35


def test_classes_of_attributes_by_hand():
    clips = [
        make_clip(attributes="speed_1_load_2"),
        make_clip(machine_id="id_02", attributes="speed_1_load_2"),
        make_clip(),
    ]
    names = classes.class_names(model_with(classes="attributes"), clips)
    assert names == ["fan/id_00/speed_1_load_2", "fan/id_02/speed_1_load_2", "fan/id_00"]


def test_a_class_of_one_clip_is_trained_on():
    names = ["a"] * 20 + ["b"] + ["c"] * 3
    order, n_train = classes.stratified_order(names, 0.1, seed=0)
    assert sorted(order) == [*range(24)] and n_train == 22 and set(order[n_train:]) < {*range(20)}
    order, n_train = classes.stratified_order(["a", "b"], 0.5, seed=0)  # nothing is left to validate on
    assert sorted(order) == [0, 1] and n_train == 2


def test_scaling_statistics():
    rng = np.random.default_rng(0)
    blocks = [rng.normal([-30, -50], [4, 9], (n, 2)).astype(np.float32) for n in (100, 300)]
    values = np.concatenate(blocks)
    statistics = clip_trainer.BandStatistics(2)
    for block in blocks:
        statistics.add(block)
    mean, deviation = statistics.scaling("standard")
    assert np.allclose(mean, values.mean(), atol=1e-4) and np.allclose(deviation, values.std(), atol=1e-4)
    mean, deviation = statistics.scaling("standard_per_band")
    assert np.allclose(mean, values.mean(axis=0)) and np.allclose(deviation, values.std(axis=0), atol=1e-4)
    mean, deviation = statistics.scaling("minmax")
    scaled = (values - mean) / deviation
    assert scaled.min() == pytest.approx(-1) and scaled.max() == pytest.approx(1)


def test_windows_of_longer_and_shorter_clips():
    def firsts_and_lasts(n_frames):
        windows = embedding.clip_windows(np.arange(n_frames, dtype=float)[:, None], 313)
        assert windows.shape[1:] == (1, 313)
        return [(window[0, 0], window[0, -1]) for window in windows]

    assert firsts_and_lasts(313) == [(0, 312)]
    assert firsts_and_lasts(344) == [(0, 312), (31, 343)]  # ToyCar
    assert firsts_and_lasts(626) == [(0, 312), (313, 625)]
    assert firsts_and_lasts(627) == [(0, 312), (157, 469), (314, 626)]
    assert np.array_equal(embedding.clip_windows(np.arange(3.0)[:, None], 7)[0, 0], [0, 1, 2, 0, 1, 2, 0])


def test_training_windows_lie_within_their_clip():
    log_mels = [np.full((n, N_MELS), value, np.float32) for n, value in ((FRAMES, 1), (FRAMES + 30, 2), (7, 3))]
    log_mels[1] += np.arange(FRAMES + 30, dtype=np.float32)[:, None] / 128
    log_mels[2] += np.arange(7, dtype=np.float32)[:, None] / 128
    trainer = make_trainer(build(), MODEL, log_mels, np.array([0, 1, 2]))
    for place, first in ((0.0, 0), (0.5, 15), (0.999999, 30)):
        windows, labels = trainer.examples(tf.constant([1, 2, 0]), tf.fill([3], place))
        assert windows.shape == (3, N_MELS, FRAMES, 1)
        assert np.allclose(windows[0, 0, :, 0], 2 + np.arange(first, first + FRAMES) / 128, atol=1e-5)
        assert np.allclose(windows[1, 0, :, 0], 3 + np.arange(FRAMES) % 7 / 128, atol=1e-5)
        assert np.array_equal(windows[2, 0, :, 0], np.ones(FRAMES))
        assert np.array_equal(labels, [1, 2, 0])


def test_mixup_mixes_inputs_and_labels_alike():
    log_mels = [np.full((FRAMES, N_MELS), value, np.float32) for value in (0, 1)]
    trainer = make_trainer(build(n_classes=2), model_with(mixup=1.0), log_mels, np.array([0, 1]))
    windows, labels = trainer.examples(tf.constant([0, 1]), tf.zeros(2))
    mixed, mixed_labels = trainer.mixed(windows, trainer.one_hot(labels), tf.constant([0, 5], tf.int64))
    assert np.allclose(mixed[:, 0, 0, 0], mixed_labels[:, 1], atol=1e-6)
    assert np.allclose(np.sum(mixed_labels, axis=1), 1) and 0.001 < mixed_labels[0, 0] < 0.999


@pytest.mark.parametrize("steps_left_out", [False, True])
def test_each_step_draws_anew_also_after_one_that_was_left_out(monkeypatch, steps_left_out):
    log_mels, labels = striped_log_mels(16, FRAMES + 30, 3, seed=0)
    trainer = make_trainer(build(), model_with(mixup=1.0), log_mels, labels)
    if steps_left_out:  # as under mixed_float16 when gradients overflow
        monkeypatch.setattr(FusedAdam, "apply", lambda *_, **__: None)
    places, take = [], trainer.source.take
    trainer.source.take = lambda indices, where: places.append(where.numpy()) or take(indices, where)
    trainer.run_eagerly = True
    fit_epochs(trainer, 16, epochs=4)
    assert len({tuple(each) for each in places}) == 4
    expected = [tf.random.stateless_uniform((16,), tf.constant([0, step], tf.int64)) for step in range(4)]
    np.testing.assert_array_equal(places, expected)


# ---- embeddings ----


def test_embeddings_do_not_depend_on_their_neighbours_in_the_batch(monkeypatch):
    network = build()
    log_mels, _ = striped_log_mels(7, FRAMES + 5, 3, seed=0)
    embeddings, log_probabilities = embed(network, log_mels)
    assert embeddings.shape == (7, 1280) and log_probabilities.shape == (7, 3)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 16, atol=1e-3)
    assert np.allclose(np.exp(embed(network, log_mels[:1])[1]).sum(), 1, atol=0.05)
    monkeypatch.setattr(embedding, "EMBEDDING_BATCH", 3)
    for one, other in zip(embed(network, log_mels), (embeddings, log_probabilities), strict=True):
        assert np.allclose(one, other, atol=1e-4)
    alone = np.concatenate([embed(network, [one])[0] for one in log_mels])
    assert np.allclose(alone, embeddings, atol=1e-4)


def test_network_that_gives_nan_is_refused():
    network = build()
    network.get_layer("logits").set_weights([np.full((1280, 3), np.nan), np.zeros(3)])
    with pytest.raises(common.UserError, match="not finite"):
        embed(network, striped_log_mels(1, FRAMES, 3, seed=0)[0])


# ---- dense networks on descriptors ----

DENSE = config.DenseL2Softmax(
    classes="machine_id",
    alpha=16.0,
    mixup=0.0,
    network_per="all",
    networks=3,
    units=(16, 8),
    embedding=4,
    exchange=0.5,
    min_steps=0,
    score="density",
    lof_per="machine_id",
    n_neighbors=1,
    metric="euclidean",
)


def build_dense(model=DENSE, n_numbers=10, n_classes=6):
    keras.utils.set_random_seed(0)
    return metric_model.build_dense(model, n_classes=n_classes, mean=np.zeros(n_numbers), deviation=np.ones(n_numbers))


def test_networks_share_nothing_but_their_input():
    network = build_dense()
    inputs = np.random.default_rng(0).normal(size=(5, 10)).astype(np.float32)
    assert network.output_shape == (None, 3, 6)
    vectors = keras.Model(network.inputs, network.get_layer("embedding").output)([inputs])
    assert vectors.shape == (5, 3, 4) and np.allclose(np.linalg.norm(vectors, axis=-1), 16, atol=1e-3)
    before = network(inputs).numpy()
    kernel, bias = network.get_layer("logits").get_weights()
    assert np.allclose(before, np.einsum("nke,kec->nkc", vectors, kernel) + bias, atol=1e-3)
    first = next(layer for layer in network.layers if isinstance(layer, keras.layers.Dense))
    first.set_weights([weights * 2 for weights in first.get_weights()])
    first.kernel.assign(first.kernel[:, ::-1])
    changed = np.abs(network(inputs).numpy() - before).max(axis=(0, 2))
    assert changed[0] > 0.01 and np.all(changed[1:] == 0)


def test_embeddings_of_several_networks_stand_one_after_the_other():
    network = build_dense()
    inputs = np.random.default_rng(0).normal(size=(40, 10)).astype(np.float32)
    embeddings, log_probabilities = embedding.embed(network, iter(inputs[:, None]))
    vectors = keras.Model(network.inputs, network.get_layer("embedding").output)([inputs]).numpy()
    assert np.allclose(embeddings, vectors.reshape(40, 12), atol=1e-4)
    own = tf.nn.log_softmax(network(inputs)).numpy().mean(axis=1)
    assert np.allclose(log_probabilities, own, atol=1e-5)


def test_a_number_that_never_changes_in_training_has_no_say():
    deviation = np.ones(10)
    deviation[3] = np.inf
    network = metric_model.build_dense(DENSE, n_classes=6, mean=np.zeros(10), deviation=deviation)
    inputs = np.random.default_rng(0).normal(size=(5, 10)).astype(np.float32)
    other = inputs.copy()
    other[:, 3] += 100
    assert np.allclose(network(inputs), network(other), atol=1e-4)


def descriptors(vectors, labels, rows=None, **keys):
    n = vectors.shape[1]
    keys = {"exchange": 0.0, "shift": 0.0, "noise": np.zeros(n)} | keys
    return clip_trainer.Descriptors(vectors, labels, [np.arange(n)] if rows is None else rows, **keys)


def test_exchanged_examples_are_of_classes_of_their_own():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    vectors = (100 * labels[:, None] + np.arange(60)[:, None] / 100 + np.zeros(10)).astype(np.float32)
    source = descriptors(vectors, labels, exchange=0.5)
    indices = tf.constant(rng.permutation(60))
    inputs, classes_of = tf.gather(vectors, indices), tf.constant(labels[indices.numpy()], tf.int32)
    mixed, found = source.augmented(indices, inputs, classes_of, tf.constant([0, 7], tf.int64))
    exchanged = found.numpy() >= 3
    assert 15 < exchanged.sum() < 45
    assert np.array_equal(found.numpy() % 3, classes_of)  # the class of the clip, or the one beside it
    assert np.array_equal(mixed[~exchanged], inputs[~exchanged])
    assert np.array_equal(np.floor(mixed / 100)[:, 0], np.floor(inputs / 100)[:, 0])  # from a clip of the same class
    differs = np.asarray(mixed != inputs)[exchanged]
    assert np.all(differs[:, :-1] >= differs[:, 1:]) and differs.any()  # the lower bands, up to a cut
    again, _ = source.augmented(indices, inputs, classes_of, tf.constant([0, 7], tf.int64))
    assert np.array_equal(mixed, again)


def test_a_clip_is_exchanged_with_another_that_is_trained_on_or_not_at_all():
    labels = np.array([0, 1, 0, 2, 0, 1])  # the class 2 is of one clip; the last two clips are for validation
    vectors = np.arange(6, dtype=np.float32)[:, None] + np.zeros((6, 4), np.float32)
    source = descriptors(vectors, labels[:4], [], exchange=1.0, n_classes=3)
    indices = tf.constant([0, 1, 2, 3] * 50)
    inputs, classes_of = tf.gather(vectors, indices), tf.constant(labels[indices.numpy()], tf.int32)
    mixed, found = source.augmented(indices, inputs, classes_of, tf.constant([0, 7], tf.int64))
    partners = {index: set(np.asarray(mixed)[indices.numpy() == index, 0].tolist()) for index in range(4)}
    assert partners == {0: {2}, 1: {1}, 2: {0}, 3: {3}}
    assert np.array_equal(found, np.tile([3, 1, 3, 2], 50))


def test_shifted_examples_are_of_two_further_classes():
    labels = np.repeat([0, 1], 2000)
    ramp = np.arange(60, dtype=np.float32)  # a number is the band that it is of, of which each row has 60
    rows = [np.arange(0, 120, 2), np.arange(1, 120, 2)[::-1]]
    vectors = np.zeros((4000, 120), np.float32)
    vectors[:, rows[0]], vectors[:, rows[1]] = ramp, 100 + ramp
    source = descriptors(vectors, labels, rows, exchange=0.5, shift=0.5)
    batch = (tf.range(4000), tf.constant(vectors), tf.constant(labels, tf.int32))
    found, kinds = (one.numpy() for one in source.augmented(*batch, tf.constant([0, 7], tf.int64)))
    assert np.array_equal(kinds % 2, labels)
    down, up, rest = (np.isin(kinds // 2, kind) for kind in (2, 3, [0, 1]))
    assert all(400 < one.sum() < 600 for one in (down, up)) and 1800 < (kinds // 2 == 1).sum() < 2200
    assert np.array_equal(found[rest], vectors[rest])  # all clips are alike: those that were exchanged as well
    for which, sign in ((down, 1), (up, -1)):  # what is heard moves up: a band has what was below it
        by = sign * (found[which][:, rows[0]] - ramp)
        inner = by[:, 3:-3]
        assert np.allclose(inner, inner[:, :1], atol=1e-4) and inner.min() == pytest.approx(0.5, abs=1e-4)
        assert inner.max() == pytest.approx(3, abs=1e-4) and len(np.unique(inner[:, 0].round(3))) == 16
        assert found[which].min() >= 0 and found[which][:, rows[0]].max() <= 59
        assert np.allclose(found[which][:, rows[1]], 100 + found[which][:, rows[0]], atol=1e-4)
    alone = descriptors(vectors, labels, rows, shift=1.0)  # without exchange there are no classes for it
    _, kinds = alone.augmented(*batch, tf.constant([0, 7], tf.int64))
    assert set(kinds.numpy() // 2) == {1, 2} and (source.n_kinds, alone.n_kinds) == (4, 3)


def test_each_shift_is_a_share_of_the_bands_however_many():
    lower, upper, part = clip_trainer.band_shifts([np.arange(30), np.array([30])], 31)
    at = lower + part * (upper - lower)
    assert np.allclose(at[0, :3], [0.25, 1.25, 2.25]) and np.allclose(at[16, :3], [0, 0.75, 1.75])
    assert np.all(at[:, 30] == 30) and at[:, :30].max() == 29  # a row of one band stays as it is


def test_noise_of_each_number():
    vectors, labels = np.zeros((2000, 3), np.float32), np.zeros(2000, int)
    source = descriptors(vectors, labels, noise=np.array([0, 1, 5]))
    clips = (tf.range(2000), tf.constant(vectors), tf.constant(labels, tf.int32))
    noisy, same = source.augmented(*clips, tf.constant([0, 7], tf.int64))
    assert np.allclose(np.std(noisy, axis=0), [0, 1, 5], rtol=0.1) and np.array_equal(same, labels)
    other, _ = source.augmented(*clips, tf.constant([0, 8], tf.int64))
    assert not np.any(np.asarray(noisy == other)[:, 1:])


def test_mixup_of_a_share_of_the_examples():
    model = dataclasses.replace(DENSE, mixup=1.0, mixup_share=0.3, exchange=0.0)
    vectors = np.repeat(np.arange(400.0)[:, None], 10, axis=1).astype(np.float32)
    source = descriptors(vectors, np.zeros(400, int))
    fit = types.SimpleNamespace(compile=config.Compile("adam", "categorical_crossentropy", 1e-3))
    system = types.SimpleNamespace(model=model, fit=fit)
    trainer = clip_trainer.make_trainer(build_dense(model), system, source, np.zeros(400, int), 0)
    mixed, _ = trainer.mixed(
        tf.constant(vectors), trainer.one_hot(tf.zeros(400, tf.int32)), tf.constant([0, 5], tf.int64)
    )
    assert 0.2 < np.mean(np.asarray(mixed)[:, 0] != vectors[:, 0]) < 0.4


def test_few_clips_are_seen_more_often():
    fit = config.Fit(
        config.Compile("adam", "categorical_crossentropy"),
        epochs=30,
        batch_size=128,
        shuffle=True,
        validation_split=0.0,
        verbose=0,
    )
    system = config.System("dense", dataclasses.replace(DENSE, min_steps=1000, max_passes=150, folds=5), None, fit)
    assert workload.prolonged(system, 100).fit.epochs == 150  # a step each: they would be learnt by heart
    assert workload.prolonged(system, 1300).fit.epochs == 91  # 11 steps each
    assert workload.prolonged(system, 20000).fit.epochs == 30
    assert workload.n_folds(system, 100) == 5
    assert workload.n_folds(system, 300) == 3  # 450 steps each
    assert workload.n_folds(system, 20000) == 2  # 4710
    assert workload.passes(system, 100) == 2 + 5 * 150
    without = dataclasses.replace(system, model=dataclasses.replace(system.model, folds=1))
    assert workload.n_folds(without, 100) == 1 and workload.passes(without, 100) == 152


def test_batches_without_a_fold_are_as_those_of_all_clips(monkeypatch):
    fit = config.Fit(config.Compile("adam", "mean_squared_error"), 30, 128, shuffle=True, validation_split=0, verbose=0)
    system = config.System("dense", dataclasses.replace(DENSE, min_steps=2000, folds=5), None, fit)

    def batches(n_clips, batch_size):
        return [min(batch_size, n_clips - start) for start in range(0, n_clips, batch_size)]

    assert batches(144, 128) == [128, 16]  # of 144 clips out of 180: every other step would be of a few clips
    for n_clips, n_heard in ((60, 48), (180, 144), (270, 216), (690, 552), (600, 480), (600, 300), (1300, 650)):
        whole, part = batches(n_clips, 128), batches(n_heard, workload.on_part(system, n_heard, n_clips).fit.batch_size)
        assert len(part) == math.ceil(len(whole) * n_heard / n_clips) and part[0] <= 128
        assert part[-1] / part[0] > 0.8 * whole[-1] / whole[0]

    sizes, clips = [], [make_clip(machine_id=f"id_0{k % 6}") for k in range(180)]
    monkeypatch.setattr(metric_model, "Job", lambda *parts: types.SimpleNamespace(system=parts[1]))
    monkeypatch.setattr(metric_model, "_fit", lambda part, *_: (None, {}, sizes.append(part.system.fit.batch_size)))
    monkeypatch.setattr(embedding, "embed", lambda *_: (np.zeros((180, 2)), np.zeros((180, 6))))
    job = types.SimpleNamespace(run=None, system=system, name="all", clips=clips, is_chief=False)
    metric_model._without_folds(job, None, np.arange(180) % 6, 0)
    assert sizes == 5 * [103]


def test_folds_hold_a_part_of_each_machine_and_copies_together():
    clips = [make_clip(machine_id=f"id_0{k % 3}") for k in range(33)]
    clips = [dataclasses.replace(clip, crc=(k * 7919) % 101) for k, clip in enumerate(clips)]
    clips += clips[:5]
    found = fold_of_each(clips, 5)
    assert np.array_equal(found[33:], found[:5])
    for number in range(3):
        assert set(np.bincount(found[:33][number::3], minlength=5)) == {2, 3}


# ---- refusals before training ----


def test_one_class_is_refused():
    clips = [make_clip(machine_type="slider") for _ in range(9)]
    for by, name in (("machine_type", "slider"), ("machine_id", "slider/id_00")):
        with pytest.raises(common.UserError, match=f"one class, {name}, and a classifier") as refusal:
            classes.check_trainable(model_with(classes=by), clips)
        assert "set model.classes" not in str(refusal.value)
    with pytest.raises(common.UserError, match="or set model.classes: machine_id"):
        classes.check_trainable(MODEL, [*clips, make_clip(machine_type="slider", machine_id="id_02")])


def test_a_class_of_each_attribute_helps_where_there_is_one_machine():
    clips = [make_clip(attributes=text) for text in 5 * ["speed_1"] + 5 * ["speed_2"]]
    for by in ("machine_type", "machine_id"):
        with pytest.raises(common.UserError, match="one class, fan(.|\n)*or set model.classes: attributes; an auto"):
            classes.check_trainable(model_with(classes=by), clips)
    classes.check_trainable(model_with(classes="attributes"), clips)
    with pytest.raises(common.UserError, match="one class, fan/id_00/speed_1, and a classifier") as refusal:
        classes.check_trainable(model_with(classes="attributes"), clips[:5])
    assert "set model.classes" not in str(refusal.value)


def test_each_machine_type_with_a_network_of_its_own_takes_two_classes():
    dense = config.load_config(SHIPPED).systems["dense_l2_softmax_type"]
    clips = {
        name: [make_clip(machine_type=name, attributes=text) for text in 10 * ["a", "b"]] for name in ("fan", "pump")
    }
    with pytest.raises(common.UserError, match="one class, fan/id_00(.|\n)*or set model.classes: attributes"):
        workload.workload(dense, clips)
    by_attributes = dataclasses.replace(dense, model=dataclasses.replace(dense.model, classes="attributes"))
    assert workload.workload(by_attributes, clips) > 0


def test_fewer_clips_than_neighbours_is_refused():
    clips = [make_clip() for _ in range(5)] + [
        make_clip(machine_type="pump", machine_id=f"id_0{i % 2}") for i in range(6)
    ]
    classes.check_trainable(MODEL, clips)
    with pytest.raises(common.UserError, match=r"n_neighbors: 4(.|\n)*pump/id_00: 3 training clips\n(.|\n)*Lower"):
        classes.check_trainable(model_with(lof_per="machine_id"), clips)
    classes.check_trainable(model_with(lof_per="machine_id", score="softmax"), clips)
    copies = [dataclasses.replace(clip, crc=1) for clip in clips]
    with pytest.raises(common.UserError, match=r"n_neighbors: 4(.|\n)*copies aside:\n  fan: 1 training clips\n"):
        classes.check_trainable(MODEL, copies)


def test_alpha_below_the_bound_is_warned_of(caplog):
    clips = [make_clip(machine_type=name) for name in "abcdef" for _ in range(5)]
    with caplog.at_level(logging.WARNING):
        classes.check_trainable(MODEL, clips)
        assert not caplog.messages
        classes.check_trainable(model_with(alpha=4.0), clips)
    assert "4 is too small for 6 classes: a softmax probability of 0.95 takes at least 4.33" in caplog.text


# ---- the whole chain, by the scripts ----

SYSTEM = {
    "model": {"type": "l2_softmax", **dataclasses.asdict(model_with(n_neighbors=2))},
    "feature": {"n_mels": 32, "frames": 40},  # the clips have 32 frames: they are repeated
    "fit": {"epochs": 2, "batch_size": 4, "compile": {"loss": "categorical_crossentropy", "learning_rate": 1.0e-3}},
}


@pytest.fixture
def settings_file(yaml_file, tmp_path):
    """Writer of YAML files with one small classifier; changes are of its model block."""

    def write(changes=None, *, work=tmp_path):
        system = {**SYSTEM, "model": {**SYSTEM["model"], **(changes or {})}}
        return str(yaml_file({"system": "l2", "systems": {"l2": system}}, work=work))

    return write


def run_script(name, *arguments):
    importlib.import_module(name).main(list(arguments))


def score_files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("anomaly_score_*.csv"))}


def test_train_and_score_with_the_scripts(settings_file, tmp_path):
    path = settings_file()
    run_script("00_train", "-d", "--config", path)
    run_script("01_test", "-d", "--config", path)
    model, result = tmp_path / "model/dev/l2", tmp_path / "result/dev/l2"
    assert sorted(p.name for p in model.iterdir()) == [
        "embeddings_ToyCar.npz",
        "embeddings_fan.npz",
        "history_classifier.png",
        "model_classifier.keras",
        "record_classifier.yaml",
    ]
    lof = score_files(result)
    assert len(lof) == 4 and (result / "result.csv").exists() and (result / "embedding_fan.png").exists()
    rows = [line.split(",") for text in lof.values() for line in text.decode().splitlines()]
    assert len(rows) == 16 and all(math.isfinite(float(score)) for _, score in rows)

    # The detector's keys need no new training; the network's do.
    before = (model / "model_classifier.keras").stat().st_mtime_ns
    for score in ("knn", "softmax"):
        path = settings_file({"score": score})
        run_script("01_test", "-d", "--config", path)
        assert score_files(result) != lof
    run_script("00_train", "-d", "--config", path)
    assert (model / "model_classifier.keras").stat().st_mtime_ns == before
    with pytest.raises(common.UserError, match="another configuration(.|\n)*model.alpha: 16.0 -> 12.0"):
        run_script("01_test", "-d", "--config", settings_file({"alpha": 12.0}))
    with pytest.raises(common.UserError, match="fan id_00: 6 training clips, no more than model.n_neighbors"):
        run_script("01_test", "-d", "--config", settings_file({"n_neighbors": 6}))


@pytest.mark.usefixtures("without_mobilenet")
def test_a_network_of_fewer_machine_types_leaves_nothing_of_the_others(settings_file, tmp_path):
    path = settings_file({"classes": "machine_id"})
    run_script("00_train", "-d", "--config", path)
    folder = tmp_path / "model/dev/l2"
    assert (folder / "embeddings_ToyCar.npz").exists()
    before = (folder / "embeddings_ToyCar.npz").read_bytes()
    run_script("00_train", "-d", "--config", path, "--machine-type", "fan")
    assert not (folder / "embeddings_ToyCar.npz").exists()
    for content in (None, before):  # also where somebody puts them back
        if content:
            (folder / "embeddings_ToyCar.npz").write_bytes(content)
        with pytest.raises(common.UserError, match="ToyCar"):
            run_script("01_test", "-d", "--config", path)
    run_script("01_test", "-d", "--config", path, "--machine-type", "fan")


class PowerFailureError(Exception):
    """Ends a run in its middle."""


@pytest.mark.usefixtures("without_mobilenet")
def test_resumed_training_gives_the_same_score_files(settings_file, tmp_path, monkeypatch):
    keep = TrainingState._keep

    def keep_and_fail(state, epoch):
        keep(state, epoch)
        raise PowerFailureError

    found = []
    for name in ("unbroken", "resumed"):
        path = settings_file({"mixup": 0.5, "classes": "machine_id"}, work=tmp_path / name)
        if name == "resumed":
            with monkeypatch.context() as patch, pytest.raises(PowerFailureError):
                patch.setattr(TrainingState, "_keep", keep_and_fail)
                run_script("00_train", "-d", "--config", path)
            with pytest.raises(common.UserError, match="no finished model"):
                run_script("01_test", "-d", "--config", path)
        run_script("00_train", "-d", "--config", path)
        run_script("01_test", "-d", "--config", path)
        found.append(score_files(tmp_path / name / "result/dev/l2"))
    assert found[0] == found[1]


def test_scripts_refuse_what_cannot_be_trained(settings_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "training.run", None)  # said before TensorFlow is loaded
    path = settings_file()
    with pytest.raises(common.UserError, match="one class, fan"):
        run_script("00_train", "-d", "--config", path, "--machine-type", "fan")
    with pytest.raises(common.UserError, match="n_neighbors: 50(.|\n)*fan: 6 training clips"):
        run_script("00_train", "-d", "--config", settings_file({"n_neighbors": 50}))


@pytest.mark.parametrize("kind", ["windows", "machine_type"])
@pytest.mark.usefixtures("without_mobilenet", "without_xla")
def test_attributes_of_a_single_clip_are_a_class(yaml_file, train_clips, kind):
    """Also where the network that scores the clip as a new one has not met its class."""
    system = FAMILIES["windows" if kind == "windows" else "dense"]
    changes = {"classes": "attributes", **({} if kind == "windows" else {"network_per": kind, "networks": 1})}
    settings = config.load_config(yaml_file({"system": "l2", "systems": {"l2": merge(system, {"model": changes})}}))
    run, system = Run(settings, "dev", tqdm(total=0, disable=True)), settings.systems["l2"]
    clips = {
        name: [
            dataclasses.replace(clip, attributes=text)
            for clip, text in zip(own, ["a", "a", "a", "a", "only", None], strict=True)
        ]
        for name, own in train_clips.items()
    }
    assert workload.workload(system, clips) > 0
    metric_model.train(run, system, clips)
    recorded = [run.require_trained(system, name)["classes"] for name in workload.networks(system, clips)]
    assert len(sum(recorded, [])) == 8  # of each type and ID: a, and of the second only and none besides
    hidden = [dataclasses.replace(clip, attributes=None) for clip in clips["fan"]]
    metric_model.require(run, system, {"fan": hidden})
    for scores in (
        metric_model.anomaly_scores(run, system, "fan", hidden),
        metric_model.training_scores(run, system, "fan").scores,
    ):
        assert scores.shape == (6,) and np.isfinite(scores).all()
