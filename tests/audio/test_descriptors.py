"""Band statistics and modulation spectra: by hand, laws, refusals."""

import tracemalloc

import numpy as np
import pytest

import common
from audio import descriptors
from audio.settings import Modulation

RATE = 16_000  # [Hz]
MODULATION = {
    "n_bands": 60,
    "low_frequency": 125,
    "high_frequency": None,
    "window": 0.01,
    "hop": 0.0025,
    "power": 1,
    "n_modulations": 8,
    "low_modulation": 4,
    "high_modulation": 128,
    "segment": 2.56,
}


def noise(seconds=3.0, seed=0, rate=RATE):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def modulated_tone(*, hz=1000, modulation=16, rate=RATE, seconds=4.0):
    t = np.arange(round(seconds * rate)) / rate
    return 0.2 * (1 + 0.8 * np.sin(2 * np.pi * modulation * t)) * np.sin(2 * np.pi * hz * t)


def spectrum(waveform, rate=RATE, **changes):
    return descriptors.modulation_spectrum(waveform, rate, Modulation(**MODULATION | changes))


# ---- modulation spectrum ----


@pytest.mark.parametrize("power", [1, 2])
def test_ten_times_the_gain_is_a_constant(power):
    gain = spectrum(10 * noise(), power=power) - spectrum(noise(), power=power)
    np.testing.assert_allclose(gain, 2 * power * np.log(10), atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("hz", "modulation"), [(500, 4), (1000, 17.7), (2500, 128)])
def test_a_modulated_tone_peaks_in_its_bands(rate, power, hz, modulation):
    changes = {"high_frequency": 4000, "power": power}  # the same bands at every rate
    found = spectrum(modulated_tone(hz=hz, modulation=modulation, rate=rate), rate, **changes)
    band, modulation_band = np.unravel_index(found.argmax(), found.shape)
    centres = np.geomspace(4, 128, 8)
    assert modulation_band == np.abs(np.log(centres / modulation)).argmin()
    steady = spectrum(modulated_tone(hz=hz, modulation=0, rate=rate), rate, **changes)
    erb = 21.4 * np.log10(1 + 0.00437 * np.array([125, hz, 4000]))
    assert abs(band - (erb[1] - erb[0]) / (erb[2] - erb[0]) * 60) <= 1.5
    assert found.max() > steady.max() + 5


@pytest.mark.parametrize("power", [1, 2])
def test_clicks_by_hand(power):
    # A click of height .5 reaches every bin with .5 times the window's value there, over the window's sum.
    waveform = np.zeros(4 * RATE)
    waveform[1000::2000] = 0.5  # 8 clicks a second
    window = np.sin(np.pi * (np.arange(160) + 0.5) / 160) ** 2
    frames = np.arange(0, len(waveform) - 159, 40)[:, np.newaxis]
    inside = (np.arange(1000, len(waveform), 2000) - frames).clip(-1, 160)
    envelope = (0.5 * np.append(window, [0, 0])[inside].sum(axis=1) / window.sum()) ** power
    taper = np.sin(np.pi * (np.arange(1024) + 0.5) / 1024) ** 2
    hz = np.fft.rfftfreq(1024, 1 / 400)
    energies = []
    for start in (0, 286, 573):  # the clip has 1597 frames
        segment = envelope[start : start + 1024]
        energies.append(np.abs(np.fft.rfft((segment - segment.mean()) * taper)) ** 2 * 2 / 1024 / (taper**2).sum())
    for found, centre in zip(spectrum(waveform, power=power).T, np.geomspace(4, 128, 8), strict=True):
        gain = 1 / (1 + 4 * (hz[1:] / centre - centre / hz[1:]) ** 2)
        np.testing.assert_allclose(found, np.log(np.mean(energies, axis=0)[1:] @ gain), atol=2e-3)


def test_a_clip_repeated_sounds_the_same():
    waveform = noise(5.0)
    assert np.abs(spectrum(np.tile(waveform, 4)) - spectrum(waveform)).max() < 0.3
    assert np.abs(spectrum(noise(5.0, seed=1)) - spectrum(waveform)).max() > 0.3


def test_nearly_equal_at_another_sample_rate():
    waveform = sum(modulated_tone(hz=hz, modulation=m, rate=48000) for hz, m in [(300, 5), (900, 20), (3000, 70)])
    changes = {"high_frequency": 4000, "n_bands": 20}
    ratio = spectrum(waveform, 48000, **changes) - spectrum(waveform[::3], 16000, **changes)
    assert np.abs(ratio).max() < 0.2


def test_each_segment_counts_and_the_last_ends_with_the_clip():
    starts = descriptors._segment_starts(1000, 256)
    assert starts[0] == 0
    assert starts[-1] == 1000 - 256
    assert (np.diff(starts) <= 128).all()
    quiet = np.concatenate([1e-3 * noise(9.5), noise(0.5, seed=1)])
    assert (spectrum(quiet) > spectrum(1e-3 * noise(10.0)) + 3).all()


def test_a_long_clip_takes_no_more_memory():
    spectrum(noise())  # what is imported and kept does not count
    peaks = []
    for seconds in (20, 200):
        waveform = noise(seconds).astype(np.float32)
        tracemalloc.start()
        spectrum(waveform)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 5e6


@pytest.mark.parametrize("n_samples", [1, 100, 160, 200, 1000, 16000])
def test_short_clips_give_finite_numbers(n_samples):
    found = spectrum(noise()[:n_samples])
    assert found.shape == (60, 8)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize("power", [1, 2])
def test_silence_and_steady_sounds_give_finite_numbers(power):
    silence = spectrum(np.zeros(RATE), power=power)
    np.testing.assert_allclose(silence, power * np.log(2.0**-52), rtol=1e-6)
    assert np.isfinite(spectrum(np.ones(RATE), power=power)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"high_frequency": 9000}, "high_frequency: 9000 Hz; lower it: expected at most 8000 Hz"),
        ({"low_frequency": 8000}, "low_frequency: 8000 Hz; lower it: expected at most 8000 Hz"),
        ({"high_modulation": 250}, "high_modulation: 250 Hz; lower it: expected at most 200 Hz"),
    ],
)
def test_bands_that_cannot_be_are_refused(changes, message):
    with pytest.raises(common.UserError, match=message):
        spectrum(noise(), **changes)


@pytest.mark.parametrize("waveform", [np.zeros(0), np.zeros((2, 100))])
def test_no_waveform(waveform):
    with pytest.raises(ValueError, match="expected a waveform"):
        spectrum(waveform)


# ---- band statistics ----


def test_statistics_by_hand():
    log_mel = np.array([[0, 2, 4, 2, 6], [-10, -10, -10, -10, -10]], np.float32)
    mean, unrest = descriptors.band_statistics(log_mel, level=1)
    np.testing.assert_allclose(mean, [2.8, -10], rtol=1e-6)
    bends = [0, -4, 6]  # of the steps 2, 2, -2, 4
    np.testing.assert_allclose(unrest, np.log([np.std(bends) + 1e-3, 1e-3]), rtol=1e-6)


def test_share_of_the_level_by_hand():
    log_mel = np.array([[0.0, 8.0], [-10.0, -10.0]])  # means 4 and -10, overall -3
    np.testing.assert_allclose(descriptors.band_statistics(log_mel, level=0.5)[0], [5.5, -8.5])
    np.testing.assert_allclose(descriptors.band_statistics(log_mel, level=0)[0], [7, -7])


@pytest.mark.parametrize("n_frames", [1, 2, 3])
def test_statistics_of_few_frames_are_finite(n_frames):
    found = descriptors.band_statistics(np.zeros((3, n_frames), np.float32), level=1)
    assert found.shape == (descriptors.N_STATISTICS, 3)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("log_mel", [np.zeros((3, 0)), np.zeros(3)])
def test_no_frame(log_mel):
    with pytest.raises(ValueError, match="expected log-mel energies"):
        descriptors.band_statistics(log_mel, level=1)


@pytest.mark.parametrize("level", [0, 0.5, 1])
def test_gain_raises_the_level_alone_by_its_share(level):
    feature = {"n_mels": 64, "n_fft": 1024, "hop_length": 512, "power": 2.0}
    quiet, loud = (
        descriptors.band_statistics(common.log_mel_energies(gain * noise(), RATE, **feature), level=level)
        for gain in (1, 10)
    )
    np.testing.assert_allclose(loud - quiet, np.array([[20.0 * level], [0]]) * np.ones(64), atol=1e-4)
