"""What clips are like: measured by hand, kept, compared with the training clips; copies found."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from audio import likeness, profile
from audio.clips import Clip, check_clips

RATE = 16_000  # [Hz]


def noise(n_samples=2 * RATE, seed=0, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(n_samples)


def measured(tmp_path, waveform, channel=None, **options):
    soundfile.write(tmp_path / "x.wav", waveform, RATE, **{"subtype": "PCM_16"} | options)
    return profile.measure(tmp_path / "x.wav", channel)


def tone(frequency, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(2 * RATE) / RATE)


def test_level_of_a_tone_whatever_its_mean(tmp_path):
    expected = 20 * np.log10(0.5 / np.sqrt(2))
    assert measured(tmp_path, tone(440)).level == pytest.approx(expected, abs=0.01)
    shifted = measured(tmp_path, tone(440) + 0.25)
    assert [shifted.level, shifted.offset] == pytest.approx([expected, 0.25], abs=0.01)


def test_the_highest_frequency_with_sound(tmp_path):
    spectrum = np.fft.rfft(noise())
    assert measured(tmp_path, noise()).cutoff == pytest.approx(8000, abs=16)
    spectrum[int(0.5 * len(spectrum)) :] = 0  # what resampling from 8 kHz leaves
    low = np.fft.irfft(spectrum)
    for options in ({}, {"subtype": "FLOAT"}):
        assert measured(tmp_path, low, **options).cutoff == pytest.approx(4000, abs=80)
        assert measured(tmp_path, 0.01 * low, **options).cutoff == pytest.approx(4000, abs=80)
    hum = tone(120, 0.3) + scipy.signal.resample_poly(noise()[:RATE], 2, 1)  # a short filter leaves images, 60 dB down
    assert measured(tmp_path, hum + 0.001 * tone(8000 - 120, 0.3)).cutoff < 4700


def test_overdriven_gaps_and_dead_channels(tmp_path):
    clipped = measured(tmp_path, np.clip(tone(440, 2), -0.9, 0.9)).clipped
    assert clipped == pytest.approx(1 - 2 * np.arcsin(0.45) / np.pi, abs=0.01)
    assert measured(tmp_path, tone(441, 0.01)).clipped == 0
    gap = noise(4096)
    gap[1024:2048] = 0
    assert measured(tmp_path, gap).silent == 0.25
    stereo = np.stack([noise(), np.zeros(2 * RATE)], axis=1)
    assert [measured(tmp_path, stereo, channel).dead for channel in (0, "mean")] == [1, 1]
    assert [measured(tmp_path, stereo, channel).mixed for channel in (0, "mean")] == [1, 2]
    assert measured(tmp_path, gap, "mean").mixed == 1
    with pytest.raises(ValueError, match="silent: every sample is zero"):
        measured(tmp_path, stereo, 1)


def test_a_long_recording_is_measured_in_parts(tmp_path, monkeypatch):
    waveform = np.stack([np.clip(noise(), -0.15, 0.15), np.zeros(2 * RATE)], axis=1)
    whole = [measured(tmp_path, waveform, channel) for channel in (0, "mean")]
    monkeypatch.setattr(profile, "AT_ONCE", 2 * profile.BLOCK)
    assert [measured(tmp_path, waveform, channel) for channel in (0, "mean")] == whole


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (32768 * noise(), r"its samples reach to 1\d,\d{3}; expected -1 to 1. Divide them"),
        (np.where(np.arange(4096) == 9, np.nan, 0.1), "not finite"),
        (np.where(np.arange(4096) == 9, np.inf, 0.1), "not finite"),
        (np.full(4096, 0.25), "constant: every sample is 0.25, as from a dead microphone"),
    ],
    ids=["integers", "nan", "infinite", "constant"],
)
def test_sound_of_which_no_score_means_anything_is_named(tmp_path, waveform, message):
    with pytest.raises(ValueError, match=message):
        measured(tmp_path, waveform, subtype="FLOAT")


def test_floats_may_go_beyond_full_scale(tmp_path):
    assert measured(tmp_path, tone(440, 4), subtype="FLOAT").level > 0


# ---- compared ----


def clip(name="x.wav", seconds=4.0, **values):
    usual = {
        "sound": hash(name) % 2**64,
        "level": -30.0,
        "offset": 0.0,
        "cutoff": 8000.0,
        "clipped": 0.0,
        "silent": 0.0,
        "dead": 0,
        "mixed": 1,
    }
    facts = (round(seconds * RATE), RATE, 1, 1, 1)
    return Clip(Path(name), "fan", "id_00", 0, *facts, profile=profile.Profile(**usual | values))


USUAL = likeness.summary([clip(f"{number}.wav", level=-30 + number / 10) for number in range(30)])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seconds": 2}, ["shorter than usual: 2.0 s; the training clips have 4.0 s", "-segment_time 4 "]),
        ({"seconds": 60}, ["longer than usual: 60.0 s; the training clips have 4.0 s"]),
        ({"level": -10}, ["louder than usual: -10 dB; the training clips have -30 to -27 dB"]),
        ({"level": -50}, ["quieter than usual: -50 dB"]),
        ({"cutoff": 4000}, ["lack the highest frequencies", "4.0 kHz; the training clips have 8.0 kHz"]),
        (
            {"offset": 0.003},
            ["higher than usual (DC offset): 0.3% of full scale; the training clips have 0.0%"],
        ),
        ({"offset": -0.003}, ["lower than usual (DC offset): -0.3% of full scale", "dcshift=0.01"]),
        ({"clipped": 0.2}, ["overdriven", "20% of the samples; the training clips have 0% of the samples"]),
        ({"silent": 0.5}, ["gaps without any sound: 50% of the time"]),
        ({"dead": 1}, ["have dead channels"]),
        ({"mixed": 4}, ["are the mean of more channels: 4; the training clips have 1"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_unlike_the_training_clips_is_told_with_both_values(values, words):
    clips = [clip(), clip("odd.wav", **values)]
    (line,) = likeness.misfits(clips, USUAL, "recordings")
    assert line.startswith("1 of 2 recordings ")
    assert line.endswith("(odd.wav)")
    assert all(word in line for word in words), line


def test_what_is_like_the_training_clips_is_not_told():
    assert likeness.misfits([clip(seconds=3.8, level=-33), clip(cutoff=7500)], USUAL, "recordings") == []
    assert likeness.misfits([clip(seconds=seconds) for seconds in np.linspace(5, 9, 50)], USUAL, "x") != []
    varied = [clip(seconds=seconds) for seconds in np.linspace(5, 9, 50)]
    assert likeness.misfits(varied, likeness.summary(varied), "training clips") == []


def test_odd_training_clips_do_not_hide_one_another():
    clips = [clip(f"{number}.wav", 2) for number in range(30)] + [clip(f"long{number}.wav", 60) for number in range(3)]
    (line,) = likeness.misfits(clips, likeness.summary(clips), "training clips")
    assert line.startswith("3 of 33 training clips are longer than usual: 60.0 s")


def test_windows_of_a_recording_count_as_one():
    (line,) = likeness.misfits([clip(level=0)] * 3, USUAL, "recordings")
    assert line.startswith("1 of 1 recordings")


def test_recordings_too_short_for_a_descriptor():
    assert likeness.too_short([clip(seconds=2.1), clip(seconds=4)], USUAL) == {}
    assert likeness.too_short([clip(seconds=2)], USUAL) == {Path("x.wav"): "2.0 s; the training clips have 4.0 s"}


def test_uncut_recordings_are_told_how_to_cut():
    (line,) = likeness.uncut([clip("folder/x.wav", 3600)])
    assert "ffmpeg -i IN.wav -f segment -segment_time 10 -c copy folder/part_%04d.wav" in line
    assert likeness.uncut([clip(seconds=10)]) == likeness.uncut([clip(seconds=3600)] * 4) == []


# ---- copies ----


def test_copies_are_named_whatever_their_header(tmp_path):
    content = io.BytesIO()
    soundfile.write(content, noise(), RATE, format="WAV", subtype="PCM_16")
    stored, _ = soundfile.read(io.BytesIO(content.getvalue()))
    (tmp_path / "a.wav").write_bytes(content.getvalue())
    (tmp_path / "b.wav").write_bytes(content.getvalue() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    soundfile.write(tmp_path / "c.wav", stored, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "d.wav", noise(seed=1), RATE)
    clips = check_clips([("fan", tmp_path)], min_samples=1, normal_only=True, names="any")
    (line,) = likeness.copies(clips, "test clips")
    assert line.startswith("3 of 4 test clips are copies of one another")
    assert " = ".join(str(tmp_path / f"{name}.wav") for name in "abc") in line
    lines = likeness.copies(clips[2:], "test clips", likeness.summary(clips[:2])["sounds"])
    assert len(lines) == 1
    assert lines[0].startswith("1 of 2 test clips are copies of training clips")
    assert "c.wav" in lines[0]
