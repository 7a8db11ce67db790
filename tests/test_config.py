"""The YAML: the shipped one, every kind of error by key, value and what is allowed, overriding blocks."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from conftest import SHIPPED

import config
from audio.features import n_frames
from audio.settings import Feature
from common import UserError

SMALL = {"model": {"type": "dense_ae", "units": [4]}}


@pytest.fixture
def error_of(yaml_file):
    """Message of the error that the tiny settings with these changes give."""

    def load(changes):
        with pytest.raises(UserError) as caught:
            config.load_config(yaml_file(changes))
        return str(caught.value)

    return load


# ---- the shipped file ----


def test_the_shipped_file_has_the_official_values():
    settings = config.load_config(SHIPPED)
    assert settings.dev_directory == Path("dev_data")
    assert settings.eval_directory == Path("eval_data")
    assert settings.model_directory == Path("model")
    assert settings.result_directory == Path("result")
    assert settings.result_file == "result.csv"
    assert settings.max_fpr == 0.1
    assert settings.feature == Feature(n_mels=128, frames=5, n_fft=1024, hop_length=512, power=2.0)
    fit = settings.fit
    assert (fit.epochs, fit.batch_size, fit.shuffle, fit.validation_split, fit.verbose) == (100, 512, True, 0.1, 1)
    assert fit.compile == config.Compile(optimizer="adam", loss="mean_squared_error", learning_rate=None)
    assert settings.system == ("tuned_ae",)


def test_the_shipped_autoencoders_are_the_official_one_and_the_reports():
    systems = config.load_config(SHIPPED).systems
    assert systems["baseline_ae"].model.units == (128, 128, 128, 128, 8, 128, 128, 128, 128)
    assert systems["tuned_ae"].model.units == (1024, 512, 256, 128, 16, 128, 256, 512, 1024)
    general = config.load_config(SHIPPED)
    for name in ("baseline_ae", "tuned_ae"):
        assert (systems[name].feature, systems[name].fit) == (general.feature, general.fit)


# ---- errors, each naming the file and the key ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # unknown or misspelt
        ({"max_frp": 0.1}, "max_frp: unknown key; did you mean max_fpr?"),
        ({"colour": 1}, "colour: unknown key; there is dev_directory, "),
        ({"feature": {"n_mel": 64}}, "feature.n_mel: unknown key; did you mean n_mels?"),
        ({"fit": {"epoch": 3}}, "fit.epoch: unknown key; did you mean epochs?"),
        ({"fit": {"compile": {"optimiser": "adam"}}}, "fit.compile.optimiser: unknown key; did you mean optimizer?"),
        ({"systems": {"small": {"modle": {}}}}, "systems.small.modle: unknown key; did you mean model?"),
        ({"systems": {"small": {"model": {"unit": [1]}}}}, "model.unit: unknown key; did you mean units?"),
        ({"systems": {"small": {"fit": {"epocs": 1}}}}, "systems.small.fit.epocs: unknown key; did you mean epochs?"),
        ({7: 1}, "7: unknown key"),
        # wrong type
        ({"feature": None}, "feature: None; expected keys with values"),
        ({"systems": {"small": None}}, "systems.small: None; expected keys with values"),
        ({"systems": []}, "systems: []; expected keys with values"),
        ({"fit": {"epochs": "many"}}, "fit.epochs: 'many'; expected a whole number at least 1"),
        ({"fit": {"epochs": 2.5}}, "fit.epochs: 2.5; expected a whole number at least 1"),
        ({"fit": {"epochs": True}}, "fit.epochs: True; expected a whole number at least 1"),
        ({"fit": {"shuffle": 1}}, "fit.shuffle: 1; expected True or False"),
        ({"max_fpr": "low"}, "max_fpr: 'low'; expected a number above 0 and at most 1"),
        ({"max_fpr": [0.1]}, "max_fpr: [0.1]; expected a number"),
        ({"dev_directory": 3}, "dev_directory: 3; expected a path"),
        ({"eval_directory": None}, "eval_directory: None; expected a path"),
        ({"system": 3}, "system: 3; expected a list"),
        ({"systems": {"small": {"model": {"units": 8}}}}, "systems.small.model.units: 8; expected a list"),
        ({"systems": {"small": {"model": {"units": []}}}}, "systems.small.model.units: []; expected a list"),
        ({"systems": {"small": {"model": {"units": [8, "a"]}}}}, "units: 'a'; expected a whole number at least 1"),
        # impossible values
        ({"feature": {"hop_length": 0}}, "feature.hop_length: 0; expected a whole number at least 1"),
        ({"feature": {"n_mels": -1}}, "feature.n_mels: -1; expected a whole number at least 1"),
        ({"feature": {"frames": 0}}, "feature.frames: 0; expected"),
        ({"feature": {"power": 0}}, "feature.power: 0; expected a number at least 0.1 and at most 8"),
        ({"feature": {"n_fft": 1023}}, "1048576 and a multiple of 2"),
        ({"feature": {"n_fft": 10**10}}, "feature.n_fft: 10000000000; expected a whole number at least 2 and at most"),
        ({"fit": {"verbose": True}}, "fit.verbose: True; expected a whole number"),
        ({"fit": {"epochs": "3"}}, "fit.epochs: '3'; expected a whole number"),
        ({"max_fpr": "0.1"}, "max_fpr: '0.1'; expected a number"),
        ({"max_fpr": True}, "max_fpr: True; expected a number"),
        ({"descriptor": {"parts": [["slow", "slow"]]}}, "['slow', 'slow']; expected each part once in a group"),
        ({"descriptor": {"parts": [["slow"], []]}}, "descriptor.parts: []; expected a list"),
        ({"submissions": {9: {"system": "small", "training_data": "eval"}}}, "submissions: 9; expected"),
        ({"names": "mine"}, "names: 'mine'; expected one of official, any"),
        ({"channel": -1}, "channel: -1; expected a whole number at least 0"),
        ({"channel": "left"}, "channel: 'left'; expected a whole number at least 0 (0 is the first channel) or mean"),
        ({"channel": True}, "channel: True; expected a whole number"),
        ({"dev_directory": "a\0b"}, "dev_directory: 'a\\x00b'; expected a path"),
        ({"dev_directory": ""}, "dev_directory: ''; expected a path"),
        ({"dev_directory": "C:\temp\new"}, "dev_directory: 'C:\\temp\\new'; expected a path without control"),
        ({"dev_directory": "~no such user/asd"}, "expected a path; this name after ~ is no user's"),
        ({"result_file": "a\0b"}, "result_file: 'a\\x00b'; expected a file name without folders"),
        ({"feature": {"pad_mode": "edge"}}, "feature.pad_mode: 'edge'; expected one of constant, reflect"),
        ({"max_fpr": 2}, "max_fpr: 2; expected a number above 0 and at most 1"),
        ({"max_fpr": 0}, "max_fpr: 0; expected a number above 0 and at most 1"),
        ({"max_fpr": float("nan")}, "max_fpr: nan; expected a number"),
        ({"feature": {"power": float("inf")}}, "feature.power: inf; expected a number at least 0.1"),
        ({"seed": -1}, "seed: -1; expected a whole number at least 0"),
        ({"seed": 2**32}, "seed: 4294967296; expected a whole number at least 0 and at most 4294901760"),
        ({"fit": {"batch_size": 0}}, "fit.batch_size: 0; expected"),
        ({"fit": {"validation_split": 1}}, "fit.validation_split: 1; expected a number at least 0 and below 1"),
        ({"fit": {"verbose": 3}}, "fit.verbose: 3; expected a whole number at least 0 and at most 2"),
        ({"fit": {"compile": {"optimizer": "adm"}}}, "fit.compile.optimizer: 'adm'; expected one of adam, "),
        ({"fit": {"compile": {"loss": "mean_squared_eror"}}}, "did you mean mean_squared_error?"),
        ({"fit": {"compile": {"learning_rate": 0}}}, "fit.compile.learning_rate: 0; expected a number above 0"),
        ({"systems": {"small": {"model": {"units": [8, 0]}}}}, "systems.small.model.units: 0; expected a whole number"),
        ({"systems": {"small": {"feature": {"hop_length": 0}}}}, "systems.small.feature.hop_length: 0; expected"),
        ({"systems": {"small": {"fit": {"epochs": 0}}}}, "systems.small.fit.epochs: 0; expected"),
        ({"systems": {"small": {"fit": {"epochs": {"a": 1}}}}}, "systems.small.fit.epochs: {'a': 1}; expected a whole"),
        ({"systems": {"small": {"model": {"type": "dense"}}}}, "systems.small.model.type: 'dense'; expected one of"),
        ({"systems": {"../small": {"model": {}}}}, "systems.../small: a system's name becomes a folder"),
        ({"result_file": "a/b.csv"}, "result_file: 'a/b.csv'; expected a file name without folders"),
        # names that stand nowhere
        ({"system": "smal"}, "system: smal: did you mean small?"),
        ({"system": ["small", "other"]}, "system: other: there is small"),
        (
            {"submissions": {1: {"system": "big", "training_data": "eval"}}},
            "submissions.1.system: big: there is small",
        ),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_named(error_of, yaml_file, changes, message):
    error = error_of(changes)
    assert error.startswith(f"{yaml_file(changes)}: ")
    assert message in error


@pytest.mark.parametrize(
    "where", ["max_fpr", "feature", "feature.hop_length", "fit.epochs", "fit.compile.optimizer", "systems.small.model"]
)
def test_a_missing_key_is_named(yaml_file, where):
    path = yaml_file()
    settings = yaml.safe_load(path.read_text())
    *blocks, name = where.split(".")
    block = settings
    for key in blocks:
        block = block[key]
    del block[name]
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=rf"settings.yaml: {where}(: missing|: None; expected keys)"):
        config.load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "key a stands there twice"),
        ("a: [1, 2\n", "not readable as YAML"),
        ("a:\t1\n\tb: 2\n", "not readable as YAML"),
        ('a: "C:\\Users\\me"\n', "In double quotes a backslash begins a code: take single ones"),
        ("a: 2020-99-99\n", "not readable as YAML"),  # YAML takes it for a date
        ("a: !!python/object/apply:os.getcwd []\n", "not readable as YAML"),
        ("just text\n", "the file: 'just text'; expected keys with values"),
        ("", "the file: None; expected keys with values"),
    ],
)
def test_what_is_no_yaml_mapping(tmp_path, text, message):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        config.load_config(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_key_given_twice_in_an_inner_block(yaml_file):
    path = yaml_file()
    path.write_text(path.read_text().replace("  hop_length: 512\n", "  hop_length: 512\n  hop_length: 256\n"))
    with pytest.raises(UserError, match="key hop_length stands there twice"):
        config.load_config(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"--config: no file nowhere.yaml \(looked for .*"):
        config.load_config(Path("nowhere.yaml"))
    (tmp_path / "latin.yaml").write_bytes("dev_directory: Gerät".encode("latin-1"))
    with pytest.raises(UserError, match="latin.yaml: not readable as YAML: not in UTF-8"):
        config.load_config(tmp_path / "latin.yaml")


# ---- several errors at once ----


def faults_of(error: str, path: Path) -> list[str]:
    """Lines of an error that names several faults."""
    title, *lines, advice = error.splitlines()
    assert title == f"{path}: {len(lines)} faults:"
    assert advice == "Mend them, then run again."
    return [line.strip() for line in lines]


def test_all_faults_are_told_at_once_in_the_order_of_the_file(error_of, yaml_file):
    changes = {
        "max_fpr": 2,
        "system": "smal",
        "seed": -1,
        "feature": {"n_mel": 64, "hop_length": 0},
        "systems": {
            "small": {"model": {"units": [0, -1]}, "fit": {"epochs": "many", "compile": {"loss": "huber_"}}},
            "all": {"model": {"type": "fusion", "members": {"smal": 1}}},
        },
        "submissions": {1: {"system": "big", "training_data": "dev"}},
    }
    found = faults_of(error_of(changes), yaml_file(changes))
    assert [fault.split(":")[0] for fault in found] == [
        "max_fpr",
        "seed",
        "feature.hop_length",
        "feature.n_mel",
        "system",
        "systems.small.model.units",  # one line, however many of the list are wrong
        "systems.small.fit.epochs",
        "systems.small.fit.compile.loss",
        "systems.all.model.members",
        "submissions.1.system",
        "submissions.1.training_data",
    ]
    assert found[3] == (
        "feature.n_mel: unknown key; did you mean n_mels? There is n_mels, frames, n_fft, hop_length, power, pad_mode"
    )
    assert found[4] == "system: smal: did you mean small? There is small, all"


def test_a_fault_of_a_general_block_is_told_once_and_not_of_each_system(error_of, yaml_file):
    own = {"model": SMALL["model"], "feature": {"frames": 3}, "fit": {"epochs": 0}}
    changes = {"systems": {"own": own}, "feature": {"n_mels": 0}, "fit": 3}
    assert [fault.split(":")[0] for fault in faults_of(error_of(changes), yaml_file(changes))] == [
        "feature.n_mels",
        "fit",
    ]
    changes = {"systems": {"own": own}, "feature": {"n_mels": 0}}
    assert [fault.split(":")[0] for fault in faults_of(error_of(changes), yaml_file(changes))] == [
        "feature.n_mels",
        "systems.own.fit.epochs",
    ]


def test_what_does_not_fit_together_is_told_with_the_rest(error_of, yaml_file):
    near = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["systems"]["neighbors"]["model"]
    model = {"type": "conv_ae", "filters": [4], "latent": 0, "hop": 1}
    changes = {
        "descriptor": None,
        "systems": {
            "conv": {"model": model, "fit": {"verbose": 2, "compile": {"loss": "categorical_crossentropy"}}},
            "near": {"model": near, "fit": {}},
        },
    }
    assert [fault.split(";")[0] for fault in faults_of(error_of(changes), yaml_file(changes))] == [
        "systems.conv.model.latent: 0",
        "systems.conv.fit.verbose: set it in the general fit block: a run has one progress bar",
        "systems.conv.fit.compile.loss: 'categorical_crossentropy'",
        "systems.near.fit: has no effect on a model of type neighbors",
        "systems.near.descriptor: missing",
    ]


@pytest.mark.parametrize("name", ["l2_softmax", "dense_l2_softmax"])
def test_classes_that_test_clips_do_not_tell_are_no_score(error_of, yaml_file, name):
    system = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["systems"][name]
    system["model"] |= {"classes": "attributes"}
    assert config.load_config(yaml_file({"systems": {"own": system}})).systems["own"].model.classes == "attributes"
    system["model"]["score"] = "softmax"
    error = error_of({"systems": {"own": system}})
    assert "systems.own.model.score: softmax; the attributes of test clips, their classes, are hidden: take an" in error


def test_a_margin_has_no_sub_centres(error_of, yaml_file):
    system = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["systems"]["spectral_l2_softmax"]
    system["model"] |= {"margin": 0, "sub_centres": 16}
    assert config.load_config(yaml_file({"systems": {"own": system}})).systems["own"].model.sub_centres == 16
    system["model"]["margin"] = 0.3
    assert "systems.own.model.margin: 0.3; classes with sub_centres have none" in error_of({"systems": {"own": system}})


def test_more_faults_than_a_screen_holds(error_of):
    error = error_of({f"key{n}": 1 for n in range(30)})
    assert ": 30 faults:" in error and "... and 15 more, all of them in baseline.log" in error


# ---- what is built from it ----


def test_the_home_folder(yaml_file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    model = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["systems"]["l2_softmax"]
    changes = {"model_directory": "~/asd/model", "cache_directory": "~", "systems": {"l2": model}}
    model["model"]["weights"] = "~/weights.h5"
    settings = config.load_config(yaml_file(changes))
    assert (settings.model_directory, settings.cache_directory) == (tmp_path / "asd/model", tmp_path)
    assert settings.systems["l2"].model.weights == str(tmp_path / "weights.h5")
    model["model"]["weights"] = "./weights.h5"
    assert config.load_config(yaml_file(changes)).systems["l2"].model.weights == "./weights.h5"


def test_the_blocks_are_frozen_dataclasses(yaml_file):
    settings = config.load_config(yaml_file())
    assert dataclasses.asdict(settings.systems["small"])["model"] == {"units": (16, 4, 16), "aggregate": "mean"}
    assert dataclasses.replace(settings, seed=1).systems["small"] is settings.systems["small"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 1
    with pytest.raises(ValueError, match="seed"):
        dataclasses.replace(settings, seed=-1)


def test_blocks_of_a_system_override_the_general_ones(yaml_file):
    own = {"feature": {"frames": 3}, "fit": {"epochs": 7, "compile": {"learning_rate": 0.01}}}
    settings = config.load_config(yaml_file({"systems": {"own": {"model": {"type": "dense_ae", "units": [4]}} | own}}))
    small, system = settings.systems["small"], settings.systems["own"]
    assert (small.feature, small.fit) == (settings.feature, settings.fit)
    assert system.feature == dataclasses.replace(settings.feature, frames=3)
    compile_ = config.Compile(optimizer="adam", loss="mean_squared_error", learning_rate=0.01)
    assert system.fit == dataclasses.replace(settings.fit, epochs=7, compile=compile_)
    assert system.model == config.DenseAutoencoder(units=(4,))
    assert (system.name, system.model_type) == ("own", "dense_ae")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+.1e-2", "1.e-3", "10e-4"])
def test_exponents_without_a_point_are_numbers(yaml_file, text):
    path = yaml_file()
    path.write_text(path.read_text().replace("learning_rate: null", f"learning_rate: {text}"))
    assert config.load_config(path).fit.compile.learning_rate == pytest.approx(0.001)


def test_whole_numbers_are_taken_for_numbers(yaml_file):
    power = config.load_config(yaml_file({"feature": {"power": 2}})).feature.power
    assert (power, type(power)) == (2.0, float)


def test_systems_to_run(yaml_file):
    big = {"big": {"model": {"type": "dense_ae", "units": [4]}}}
    settings = config.load_config(yaml_file({"systems": big, "system": ["big", "small", "big"]}))
    assert [system.name for system in settings.select(None)] == ["big", "small"]
    assert [system.name for system in settings.select(["small", "small"])] == ["small"]
    with pytest.raises(UserError, match=r"--system bigg: did you mean big\?"):
        settings.select(["bigg"])


def test_the_cache_can_be_switched_off(yaml_file):
    assert config.load_config(yaml_file({"cache_directory": None})).cache_directory is None


def test_directories(yaml_file, dataset):
    settings = config.load_config(yaml_file())
    assert (settings.directory("dev"), settings.directory("eval")) == (dataset / "dev_data", dataset / "eval_data")


def test_the_shortest_clip_gives_just_one_window(yaml_file):
    settings = config.load_config(yaml_file())
    shortest = settings.systems["small"].min_samples
    assert shortest == 4 * 512  # frame k is centred on sample 512 k
    assert n_frames(shortest, 512) == 5
    assert n_frames(shortest - 1, 512) == 4


@pytest.mark.parametrize(("aggregate", "hops"), [("mean", 0), ("std", 1)])
def test_a_deviation_takes_two_vectors(yaml_file, aggregate, hops):
    system = config.load_config(yaml_file({"systems": {"small": {"model": {"aggregate": aggregate}}}})).systems["small"]
    assert system.min_samples == (4 + hops) * 512
    assert n_frames(system.min_samples, 512) == 5 + hops


def test_a_key_with_a_default_may_be_left_out(tmp_path):
    settings = yaml.safe_load(Path(config.__file__).with_name("baseline.yaml").read_text(encoding="utf-8"))
    del settings["distribution"]
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert config.load_config(path).distribution == "none"


# ---- files that are made to break a reader ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fit": {"batch_size": 99999999999999999999}},
            "fit.batch_size: 99999999999999999999; expected a whole number",
        ),
        ({"fit": {"batch_size": 3_000_000_000}}, "at least 1 and at most 2147483647"),
        ({"fit": {"epochs": 2**31}}, "fit.epochs: 2147483648; expected"),
        ({"fit": {"epochs": 2**100_000}}, "fit.epochs: a number of 100001 bits; expected"),
        ({"max_fpr": 10**400}, "max_fpr: a number of 1329 bits; expected a number"),
        ({"feature": {"n_fft": 10**10}}, "feature.n_fft: 10000000000; expected"),
        ({"systems": {"small": {"model": {"units": [2**31]}}}}, "systems.small.model.units: 2147483648; expected"),
        ({2**100_000: 1}, "a number of 100001 bits: unknown key"),
        ({"x" * 10_000: 1}, "xxx: unknown key"),
        ({"a\ud800": 1}, "the file: 'a\\ud800'; expected keys"),
        ({"feature": {"n_mels": "x" * 10_000}}, "feature.n_mels: 'xxx"),
        ({"feature": {"n_mels": list(range(10_000))}}, "feature.n_mels: [0, 1, 2,"),
        ({"model_directory": "a\0b"}, "model_directory: 'a\\x00b'; expected a path"),
        ({"model_directory": "a\ud800b"}, "model_directory: 'a\\ud800b'; expected a path"),
        ({"result_file": "a\0.csv"}, "result_file: 'a\\x00.csv'; expected a file name"),
        ({"result_file": ".."}, "result_file: '..'; expected a file name without folders"),
        ({"result_file": "."}, "result_file: '.'; expected a file name"),
        ({"result_file": ""}, "result_file: ''; expected a file name"),
        ({"result_file": "a\\b.csv"}, "expected a file name without folders"),
        ({"result_file": "a:b.csv"}, "expected a file name without folders"),
        ({"result_file": "a\n.csv"}, "expected a file name without folders"),
        ({"result_file": "x" * 300}, "expected a file name without folders"),
        ({"systems": {"..": SMALL}}, "systems...: a system's name becomes a folder"),
        ({"systems": {"a\\b": SMALL}}, "a system's name becomes a folder"),
        ({"systems": {"x" * 300: SMALL}}, "xxx: a system's name becomes"),
        ({"systems": {"small": {"fit": {"verbose": 2}}}}, "systems.small.fit.verbose: set it in the general fit block"),
    ],
)
def test_values_that_no_computer_can_use(error_of, yaml_file, changes, message, monkeypatch):
    monkeypatch.setattr(yaml.SafeDumper, "yaml_representers", dict(yaml.SafeDumper.yaml_representers))
    monkeypatch.setattr(yaml.SafeDumper, "represent_int", lambda dumper, n: dumper.represent_scalar(INT, hex(n)))
    yaml.SafeDumper.add_representer(int, yaml.SafeDumper.represent_int)
    error = error_of(changes)
    assert message in error
    assert len(error.splitlines()) == 1 and len(error) < 800


INT = "tag:yaml.org,2002:int"
LETTERS = "abcdefghijklmno"
BOMB = (
    "a: &a [1, 1]\n"
    + "".join(  # *o are 2 * 4**14 numbers
        f"{y}: &{y} [*{x}, *{x}, *{x}, *{x}]\n" for x, y in zip(LETTERS[:-1], LETTERS[1:], strict=True)
    )
)
MANY_KEYS = "a: {" + ", ".join(f"k{i}: 1" for i in range(10_001)) + "}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 20_000, "nested too deeply"),
        ("{a: " * 20_000, "nested too deeply"),
        ("- " * 20_000, "nested too deeply"),
        ("a: !!int ''", "not readable as YAML"),
        ("a: !!bool maybe", "not readable as YAML"),
        ("a: !!timestamp now", "not readable as YAML"),
        ("a: !!float ''", "not readable as YAML"),
        ("a: " + "9" * 5000, "not readable as YAML"),
        ("? {a: 1}\n: 2", "not readable as YAML"),
        ("? [a]\n: 2", "not readable as YAML"),
        ("<<: 1", "not readable as YAML"),
        ("&a {<<: *a, b: 1}", "b: unknown key"),
        ("\0", "not readable as YAML"),
        ("\x01", "not readable as YAML"),
        (MANY_KEYS, "a block of more than 10000 keys"),
        (BOMB + "feature: *o", "a: unknown key"),
    ],
)
def test_files_that_break_a_yaml_reader(tmp_path, text, message):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        config.load_config(path)
    assert message in str(caught.value)
    lines = str(caught.value).splitlines()
    assert len(lines) <= 18 and all(len(line) < 1000 for line in lines)  # a screen, however many keys are at fault


def test_a_block_that_contains_itself(yaml_file):
    path = yaml_file({"systems": {"small": {"fit": "OWN"}}})
    text = path.read_text().replace("fit:\n", "fit: &fit\n  again: *fit\n", 1).replace("fit: OWN", "fit: *fit")
    path.write_text(text)
    with pytest.raises(UserError, match=r"fit.again: unknown key"):
        config.load_config(path)


def test_an_alias_that_hides_many_values_is_shown_in_short(yaml_file):
    path = yaml_file({"seed": "HERE"})
    bomb = "".join(f"  {line}\n" for line in BOMB.splitlines())
    path.write_text(f"x:\n{bomb}" + path.read_text().replace("HERE", "*o"))
    with pytest.raises(UserError, match=r"seed: \[\[\[\[\.\.\.\], ") as caught:
        config.load_config(path)
    assert all(len(line) < 500 for line in str(caught.value).splitlines())


def test_a_key_that_stands_there_twice_is_named_with_its_line(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("a: 1\nb: {c: 1}\nd:\n  e: 1\n  f: 2\n  e: 3\n")
    with pytest.raises(UserError, match=r"key e stands there twice\n.*line 6, column 3"):
        config.load_config(path)
