"""Windows within clips, and the cache of log-mel energies: right, current, bounded, shared, expendable."""

import dataclasses
import errno
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

import common
from audio import features
from audio.clips import check_clips
from audio.features import Cache
from audio.settings import Feature
from storage.files import path_beside

RATE = 16_000  # [Hz]
FEATURE = Feature(n_mels=16, frames=5, n_fft=1024, hop_length=512, power=2.0)
LENGTHS = (4096, 2048, 10_000)  # [samples]: 9, 5 and 20 frames


@pytest.fixture
def folder(tmp_path):
    """Folder with three clips of unequal lengths; the second has just one window."""
    folder = tmp_path / "train"
    folder.mkdir()
    for number, n_samples in enumerate(LENGTHS):
        waveform = np.random.default_rng(number).uniform(-0.1, 0.1, n_samples)
        soundfile.write(folder / f"normal_id_00_{number}.wav", waveform, RATE)
    return folder


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", gigabytes=1)


@pytest.fixture
def computed(monkeypatch):
    """Names of the clips whose log-mel energies are computed, from now on."""
    names = []
    original = features.load_clip
    monkeypatch.setattr(features, "load_clip", lambda clip: names.append(clip.name) or original(clip))
    return names


def checked(folder):
    return check_clips([("fan", folder)], min_samples=2048, normal_only=True)


def log_mels(clips, cache, feature=FEATURE):
    return [block.copy() for block in features.log_mel_clips(clips, feature, cache)]


def by_hand(clip, feature=FEATURE):
    waveform, rate = common.load_wav(clip.path)
    settings = dataclasses.asdict(feature)
    del settings["frames"]
    return common.log_mel_energies(waveform, rate, **settings).T


def assert_equal(blocks, others):
    assert len(blocks) == len(others)
    for block, other in zip(blocks, others, strict=True):
        assert block.dtype == np.float32
        np.testing.assert_array_equal(block, other)


# ---- windows ----


def test_windows_lie_within_clips(folder):
    clips = checked(folder)
    offsets = features.clip_offsets(clips, FEATURE)
    assert offsets.tolist() == [0, 9, 14, 34]
    starts = features.window_starts(offsets, 5)
    assert starts.tolist() == [*range(5), 9, *range(14, 30)]
    clip_of_frame = np.repeat([0, 1, 2], [9, 5, 20])
    windows = clip_of_frame[starts[:, None] + np.arange(5)]
    assert (windows == windows[:, :1]).all()


def test_windows_are_the_stacked_vectors_of_each_clip(folder):
    clips = checked(folder)
    blocks = log_mels(clips, None)
    offsets = features.clip_offsets(clips, FEATURE)
    assert [len(block) for block in blocks] == np.diff(offsets).tolist()
    rows = features.window_starts(offsets, 5)[:, None] + np.arange(5)
    windows = np.concatenate(blocks)[rows].reshape(len(rows), -1)
    np.testing.assert_array_equal(windows, np.concatenate([common.stack_frames(b.T, frames=5) for b in blocks]))


# ---- the cache ----


def test_without_a_cache_all_is_computed(folder, tmp_path, computed):
    clips = checked(folder)
    assert_equal(log_mels(clips, None), [by_hand(clip) for clip in clips])
    log_mels(clips, None)
    assert sorted(computed) == sorted(2 * [clip.name for clip in clips])
    assert list(tmp_path.iterdir()) == [folder]


def test_no_clips_have_no_energies():
    assert log_mels([], None) == []


def test_what_is_cached_equals_what_is_computed(folder, cache, computed, caplog):
    clips = checked(folder)
    first = log_mels(clips, cache)
    assert_equal(first, [by_hand(clip) for clip in clips])
    assert len(computed) == 3
    assert [path.name for path in cache.directory.iterdir()] == [cache.path(clips, features.log_mel(FEATURE)).name]
    (path,) = cache.directory.iterdir()
    written = path.stat()
    assert_equal(log_mels(clips, cache), first)
    assert len(computed) == 3
    assert "damaged" not in caplog.text
    assert path.stat().st_ino == written.st_ino


def test_the_number_of_frames_in_a_window_is_no_matter_of_the_cache(folder, cache, computed):
    clips = checked(folder)
    log_mels(clips, cache)
    log_mels(clips, cache, dataclasses.replace(FEATURE, frames=1))
    assert len(computed) == 3


@pytest.mark.parametrize(
    "changes", [{"n_mels": 8}, {"n_fft": 512}, {"hop_length": 256}, {"power": 1.0}, {"pad_mode": "reflect"}]
)
def test_other_settings_are_computed_anew(folder, cache, changes):
    clips = checked(folder)
    log_mels(clips, cache)
    other = dataclasses.replace(FEATURE, **changes)
    assert_equal(log_mels(clips, cache, other), [by_hand(clip, other) for clip in clips])


def test_a_changed_clip_is_computed_anew(folder, cache):
    before = log_mels(checked(folder), cache)
    path = folder / "normal_id_00_2.wav"
    waveform, _ = soundfile.read(path)
    stat = path.stat()
    waveform[-100:] = 0.5  # behind what the header check reads; the same length
    soundfile.write(path, waveform, RATE)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    clips = checked(folder)
    after = log_mels(clips, cache)
    assert_equal(after, [by_hand(clip) for clip in clips])
    assert np.abs(after[2] - before[2]).max() > 1


def test_another_order_or_choice_of_clips_is_not_mixed_up(folder, cache):
    clips = checked(folder)
    log_mels(clips, cache)
    for others in (clips[::-1], clips[1:]):
        assert_equal(log_mels(others, cache), [by_hand(clip) for clip in others])


def test_parts_of_one_file_are_not_mixed_up(folder, cache):
    clip = checked(folder)[2]
    parts = [dataclasses.replace(clip, first=first, n_samples=4096) for first in (0, 512)]
    first, second = (log_mels([part], cache)[0] for part in parts)
    np.testing.assert_array_equal(first[1:-3], log_mels([clip], None)[0][1:6])
    np.testing.assert_array_equal(second[2:6], log_mels([clip], None)[0][3:7])


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "other shape", "pickle"])
def test_a_damaged_file_is_computed_anew(folder, cache, damage):
    clips = checked(folder)
    first = log_mels(clips, cache)
    path = cache.path(clips, features.log_mel(FEATURE))
    whole = path.read_bytes()
    if damage == "other shape":
        np.save(path, np.zeros((3, 16), np.float32))
    elif damage == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    else:
        damaged = {"empty": b"", "cut": whole[:-1], "header": whole[:10] + b"{'descr': (((" + whole[23:]}
        path.write_bytes(damaged[damage])
    assert_equal(log_mels(clips, cache), first)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damaged", [0, 1, 2])
@pytest.mark.parametrize("damage", ["flipped bit", "NaN frame", "zeros", "checksum"])
def test_damage_within_a_file_of_the_right_size_is_computed_anew(folder, cache, computed, caplog, damage, damaged):
    clips = checked(folder)
    first = log_mels(clips, cache)
    computed.clear()
    path = cache.path(clips, features.log_mel(FEATURE))
    whole = path.read_bytes()
    row = 4 * FEATURE.n_mels
    begin = len(whole) - 4 * len(clips) - sum(map(len, first)) * row
    place = begin + (sum(map(len, first[:damaged])) + 3) * row
    if damage == "checksum":
        place = len(whole) - 4 * len(clips) + 4 * damaged
    content = {
        "flipped bit": bytes([whole[place] ^ 64]),
        "checksum": bytes([whole[place] ^ 64]),
        "NaN frame": np.full(FEATURE.n_mels, np.nan, "<f4").tobytes(),
        "zeros": bytes(row),
    }[damage]
    path.write_bytes(whole[:place] + content + whole[place + len(content) :])
    assert_equal(log_mels(clips, cache), first)
    assert sorted(computed) == [clip.name for clip in clips[damaged:]]  # those before are read
    assert f"damaged; {len(clips) - damaged} clips are computed anew" in caplog.text
    assert path.read_bytes() == whole
    assert [entry.name for entry in cache.directory.iterdir()] == [path.name]


def test_another_version_of_the_code_is_another_file(folder, cache, computed, monkeypatch):
    clips = checked(folder)
    log_mels(clips, cache)
    monkeypatch.setattr(features, "VERSION", features.VERSION + 1)
    log_mels(clips, cache)
    assert len(computed) == 2 * len(clips)


def test_any_quantity_of_a_waveform_is_computed_and_cached(folder, cache, computed):
    def extremes(waveform, sample_rate):
        return np.array([[waveform.min(), sample_rate, waveform.max()]], np.float32)

    clips = checked(folder)
    quantity = features.Quantity("extremes", ("of all",), 3, lambda clip: 1, extremes)
    log_mels(clips, cache)
    computed.clear()
    found = np.concatenate([block.copy() for block in features.blocks(clips, quantity, cache)])
    expected = [extremes(*common.load_wav(clip.path)) for clip in clips]
    np.testing.assert_array_equal(found, np.concatenate(expected))
    np.testing.assert_array_equal(np.concatenate(list(features.blocks(clips, quantity, cache))), found)
    assert len(computed) == len(clips)
    assert len(list(cache.directory.iterdir())) == 2


def test_a_block_has_the_rows_that_its_clip_was_promised(folder):
    quantity = features.Quantity("rows", (), 2, lambda clip: 5, lambda waveform, rate: np.zeros((4, 2), np.float32))
    with pytest.raises(ValueError, match=r"normal_id_00_\d.wav: rows of shape \(4, 2\); expected \(5, 2\)"):
        list(features.blocks(checked(folder), quantity, None))


@pytest.mark.parametrize(
    ("shape", "rate", "level"),
    [(2000, RATE, 1), (20_000, RATE, 1), (10_000, 8000, 1), ((10_000, 2), RATE, 1), (10_000, RATE, 0)],
    ids=["shorter", "longer", "other rate", "stereo", "silent"],
)
@pytest.mark.parametrize("same_time", [False, True])
def test_a_clip_that_changes_after_the_check_is_named(folder, cache, shape, rate, level, same_time):
    clips = checked(folder)
    soundfile.write(clips[2].path, np.full(shape, 0.1 * level), rate)
    if same_time and level:  # another recording of the same size and time is not looked for
        os.utime(clips[2].path, ns=(clips[2].mtime_ns, clips[2].mtime_ns))
    with pytest.raises(common.UserError, match=r"normal_id_00_2.wav: changed since the run began; run again"):
        log_mels(clips, cache)
    assert list(cache.directory.iterdir()) == []


def test_a_clip_too_loud_for_its_energies_is_named(folder, cache):
    soundfile.write(folder / "normal_id_00_1.wav", np.linspace(-1e30, 1e30, LENGTHS[1]), RATE, subtype="FLOAT")
    with pytest.raises(common.UserError, match=r"normal_id_00_1.wav: its samples reach to 1,0{3}"):
        log_mels(checked(folder), cache)


def test_an_interrupted_pass_leaves_no_file(folder, cache):
    blocks = features.log_mel_clips(checked(folder), FEATURE, cache)
    next(blocks)
    blocks.close()
    assert list(cache.directory.iterdir()) == []


def test_a_clip_that_cannot_be_read_leaves_no_file(folder, cache):
    clips = checked(folder)
    clips[2].path.write_bytes(b"broken since the check")
    with pytest.raises(common.UserError, match=r"normal_id_00_2.wav: cannot be read"):
        log_mels(clips, cache)
    assert list(cache.directory.iterdir()) == []


def test_two_writers_at_once(folder, cache):
    clips = checked(folder)
    one, two = (features.log_mel_clips(clips, FEATURE, cache) for _ in range(2))
    pairs = list(zip(one, two, strict=True))
    expected = [by_hand(clip) for clip in clips]
    assert_equal([pair[0] for pair in pairs], expected)
    assert_equal([pair[1] for pair in pairs], expected)
    assert [path.name for path in cache.directory.iterdir()] == [cache.path(clips, features.log_mel(FEATURE)).name]
    assert_equal(log_mels(clips, cache), expected)


def test_the_files_least_recently_used_go(folder, tmp_path):
    clips = checked(folder)
    size = 4 * 34 * 16 + 200  # [bytes] of a file of all three clips, its header included
    cache = Cache(tmp_path / "cache", gigabytes=2.5 * size * 1e-9)
    settings = [dataclasses.replace(FEATURE, power=power) for power in (1.0, 1.5, 2.0)]
    paths = [cache.path(clips, features.log_mel(feature)) for feature in settings]
    for feature, path, age in zip(settings[:2], paths[:2], (2000, 1000), strict=True):
        log_mels(clips, cache, feature)
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    log_mels(clips, cache, settings[0])  # the older file is used again
    log_mels(clips, cache, settings[2])
    assert [path.exists() for path in paths] == [True, False, True]
    assert sum(path.stat().st_size for path in cache.directory.iterdir()) <= 1e9 * cache.gigabytes


def test_what_does_not_fit_is_not_cached_and_drives_nothing_out(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    clips = checked(folder)
    cache = Cache(tmp_path / "cache", gigabytes=2000e-9)
    log_mels(clips[1:2], cache)
    kept = list(cache.directory.iterdir())
    assert len(kept) == 1
    assert_equal(log_mels(clips, cache), [by_hand(clip) for clip in clips])
    assert list(cache.directory.iterdir()) == kept
    assert "not cached: no room" in caplog.text


def test_files_of_killed_runs_go(folder, cache, tmp_path):
    clips = checked(folder)
    log_mels(clips, Cache(tmp_path / "other", 1))
    (whole,) = (tmp_path / "other").iterdir()
    cache.directory.mkdir()
    whole.rename(cache.directory / whole.name)
    killed, foreign = path_beside(cache.directory / "log-mel_energies_ab.npy"), cache.directory / ".log-mel_ab.abc.npy"
    for path in (killed, foreign):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    log_mels(clips, cache)  # reads alone
    assert not killed.exists()
    assert foreign.exists()


def test_a_cache_folder_that_cannot_be_made_costs_no_run(folder, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    clips = checked(folder)
    assert_equal(log_mels(clips, Cache(tmp_path / "cache", 1)), [by_hand(clip) for clip in clips])
    assert "log-mel energies are not cached" in caplog.text


@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_disk_that_is_full_later_costs_no_run(folder, cache, monkeypatch, caplog, call):
    """The header, a block, and the checksums are written by calls 1, 2 and 5; 4 is the last block."""
    calls = []
    original = Path.open

    def open_full(path, *arguments):
        stream = original(path, *arguments)
        if arguments != ("wb",):
            return stream
        full = type("Full", (), {"close": stream.close})()

        def write(content):
            calls.append(len(content))
            if len(calls) >= call:
                raise OSError(errno.ENOSPC, "No space left on device")
            return stream.write(content)

        full.write = write
        return full

    monkeypatch.setattr(Path, "open", open_full)
    clips = checked(folder)
    assert_equal(log_mels(clips, cache), [by_hand(clip) for clip in clips])
    assert list(cache.directory.iterdir()) == []
    assert "log-mel energies are not cached: [Errno 28]" in caplog.text


def test_a_full_disk_costs_no_run(folder, cache, monkeypatch, caplog):
    full = type("usage", (), {"free": 10})
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: full)
    clips = checked(folder)
    assert_equal(log_mels(clips, cache), [by_hand(clip) for clip in clips])
    assert list(cache.directory.iterdir()) == []
