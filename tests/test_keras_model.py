"""The dense autoencoders: the official network and scores, Keras's own training, scoring in batches, HDF5 files."""

import dataclasses
import io
import json
import math

import h5py
import keras
import make_golden as golden
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from conftest import SHIPPED, reconstruction_errors
from tqdm import tqdm

import common
import config
import keras_model
from audio import features
from audio.clips import check_clips
from audio.settings import Feature
from training import process, vector_errors, workload
from training.model_records import model_path, resume_path
from training.models import load_model
from training.optimizers import make_optimizer
from training.residuals import moments_of
from training.run import Job, Run
from training.vector_errors import TrainingErrors
from training.window_trainer import training_pass


@pytest.fixture
def start(yaml_file):
    """Maker of runs: (run, system) of the tiny settings with changes."""

    def make(changes=None):
        settings = config.load_config(yaml_file(changes))
        return Run(settings, "dev", tqdm(total=0, disable=True)), settings.select(None)[0]

    return make


@pytest.fixture(scope="module")
def official():
    """Stored outputs of the official network."""
    with np.load(golden.GOLDEN / "official_model.npz") as stored:
        return json.loads(str(stored["network"])) | {name: stored[name] for name in ("scores", "scores_reflect")}


def shipped_network(name):
    system = config.load_config(SHIPPED).systems[name]
    return keras_model.build(system.model, system.feature)


def set_golden_weights(model):
    model.set_weights(golden.weights([w.shape for w in model.get_weights()]))


# ---- the networks ----


def test_layers_are_the_official_ones(official):
    layers = [[type(layer).__name__, *layer.output.shape[1:]] for layer in shipped_network("baseline_ae").layers]
    assert layers == official["layers"]
    assert {layer.activation.__name__ for layer in shipped_network("baseline_ae").layers[3:-1:3]} == {"relu"}


@pytest.mark.parametrize(("name", "parameters"), [("baseline_ae", 269_992), ("tuned_ae", 2_710_992)])
def test_parameters(name, parameters):
    assert shipped_network(name).count_params() == parameters


def test_the_official_parameters(official):
    assert official["parameters"] == 269_992


def test_the_optimizer_is_the_official_one(official):
    ours = make_optimizer(config.load_config(SHIPPED).systems["baseline_ae"].fit).get_config()
    assert ours.keys() == official["optimizer"].keys()
    for name, value in official["optimizer"].items() - {("name", "adam")}:  # Keras counts the names: adam, adam_1, ...
        assert ours[name] == (pytest.approx(value) if isinstance(value, float) else value), name


@pytest.mark.parametrize(("pad_mode", "stored"), [("constant", "scores"), ("reflect", "scores_reflect")])
def test_scores_are_the_official_ones(official, tmp_path, pad_mode, stored):
    model = shipped_network("baseline_ae")
    set_golden_weights(model)
    feature = dict(golden.PARAMETER_SETS["official"][1])
    frames = feature.pop("frames")
    waveforms = [common.load_wav(golden.write_clip(tmp_path / f"{s}.wav", s)) for s in golden.SCORED]
    log_mels = [common.log_mel_energies(waveform, rate, **feature, pad_mode=pad_mode).T for waveform, rate in waveforms]
    scores = reconstruction_errors(model, log_mels, frames=frames)
    np.testing.assert_allclose(scores, official[stored], rtol=1e-5)
    assert np.abs(official["scores_reflect"] / official["scores"] - 1).min() > 1e-4  # they can be told apart


# ---- training is Keras's ----


def stacked(run, system, clips):
    """The vectors of all clips, as the official baseline stacks them."""
    blocks = features.log_mel_clips(clips, system.feature, run.cache)
    return np.concatenate([common.stack_frames(block.T, frames=system.feature.frames) for block in blocks])


@pytest.mark.parametrize("validation_split", [0.1, 0.25, 0.0])
def test_the_validation_split_is_kerass(start, train_clips, monkeypatch, validation_split):
    """Plain Keras, given the stacked vectors, trains and validates on the same ones as our trainer."""
    run, system = start({"fit": {"validation_split": validation_split, "shuffle": False, "epochs": 1}})
    clips = train_clips["fan"]
    vectors = stacked(run, system, clips)

    class Noting(keras.Model):
        def __init__(self):
            super().__init__()
            self.seen = {"train": [], "val": []}

        def train_step(self, batch):
            self.seen["train"].append(batch[0].numpy())
            return {"loss": 0.0}

        def test_step(self, batch):
            self.seen["val"].append(batch[0].numpy())
            return {"loss": 0.0}

    noting = Noting()
    noting.compile("adam", "mean_squared_error", run_eagerly=True)
    noting.fit(vectors, vectors, shuffle=False, validation_split=validation_split, batch_size=64, verbose=0)

    trainer = keras_model.make_trainer(system, 0)
    ours = {}

    def note(model, trainee, job, *, n_train, validation, steps_per_call):
        indices = {"train": [np.arange(n_train)], "val": [batch.numpy() for batch in validation or ()]}
        ours.update({name: [trainee.vectors(batch).numpy() for batch in found] for name, found in indices.items()})

    monkeypatch.setattr(keras_model, "fit_job", note)
    keras_model._train_one(Job(run, system, "fan", clips), trainer)
    for name in ("train", "val"):
        assert bool(noting.seen[name]) == bool(ours[name])
        if ours[name]:
            np.testing.assert_array_equal(np.concatenate(ours[name]), np.concatenate(noting.seen[name]))


@pytest.mark.parametrize(("xla", "steps_per_call"), [(True, 16), (False, 16), (False, 2)])
def test_losses_are_those_of_plain_keras(start, train_clips, monkeypatch, xla, steps_per_call):
    monkeypatch.setattr(process, "compiles_with_xla", lambda: xla)
    monkeypatch.setattr(keras_model, "STEPS_PER_CALL", steps_per_call)  # 2: an epoch takes several calls
    run, system = start({"fit": {"shuffle": False, "epochs": 3}})
    clips = train_clips["fan"]
    trainer = keras_model.make_trainer(system, 0)
    job = Job(run, system, "fan", clips)
    keras_model._train_one(job, trainer)
    with np.load(resume_path(job.folder, "fan")) as stored:
        ours = json.loads(str(stored["header"]))["history"]

    vectors = stacked(run, system, clips)
    keras.utils.set_random_seed(run.config.seed)
    plain = keras_model.build(system.model, system.feature)
    plain.compile(optimizer="adam", loss="mean_squared_error")
    theirs = plain.fit(vectors, vectors, epochs=3, batch_size=64, shuffle=False, validation_split=0.1, verbose=0)
    assert ours.keys() == theirs.history.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs.history[name], rtol=1e-4)


@pytest.mark.parametrize("n", [64, 7])
def test_the_training_pass_is_kerass(network, n):
    vectors = np.random.default_rng(0).normal(-40, 10, (n, 160)).astype(np.float32)
    results = []
    for forward in (network, training_pass):
        set_golden_weights(network)
        with tf.GradientTape() as tape:
            output = forward(vectors, training=True) if forward is network else forward(network, vectors)
            loss = tf.reduce_mean((output - vectors) ** 2)
        gradients = tape.gradient(loss, [weight.value for weight in network.trainable_weights])
        moving = map(np.asarray, network.non_trainable_weights)
        results.append([output.numpy(), *moving, *map(np.asarray, gradients)])
    biases = [layer.bias.path for layer in network.layers[1:-1:3]]
    names = ["output", *(w.path for w in (*network.non_trainable_weights, *network.trainable_weights))]
    for name, theirs, ours in zip(names, *results, strict=True):
        if name in biases:  # normalisation takes them away: what Keras finds is rounding
            assert not ours.any()
            assert np.abs(theirs).max() < 1e-4
        else:
            assert np.abs(theirs).max() > 1e-2
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max(), err_msg=name)


@pytest.mark.usefixtures("without_xla")
def test_a_second_machine_type_does_not_feel_the_first(start, train_clips):
    run, system = start({"fit": {"epochs": 1}})
    keras_model.train(run, system, train_clips)
    both = load_model(model_path(run.model_folder(system), "fan")).get_weights()
    for path in run.model_folder(system).iterdir():
        path.unlink()
    keras_model.train(run, system, {"fan": train_clips["fan"]})
    alone = load_model(model_path(run.model_folder(system), "fan")).get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(both, alone, strict=True))


@pytest.mark.usefixtures("without_xla")
def test_windows_of_clips_of_unequal_lengths(start, tmp_path):
    run, system = start()
    for number, seconds in enumerate((0.3, 0.8, 0.15)):
        path = tmp_path / "clips" / f"normal_id_00_{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).uniform(-0.1, 0.1, round(seconds * 16_000)), 16_000)
    clips = check_clips([("fan", tmp_path / "clips")], min_samples=system.min_samples, normal_only=True)
    trainer = keras_model.make_trainer(system, 0)
    blocks = features.log_mel_clips(clips, system.feature, None)
    n_windows = trainer.load(blocks, features.clip_offsets(clips, system.feature))
    np.testing.assert_array_equal(trainer.vectors(np.arange(n_windows)).numpy(), stacked(run, system, clips))


def test_too_few_vectors_to_train_on(start, dataset, tmp_path):
    run, system = start({"fit": {"validation_split": 0.99}})
    path = tmp_path / "clips" / "normal_id_00_0.wav"
    path.parent.mkdir()
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 4 * 512), 16_000)
    clips = check_clips([("fan", path.parent)], min_samples=1, normal_only=True)
    with pytest.raises(common.UserError, match=r"fan: 1 vectors leave none to train on; lower fit.validation_split"):
        keras_model.train(run, system, {"fan": clips})


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.usefixtures("without_xla")
def test_mixed_precision_trains_and_scores(start, train_clips, precision):
    run, system = start({"fit": {"precision": precision, "epochs": 1}})
    try:
        keras_model.train(run, system, {"fan": train_clips["fan"]})
        scores = keras_model.anomaly_scores(run, system, "fan", train_clips["fan"])
    finally:
        keras.config.set_dtype_policy("float32")
    model = load_model(model_path(run.model_folder(system), "fan"))
    assert model.layers[1].compute_dtype == precision.removeprefix("mixed_")
    assert np.isfinite(scores).all()


# ---- scoring ----


@pytest.fixture
def network():
    """Small network with weights unlike those of a fresh one."""
    feature = Feature(n_mels=32, frames=5, n_fft=1024, hop_length=512, power=2.0)
    model = keras_model.build(config.DenseAutoencoder(units=(16, 4, 16)), feature)
    set_golden_weights(model)
    return model


def some_log_mels(n_clips=9):
    rng = np.random.default_rng(0)
    return [rng.normal(-40, 10, (n, 32)).astype(np.float32) for n in rng.integers(5, 60, n_clips)]


def test_a_score_is_the_mean_squared_error_of_the_clips_vectors(network):
    log_mels = some_log_mels()
    scores = reconstruction_errors(network, log_mels, frames=5)
    vectors = [common.stack_frames(log_mel.T, frames=5) for log_mel in log_mels]
    by_clip = [np.mean(np.mean(np.square(x - network.predict(x, verbose=0)), axis=1)) for x in vectors]
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, by_clip, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 55, 10_000])
def test_scores_do_not_depend_on_the_batches(network, batch):
    log_mels = some_log_mels()
    expected = reconstruction_errors(network, log_mels, frames=5)
    scores = reconstruction_errors(network, log_mels, frames=5, batch=batch)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_scores_do_not_depend_on_the_order_of_the_clips(network):
    log_mels = some_log_mels()
    scores = reconstruction_errors(network, log_mels, frames=5, batch=50)
    turned = reconstruction_errors(network, log_mels[::-1], frames=5, batch=50)
    np.testing.assert_allclose(turned[::-1], scores, rtol=1e-6)


def test_many_clips_go_through_the_model_in_one_call(network, monkeypatch):
    calls = []
    call = type(network).__call__

    def counted(model, vectors, **options):
        calls.append(vectors.shape)
        return call(model, vectors, **options)

    monkeypatch.setattr(type(network), "__call__", counted)
    reconstruction_errors(network, some_log_mels(), frames=5)
    assert calls == [(1024, 160)]  # traced once, for all clips


def test_aggregates_by_hand():
    errors, counts = np.array([1.0, 2, 6, 5, 4, 4]), np.array([3, 1, 2])
    expected = {"mean": [3, 5, 4], "median": [2, 5, 4], "max": [6, 5, 4], "std": [math.sqrt(14 / 3), 0, 0]}
    assert set(expected) == set(config.OF_ERRORS)
    for how, values in expected.items():
        np.testing.assert_allclose(vector_errors.aggregated(errors, counts, how), values)


@pytest.mark.parametrize("how", config.OF_ERRORS)
def test_a_score_is_an_aggregate_of_the_errors_of_the_vectors(network, how):
    log_mels = some_log_mels()
    scores = reconstruction_errors(network, log_mels, frames=5, aggregate=how)
    vectors = [common.stack_frames(log_mel.T, frames=5) for log_mel in log_mels]
    errors = [np.mean(np.square(x - network.predict(x, verbose=0)), axis=1) for x in vectors]
    np.testing.assert_allclose(scores, [getattr(np, how)(one) for one in errors], rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 7, 55, 10_000])
def test_errors_and_moments_do_not_depend_on_the_batches(network, batch):
    """The errors are those that the other aggregates are of; the moments, those of each clip's residuals."""
    log_mels = some_log_mels()
    found = [*vector_errors.errors_and_moments(network, log_mels, frames=5, hop=2, batch=batch)]
    errors, counts = vector_errors.vector_errors(network, log_mels, frames=5, hop=2, batch=batch)
    np.testing.assert_array_equal(np.concatenate([of_clip for of_clip, _ in found]), errors)
    assert [len(of_clip) for of_clip, _ in found] == counts.tolist()
    for log_mel, (_, moments) in zip(log_mels, found, strict=True):
        vectors = common.stack_frames(log_mel.T, frames=5)[::2]
        expected = moments_of((vectors - network.predict(vectors, verbose=0)).reshape(-1, 32))
        np.testing.assert_allclose(moments, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.usefixtures("without_xla")
def test_clips_of_two_domains_have_two_covariances(start, train_clips):
    """Each clip is scored by the nearer one; of the training's clips, as of new ones."""
    run, system = start({"fit": {"epochs": 1}})
    own = [
        dataclasses.replace(clip, domain="target" if clip.machine_id == "id_02" else "source")
        for clip in train_clips["fan"]
    ]
    keras_model.train(run, system, {"fan": own})
    model = load_model(model_path(run.model_folder(system), "fan"))
    residuals = {}
    for clip, log_mel in zip(own, features.log_mel_clips(own, system.feature, None), strict=True):
        vectors = common.stack_frames(log_mel.T, frames=5)
        residuals.setdefault(clip.domain, []).append((vectors - model.predict(vectors, verbose=0)).reshape(-1, 32))
    inverses = [np.linalg.inv(np.cov(np.concatenate(residuals[name]).T)) for name in ("source", "target")]
    stored = np.load(run.model_folder(system) / "scores_fan.npz")
    np.testing.assert_allclose(stored["inverse_covariances"], inverses, rtol=1e-2, atol=1e-4 * np.abs(inverses).max())
    one = dataclasses.replace(system, model=dataclasses.replace(system.model, aggregate="mahalanobis"))
    forms = [np.mean([np.einsum("ni,ij,nj->n", r, c, r) for c in inverses], axis=1).min() for r in residuals["target"]]
    assert keras_model.training_scores(run, one, "fan").of("id_02") == pytest.approx(forms, rel=1e-3)
    np.testing.assert_allclose(keras_model.anomaly_scores(run, one, "fan", own[3:]), forms, rtol=1e-3)


@pytest.mark.usefixtures("without_xla")
def test_training_scores_are_the_scores_of_the_training_clips(start, train_clips):
    run, system = start()
    clips = train_clips["fan"]
    with tqdm(total=workload.workload(system, {"fan": clips}), file=io.StringIO()) as run.progress:
        keras_model.train(run, system, {"fan": clips})
        assert run.progress.n == run.progress.total
    for how in config.AGGREGATES:
        one = dataclasses.replace(system, model=dataclasses.replace(system.model, aggregate=how))
        assert Job(run, one, "fan", clips).is_done()  # no new training
        stored = keras_model.training_scores(run, one, "fan")
        assert stored.names == tuple(clip.name for clip in clips)
        assert stored.machine_ids.tolist() == [clip.machine_id for clip in clips]
        np.testing.assert_allclose(stored.scores, keras_model.anomaly_scores(run, one, "fan", clips), rtol=1e-6)


def test_errors_of_clips_trained_on_are_enlarged_by_what_held_out_ones_have_more():
    ids = np.array(["id_00"] * 3 + ["id_02"] * 4)
    errors = np.array([1.0, 2, 3, 1, 4, 8, 2])
    held_out = np.array([0, 0, 0, 0, 0, 1, 1], bool)  # id_02: geometric means 4 and 2
    assert np.allclose(vector_errors.corrected(errors, ids, held_out), [2, 4, 6, 2, 8, 8, 2])
    assert np.allclose(vector_errors.corrected(errors, ids, held_out & False), errors)
    assert np.allclose(vector_errors.corrected(errors[::-1], ids, held_out), errors[::-1])  # smaller ones, by chance
    alone = np.array([0, 0, 0, 1, 1, 1, 1], bool)  # of id_02 no clip was trained on
    assert np.allclose(vector_errors.corrected(errors, ids, alone), errors)


@pytest.mark.usefixtures("without_xla")
def test_clips_of_the_validation_split_are_known_as_held_out(start, train_clips):
    run, system = start({"fit": {"epochs": 1, "validation_split": 0.4}})
    keras_model.train(run, system, {"fan": train_clips["fan"]})
    stored = np.load(run.model_folder(system) / "scores_fan.npz")
    assert stored["held_out"].tolist() == [0, 0, 0, 0, 1, 1]  # of 6 clips, 2.4 are held out
    assert stored["checksums"].tolist() == [clip.crc for clip in train_clips["fan"]]


@pytest.mark.usefixtures("without_xla")
def test_the_deviation_of_one_vector_is_refused(start, train_clips):
    run, system = start({"feature": {"frames": 32}, "fit": {"epochs": 1}})  # as many as a clip has
    keras_model.train(run, system, {"fan": train_clips["fan"]})
    assert np.all(keras_model.training_scores(run, system, "fan").scores > 0)
    system = dataclasses.replace(system, model=dataclasses.replace(system.model, aggregate="std"))
    for ask in (keras_model.training_scores, lambda *a: keras_model.anomaly_scores(*a, train_clips["fan"])):
        with pytest.raises(common.UserError, match="aggregate: std: 6 clips are so short that they give one vector"):
            ask(run, system, "fan")


def test_errors_of_training_clips_that_are_no_numbers_are_an_error(start, network, train_clips):
    run, system = start()
    network.set_weights([np.full(weight.shape, np.nan) for weight in network.get_weights()])
    log_mels = features.log_mel_clips(train_clips["fan"], system.feature, None)
    with pytest.raises(common.UserError, match=r"(?s)not finite numbers:.*normal_id_00_00000000.wav: nan"):
        TrainingErrors.of(network, system, train_clips["fan"], log_mels)


def test_scores_that_are_no_numbers_are_an_error(start, network, train_clips):
    run, system = start()
    weights = network.get_weights()
    weights[0][:] = np.nan
    network.set_weights(weights)
    with pytest.raises(common.UserError, match=r"(?s)not finite numbers:.*normal_id_00_00000000.wav: nan.*delete it"):
        keras_model.score_clips(network, run, system, train_clips["fan"])


def test_a_model_of_another_input_size_is_refused(start, network, train_clips):
    run, system = start()
    system = dataclasses.replace(system, feature=dataclasses.replace(system.feature, n_mels=64))
    with pytest.raises(common.UserError, match=r"takes vectors of .*160.*gives 320"):
        keras_model.score_clips(network, run, system, train_clips["fan"])


# ---- files of the official baseline ----


def old_layers(units, size):
    """Layers of a network as Keras 2.3, which the official baseline was written for, describes them."""
    glorot = {"class_name": "VarianceScaling", "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform"}}
    dense = {"activation": "linear", "use_bias": True, "kernel_initializer": glorot}
    norm = {"axis": -1, "momentum": 0.99, "epsilon": 0.001, "center": True, "scale": True}
    kinds = [("InputLayer", {"batch_input_shape": [None, size], "dtype": "float32", "sparse": False})]
    for n in units:
        kinds += [
            ("Dense", {"units": n, **dense}),
            ("BatchNormalization", norm),
            ("Activation", {"activation": "relu"}),
        ]
    kinds.append(("Dense", {"units": size, **dense}))
    layers = []
    for number, (kind, settings) in enumerate(kinds):
        inbound = [[[layers[-1]["name"], 0, 0, {}]]] if layers else []
        name = f"{kind.lower()}_{number}"
        layers.append(
            {"class_name": kind, "name": name, "config": {"name": name, **settings}, "inbound_nodes": inbound}
        )
    return layers


def write_old_file(path, layers, weights):
    """HDF5 file as Keras 2.3 writes it."""
    ends = {"input_layers": [[layers[0]["name"], 0, 0]], "output_layers": [[layers[-1]["name"], 0, 0]]}
    model = {"class_name": "Model", "config": {"name": "model_1", "layers": layers, **ends}}
    names = {"Dense": ["kernel:0", "bias:0"]}
    names["BatchNormalization"] = ["gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"]
    weights = iter(weights)
    with h5py.File(path, "w") as file:
        file.attrs.update({"model_config": json.dumps(model).encode(), "keras_version": b"2.3.0"})
        group = file.create_group("model_weights")
        group.attrs.update({"backend": b"tensorflow", "keras_version": b"2.3.0"})
        group.attrs["layer_names"] = [layer["name"].encode() for layer in layers]
        for layer in layers:
            own = [f"{layer['name']}/{name}" for name in names.get(layer["class_name"], [])]
            subgroup = group.create_group(layer["name"])
            subgroup.attrs["weight_names"] = [name.encode() for name in own]
            for name in own:
                subgroup[name] = next(weights)


def test_files_of_the_official_baseline_load(network, tmp_path):
    """Written by today's Keras, and in the layout of the Keras of 2020."""
    network.compile("adam", "mean_squared_error")
    network.save(tmp_path / "today.hdf5")
    write_old_file(tmp_path / "old.hdf5", old_layers((16, 4, 16), 160), network.get_weights())
    expected = reconstruction_errors(network, some_log_mels(3), frames=5)
    for name in ("today.hdf5", "old.hdf5"):
        model = keras_model.load_official(tmp_path / name)
        np.testing.assert_array_equal(reconstruction_errors(model, some_log_mels(3), frames=5), expected)


def test_other_layers_are_refused_before_anything_is_built(network, tmp_path, monkeypatch):
    layers = old_layers((16, 4, 16), 160)
    layers[2] |= {"class_name": "Lambda"}
    write_old_file(tmp_path / "model_fan.hdf5", layers, network.get_weights())
    monkeypatch.setattr(keras.models, "load_model", None)
    with pytest.raises(common.UserError, match=r"model_fan.hdf5: has layers \['Lambda'\]; not the official network"):
        keras_model.load_official(tmp_path / "model_fan.hdf5")


def test_what_is_no_file_of_the_official_baseline(tmp_path):
    with pytest.raises(common.UserError, match=r"--official-model: no file .*model_fan.hdf5"):
        keras_model.load_official(tmp_path / "model_fan.hdf5")
    (tmp_path / "text.hdf5").write_text("text")
    with h5py.File(tmp_path / "no_model.hdf5", "w") as file:
        file["numbers"] = [1, 2]
    with h5py.File(tmp_path / "no_layers.hdf5", "w") as file:
        file.attrs["model_config"] = json.dumps({"config": []})
    for name in ("text", "no_model", "no_layers"):
        with pytest.raises(common.UserError, match=rf"{name}.hdf5: not a model of the official baseline"):
            keras_model.load_official(tmp_path / f"{name}.hdf5")
