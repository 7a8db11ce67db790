"""Test vectors of exported systems: what they hold, and that the front ends and the formulas of examples/ give it."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import OPTIONS, merge, tiny_settings

import common
import make_demo_data
from audio.clips import Clip
from deployment import json_scores, runtimes, vectors

EXAMPLES = Path(common.__file__).parent / "examples"
RATE = make_demo_data.SAMPLE_RATE
SYSTEMS = ("small", "windows", "dense", "spectral", "near", "all")


def export(settings: Path, folder: Path, system: str, *options) -> Path:
    """Export a system for fan; the folder of its files."""
    name = "litert" if "--int8" in options else "saved_model"
    arguments = ["--config", settings, "--system", system, "--format", name, "--output", folder, *options]
    importlib.import_module("05_export").main([*map(str, [*arguments, "--machine-type", "fan"])])
    return folder / "dev" / (name + ("_int8" if "--int8" in options else ""))


@pytest.fixture(scope="module")
def exported(families, tmp_path_factory) -> Path:
    """Folder with all systems of FAMILIES. Not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    return [export(families / "settings.yaml", folder, system) for system in ("windows", "spectral", "all")][0]


@pytest.fixture(scope="module")
def reflected(dataset, tmp_path_factory) -> Path:
    """Folder with an autoencoder that hears magnitudes, and between mirror images, trained for this."""
    work = tmp_path_factory.mktemp("reflected")
    changes = {"feature": {"power": 1.0, "pad_mode": "reflect", "hop_length": 500}}
    settings = merge(tiny_settings(dataset, work), changes)
    (work / "settings.yaml").write_text(yaml.safe_dump(settings))
    importlib.import_module("00_train").main(
        ["-d", "--config", str(work / "settings.yaml"), "--machine-type", "fan", "--system", "small"]
    )
    return export(work / "settings.yaml", work, "small")


def vectors_of(folder: Path, system: str) -> list[tuple[dict, Path, dict]]:
    """What the JSON says of each clip, its path without an ending, and its arrays."""
    said = json_scores.example.read(folder / f"{system}_fan.json")["test_vectors"]
    found = []
    for clip in said:
        with np.load(folder / f"{clip['path']}.npz") as arrays:
            found.append((clip, folder / clip["path"], dict(arrays)))
    return found


# ---- what they hold ----


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_normal_and_an_anomalous_clip(exported, dataset, system):
    said = vectors_of(exported, system)
    assert [(clip["path"], clip["label"], clip["machine_id"]) for clip, *_ in said] == [
        (f"test_vectors/{system}_fan/clip_1", "normal", "id_00"),
        (f"test_vectors/{system}_fan/clip_2", "anomaly", "id_00"),
    ]
    files = {f"clip_{number}.{ending}" for number in (1, 2) for ending in ("wav", "npz", "txt")}
    folder = exported / "test_vectors" / f"{system}_fan"
    assert {path.name for path in folder.iterdir()} == files | (
        {"frontend.txt"} if system not in ("all", "spectral") else set()
    )
    for clip, path, _ in said:
        source = dataset / "dev_data" / "fan" / "test" / clip["recording"]
        ours, original = (soundfile.read(one, dtype="int16")[0] for one in (path.with_suffix(".wav"), source))
        np.testing.assert_array_equal(ours, original)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_formulas_of_the_example_give_the_same(exported, system):
    content = json_scores.example.read(exported / f"{system}_fan.json")
    score = json_scores.example.SCORES[content["score"]["kind"]]
    for number, (clip, path, arrays) in enumerate(vectors_of(exported, system)):
        if system == "all":
            members = {name: vectors_of(exported, name)[number][2]["score"][0] for name in content["score"]["members"]}
            np.testing.assert_array_equal(arrays["part_scores"], [*members.values()])
            outputs = (members, None)
        else:
            waveform, _ = json_scores.frontend.read_wav(path.with_suffix(".wav"))
            name, found = next(iter(json_scores.frontend.heard(waveform, content).items()))  # without windows
            np.testing.assert_allclose(arrays[name], found, atol=1e-3 * found.std())
            heard = arrays.get("descriptor", arrays[name])
            inputs = json_scores.frontend.network_inputs(heard, content)
            np.testing.assert_array_equal(arrays.get("inputs", inputs), inputs)
            outputs = (inputs, arrays.get("outputs", inputs))
        np.testing.assert_array_equal(arrays["score"], [score(*outputs, content, clip["machine_id"])])
    parts = {"small": None, "windows": 1, "dense": 2, "spectral": 2, "near": 2, "all": 3}[system]
    assert (len(arrays["part_scores"]) if "part_scores" in arrays else None) == parts


def test_integers_of_8_bits(families, tmp_path):
    try:
        runtimes.require_packages("litert")
    except common.UserError as error:
        pytest.skip(str(error))
    folder = export(families / "settings.yaml", tmp_path, "small", "--int8")
    model = json.loads((folder / "small_fan.json").read_text())["model"]
    for _, _, arrays in vectors_of(folder, "small"):
        for name in ("input", "output"):
            assert arrays[f"int8_{name}s"].dtype == np.int8
        output = model["output"]
        values = (arrays["int8_outputs"].astype(np.float32) - output["zero_point"]) * np.float32(output["scale"])
        np.testing.assert_array_equal(values, arrays["outputs"])
        integers = np.round(arrays["inputs"] / model["input"]["scale"]) + model["input"]["zero_point"]
        np.testing.assert_array_equal(arrays["int8_inputs"], np.clip(integers, -128, 127))


def test_long_clips_are_cut(families, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "LONGEST", 0)
    for _, path, arrays in vectors_of(export(families / "settings.yaml", tmp_path, "small"), "small"):
        assert soundfile.info(path.with_suffix(".wav")).frames == 4 * 512  # what one vector takes
        assert arrays["log_mel"].shape == (5, 32)
        assert arrays["inputs"].shape == (1, 160)


@pytest.mark.parametrize(("labels", "expected"), [
    ([0, 0, 1, 1], [0, 2]), ([1, 0], [1, 0]), ([0, 0, 0], [0, 1]), ([1, 1], [0, 1]), ([None] * 3, [0, 1]), ([0], [0]),
])  # fmt: skip
def test_which_clips(labels, expected):
    clips = [Clip(Path(str(k)), "fan", "id_00", label, 1, 1, 1, 1, 1) for k, label in enumerate(labels)]
    assert vectors.chosen(clips) == [clips[k] for k in expected]


def test_samples_as_a_wav_file_has_them():
    assert vectors.integers(np.array([0, -1, 1, 0.25, 2**-15], np.float32)).tolist() == [0, -32768, 32767, 8192, 1]


def test_the_text_gives_the_same_numbers(exported):
    for system in SYSTEMS:
        for _, path, arrays in vectors_of(exported, system):
            words = path.with_suffix(".txt").read_text().split()
            found, place = {}, 0
            while place < len(words):
                name, n = words[place], int(words[place + 1])
                shape = [*map(int, words[place + 2 : place + 2 + n])]
                place += 2 + n
                found[name] = np.array(words[place : place + int(np.prod(shape))], float).reshape(shape)
                place += int(np.prod(shape))
            assert set(found) - {"n_windows"} == set(arrays)
            for name, values in arrays.items():
                if name in ("inputs", "outputs"):
                    assert found["n_windows"] == [len(values)]
                    values = values[:10]
                np.testing.assert_array_equal(found[name].astype(values.dtype), values)


# ---- the front ends ----


def differences(said: str) -> list[tuple[str, float, float]]:
    """Array, largest and mean difference, as a front end prints them."""
    found = re.findall(r"(log_mel|inputs):.* largest difference (\S+) dB, mean (\S+) dB", said)
    return [(name, float(largest), float(mean)) for name, largest, mean in found]


@pytest.mark.parametrize("system", ["small", "windows", "dense", "near"])
def test_numpy(exported, capsys, system):
    assert json_scores.frontend.main(exported / f"{system}_fan.json") == 0
    found = differences(capsys.readouterr().out)
    names = ["log_mel", "inputs"] if system in ("small", "windows") else ["log_mel"]
    assert [name for name, *_ in found] == 2 * names
    assert max(largest for _, largest, _ in found) <= (0.1 if system == "windows" else 1e-3)


def test_numpy_spectra(exported, capsys):
    assert json_scores.frontend.main(exported / "spectral_fan.json") == 0
    assert "clip_2 spectra: largest difference " in capsys.readouterr().out


def test_numpy_between_mirror_images(reflected, capsys):
    assert json_scores.frontend.main(reflected / "small_fan.json") == 0
    assert len(differences(capsys.readouterr().out)) == 4


def test_numpy_says_what_differs(exported, tmp_path, capsys):
    folder = Path(shutil.copytree(exported, tmp_path / "copy"))
    content = json.loads((folder / "small_fan.json").read_text())
    content["feature"]["pad_mode"] = "reflect"
    (folder / "small_fan.json").write_text(json.dumps(content))
    assert json_scores.frontend.main(folder / "small_fan.json") == 1
    assert max(largest for _, largest, _ in differences(capsys.readouterr().out)) > 1
    with pytest.raises(SystemExit, match="of a fusion, which hears by its members"):
        json_scores.frontend.main(folder / "all_fan.json")


def test_numpy_alone(exported):
    command = [sys.executable, "-X", "importtime", EXAMPLES / "frontend.py", exported / "small_fan.json"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    modules = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "numpy" in modules
    assert not modules & {"common", "tensorflow", "keras", "scipy", "librosa", "soundfile", "onnxruntime"}


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The front end in C."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if not compiler:
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("c") / "frontend"
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-std=c99"]
    subprocess.run([compiler, *options, str(EXAMPLES / "frontend.c"), "-o", str(path), "-lm"], check=True, timeout=120)
    return path


def run(program: Path, path: Path, **changed) -> subprocess.CompletedProcess:
    """Compare the vectors of a clip; ``changed`` files take the place of its own."""
    files = {"parameters": path.with_name("frontend.txt"), "wav": path.with_suffix(".wav")}
    files |= {"text": path.with_suffix(".txt")} | changed
    command = [str(program), *(str(files[name]) for name in ("parameters", "wav", "text"))]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("system", ["small", "windows", "near"])
def test_c(program, exported, system):
    for _, path, _ in vectors_of(exported, system):
        done = run(program, path)
        assert done.returncode == 0, done.stdout + done.stderr
        names = ["log_mel", "inputs"] if system == "small" else ["log_mel"]
        assert [name for name, *_ in differences(done.stdout)] == names
        assert done.stdout.endswith(" ms for a second of sound\n")


def test_c_between_mirror_images(program, reflected):
    for _, path, _ in vectors_of(reflected, "small"):
        done = run(program, path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(differences(done.stdout)) == 2


@pytest.mark.parametrize("n_samples", [30, 100, 400])
def test_c_hears_clips_shorter_than_half_a_frame(program, reflected, tmp_path, n_samples):
    """The mirror image goes to and fro; of even fewer samples it is tones, with nothing but rounding between them."""
    content = json_scores.example.read(reflected / "small_fan.json")
    samples = np.random.default_rng(0).integers(-9999, 9999, (n_samples, 2)).astype(np.int16)
    soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="PCM_16")  # the first channel is heard
    log_mel = json_scores.frontend.log_mel_energies(samples[:, 0] / np.float32(2**15), content["feature"])
    (tmp_path / "x.txt").write_text(vectors.text({"other": np.ones((2, 3)), "log_mel": log_mel}))
    said = (reflected / "test_vectors" / "small_fan" / "frontend.txt").read_text().replace("frames 5", "frames 0")
    (tmp_path / "frontend.txt").write_text(said)
    done = run(program, tmp_path / "x")
    assert done.returncode == 0, done.stdout + done.stderr


def test_c_says_what_differs(program, exported, tmp_path):
    first, second = (path for _, path, _ in vectors_of(exported, "small"))
    done = run(program, first, wav=second.with_suffix(".wav"))
    assert done.returncode == 1
    assert differences(done.stdout)[0][1] > 1
    said = first.with_name("frontend.txt").read_text()
    (tmp_path / "odd.txt").write_text(said.replace("n_fft 1024", "n_fft 1000"))
    done = run(program, first, parameters=tmp_path / "odd.txt")
    assert (done.returncode, "n_fft: this transform takes a power of two" in done.stderr) == (2, True)
    soundfile.write(tmp_path / "float.wav", np.zeros(int(OPTIONS.seconds * RATE)), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "slow.wav", np.zeros(8000), 8000, subtype="PCM_16")
    for name, reason in (("float", "no integers of 16 bits"), ("slow", "sample rate"), ("none", "cannot be opened")):
        done = run(program, first, wav=tmp_path / f"{name}.wav")
        assert (done.returncode, reason in done.stderr) == (2, True)
