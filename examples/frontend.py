"""Recording -> log-mel energies or spectra -> a network's inputs, in NumPy alone, as the JSON of 05_export.py says.

python frontend.py export/dev/onnx/tuned_ae_fan.json

compares them with the test vectors beside the JSON: largest and mean difference of each clip, and the time for a second
of sound. The exit code is 1 where they differ by more than the bounds.
"""

import json
import sys
import time
import wave
from pathlib import Path

import numpy as np

# [dB] Bounds of the differences. Measured are 1e-5 and 2e-6: the system sums mel bands in float32, this in float64.
LARGEST, MEAN = 1e-3, 1e-4
FLOAT16 = 0.0625  # [dB] step of a float16 between 64 and 128 dB: where inputs are rounded to it, they may differ by one


def log_mel_energies(waveform, feature):
    """(n_samples,) -> (n_frames, n_mels) [dB]."""
    n_fft = feature["n_fft"]
    padded = np.pad(waveform, n_fft // 2, mode=feature["pad_mode"])
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: feature["hop_length"]]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    spectrum = np.abs(np.fft.rfft(frames * window)) ** feature["power"]
    filters = np.zeros((feature["n_mels"], n_fft // 2 + 1))
    for row, band in zip(filters, feature["mel_filters"], strict=True):
        row[band["first_bin"] : band["first_bin"] + len(band["weights"])] = band["weights"]
    return (20 / feature["power"] * np.log10(spectrum @ filters.T + sys.float_info.epsilon)).astype(np.float32)


def spectra(waveform, settings):
    """(n_samples,) -> (1, n_numbers): magnitudes of all of it, then of each spectrogram, frame by frame."""
    n = settings["n_samples"]
    samples = np.resize(waveform, n)  # repeated where it is shorter
    found = [np.abs(np.fft.rfft(samples))[: settings["spectrum_bins"]] / np.sqrt(n)]
    for one in settings["spectrograms"]:
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(one["window"]) / one["window"])
        frames = np.lib.stride_tricks.sliding_window_view(samples, one["window"])[:: one["hop"]]
        bins = np.abs(np.fft.rfft(frames * window))[:, one["first_bin"] : one["end_bin"]] / np.sqrt(one["window"])
        found.append((bins - bins.mean(axis=0) if settings["subtract_mean"] else bins).ravel())
    return np.concatenate(found).astype(np.float32)[None]


def network_inputs(features, system):
    """Log-mel energies (n_frames, n_mels) -> windows (n_windows, ...); a descriptor (1, n_numbers) is one already."""
    if "windows" not in system:
        return features
    frames, n = system["windows"]["frames"], len(features)
    if "hop" in system["windows"]:  # vectors of an autoencoder
        windows = np.lib.stride_tricks.sliding_window_view(features, frames, axis=0)[:: system["windows"]["hop"]]
        return np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(len(windows), -1)
    starts = np.linspace(0, max(n - frames, 0), -(-n // frames)).round().astype(int)
    windows = features.astype(np.float16)[(starts[:, None] + np.arange(frames)) % n]
    return windows.transpose(0, 2, 1)[..., None].astype(np.float32)


def read_wav(path):
    """First channel of a wav file of 16 bits, (n_samples,), float32 in [-1, 1), and its sample rate [Hz]."""
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            sys.exit(f"{path}: {8 * file.getsampwidth()} bits; this example reads 16")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
        return samples[:, 0] * np.float32(2**-15), file.getframerate()


def heard(waveform, system):
    """What the test vectors hold of a clip, by name."""
    if "spectra" in system:
        return {"spectra": spectra(waveform, system["spectra"])}
    found = {"log_mel": log_mel_energies(waveform, system["feature"])}
    return found | ({"inputs": network_inputs(found["log_mel"], system)} if "windows" in system else {})


def main(json_path):
    """Compare with the test vectors that the JSON names."""
    system = json.loads(Path(json_path).read_text(encoding="utf-8"))
    if not {"feature", "spectra"} & system.keys():
        sys.exit(f"{json_path}: of a fusion, which hears by its members; name the JSON of one of them")
    good = True
    for clip in system["test_vectors"]:
        path = Path(json_path).parent / clip["path"]
        waveform, sample_rate = read_wav(path.with_suffix(".wav"))
        start = time.perf_counter()
        found = heard(waveform, system)
        seconds = (time.perf_counter() - start) * sample_rate / len(waveform)
        with np.load(path.with_suffix(".npz")) as expected:
            for name, values in found.items():
                if values.shape != expected[name].shape:
                    sys.exit(f"{path} {name}: {values.shape}; the test vectors have {expected[name].shape}")
                errors = np.abs(values.astype(float) - expected[name])
                largest = LARGEST + FLOAT16 * (name == "inputs" and "rounded_to" in system["windows"])
                unit = "dB"
                if name == "spectra":
                    errors, unit = errors / expected[name].std(), "of the deviation"
                good &= bool(errors.max() <= largest and errors.mean() <= MEAN)
                told = f"largest difference {errors.max():.2g} {unit}, mean {errors.mean():.2g} {unit}"
                print(f"{clip['path']} {name}: {told}")
        print(f"{clip['path']}: {seconds * 1000:.3g} ms for a second of sound")
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
