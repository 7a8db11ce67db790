"""04_detect.py --plot: which frequencies are most unusual, of known faults and by hand."""

import contextlib
import importlib
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import scipy.signal
import soundfile
import yaml
from conftest import tiny_settings

import config
import fusion
import keras_model
import make_demo_data
from audio import bands, features
from audio.descriptors import modulation_spectrum
from audio.settings import Feature
from challenge import demo_clips
from deployment import picture, unusual
from detectors import outliers
from training import vector_errors
from training.deviation import Deviation

RATE = make_demo_data.SAMPLE_RATE
SECONDS = 2.0
SHIPPED = config.load_config(Path(config.__file__).with_name("baseline.yaml"))


# ---- known faults ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Folder with an autoencoder and a system on descriptors that know a synthetic fan."""
    work = tmp_path_factory.mktemp("trained")
    train = work / "dev_data" / "fan" / "train"
    train.mkdir(parents=True)
    for number in range(24):
        clip = demo_clips.DemoClip("fan", "id_00", "train", 0, number, None)
        waveform = demo_clips.synthesise(clip, seconds=SECONDS, seed=0)
        soundfile.write(train / f"normal_id_00_{number:08}.wav", waveform, RATE, subtype="PCM_16")
    autoencoder = {
        "model": {"type": "dense_ae", "units": [64, 8, 64]},
        "feature": {"n_mels": 64},
        "fit": {"epochs": 30, "batch_size": 16},
    }
    neighbors = yaml.safe_load(Path(config.__file__).with_name("baseline.yaml").read_text())["systems"]["neighbors"]
    settings = tiny_settings(work, work) | {"systems": {"ae": autoencoder, "neighbors": neighbors}, "system": "ae"}
    (work / "settings.yaml").write_text(yaml.safe_dump(settings))
    for system in ("ae", "neighbors"):
        importlib.import_module("00_train").main(["-d", "--config", str(work / "settings.yaml"), "--system", system])
    return work


def recording(folder: Path, fault: np.ndarray) -> Path:
    """A normal clip and, behind it, the same with a fault of so many times its level."""
    clip = demo_clips.DemoClip("fan", "id_00", "test", 0, 1, None)
    waveform = demo_clips.synthesise(clip, seconds=SECONDS, seed=0)
    path = folder / "x.wav"
    whole = np.concatenate([waveform, waveform + waveform.std() * fault])
    soundfile.write(path, np.clip(whole, -1, 1), RATE, subtype="PCM_16")
    return path


def said(work: Path, system: str, path: Path, capsys, *, drawn: bool = True) -> str:
    """What is said to be most unusual."""
    arguments = ["--config", work / "settings.yaml", "--machine-type", "fan", "--system", system, path]
    arguments += ["--plot", path.with_suffix(".png")]
    capsys.readouterr()
    with contextlib.nullcontext() if drawn else mock.patch.object(picture, "plot"):  # which takes most of the time
        importlib.import_module("04_detect").main([*map(str, arguments)])
    assert not drawn or path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    return capsys.readouterr().out.splitlines()[-1]


def noise(low: float, high: float) -> np.ndarray:
    filters = scipy.signal.butter(4, [low, high], "bandpass", fs=RATE, output="sos")
    heard = scipy.signal.sosfilt(filters, np.random.default_rng(1).standard_normal(int(SECONDS * RATE)))
    return heard / heard.std()


TIME = np.arange(int(SECONDS * RATE)) / RATE
FAULTS = {  # name -> (sound, [Hz] where it is)
    "tone": (0.8 * np.sin(2 * np.pi * 1800 * TIME), 1800),
    "low tone": (1.5 * np.sin(2 * np.pi * 700 * TIME), 700),
    "noise": (0.5 * noise(2700, 3300), 3000),
    "pulsing noise": (0.4 * noise(4800, 5200) * (1 + np.sin(2 * np.pi * 11 * TIME)), 5000),
}


def first_range(words: str) -> tuple[float, float]:
    """[Hz] of the range that weighs most."""
    low, _, high, unit = words.partition(": ")[2].split(";")[0].split(",")[0].split()
    scale = {"Hz": 1, "kHz": 1000}[unit]
    return float(low) * scale, float(high) * scale


@pytest.mark.parametrize("system", ["ae", "neighbors"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_band_of_a_known_fault_is_named(trained, tmp_path, capsys, system, fault):
    sound, frequency = FAULTS[fault]
    words = said(trained, system, recording(tmp_path, sound), capsys, drawn=fault == "tone")
    assert words.startswith("most unusual, 2.00 to 4.00 s: ")
    low, high = first_range(words)
    assert low <= frequency <= high, words
    assert high - low <= max(200, 0.4 * frequency), words
    assert ("modulated at about 11 Hz" in words) == (system == "neighbors" and fault == "pulsing noise"), words


@pytest.mark.parametrize("how", config.OF_RESIDUALS)
def test_of_an_autoencoder_that_scores_by_covariances(trained, tmp_path, capsys, how):
    settings = yaml.safe_load((trained / "settings.yaml").read_text())
    settings["systems"]["ae"]["model"]["aggregate"] = how
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    words = said(tmp_path, "ae", recording(tmp_path, FAULTS["tone"][0]), capsys, drawn=False)
    low, high = first_range(words)
    assert low <= 1800 <= high, words


def test_families(families, dataset, tmp_path, capsys):
    """What compares embeddings says that it cannot tell; a fusion says by whom it tells."""
    path = tmp_path / "anomaly_id_00_00000000.wav"
    path.write_bytes((dataset / "dev_data" / "fan" / "test" / path.name).read_bytes())
    for system in ("windows", "dense"):
        assert said(families, system, path, capsys, drawn=system == "dense") == (
            "most unusual: this system's scores cannot be traced to frequencies"
        )
    words = said(families, "all", path, capsys)
    assert "by near)" in words or "by small)" in words
    assert "Hz" in words


def test_a_fusion_tells_by_its_heaviest_member_that_can(monkeypatch):
    """Of two clips, in the more unusual one of which ``dense`` weighs most and ``near`` more than ``small``."""
    scores = {"small": [9, 1], "near": [0, 2], "dense": [0, 9]}
    members = [SimpleNamespace(name=name) for name in scores]

    def family(member):
        found = [] if member.name == "dense" else [deviation([1], system=member.name)] * 2
        return SimpleNamespace(anomaly_scores=lambda *_: scores[member.name], deviations=lambda *_: found)

    monkeypatch.setattr(fusion, "family_of", family)
    monkeypatch.setattr(fusion, "_counted", lambda run, system, machine_type: system)
    monkeypatch.setattr(fusion, "_training_scores", lambda *_: None)
    monkeypatch.setattr(fusion, "_addends", lambda system, scores, *_: np.array(scores))
    clips = [SimpleNamespace(machine_id="id_00")] * 2
    found = fusion.deviations(None, SimpleNamespace(members=members), "fan", clips)
    assert [(one.system, one.note) for one in found] == 2 * [("near", "dense weighs more and tells no bands; by near")]


# ---- by hand ----


def deviation(weights, **changed) -> Deviation:
    """Of bands of 100 Hz."""
    edges = np.arange(len(weights) + 1) * 100.0
    whole = {"system": "x", "low": edges[:-1], "high": edges[1:], "aspects": np.full(len(weights), "")} | changed
    return Deviation(edges=edges, weights=np.array(weights, float), unit="", **whole)


def test_ranges_by_hand():
    found = unusual.ranges(deviation([0, 3, 2, 0.5, 9, 8, 0, 4, -9, 3.1]))
    assert [one[:2] for one in found] == [(400, 600), (700, 800), (900, 1000)]  # the sums are 17, 4 and 3.1
    assert unusual.ranges(deviation([-1, 0])) == []


def test_of_which_window_one_speaks():
    """Of the highest score, unless no window is anomalous: then of the heaviest band."""
    found = [deviation([0, 3]), deviation([2, 2])]
    for kind, number in (("normal", 0), ("anomaly", 1)):
        verdicts = [SimpleNamespace(score=score, verdict=kind) for score in (1, 2)]
        assert unusual.worst(verdicts, found) == number


def test_the_aspect_is_named_where_it_weighs_more_than_the_others():
    edges = {"low": np.array([0.0, 0.0, 100.0, 100.0]), "high": np.array([100.0, 100.0, 200.0, 200.0])}
    aspects = {"aspects": np.array(["level", "12 Hz"] * 2)}
    for weights, expected in (([9, 1, 0, 0], "level"), ([1, 9, 0, 0], "12 Hz"), ([5, 4, 0, 0], "")):
        one = Deviation("x", np.array([0.0, 100, 200]), weights=np.array(weights, float), unit="", **edges, **aspects)
        assert unusual.ranges(one) == [(0, 100, expected)]


def test_words_of_a_range():
    assert unusual.Range(1712, 1888, "").words() == "1.7 to 1.9 kHz"
    assert unusual.Range(-3, 48, "level").words() == "0 to 50 Hz, in level"
    assert unusual.Range(951, 1001, "12 Hz").words() == "0.9 to 1.1 kHz, modulated at about 12 Hz"


def test_a_number_counts_where_its_band_lies():
    one = deviation([0, 0, 0], low=np.array([50.0]), high=np.array([250.0]), aspects=np.array(["level"]))
    one = Deviation(**{**vars(one), "weights": np.array([4.0])})
    np.testing.assert_allclose(one.by_band(), [1, 2, 1])
    np.testing.assert_allclose(one.by_band("unrest"), [0, 0, 0])


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
@pytest.mark.parametrize("score", ["knn", "density"])
def test_contributions_add_up_to_the_score(score, metric):
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(20, 6)), rng.normal(size=(5, 6))
    how = {"score": score, "n_neighbors": 4, "n_nearest": 3, "metric": metric}
    found = outliers.contributions(train, test, **how)
    assert found.shape == (5, 6)
    np.testing.assert_allclose(found.sum(axis=1), outliers.outlier_scores(train, test, **how), rtol=1e-6)
    how["score"] = "knn"
    own = outliers.contributions(train, None, **how)
    others = [outliers.outlier_scores(np.delete(train, k, 0), train[k : k + 1], **how)[0] for k in range(20)]
    np.testing.assert_allclose(own.sum(axis=1), others, rtol=1e-6)


@pytest.mark.parametrize("hop", [1, 3])
def test_errors_of_frames_and_bands(hop):
    feature = Feature(n_mels=4, frames=3, n_fft=1024, hop_length=512, power=2.0)
    model = keras_model.build(config.DenseAutoencoder((4,)), feature)
    log_mel = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    ((of_frames, of_bands),) = vector_errors.errors_by_band(model, [log_mel], frames=3, hop=hop, batch=5)
    errors, _ = vector_errors.vector_errors(model, [log_mel], frames=3, hop=hop, batch=5)
    assert of_bands.mean() == pytest.approx(errors.mean(), rel=1e-5)
    assert of_frames.shape == log_mel.shape
    if hop == 3:  # each frame is in one vector
        residuals = log_mel.reshape(4, 12) - np.asarray(model(log_mel.reshape(4, 12)))
        np.testing.assert_allclose(of_frames, np.square(residuals).reshape(12, 4), rtol=1e-4, atol=1e-6)


def test_frames_that_no_vector_holds():
    feature = Feature(n_mels=4, frames=3, n_fft=1024, hop_length=512, power=2.0)
    model = keras_model.build(config.DenseAutoencoder((4,)), feature)
    ((of_frames, _),) = vector_errors.errors_by_band(model, [np.ones((8, 4), np.float32)], frames=3, hop=4, batch=5)
    assert np.flatnonzero(np.isnan(of_frames[:, 0])).tolist() == [3, 7]


@pytest.mark.parametrize("frequency", [300, 1000, 3000, 6500])
def test_the_numbers_of_a_descriptor_are_where_they_are_said_to_be(frequency):
    system = SHIPPED.systems["neighbors"]
    numbers = bands.numbers_of(system.descriptor, system.feature, RATE)
    quantities = [q for group in features.parts(system.descriptor, system.feature) for q in group.values()]
    assert len(numbers.low) == len(numbers.aspects) == sum(q.width for q in quantities)
    tone = np.sin(2 * np.pi * frequency * TIME) * (1 + 0.9 * np.sin(2 * np.pi * 6.56 * TIME))
    heard = np.concatenate([q.compute(tone.astype(np.float32), RATE) for q in quantities], axis=1)[0]
    for aspect in ("6.6 Hz", "level"):
        own = np.flatnonzero(numbers.aspects == aspect)
        loudest = own[heard[own].argmax()]
        assert numbers.low[loudest] <= frequency <= numbers.high[loudest]
    slow = modulation_spectrum(tone.astype(np.float32), RATE, system.descriptor.slow)
    fastest = np.array(["4 Hz", "6.6 Hz", "11 Hz", "18 Hz"])[slow[slow.max(axis=1).argmax()].argmax()]
    assert fastest == "6.6 Hz"
    rows = features.band_rows(system.descriptor, system.feature)
    assert sorted(np.concatenate(rows)) == [*range(len(numbers.low))]
    assert sorted(numbers.aspects[row[0]] for row in rows) == sorted(set(numbers.aspects))
    assert all(len(set(numbers.aspects[row])) == 1 and np.all(np.diff(numbers.low[row]) > 0) for row in rows)


def test_edges_lie_between_the_centres():
    assert bands.edges_between(np.array([1.0, 3.0, 4.0])).tolist() == [0, 2, 3.5, 4.5]
    assert bands.edges_between(np.array([3.0])).tolist() == [0, 6]
