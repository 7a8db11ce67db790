"""Clip names, header checks, log-mel energies against the official ones, whole files, errors and exit codes."""

import dataclasses
import errno
import json
import logging
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import librosa
import make_golden as golden
import numpy as np
import pytest
import soundfile

import common
from audio import clips, profile
from audio.clips import (
    Clip,
    check_clips,
    check_sound,
    fingerprint,
    load_clip,
    machine_types_in,
    official_order,
    parse_clip_name,
    select_machine_types,
)
from audio.features import n_frames
from storage.files import expanded, path_beside, remove_leftovers, with_paths, write_text, write_whole

RATE = 16_000  # [Hz]
FEATURE = {"n_mels": 128, "n_fft": 1024, "hop_length": 512, "power": 2.0}


def noise(seconds=0.5, seed=0, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def write(path, waveform=None, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise() if waveform is None else waveform, rate, subtype="PCM_16")
    return path


def check(folder, **options):
    options = {"min_samples": 2048, "normal_only": True} | options
    return check_clips([("fan", folder)], **options)


# ---- the official features ----


@pytest.mark.parametrize("name", golden.PARAMETER_SETS)
def test_vectors_are_the_official_ones(name, tmp_path):
    seconds, arguments = golden.PARAMETER_SETS[name]
    feature = dict(arguments) | {"pad_mode": golden.pad_mode(name)}
    frames = feature.pop("frames")
    waveform, sample_rate = common.load_wav(golden.write_clip(tmp_path / "clip.wav", seconds))
    log_mel = common.log_mel_energies(waveform, sample_rate, **feature)
    assert log_mel.dtype == np.float32
    assert log_mel.shape == (feature["n_mels"], n_frames(len(waveform), feature["hop_length"]))
    vectors = golden.kept_vectors(common.stack_frames(log_mel, frames=frames))
    with np.load(golden.GOLDEN / "official_vectors.npz") as stored:
        official = stored[name].astype(np.float64)
        assert json.loads(str(stored["versions"]))["librosa"]
    assert vectors.shape == official.shape
    errors = np.abs(vectors - official)
    assert errors.max() <= 1e-4  # [dB]
    step = np.spacing(np.abs(official).astype(np.float32))  # of float32, to which each operation of both is rounded
    assert errors.mean() <= 2 * step.mean()


def test_the_golden_clip_has_what_is_hard_to_get_right():
    with np.load(golden.GOLDEN / "official_vectors.npz") as stored:
        vectors = stored["official"]
    assert vectors.min() == pytest.approx(10 * np.log10(sys.float_info.epsilon))  # digital silence
    loud = vectors[vectors > -150]
    assert loud.max() - loud.min() > 90  # [dB]


# ---- laws of log-mel energies ----


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_ten_times_the_gain_is_20_db(power):
    waveform = noise(level=1.0)
    feature = FEATURE | {"power": power}
    gain = common.log_mel_energies(10 * waveform, RATE, **feature) - common.log_mel_energies(waveform, RATE, **feature)
    np.testing.assert_allclose(gain, 20, atol=1e-4)


def test_a_tone_is_in_its_band():
    t = np.arange(RATE) / RATE
    log_mel = common.log_mel_energies(np.sin(2 * np.pi * 1000 * t), RATE, **FEATURE)
    band = common.mel_filters(RATE, 1024, 128).toarray()[:, 64].argmax()  # bin 64 of 1024 at 16 kHz is 1000 Hz
    assert set(log_mel[:, 4:-4].argmax(axis=0)) == {band}


@pytest.mark.parametrize("sample_rate", [1600, 8000, 16_000, 44_100])
@pytest.mark.parametrize(("n_fft", "n_mels"), [(1024, 128), (1024, 64), (1000, 40), (2048, 8), (256, 128)])
@pytest.mark.filterwarnings("ignore:Empty filters:UserWarning")
def test_mel_filters_are_librosas(sample_rate, n_fft, n_mels):
    theirs = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
    np.testing.assert_array_equal(common.mel_filters(sample_rate, n_fft, n_mels).toarray(), theirs)


def test_mel_bands_without_a_bin_are_told(caplog):
    common.mel_filters.cache_clear()
    common.mel_filters(16_000, 256, 128)
    assert re.search(r"\d+ of 128 mel bands hear no bin of the spectrum .* raise n_fft or lower", caplog.text)
    caplog.clear()
    common.mel_filters(16_000, 1024, 128)
    assert not caplog.text


def test_frames_are_centred_and_padded_with_zeros():
    impulse = np.zeros(RATE)
    impulse[5 * 512] = 1.0
    energy = common.log_mel_energies(impulse, RATE, **FEATURE).mean(axis=0)
    assert energy.argmax() == 5
    assert list(np.flatnonzero(energy > -150)) == [5]  # 4 and 6 see it where the Hann window is zero
    assert common.log_mel_energies(np.ones(1), RATE, **FEATURE).shape == (128, 1)


@pytest.mark.parametrize("waveform", [np.zeros(0), np.zeros((2, 4000))])
def test_what_is_no_waveform_is_an_error(waveform):
    with pytest.raises(ValueError, match="shape"):
        common.log_mel_energies(waveform, RATE, **FEATURE)


def test_a_clip_is_padded_with_its_reflection():
    waveform = noise(2000 / RATE)
    mirrored = np.concatenate([waveform[512:0:-1], waveform, waveform[-2:-514:-1]])
    inner = common.log_mel_energies(mirrored, RATE, **FEATURE)[:, 1:-1]  # 512 samples are one frame
    found = common.log_mel_energies(waveform, RATE, **FEATURE, pad_mode="reflect")
    np.testing.assert_array_equal(found, inner)
    assert common.log_mel_energies(waveform[:1], RATE, **FEATURE, pad_mode="reflect").shape == (128, 1)


def test_an_odd_n_fft_is_an_error():
    with pytest.raises(ValueError, match="n_fft: 1023; expected an even number"):
        common.log_mel_energies(noise(), RATE, **FEATURE | {"n_fft": 1023})


def test_stack_frames_by_hand():
    log_mel = np.array([[1, 2, 3, 4], [10, 20, 30, 40]])
    assert common.stack_frames(log_mel, frames=3).tolist() == [[1, 10, 2, 20, 3, 30], [2, 20, 3, 30, 4, 40]]
    assert common.stack_frames(log_mel, frames=1).tolist() == [[1, 10], [2, 20], [3, 30], [4, 40]]


# ---- names ----


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("normal_id_01_00000000.wav", ("id_01", 0)),
        ("anomaly_id_06_00000123.wav", ("id_06", 1)),
        ("id_05_00000007.wav", ("id_05", None)),
        ("Normal_ID_02_my clip (3).WAV", ("id_02", 0)),
    ],
)
def test_clip_names(name, parsed):
    assert parse_clip_name(name)[:2] == parsed


@pytest.mark.parametrize(
    "name",
    [
        "normal_id_1_00000000.wav",
        "normal_01_00000000.wav",
        "normal_id_01.wav",
        "normal_id_01_0.flac",
        "normal_id_٠٠_0.wav",
        "normal_ıd_00_0.wav",
        "xnormal_id_01_0.wav",
    ],
)
def test_unparsable_names(name):
    with pytest.raises(ValueError, match="not of the form"):
        parse_clip_name(name)


def test_order_of_a_score_csv():
    names = ["anomaly_id_01_1.wav", "normal_id_02_0.wav", "normal_id_01_9.wav", "anomaly_id_01_0.wav"]
    clips = [make_clip(name) for name in names]
    ordered = [clip.name for clip in official_order(clips)]
    assert ordered == ["normal_id_01_9.wav", "anomaly_id_01_0.wav", "anomaly_id_01_1.wav", "normal_id_02_0.wav"]


def make_clip(name, machine_type="fan", **values):
    """A Clip without a file."""
    machine_id, label = parse_clip_name(name)[:2]
    facts = {"n_samples": RATE, "sample_rate": RATE, "size": 32044, "mtime_ns": 1, "crc": 7}
    return Clip(Path("folder") / name, machine_type, machine_id, label, **facts | values)


# ---- header checks ----


def test_good_clips_of_unequal_lengths(tmp_path):
    write(tmp_path / "normal_id_00_00000000.wav", noise(0.5))
    write(tmp_path / "normal_id_00_00000001.wav", noise(0.7))
    clips = check(tmp_path)
    assert [(clip.name, clip.machine_id, clip.label, clip.n_samples, clip.sample_rate) for clip in clips] == [
        ("normal_id_00_00000000.wav", "id_00", 0, 8000, RATE),
        ("normal_id_00_00000001.wav", "id_00", 0, 11200, RATE),
    ]


def test_sound_that_begins_late_is_no_silence(tmp_path):
    write(tmp_path / "normal_id_00_0.wav", np.concatenate([np.zeros(7000), [0.5], np.zeros(1000)]))
    assert len(check(tmp_path)) == 1


def faulty_folder(folder):
    """A folder with one clip of each fault among good ones; file name -> what the error says of it."""
    for number in range(3):
        write(folder / f"normal_id_00_{number:08d}.wav")
    (folder / "normal_id_00_garbage.wav").write_bytes(b"this is no sound at all" * 100)
    (folder / "normal_id_00_empty.wav").write_bytes(b"")
    whole = write(folder / "normal_id_00_truncated.wav").read_bytes()
    (folder / "normal_id_00_truncated.wav").write_bytes(whole[:-1000])
    (folder / "normal_id_00_header_only.wav").write_bytes(whole[:30])
    (folder / "normal_id_00_folder.wav").mkdir()
    write(folder / "normal_id_00_other_rate.wav", rate=44_100)
    write(folder / "normal_id_00_stereo.wav", np.stack([noise(), noise()], axis=1))
    write(folder / "normal_id_00_short.wav", noise(0.1))
    write(folder / "normal_id_00_silent.wav", np.zeros(8000))
    write(folder / "fan_00_unparsable.wav")
    write(folder / "anomaly_id_00_among_train.wav")
    return {
        "normal_id_00_garbage.wav": "not a wav file but text",
        "normal_id_00_empty.wav": "file is empty",
        "normal_id_00_truncated.wav": "truncated: 1000 bytes of sound are missing",
        "normal_id_00_header_only.wav": "no data chunk",
        "normal_id_00_folder.wav": "not a file, but a folder, pipe or device",
        "normal_id_00_other_rate.wav": "sample rate 44100 Hz; the other clips of fan have 16000 Hz. Resample it",
        "normal_id_00_stereo.wav": "2 channels; expected one",
        "normal_id_00_short.wav": "1600 samples; one window of frames needs 2048",
        "normal_id_00_silent.wav": "silent: every sample is zero",
        "fan_00_unparsable.wav": "name is not of the form",
        "anomaly_id_00_among_train.wav": "an anomalous clip among the training clips",
    }


def test_every_fault_in_one_error_by_name(tmp_path):
    faults = faulty_folder(tmp_path)
    with pytest.raises(common.UserError) as caught:
        check(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{len(faults)} of {len(faults) + 3} clips cannot be used:"
    assert lines[-1] == "Replace or remove them, then run again."
    for name, message in faults.items():
        (line,) = [line for line in lines if name in line]
        assert message in line
    assert len(lines) == len(faults) + 2


def test_test_clips_need_no_labels(tmp_path):
    write(tmp_path / "id_00_00000000.wav")
    assert check(tmp_path, normal_only=False)[0].label is None


# ---- one's own recordings ----


def names_of(clips):
    return [(clip.name, clip.machine_id, clip.label) for clip in clips]


def test_any_name_is_a_normal_clip_for_training(tmp_path):
    for name in ("2024-05-01 08.15 press.WAV", "anomaly_id_02_0.wav", "ünder.wav"):
        write(tmp_path / name)
    expected = ["2024-05-01 08.15 press.WAV", "anomaly_id_02_0.wav", "ünder.wav"]
    assert names_of(check(tmp_path, names="any")) == [(name, "id_00", 0) for name in expected]


@pytest.mark.parametrize("anomalous", ["anomaly", "abnormal", "Abnormal"])
def test_folders_label_test_clips(tmp_path, caplog, anomalous):
    caplog.set_level(logging.INFO)
    for folder in ("normal", anomalous):
        write(tmp_path / folder / "00000000.wav")
    write(tmp_path / "unknown.wav")
    (tmp_path / "normal" / "00000001.flac").write_bytes(b"fLaC")
    (tmp_path / "notes").mkdir()
    clips = check(tmp_path, names="any", normal_only=False)
    expected = {("normal/00000000.wav", "id_00", 0), (f"{anomalous}/00000000.wav", "id_00", 1)}
    assert set(names_of(clips)) == expected
    assert {parse_clip_name(clip.name)[:2] for clip in clips} == {("id_00", 0), ("id_00", 1)}
    assert f"{tmp_path / 'normal'}: 1 wav files taken, not 1 .flac file" in caplog.text
    assert re.search(rf"{anomalous}.* taken, not 1 .wav file, 1 folder", caplog.text)


def test_test_clips_without_folders_have_no_labels(tmp_path):
    write(tmp_path / "unknown.wav")
    clips = check(tmp_path, names="any", normal_only=False)
    assert names_of(clips) == [("unknown.wav", "id_00", None)]


@pytest.mark.parametrize(
    ("content", "names", "message"),
    [
        (["a.flac", "b.FLAC"], "official", r"no wav file in .* but 2 .flac files\nPut wav files there"),
        (["a.mp3", "readme"], "any", r"no wav file in .* but 1 .mp3 file, 1 file\n"),
        (["normal/a.wav", "abnormal/b.wav"], "official", r"(?s)but 2 folders\n.*test/normal/\*.wav +with names: any"),
        (["normal/a.flac"], "any", r"no wav file in .* but 1 folder"),
    ],
)
def test_what_is_there_in_place_of_wav_files_is_told(tmp_path, content, names, message):
    for name in content:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"something")
    with pytest.raises(common.UserError, match=message):
        check(tmp_path, names=names, normal_only=False)


@pytest.mark.parametrize("name", ["a\rb.wav", "a\tb.wav"])
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such names")
def test_names_that_no_csv_gives_back_are_told(tmp_path, name):
    write(tmp_path / name)
    with pytest.raises(common.UserError, match="name has control characters or"):
        check(tmp_path, names="any")


def test_each_machine_type_may_have_a_sample_rate_of_its_own(tmp_path):
    folders = [(name, write(tmp_path / name / "0.wav", rate=rate).parent) for name, rate in (("a", 8000), ("b", RATE))]
    found = check_clips(folders, min_samples=1, normal_only=True, names="any")
    assert [clip.sample_rate for clip in found] == [8000, RATE]


def test_machine_types_are_found_in_either_unicode_form(tmp_path):
    (tmp_path / "Lu\u0308fter" / "train").mkdir(parents=True)
    assert select_machine_types({"key": tmp_path}, ["L\u00fcfter"]) == {"key": ["Lu\u0308fter"]}


def test_a_name_of_ones_own_is_told_which_key_takes_it(tmp_path):
    write(tmp_path / "press.wav")
    with pytest.raises(common.UserError, match="name is not of the form .*; with names: any in the YAML it may be any"):
        check(tmp_path)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_channel_of_several_is_read(tmp_path, subtype):
    waveforms = np.stack([noise(seed=seed) for seed in range(4)], axis=1)
    path = tmp_path / "normal_id_00_0.wav"
    soundfile.write(path, waveforms, RATE, subtype=subtype)
    stored, _ = soundfile.read(path, dtype="float32")
    for channel, expected in ((0, stored[:, 0]), (3, stored[:, 3]), ("mean", stored.mean(axis=1))):
        (clip,) = check(tmp_path, channel=channel)
        np.testing.assert_allclose(load_clip(clip)[0], expected, rtol=1e-6, atol=1e-7)
    marks = {fingerprint(check(tmp_path, channel=channel)) for channel in (0, 3, "mean")}
    assert len(marks) == 3


@pytest.mark.parametrize("channel", [0, "mean"])
def test_the_only_channel_may_be_asked_for(tmp_path, channel):
    path = write(tmp_path / "normal_id_00_0.wav")
    (clip,) = check(tmp_path, channel=channel, min_samples=8000)  # just as long as it must be
    np.testing.assert_array_equal(load_clip(clip)[0], common.load_wav(path)[0])


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        (
            None,
            r"4 channels; expected one. Set channel: 0 in .*\(from 0 to 3, or mean; .*, or mix it down: ffmpeg .*",
        ),
        (4, "no channel 4: it has 4"),
    ],
)
def test_a_channel_that_is_not_there_is_named(tmp_path, channel, message):
    soundfile.write(tmp_path / "normal_id_00_0.wav", np.stack([noise()] * 4, axis=1), RATE)
    with pytest.raises(common.UserError, match=message):
        check(tmp_path, channel=channel)


def test_a_dead_channel_is_named(tmp_path):
    soundfile.write(tmp_path / "normal_id_00_0.wav", np.stack([noise(), np.zeros(8000)], axis=1), RATE)
    assert len(check(tmp_path, channel=0)) == 1
    with pytest.raises(common.UserError, match="silent: every sample is zero"):
        check(tmp_path, channel=1)


def test_a_clip_that_loses_its_channel_is_named(tmp_path):
    path = tmp_path / "normal_id_00_0.wav"
    soundfile.write(path, np.stack([noise()] * 3, axis=1), RATE)
    (clip,) = check(tmp_path, channel=2)
    soundfile.write(path, np.stack([noise()] * 2, axis=1), RATE)
    with pytest.raises(common.UserError, match="changed since the run began"):
        load_clip(clip)


def test_stray_and_hidden_files_are_ignored(tmp_path):
    folder = tmp_path / "dev" / "fan" / "train"
    write(folder / "normal_id_00_00000000.wav")
    for name in ("readme.txt", "._normal_id_00_00000000.wav", ".DS_Store", "normal_id_00_00000000.wav.part"):
        (folder / name).write_bytes(b"stray")
    assert [clip.name for clip in check(folder)] == ["normal_id_00_00000000.wav"]
    (tmp_path / "dev" / "dev_data_fan.zip").write_bytes(b"stray")
    (tmp_path / "dev" / ".cache" / "train").mkdir(parents=True)
    (tmp_path / "dev" / "notes").mkdir()
    assert machine_types_in(tmp_path / "dev", "dev_directory") == ["fan"]


def test_folders_without_clips_are_all_named(tmp_path):
    (tmp_path / "pump").mkdir()
    with pytest.raises(common.UserError, match=r"(?s)fan: no wav file in .*pump: no wav file in .*--machine-type"):
        check_clips([("fan", tmp_path / "fan"), ("pump", tmp_path / "pump")], min_samples=1, normal_only=True)


def test_missing_and_empty_dataset_folders(tmp_path):
    with pytest.raises(common.UserError, match=r"(?s)dev_directory: no folder .*nowhere.*make_demo_data"):
        machine_types_in(tmp_path / "nowhere", "dev_directory")
    with pytest.raises(common.UserError, match="eval_directory: no machine type in"):
        machine_types_in(tmp_path, "eval_directory")


def test_the_layout_of_mimii_is_told_how_to_become_ours(tmp_path):
    write(tmp_path / "fan" / "id_00" / "normal" / "00000000.wav")
    with pytest.raises(common.UserError, match=r"(?s)no machine type in.*test/abnormal/.*Of MIMII's folders"):
        machine_types_in(tmp_path, "dev_directory")


def test_select_machine_types(tmp_path):
    for name in ("dev/valve", "dev/fan", "eval/fan", "eval/pump"):
        (tmp_path / name / "train").mkdir(parents=True)
    both = {split: tmp_path / split for split in ("dev", "eval")}
    assert select_machine_types(both, None) == {"dev": ["fan", "valve"], "eval": ["fan", "pump"]}
    assert select_machine_types(both, ["valve", "fan", "valve"]) == {"dev": ["fan", "valve"], "eval": ["fan"]}
    with pytest.raises(common.UserError, match=r"--machine-type Fan: .*dev or .*eval; there is fan, pump, valve"):
        select_machine_types(both, ["Fan"])


def test_odd_chunks_before_the_sound_are_skipped(tmp_path):
    path = write(tmp_path / "normal_id_00_0.wav")
    riff = path.read_bytes()
    chunk = b"note" + struct.pack("<I", 5) + b"hello\0"  # odd length: padded
    path.write_bytes(riff[:4] + struct.pack("<I", len(riff) - 8 + len(chunk)) + riff[8:36] + chunk + riff[36:])
    assert check(tmp_path)[0].n_samples == 8000
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(common.UserError, match="truncated: 2 bytes"):
        check(tmp_path)


def test_a_clip_that_breaks_after_the_check_is_named(tmp_path):
    path = tmp_path / "normal_id_00_0.wav"
    path.write_bytes(b"gone")
    with pytest.raises(common.UserError, match=r"normal_id_00_0.wav: cannot be read"):
        common.load_wav(path)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_samples_are_soundfiles(tmp_path, subtype):
    path = tmp_path / "normal_id_00_00000000.wav"
    soundfile.write(path, np.array([-1.0, 0.9999, 1e-4, *noise(level=0.1)]), RATE, subtype=subtype)
    waveform, sample_rate = common.load_wav(path)
    expected, _ = soundfile.read(path, dtype="float32")
    assert sample_rate == RATE
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, expected)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_part_of_a_recording_is_read(tmp_path, subtype):
    path = tmp_path / "recording.wav"
    soundfile.write(path, noise(), RATE, subtype=subtype)
    whole, _ = common.load_wav(path)
    clip = dataclasses.replace(check_sound(path, "fan", "id_00", 0, min_samples=1), first=100, n_samples=50)
    np.testing.assert_array_equal(load_clip(clip)[0], whole[100:150])
    np.testing.assert_array_equal(common.load_wav(path, first=100)[0], whole[100:])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_named(tmp_path, value):
    waveform = noise()
    waveform[100] = value
    path = tmp_path / "normal_id_00_0.wav"
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    with pytest.raises(common.UserError, match=r"normal_id_00_0.wav: .*not finite"):
        common.load_wav(path)


# ---- fingerprints ----


def test_fingerprint_knows_files_not_order_or_folder(tmp_path):
    clips = [make_clip(f"normal_id_00_{number}.wav") for number in range(3)]
    same = fingerprint(clips)
    assert fingerprint(clips[::-1]) == same
    moved = dataclasses.replace(clips[0], path=tmp_path / clips[0].name, mtime_ns=2)
    assert fingerprint([moved, *clips[1:]]) == same
    others = [
        clips[1:],
        [dataclasses.replace(clips[0], crc=8), *clips[1:]],
        [dataclasses.replace(clips[0], size=32046), *clips[1:]],
        [dataclasses.replace(clips[0], machine_type="pump"), *clips[1:]],
        [make_clip("normal_id_00_3.wav"), *clips[1:]],
    ]
    assert len({same, *map(fingerprint, others)}) == 1 + len(others)


@pytest.mark.parametrize("cached", [False, True])
def test_fingerprint_sees_other_sound_in_a_file_of_the_same_size(tmp_path, cached):
    options = {"cache_directory": tmp_path / "cache"} if cached else {}
    waveform = noise()
    path = write(tmp_path / "clips" / "normal_id_00_0.wav", waveform)
    long_ago(path)
    before = fingerprint(check(path.parent, **options))
    waveform[-1] = 0.5  # the last sample
    long_ago(write(path, waveform), seconds=90)
    assert fingerprint(check(path.parent, **options)) != before


def long_ago(path, seconds=100):
    """Make a file look as if nobody wrote to it just now."""
    now = time.time()
    os.utime(path, (now - seconds, now - seconds))


def test_many_new_clips_are_told(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(profile, "SETTLED", 0)
    monkeypatch.setattr(clips, "MANY", 0)
    write(tmp_path / "clips" / "normal_id_00_0.wav")
    for _ in range(2):
        check(tmp_path / "clips", cache_directory=tmp_path / "cache")
    assert caplog.text.count("1 clips are new: they are read once to know them again") == 1


def test_a_file_is_read_whole_once(tmp_path, monkeypatch):
    read = []
    original = profile.file_crc
    monkeypatch.setattr(profile, "file_crc", lambda path: read.append(path.name) or original(path))
    folder, cache = tmp_path / "clips", tmp_path / "cache"
    paths = [write(folder / f"normal_id_00_{number}.wav", noise(seed=number)) for number in range(3)]
    first = check(folder, cache_directory=cache)
    assert sorted(read) == [path.name for path in paths]
    assert check(folder, cache_directory=cache) == first
    assert sorted(read[3:]) == sorted(read[:3])  # written just now: they may be again, within the same tick
    assert not cache.exists()
    monkeypatch.setattr(profile, "SETTLED", 0)
    assert check(folder, cache_directory=cache) == first
    del read[:]
    assert check(folder, cache_directory=cache) == first
    assert not read
    content, state = paths[1].read_bytes(), paths[1].stat()
    paths[1].write_bytes(content[:-2] + bytes(2))
    os.utime(paths[1], ns=(state.st_atime_ns, state.st_mtime_ns))
    if sys.platform != "win32":  # which has no time of the last change that nobody can set
        assert check(folder, cache_directory=cache)[1].crc != first[1].crc
    paths[1].write_bytes(content)
    os.utime(paths[1], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert check(folder, cache_directory=cache) == first
    (stored,) = cache.iterdir()
    content = stored.read_bytes()
    for damaged in (b"", content[:100], content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]):
        stored.write_bytes(damaged)
        assert check(folder, cache_directory=cache) == first
    stored.unlink()
    stored.mkdir()
    assert check(folder, cache_directory=cache) == first  # it cannot be written: costs time alone


def test_a_touched_clip_is_the_same_clip(tmp_path):
    path = write(tmp_path / "normal_id_00_0.wav")
    (clip,) = check(tmp_path)
    long_ago(path)
    np.testing.assert_array_equal(load_clip(clip)[0], common.load_wav(path)[0])


# ---- files that appear whole or not at all ----


def test_write_whole_keeps_the_old_file_on_an_error(tmp_path):
    path = tmp_path / "new" / "scores.csv"
    with pytest.raises(KeyError), write_whole(path) as beside:
        beside.write_text("half")
        raise KeyError
    assert list(path.parent.iterdir()) == []
    write_text(path, "old\n")
    with pytest.raises(KeyboardInterrupt), write_whole(path) as beside:
        beside.write_text("half")
        assert path.read_text() == "old\n"
        assert beside.suffix == ".csv"
        raise KeyboardInterrupt
    assert [(p.name, p.read_text()) for p in path.parent.iterdir()] == [("scores.csv", "old\n")]


def test_a_write_error_without_a_path_gets_it(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(OSError, match=r"No space left on device: .*model\.keras"), write_whole(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_half_written_files_go_after_an_hour(tmp_path):
    half, abandoned = (path_beside(tmp_path / f"{name}.npz") for name in ("half", "abandoned"))
    users = tmp_path / ".something.else.npz"
    for path in (half, abandoned, users):
        path.write_text("half")
    for path in (abandoned, users):
        long_ago(path, seconds=3700)
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {half, users}


def test_a_new_run_on_a_folder_tidies_it(tmp_path):
    leftover = path_beside(tmp_path / "model_fan.keras")
    leftover.write_text("half")
    long_ago(leftover, seconds=25 * 3600)
    write_text(tmp_path / "record.yaml", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["record.yaml"]


def test_a_long_name_can_be_written(tmp_path):
    path = tmp_path / ("ä" * 120 + ".csv")
    write_text(path, "text")
    assert path.read_text() == "text"


def test_write_text_is_utf8_with_lf(tmp_path):
    write_text(tmp_path / "a.txt", "Müller\nb\n")
    assert (tmp_path / "a.txt").read_bytes() == "Müller\nb\n".encode()


# ---- errors, log, command line ----


def test_many_faults_fit_on_a_screen(caplog):
    caplog.set_level(logging.DEBUG, logger="common")
    faults = [f"clip {number}" for number in range(100)]
    lines = str(common.fault_list("Broken", faults, "Mend them.")).splitlines()
    assert lines == [
        "Broken:",
        *(f"  clip {number}" for number in range(15)),
        "  ... and 85 more, all of them in baseline.log",
        "Mend them.",
    ]
    assert [record.getMessage() for record in caplog.records] == [f"Broken: clip {number}" for number in range(15, 100)]


def run_python(code, folder):
    """Run code that can import our modules, in ``folder``."""
    program = f"import sys; sys.path.insert(0, {str(Path(common.__file__).parent)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60)


def test_run_main_ends_without_a_traceback_and_logs_all(tmp_path):
    code = (
        "import common\n"
        "def main():\n"
        "    raise common.fault_list('Broken', [f'clip {n}' for n in range(20)], 'Mend them.')\n"
        "common.run_main(main)"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 1
    assert "ERROR - Broken:\n  clip 0\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert "clip 19" not in done.stderr
    log = (tmp_path / "baseline.log").read_text(encoding="utf-8")
    assert all(f"clip {number}" in log for number in range(20))


def test_a_file_system_error_ends_without_a_traceback(tmp_path):
    (tmp_path / "model").write_text("a file where a folder should be")
    code = (
        "import common, pathlib\n"
        "from storage.files import write_text\n"
        "def main():\n"
        "    write_text(pathlib.Path('model') / 'record.yaml', 'text')\n"
        "common.run_main(main)"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 1
    assert "'model'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in (tmp_path / "baseline.log").read_text(encoding="utf-8")  # for whoever looks for a bug


def test_an_interrupted_run_exits_with_130(tmp_path):
    done = run_python("import common\ndef main():\n    raise KeyboardInterrupt\ncommon.run_main(main)", tmp_path)
    assert done.returncode == 130
    assert "the same command again goes on" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["folder", "read-only"])
def test_a_log_file_that_cannot_be_written_is_a_warning(tmp_path, kind):
    path = tmp_path / "baseline.log"
    if kind == "folder":
        path.mkdir()
    elif hasattr(os, "geteuid") and os.geteuid() == 0:
        path.symlink_to("/dev/full")  # a root user may write to any file
    else:
        path.write_text("another's")
        path.chmod(0o400)
    code = "def main():\n    common.logger.error('one')\n    common.logger.error('two')\n    print('done')\n"
    done = run_python(f"import common\n{code}common.run_main(main)", tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert done.stderr.count("baseline.log cannot be written") == 1
    assert done.stderr.count("this run has no log file") == 1
    assert "Traceback" not in done.stderr
    assert [line.split(" - ")[-1] for line in done.stderr.splitlines() if "ERROR" in line] == ["one", "two"]


PRINTING = "import common, sys\ndef main():\n    print('x\\n' * 100_000)\n    print('y' , file=sys.stderr)\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe breaks in another way")
@pytest.mark.parametrize(
    ("shell", "code"),
    [("| head -1", 141), ("2>&1 | head -1", 141), ("2>&-", 0), (">&-", 0), ("<&- 2>&- >&-", 0), ("| true", 141)],
)
def test_closed_streams_are_no_fault(tmp_path, shell, code):
    program = f"import sys; sys.path.insert(0, {str(Path(common.__file__).parent)!r})\n{PRINTING}common.run_main(main)"
    (tmp_path / "main.py").write_text(program)
    command = f"{sys.executable} main.py {shell}"
    if "|" in shell:
        command += "; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stderr in ("", "y\n")
    assert not (tmp_path / "baseline.log").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="there is no full device")
def test_a_full_disk_for_what_is_printed_is_told(tmp_path):
    program = f"import sys; sys.path.insert(0, {str(Path(common.__file__).parent)!r})\nimport common\n"
    (tmp_path / "main.py").write_text(program + "common.run_main(lambda: print('x'))")
    options = {"stderr": subprocess.PIPE, "text": True, "timeout": 60, "env": os.environ | {"PYTHONUNBUFFERED": ""}}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, stdout=full, **options)
    assert done.returncode == 1
    assert "What was to be printed cannot be written: [Errno 28]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_not_enough_memory_is_told(tmp_path):
    code = "import common, numpy\ndef main():\n    numpy.empty(10**15)\ncommon.run_main(main)"
    done = run_python(code, tmp_path)
    assert done.returncode == 1
    assert "Not enough memory (Unable to allocate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text")
def test_names_that_are_not_utf8_are_told(tmp_path):
    folder = tmp_path / "data" / "fan" / "train"
    write(folder / "normal_id_00_0.wav").rename(folder / os.fsdecode(b"normal_id_00_\xff.wav"))
    code = (
        "import common, pathlib\n"
        "from audio.clips import check_clips\n"
        "def main():\n"
        "    folders = [('fan', pathlib.Path('data/fan/train'))]\n"
        "    check_clips(folders, min_samples=1, normal_only=True)\n"
        "common.run_main(main)"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 1
    assert r"normal_id_00_\udcff.wav: name has control characters or is not UTF-8" in done.stderr
    assert r"normal_id_00_\udcff.wav: name has control" in (tmp_path / "baseline.log").read_text(encoding="utf-8")
    (tmp_path / "data" / "fan").rename(tmp_path / "data" / os.fsdecode(b"fan\xff"))
    with pytest.raises(common.UserError, match=r"(?s)dev_directory: folders whose names no CSV gives back.*Rename"):
        machine_types_in(tmp_path / "data", "dev_directory")


def test_help_keeps_the_lines_of_the_description(capsys):
    with pytest.raises(SystemExit):
        common.argument_parser("What it does.\n\nfirst example\nsecond example\n").parse_args(["--help"])
    assert "\nfirst example\nsecond example\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required"),
        (["-d", "-e"], "not allowed with"),
        (
            ["-d", "--training-data", "eval"],
            "has no machine of the dev clips: with -d take dev (the default) or dev+eval",
        ),
        (["-e", "--training-data", "dev"], "has no machine of the eval clips"),
        (["-e", "--training-data", "both"], "invalid choice"),
        (["-d", "--sytem", "x"], "unrecognized"),
    ],
)
def test_wrong_arguments_exit_with_2(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        common.parse_arguments(common.argument_parser("test"), argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "training_data"),
    [
        (["-d"], "dev"),
        (["--dev", "--training-data", "dev"], "dev"),
        (["-e"], "eval"),
        (["--eval", "--training-data", "dev+eval"], "dev+eval"),
        (["-d", "--training-data", "dev+eval"], "dev+eval"),
    ],
)
def test_training_data_of_the_arguments(argv, training_data):
    assert common.parse_arguments(common.argument_parser("test"), argv).training_data == training_data


def test_paths_as_people_write_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("-a.wav", "b.wav", "u\u0308.wav"):
        write(Path(name))
    assert with_paths(["-a.wav", "-", "-b", "b.wav"]) == ["./-a.wav", "-", "-b", "b.wav"]
    assert common.user_path("~/b.wav") == tmp_path / "b.wav"
    assert expanded("~/b.wav") == [tmp_path / "b.wav"]
    assert expanded("[bu]*.wav") == [Path("b.wav"), Path("u\u0308.wav")]
    assert expanded("\u00fc.wav") == [Path("u\u0308.wav")]
    assert expanded("c*.wav") == [Path("c*.wav")]
    (tmp_path / "c[1].wav").touch()
    assert expanded("c[1].wav") == [Path("c[1].wav")]


@pytest.mark.parametrize("number", common.ADVICE)
def test_each_error_of_the_file_system_has_its_advice(tmp_path, number):
    code = f"import common\ndef main():\n    raise OSError({number}, 'what it is', 'x.keras')\ncommon.run_main(main)"
    done = run_python(code, tmp_path)
    assert done.returncode == 1
    assert f"'x.keras'\n{common.ADVICE[number]}, or name another in the YAML" in done.stderr


@pytest.mark.parametrize("error", ["OSError('sndfile library not found')", "AttributeError('_snd')"])
@pytest.mark.parametrize(
    "main",
    [
        "from audio.clips import check_clips\n"
        "folders = [('fan', pathlib.Path('clips'))]\n"
        "main = lambda: check_clips(folders, min_samples=1, normal_only=True, names='any')\n",
        "import make_demo_data\nmain = lambda: make_demo_data.main(['--directory', 'demo'])\n",
    ],
    ids=["clips", "demo"],
)
def test_a_missing_sound_library_is_told_once(tmp_path, error, main):
    (tmp_path / "soundfile.py").write_text(f"raise {error}")
    (tmp_path / "clips").mkdir()
    for name in "ab":
        (tmp_path / "clips" / f"{name}.wav").write_bytes(b"RIFF")
    done = run_python(f"import common, pathlib, sys\nsys.path.insert(0, '.')\n{main}common.run_main(main)", tmp_path)
    assert done.returncode == 1
    assert "sound cannot be loaded" in done.stderr
    assert "apt-get install libsndfile1" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_packages_and_a_home_folder_that_cannot_be_written_do_no_harm(tmp_path):
    code = (
        "import common, os, tempfile\n"
        "make = os.makedirs\n"
        "def closed(path, *arguments, **options):\n"
        "    if not os.fspath(path).startswith(tempfile.gettempdir()):\n"
        "        raise PermissionError(13, 'Permission denied', path)\n"
        "    make(path, *arguments, **options)\n"
        "os.makedirs = closed\n"
        "common.run_main(lambda: print(common.mel_filters(16000, 1024, 64).shape))"
    )
    done = run_python(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(64, 513)\n", "")


def test_environment_is_as_before_afterwards(monkeypatch):
    monkeypatch.setenv("KERAS_HOME", "mine")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    with pytest.raises(KeyError), common.environment(KERAS_HOME=None, KERAS_BACKEND="tensorflow"):
        assert ("KERAS_HOME" in os.environ, os.environ["KERAS_BACKEND"]) == (False, "tensorflow")
        raise KeyError
    assert os.environ["KERAS_HOME"] == "mine"
    assert "KERAS_BACKEND" not in os.environ


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        common.argument_parser("test").parse_args(["-v"])
    assert caught.value.code == 0
    assert common.__version__ in capsys.readouterr().out
