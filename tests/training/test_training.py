"""Training: the same as Keras's, resumed to the bit, records of what a model was trained on."""

import dataclasses
import json
import logging
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import SHIPPED, merge, tiny_settings
from tqdm import tqdm

import common
import config
import keras_model
from audio.clips import by_machine_type, check_clips, fingerprint
from storage.files import write_text
from storage.records import differences, record_path
from training import models, process
from training.fit import TrainingState, epoch_batches, plot_history
from training.model_records import model_path, read_record, resume_path
from training.models import load_model, write_model
from training.optimizers import FusedAdam, make_optimizer, reset_optimizer
from training.run import Job, Run, enough_memory

pytestmark = pytest.mark.usefixtures("without_xla")
CALM = {"learning_rate_schedule": "cosine", "use_ema": True, "ema_momentum": 0.9}


@pytest.fixture
def start(yaml_file, tmp_path):
    """Maker of runs: (run, system) of the tiny settings with changes, in a folder of its own."""
    return lambda changes=None, *, name="work": run_of(yaml_file(changes, work=tmp_path / name))


def run_of(path):
    """(run, system) of a YAML file."""
    settings = config.load_config(path)
    return Run(settings, "dev", tqdm(total=0, disable=True)), settings.select(None)[0]


@pytest.fixture
def fan(train_clips):
    """The training clips of one machine type."""
    return {"fan": train_clips["fan"]}


def job_of(run, system, clips):
    return Job(run, system, "fan", clips["fan"])


def trained_weights(run, system):
    return load_model(model_path(run.model_folder(system), "fan")).get_weights()


def assert_same_weights(weights, others):
    assert len(weights) == len(others)
    assert all(np.array_equal(one, other) for one, other in zip(weights, others, strict=True))


class PowerFailureError(Exception):
    """Ends a run in its middle."""


def fail_after(monkeypatch, epoch, *, before_saving=False):
    """Let the training break down when it has kept (or is about to keep) the given epoch."""
    original = TrainingState._keep

    def keep(state, number):
        if number < epoch or not before_saving:
            original(state, number)
        if number == epoch:
            raise PowerFailureError

    monkeypatch.setattr(TrainingState, "_keep", keep)


# ---- batches ----


def take(n_batches, n, **options):
    options = {"seed": 0, "batch_size": 4, "shuffle": True} | options
    return [batch.numpy().tolist() for batch in epoch_batches(n, **options).take(n_batches)]


def test_each_epoch_has_every_number_once_in_an_order_of_its_own():
    batches = take(9, 10)
    assert [len(batch) for batch in batches] == 3 * [4, 4, 2]
    epochs = [sum(batches[k : k + 3], []) for k in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_is_a_function_of_seed_and_epoch():
    assert take(9, 10) == take(9, 10)
    assert take(9, 10)[6:] == take(3, 10, first_epoch=2)
    assert take(3, 10, seed=1) != take(3, 10)
    assert take(3, 10, seed=2**32 - 1) == take(3, 10, seed=2**32 - 1)


def test_batches_without_shuffling():
    assert take(3, 5, shuffle=False) == [[0, 1, 2, 3], [4], [0, 1, 2, 3]]


# ---- optimisers ----


def test_reset_brings_an_optimizer_to_its_start(start):
    _, system = start()
    trainer = keras_model.make_trainer(system, 0)
    reset_optimizer(trainer.optimizer, trainer.autoencoder)
    fresh = [np.asarray(variable).copy() for variable in trainer.optimizer.variables]
    gradients = [np.ones(variable.shape, np.float32) for variable in trainer.autoencoder.trainable_variables]
    trainer.optimizer.apply(gradients, trainer.autoencoder.trainable_variables)
    assert int(trainer.optimizer.iterations) == 1
    reset_optimizer(trainer.optimizer, trainer.autoencoder)
    assert_same_weights([np.asarray(variable).copy() for variable in trainer.optimizer.variables], fresh)


@pytest.mark.parametrize("name", config.OPTIMIZERS)
def test_every_optimizer_of_the_yaml_is_kerass(start, name):
    _, system = start({"fit": {"compile": {"optimizer": name, "learning_rate": 0.25}}})
    optimizer = make_optimizer(system.fit)
    assert type(optimizer) is (FusedAdam if name in ("adam", "adamw") else type(keras.optimizers.get(name)))
    assert float(optimizer.learning_rate) == 0.25
    assert optimizer.weight_decay == (0.004 if name == "adamw" else None)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_in_one_pass_is_kerass(start, name):
    _, system = start({"fit": {"compile": {"optimizer": name, "learning_rate": 0.25}}})
    results = []
    theirs = keras.optimizers.get({"class_name": name, "config": {"learning_rate": 0.25}})
    for optimizer in (theirs, make_optimizer(system.fit)):
        rng = np.random.default_rng(0)
        weights = [keras.Variable(rng.standard_normal(shape), dtype="float32") for shape in ((5, 3), (3,))]
        for _ in range(5):
            optimizer.apply([tf.constant(rng.standard_normal(w.shape), tf.float32) for w in weights], weights)
        results.append([np.asarray(value) for value in (*weights, *optimizer.variables)])
    assert type(optimizer) is FusedAdam
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * 0.25)  # both round 1 - beta_2 to float32


# ---- what keeps seeds together ----


def record_epochs(monkeypatch, value) -> list:
    """List that gets ``value(state)`` at the end of each epoch."""
    values, original = [], TrainingState.on_epoch_end

    def on_epoch_end(state, epoch, logs=None):
        values.append(value(state))
        original(state, epoch, logs)

    monkeypatch.setattr(TrainingState, "on_epoch_end", on_epoch_end)
    return values


def test_a_falling_learning_rate_is_half_a_cosine_for_each_machine_type(start, train_clips, monkeypatch):
    changes = {"fit": {"epochs": 4, "compile": {"learning_rate": 0.25, "learning_rate_schedule": "cosine"}}}
    rates = record_epochs(monkeypatch, lambda state: float(state.trainee.optimizer.learning_rate))
    run, system = start(changes, name="two")
    keras_model.train(run, system, train_clips)
    half = 0.5**0.5
    np.testing.assert_allclose(rates, 2 * [0.25, 0.125 * (1 + half), 0.125, 0.125 * (1 - half)], rtol=1e-6)
    alone = start(changes, name="one")
    keras_model.train(*alone, {"fan": train_clips["fan"]})
    assert_same_weights(trained_weights(run, system), trained_weights(*alone))


def test_a_falling_learning_rate_starts_from_kerass_own(start, fan, monkeypatch):
    rates = record_epochs(monkeypatch, lambda state: float(state.trainee.optimizer.learning_rate))
    keras_model.train(*start({"fit": {"compile": {"learning_rate_schedule": "cosine"}}}), fan)
    np.testing.assert_allclose(rates, [0.001, 0.0005], rtol=1e-6)


def test_averaged_weights_by_hand(start, fan, monkeypatch):
    whole = {"epochs": 5, "batch_size": 1000, "validation_split": 0.0}  # a step an epoch
    weights = record_epochs(monkeypatch, lambda state: [v.numpy() for v in state.network.trainable_variables])
    run, system = start({"fit": {**whole, "compile": {"use_ema": True, "ema_momentum": 0.75}}})
    keras_model.train(run, system, fan)
    averages = weights[0]
    for later in weights[1:]:
        averages = [0.75 * average + 0.25 * now for average, now in zip(averages, later, strict=True)]
    model = load_model(model_path(run.model_folder(system), "fan"))
    for average, kept in zip(averages, model.trainable_variables, strict=True):
        np.testing.assert_allclose(kept.numpy(), average, rtol=1e-5, atol=1e-7)


# ---- records ----


def test_the_record_says_what_a_model_was_trained_on(start, fan):
    run, system = start()
    keras_model.train(run, system, fan)
    folder = run.config.model_directory / "dev" / "small"
    names = ["history_fan.png", "model_fan.keras", "record_fan.yaml", "scores_fan.npz"]
    assert sorted(path.name for path in folder.iterdir()) == names
    record = yaml.safe_load((folder / "record_fan.yaml").read_text(encoding="utf-8"))
    assert record["system"] == "small"
    assert record["training_data"] == "dev"
    assert record["clips"] == 6
    assert record["fingerprint"] == fingerprint(fan["fan"])
    assert record["sample_rate"] == 16_000
    assert record["n_samples"] == {"fan": 16_000}
    assert record["parameters"] == (160 * 16 + 16) + 4 * 16 + (16 * 4 + 4) + 4 * 4 + (4 * 16 + 16) + 4 * 16 + 17 * 160
    assert set(record["versions"]) == {"project", "python", "tensorflow", "keras", "numpy"}
    settings = record["configuration"]
    assert settings["seed"] == 0
    assert settings["model"] == {"type": "dense_ae", "units": [16, 4, 16]}
    assert settings["feature"] == dataclasses.asdict(system.feature)
    assert settings["feature"]["n_mels"] == 32
    assert (settings["fit"]["epochs"], settings["fit"]["batch_size"]) == (2, 64)
    assert "verbose" not in settings["fit"]
    assert record["files"].keys() == {"model_fan.keras", "scores_fan.npz"}
    assert read_record(folder, "fan") == record


def test_differences_name_the_keys():
    old = {"clips": 3, "versions": 1, "configuration": {"fit": {"epochs": 2, "gone": 1}, "seed": 0}}
    new = {"clips": 3, "configuration": {"fit": {"epochs": 5, "added": 2}, "seed": 0}}
    assert differences(old, new) == [
        "configuration.fit.added: None -> 2",
        "configuration.fit.epochs: 2 -> 5",
        "configuration.fit.gone: 1 -> None",
    ]
    assert differences(new, new) == []


def test_a_model_is_kept_only_for_the_same_files_and_settings(start, fan, caplog):
    caplog.set_level(logging.INFO)
    run, system = start()
    keras_model.train(run, system, fan)
    assert job_of(run, system, fan).is_done()
    assert "kept, trained with the same configuration on the same 6 clips" in caplog.text
    assert job_of(run, system, {"fan": fan["fan"][::-1]}).is_done()
    assert not job_of(run, system, {"fan": fan["fan"][1:]}).is_done()
    assert "clips: 6 -> 5" in caplog.text
    longer = dataclasses.replace(system, fit=dataclasses.replace(system.fit, epochs=3))
    assert not job_of(run, longer, fan).is_done()
    assert "configuration.fit.epochs: 2 -> 3" in caplog.text
    louder = dataclasses.replace(system, fit=dataclasses.replace(system.fit, verbose=2))
    assert job_of(run, louder, fan).is_done()
    record_path(run.model_folder(system), "fan").unlink()
    assert not job_of(run, system, fan).is_done()  # without its record a model does not count


def test_a_spoilt_record_is_named(start, fan):
    run, system = start()
    for path in (model_path, record_path):
        write_text(path(run.model_folder(system), "fan"), "clips: [6\n")
    with pytest.raises(
        common.UserError, match=r"(?s)record_fan.yaml: is not as it was written .*delete it to train anew"
    ):
        job_of(run, system, fan).is_done()


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04 half a zip file"])
def test_a_spoilt_model_is_named(tmp_path, content):
    (tmp_path / "model_fan.keras").write_bytes(content)
    with pytest.raises(common.UserError, match=r"model_fan.keras: not a model that can be loaded"):
        load_model(tmp_path / "model_fan.keras")


# ---- resuming ----


@pytest.fixture(scope="module", params=[{}, CALM], ids=["shipped", "calm"])
def unbroken(request, dataset, tmp_path_factory):
    """Changes of the YAML, and the weights that four epochs without a break end with."""
    changes = {"fit": {"epochs": 4, "compile": request.param}}
    work = tmp_path_factory.mktemp("unbroken")
    path = work / "settings.yaml"
    path.write_text(yaml.safe_dump(merge(tiny_settings(dataset, work), changes)))
    run, system = run_of(path)
    folders = [("fan", dataset / "dev_data" / "fan" / "train")]
    clips = by_machine_type(check_clips(folders, min_samples=1, normal_only=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "compiles_with_xla", lambda: False)
        keras_model.train(run, system, clips)
    return changes, trained_weights(run, system)


@pytest.mark.parametrize("before_saving", [False, True])
def test_a_broken_off_training_ends_as_an_unbroken_one(start, fan, unbroken, monkeypatch, caplog, before_saving):
    caplog.set_level(logging.INFO)
    changes, weights = unbroken
    run, system = start(changes)
    with monkeypatch.context() as patch:
        fail_after(patch, 3, before_saving=before_saving)
        with pytest.raises(PowerFailureError):
            keras_model.train(run, system, fan)
    folder = run.model_folder(system)
    assert [path.name for path in folder.iterdir()] == ["resume_fan.npz"]
    with np.load(resume_path(folder, "fan")) as stored:
        kept = json.loads(str(stored["header"]))
    assert kept["epoch"] == len(kept["history"]["loss"]) == (2 if before_saving else 3)
    keras_model.train(run, system, fan)
    assert f"going on after epoch {kept['epoch']} of 4" in caplog.text
    assert_same_weights(trained_weights(run, system), weights)
    assert not resume_path(folder, "fan").exists()


def test_one_killed_before_the_model_is_saved_does_not_train_again(start, fan, unbroken, monkeypatch):
    changes, weights = unbroken
    run, system = start(changes)
    with monkeypatch.context() as patch:
        patch.setattr(models, "plot_history", lambda *_: fail())
        with pytest.raises(PowerFailureError):
            keras_model.train(run, system, fan)
    epochs = []
    original = TrainingState.on_epoch_end
    monkeypatch.setattr(TrainingState, "on_epoch_end", lambda *a, **k: epochs.append(1) or original(*a, **k))
    keras_model.train(run, system, fan)
    assert epochs == []
    assert job_of(run, system, fan).is_done()
    assert_same_weights(trained_weights(run, system), weights)


def fail():
    raise PowerFailureError


def test_a_state_of_other_settings_is_not_resumed(start, fan, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    run, system = start()
    with monkeypatch.context() as patch:
        fail_after(patch, 1)
        with pytest.raises(PowerFailureError):
            keras_model.train(run, system, fan)
    other = start({"seed": 5})
    keras_model.train(*other, fan)
    assert "of another training, not resumed: configuration.seed: 0 -> 5" in caplog.text
    fresh = start({"seed": 5}, name="fresh")
    keras_model.train(*fresh, fan)
    assert_same_weights(trained_weights(*other), trained_weights(*fresh))


def test_a_model_of_another_keras(start, tmp_path):
    _, system = start()
    path = tmp_path / "model_fan.keras"
    write_model(keras_model.build(system.model, system.feature), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["metadata.json"] = json.dumps({"keras_version": "99.1.0"}).encode()
    members["config.json"] = members["config.json"].replace(b'"Dense"', b'"NewDense"')
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(common.UserError, match=r"model_fan.keras: not a model .*by Keras 99.1.0, and here"):
        load_model(path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("no room"), "no room"),
        (MemoryError(), "no further word"),
        (tf.errors.ResourceExhaustedError(None, None, "{{function_node f}} no room\n[Op:Add]"), "no room"),
    ],
)
def test_too_little_memory_is_said_so(start, error, reason):
    _, system = start()
    with pytest.raises(common.UserError, match=rf"(?s)small: not enough memory \({reason}\)\nLower fit.batch_size"):
        with enough_memory(system):
            raise error


def kept_state(run, system, clips):
    """State of a training after its first epoch, on disk."""
    trainer = keras_model.make_trainer(system, 0)
    state = TrainingState(trainer.autoencoder, trainer, job_of(run, system, clips))
    reset_optimizer(trainer.optimizer, trainer.autoencoder)
    state.history = {"loss": [1.0]}
    state._keep(1)
    return state


@pytest.mark.parametrize("damage", ["empty", "no zip", "cut", "flipped", "foreign"])
def test_a_spoilt_state_is_not_resumed(start, fan, caplog, damage):
    run, system = start()
    state = kept_state(run, system, fan)
    whole = state.path.read_bytes()
    middle = whole.index(b"v3.npy") + 200
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    contents = {"empty": b"", "no zip": b"nothing", "cut": whole[:-100], "flipped": flipped}
    if damage == "foreign":
        np.savez(state.path, header=np.array(json.dumps({"variables": 0})))
    else:
        state.path.write_bytes(contents[damage])
    state.history = {}
    assert state.restore() == 0
    assert state.history == {}
    assert "resume_fan.npz: unreadable" in caplog.text
    state.path.write_bytes(whole)
    assert state.restore() == 1
    assert state.history == {"loss": [1.0]}


def change(state, header=None, array=None, **changes):
    """Write the file of a state anew, with another header, other values in it, or another first array."""
    with np.load(state.path) as stored:
        arrays = dict(stored)
    new = json.loads(str(arrays["header"])) | changes if header is None else header
    arrays["header"] = np.array(json.dumps(new))
    if array is not None:
        arrays["v0"] = array
    np.savez(state.path, **arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 99},
        {"epoch": 0},
        {"epoch": "1"},
        {"epoch": True},
        {"epoch": 2},  # there are losses of one
        {"epoch": None},
        {"variables": "2"},
        {"variables": 10_000},
        {"variables": 1},
        {"variables": -1},
        {"history": []},
        {"history": {"loss": 1.0}},
        {"history": {"loss": ["low"]}},
        {"history": {"loss": [None]}},
        {"history": {"loss": [float("nan")]}},
        {"record": None},
        {"record": []},
        {"header": []},
        {"header": 1},
        {"header": "text"},
        {"array": np.zeros((160, 16), np.int64)},
        {"array": np.zeros((160, 16), "U3")},
        {"array": np.zeros(3, np.float32)},
    ],
)
def test_a_state_that_this_training_cannot_have_had(start, fan, caplog, changes):
    run, system = start()
    state = kept_state(run, system, fan)
    change(state, **changes)
    before = [np.asarray(variable) for variable in state._variables()]
    state.history = {}
    assert state.restore() == 0
    assert state.history == {}
    assert "resume_fan.npz: unreadable" in caplog.text
    assert_same_weights([np.asarray(variable) for variable in state._variables()], before)


# ---- losses ----


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_is_an_error(start, fan, value):
    run, system = start()
    trainer = keras_model.make_trainer(system, 0)
    state = TrainingState(trainer.autoencoder, trainer, job_of(run, system, fan))
    with pytest.raises(common.UserError, match=r"small fan: epoch 3 .*diverged"):
        state.on_epoch_end(2, {"loss": 1.0, "val_loss": value})
    assert not state.path.exists()


def test_a_training_that_diverges_saves_nothing(start, fan):
    run, system = start({"fit": {"epochs": 5, "compile": {"optimizer": "sgd", "learning_rate": 1e30}}})
    with pytest.raises(common.UserError, match=r"diverged.\nLower fit.compile.learning_rate"):
        keras_model.train(run, system, fan)
    assert not model_path(run.model_folder(system), "fan").exists()


def test_a_training_without_a_step_saves_nothing(start, fan, monkeypatch):
    monkeypatch.setattr(FusedAdam, "apply", lambda *_, **__: None)  # as a LossScaleOptimizer that overflows
    run, system = start()
    with pytest.raises(common.UserError, match=r"small fan: fit.precision: .*nothing was learnt"):
        keras_model.train(run, system, fan)
    assert not model_path(run.model_folder(system), "fan").exists()


def test_the_weights_that_a_network_starts_from_are_in_the_record(start, fan, tmp_path):
    run, _ = start()
    system = config.load_config(SHIPPED).systems["l2_softmax"]
    path = tmp_path / "start.weights.h5"
    system = dataclasses.replace(system, model=dataclasses.replace(system.model, weights=str(path)))
    with pytest.raises(common.UserError, match=r"model.weights: no file .*start.weights.h5"):
        job_of(run, system, fan)
    digests = []
    for content in (b"one", b"another"):
        path.write_bytes(content)
        digests.append(job_of(run, system, fan).record["weights"])
    assert digests[0] != digests[1]
    for weights in (None, "imagenet"):
        other = dataclasses.replace(system, model=dataclasses.replace(system.model, weights=weights))
        assert "weights" not in job_of(run, other, fan).record


def test_plots_show_each_loss(tmp_path):
    from matplotlib import image

    plot_history({"loss": [3.0, 2.0], "val_loss": [3.0, 2.5]}, tmp_path / "history_fan.png")
    plot_history({"loss": [3.0, 2.0], "accuracy": [0.1, 0.4]}, tmp_path / "history_all.png")
    one, two = (image.imread(tmp_path / name).shape for name in ("history_fan.png", "history_all.png"))
    assert one[0] == two[0]
    assert 2 * one[1] == two[1]
