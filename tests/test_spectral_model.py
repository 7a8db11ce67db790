"""spectral_model.py: spectra by hand, weights by hand, what each branch alone can tell, waveforms from the cache."""

import dataclasses
import importlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import FAMILIES, SHIPPED, merge
from keras import layers

import common
import config
import spectral_model
from audio import features
from audio.features import Cache
from audio.settings import Spectra
from audio.spectra import fitted, layout, spectra
from storage.records import read_arrays
from training import clip_trainer, workload
from training.fit import TrainingState
from training.metric_layers import CosineLogits, SubclusterLogits
from training.waveforms import Waveforms

SYSTEM = config.load_config(SHIPPED).systems["spectral_l2_softmax"]
RATE = 4000
SHORT = Spectra(
    duration=1.0, spectrum=True, windows=(0.016,), low_frequency=100, high_frequency=None, subtract_mean=True
)
SPECTRUM = dataclasses.replace(SHORT, windows=())
SPECTROGRAM = dataclasses.replace(SHORT, spectrum=False)


# ---- spectra ----


def test_layout_of_the_shipped_keys():
    parts = layout(SYSTEM.spectra, 16000)
    # Bins of 62.5, 15.6 and 3.9 Hz from 250, 203 and 203 to 8000 Hz.
    assert parts.shapes == [(80000,), (1249, 125), (311, 500), (77, 1997)]
    assert (parts.spectrograms[1].first_bin, parts.spectrograms[1].hop) == (13, 512)


@pytest.mark.parametrize(("changes", "said"), [
    ({"windows": (), "spectrum": False}, "no spectrum and no windows"),
    ({"windows": (2.0,)}, "spectra.windows: 2; expected two samples at least and at most the duration"),
    ({"windows": (0.002,), "low_frequency": 1900, "high_frequency": 1950}, "no bin from 1900 to 1950 Hz"),
    ({"high_frequency": 3000}, "spectra.high_frequency: 3000; clips of 4000 Hz end at 2000 Hz"),
])  # fmt: skip
def test_spectra_that_cannot_be_had(changes, said):
    with pytest.raises(common.UserError, match=said):
        layout(dataclasses.replace(SHORT, **changes), RATE)


def test_a_tone_by_hand():
    parts = layout(dataclasses.replace(SHORT, subtract_mean=False), RATE)
    tone = fitted(0.5 * np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE), RATE)
    found = spectra(tone, parts)
    assert found[: parts.spectrum].argmax() == 500  # bins of 1 Hz
    assert found[500] == pytest.approx(0.25 * math.sqrt(RATE), rel=1e-3)  # half the amplitude, n / sqrt(n) times
    frames = found[parts.spectrum :].reshape(parts.shapes[1])
    assert np.all(frames.argmax(axis=1) == 500 / (RATE / 64) - parts.spectrograms[0].first_bin)
    assert frames.max() == pytest.approx(0.5 * 0.25 * math.sqrt(64), rel=1e-3)  # Hann's mean is one half


def test_what_stays_over_time_is_taken_off():
    parts = layout(SPECTROGRAM, RATE)
    tone = fitted(0.5 * np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE), RATE)
    assert np.abs(spectra(tone, parts)).max() < 1e-3


def test_clips_are_cut_or_repeated():
    ramp = np.arange(5) / 2**15
    assert fitted(ramp, 3).tolist() == [0, 1, 2]
    assert fitted(ramp, 12).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert fitted(np.array([-2.0, 2.0]), 2).tolist() == [-(2**15), 2**15 - 1]


@pytest.mark.parametrize("subtract_mean", [True, False])
def test_tensorflow_gives_the_same(subtract_mean):
    parts = layout(dataclasses.replace(SHORT, windows=(0.016, 0.008), subtract_mean=subtract_mean), RATE)
    samples = noise(3)
    source = Waveforms(samples, np.array([2, 0, 1]), parts)
    found = source.heard(source.take(tf.constant([0, 2]), tf.zeros(2))).numpy()
    expected = [spectra(samples[place], parts) for place in (2, 1)]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


# ---- networks ----


def noise(n_clips: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2000, (n_clips, RATE)).astype(np.int16)


def test_weights_by_hand():
    parts = layout(SYSTEM.spectra, 16000)
    network = spectral_model.build(SYSTEM.model, parts, scales=4 * [1.0], n_classes=41)
    on_spectrum = 256 * 128 + 64 * 128**2 + 16 * 128**2 + 10 * 128 * 128 + 4 * 128**2 + 4 * 2 * 128
    stages = [(16, 16), (16, 32), (32, 64), (64, 128)]
    residual = sum(9 * a * b + 3 * 9 * b * b + 4 * 2 * b + (a != b) * a * b for a, b in stages)
    halved = {125: 4, 500: 16, 1997: 63}  # bins, five times, by 128 channels
    on_frames = [7 * 7 * 16 + 2 * 16 + residual + n * 128 * 128 + 2 * n * 128 for n in halved.values()]
    head = 512 * 41 * 16
    assert (on_spectrum, on_frames) == (1_573_888, [766_640, 966_320, 1_748_400])
    trained = sum(int(np.prod(weight.shape)) for weight in network.trainable_variables)
    assert trained == on_spectrum + sum(on_frames) + head
    assert network.get_layer("embedding").output.shape == (None, 1, 512)


def test_networks_stand_one_after_the_other_and_have_no_biases():
    model = dataclasses.replace(SYSTEM.model, networks=2, embedding=4, filters=(2, 3))
    network = spectral_model.build(model, layout(SHORT, RATE), scales=[1.0, 1.0], n_classes=3)
    assert network.get_layer("embedding").output.shape == (None, 2, 8)
    assert network.output_shape == (None, 2, 3)
    with_weights = [layer for layer in network.layers if hasattr(layer, "kernel") and layer.name != "logits"]
    assert with_weights and not any(layer.use_bias for layer in with_weights)
    assert len(network.losses) == len(with_weights)  # a penalty each


def test_the_level_of_the_recordings_makes_no_difference():
    parts, samples = layout(SHORT, RATE), noise(4)
    quiet = samples // 10 * 1
    model = dataclasses.replace(SYSTEM.model, embedding=4, filters=(2,))
    outputs = []
    for own in (samples, quiet):
        keras.utils.set_random_seed(0)
        network = spectral_model.build(model, parts, scales=spectral_model.scales(own, parts), n_classes=3)
        outputs.append(network(np.stack([spectra(clip, parts) for clip in own]), training=True).numpy())
    np.testing.assert_allclose(outputs[0], outputs[1], atol=0.05 * np.abs(outputs[0]).max())


def test_subclusters_by_hand():
    layer = SubclusterLogits(2, 2)
    layer.build((None, 1, 2))
    layer.kernel.assign(np.array([[[[1, 0], [-1, 0]], [[0, 3], [0, -1]]]], np.float32))  # (1, 2, classes, centres)
    scale = math.sqrt(2) * math.log(3)
    found = layer(np.array([[[2.0, 0.0]]], np.float32)).numpy()[0, 0]
    assert found[0] == pytest.approx(math.log(math.exp(scale) + 1), rel=1e-5)  # cosines 1 and 0
    assert found[1] == pytest.approx(math.log(math.exp(-scale) + 1), rel=1e-4)  # -1 and 0


def test_the_head_that_the_keys_say():
    parts, inputs = layout(SPECTRUM, RATE), np.stack([spectra(clip, layout(SPECTRUM, RATE)) for clip in noise(3)])
    for keys, of_logits in (
        ({"margin": 0.3, "sub_centres": 0}, CosineLogits),
        ({"margin": 0.0, "sub_centres": 2}, SubclusterLogits),
        ({"margin": 0.0, "sub_centres": 0}, layers.EinsumDense),
    ):
        model = dataclasses.replace(SYSTEM.model, networks=2, embedding=4, **keys)
        network = spectral_model.build(model, parts, scales=[1.0], n_classes=3)
        assert type(network.get_layer("logits")) is of_logits
        if of_logits is CosineLogits:
            vectors = keras.Model(network.inputs, network.get_layer("embedding").output)(inputs).numpy()
            kernel = network.get_layer("logits").get_weights()[0]
            cosines = np.einsum("nke,kec->nkc", vectors, kernel / np.linalg.norm(kernel, axis=1, keepdims=True))
            np.testing.assert_allclose(network(inputs).numpy(), cosines, atol=1e-4)
            assert np.linalg.norm(vectors, axis=-1) == pytest.approx(np.full((3, 2), model.alpha), rel=1e-4)


# ---- what each branch alone can tell ----


def tones(n_clips: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two machines, whose tones are 2 Hz apart, in noise."""
    rng, labels, time = np.random.default_rng(seed), np.arange(n_clips) % 2, np.arange(RATE) / RATE
    phases = rng.uniform(0, 2 * np.pi, (n_clips, 1))
    waveforms = 0.05 * np.sin(2 * np.pi * (600 + 2 * labels[:, None]) * time + phases)
    return to_samples(waveforms + rng.normal(0, 0.05, waveforms.shape)), labels


def bursts(n_clips: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two machines: bursts that die away, and the same backwards, whose spectrum has the same magnitudes."""
    rng, labels = np.random.default_rng(seed), np.arange(n_clips) % 2
    since = (np.arange(RATE) / RATE + rng.uniform(0, 0.25, (n_clips, 1))) % 0.25
    waveforms = 0.2 * np.exp(-20 * since) * rng.standard_normal(since.shape)
    waveforms[labels == 1] = waveforms[labels == 1, ::-1]
    return to_samples(waveforms), labels


def to_samples(waveforms: np.ndarray) -> np.ndarray:
    return np.stack([fitted(waveform, RATE) for waveform in waveforms])


def accuracy(machines, settings: Spectra) -> float:
    """Share of new clips whose machine a network tells that has one branch alone."""
    parts, (samples, labels), (new, expected) = layout(settings, RATE), machines(96, 0), machines(64, 1)
    keras.utils.set_random_seed(0)
    model = dataclasses.replace(SYSTEM.model, embedding=16, filters=(8, 8), mixup=0)
    fit = dataclasses.replace(SYSTEM.fit, batch_size=32)
    network = spectral_model.build(model, parts, scales=spectral_model.scales(samples, parts), n_classes=2)
    source = Waveforms(samples, np.arange(len(samples)), parts)
    trainer = clip_trainer.make_trainer(network, dataclasses.replace(SYSTEM, model=model, fit=fit), source, labels, 0)
    order = np.random.default_rng(0).permuted(np.tile(np.arange(len(samples), dtype=np.int32), (15, 1)), axis=1)
    trainer.fit(tf.data.Dataset.from_tensor_slices(order.reshape(-1)).batch(32), verbose=0)
    clip_trainer.settle_statistics(trainer, n_train=len(samples), batch_size=32, seed=0)
    logits = network(np.stack([spectra(clip, parts) for clip in new]), training=False).numpy()[:, 0]
    return float((logits.argmax(axis=1) == expected).mean())


@pytest.mark.parametrize("machines", [tones, bursts])
def test_machines_of_one_level(machines):
    samples, labels = machines(400, 2)
    levels = np.square(samples.astype(float)).mean(axis=1)
    assert levels[labels == 0].mean() == pytest.approx(levels[labels == 1].mean(), rel=0.05)


def test_backwards_is_the_same_spectrum():
    (clip,) = noise(1)
    parts = layout(SPECTRUM, RATE)
    np.testing.assert_allclose(spectra(clip[::-1], parts), spectra(clip, parts), atol=1e-4)


@pytest.mark.parametrize(("machines", "settings", "told"), [
    (tones, SPECTRUM, True), (tones, SPECTROGRAM, False), (bursts, SPECTROGRAM, True),
])  # fmt: skip
def test_each_branch_tells_what_the_other_cannot(machines, settings, told):
    share = accuracy(machines, settings)
    assert share > 0.9 if told else share < 0.75


# ---- training ----


def test_what_is_mixed_is_sound():
    parts, samples = layout(SPECTROGRAM, RATE), noise(4)
    model = dataclasses.replace(SYSTEM.model, embedding=4, filters=(2,))
    network = spectral_model.build(model, parts, scales=[1.0], n_classes=2)
    source = Waveforms(samples, np.arange(4), parts)
    trainer = clip_trainer.make_trainer(network, dataclasses.replace(SYSTEM, model=model), source, np.arange(4), 0)
    waveforms, _ = trainer.examples(tf.range(4), tf.zeros(4))
    mixed = 0.5 * waveforms + 0.5 * waveforms[::-1]
    together = np.round((samples[:2].astype(float) + samples[:1:-1]) / 2).astype(np.int16)
    expected = network(np.stack([spectra(together[place], parts) for place in (0, 1, 1, 0)]), training=True)
    found = trainer.call((None, mixed), training=True)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("cached", [True, False])
def test_waveforms_are_mapped_from_the_cache(train_clips, tmp_path, cached):
    quantity = features.waveforms(dataclasses.replace(SHORT, duration=0.5), 16000)
    cache = Cache(tmp_path, 1) if cached else None
    for _ in range(2):
        found = features.mapped(train_clips["fan"], quantity, cache)
        assert isinstance(found, np.memmap) == cached
        assert found.dtype == np.int16 and found.shape == (len(train_clips["fan"]), 8000)
        first, _ = common.load_wav(train_clips["fan"][0].path)
        np.testing.assert_array_equal(found[0], fitted(first, 8000))


def test_short_clips_among_longer_ones_are_refused(train_clips):
    clips = train_clips["fan"]
    system = dataclasses.replace(SYSTEM, spectra=dataclasses.replace(SYSTEM.spectra, duration=0.9))
    shorter = dataclasses.replace(clips[0], n_samples=12800)
    model = dataclasses.replace(system.model, n_neighbors=1)
    system = dataclasses.replace(system, model=model)
    workload.workload(system, {"fan": clips})  # longer ones are cut
    longer = dataclasses.replace(system.spectra, duration=2.0)
    workload.workload(dataclasses.replace(system, spectra=longer), {"fan": clips})  # all are repeated
    with pytest.raises(common.UserError, match="spectra.duration: 0.9 s.* from 0.8 to 1 s. Set it to 0.8"):
        workload.workload(system, {"fan": [shorter, *clips[1:]]})


def test_resumed_training_gives_the_same_scores(yaml_file, tmp_path, monkeypatch):
    scores = {}
    for name in ("unbroken", "resumed"):
        (tmp_path / name).mkdir()
        system = merge(FAMILIES["spectral"], {"model": {"networks": 1, "folds": 1}})
        path = yaml_file({"system": "spectral", "systems": {"spectral": system}}, work=tmp_path / name)
        arguments = ["-d", "--config", str(path)]
        if name == "resumed":
            with monkeypatch.context() as patch:
                patch.setattr(TrainingState, "_keep", killed_after(1, TrainingState._keep))
                with pytest.raises(KeyboardInterrupt):
                    importlib.import_module("00_train").main(arguments)
        importlib.import_module("00_train").main(arguments)
        stored = read_arrays(tmp_path / name / "model/dev/spectral/embeddings_fan.npz", {"vectors": ("f", 2)})
        scores[name] = stored["vectors"]
    np.testing.assert_array_equal(scores["unbroken"], scores["resumed"])


def killed_after(epochs, keep):
    def kept(state, epoch):
        keep(state, epoch)
        if epoch == epochs:
            raise KeyboardInterrupt

    return kept
