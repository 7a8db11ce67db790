"""Wav files of every kind and state: which are read, and what is said of the others."""

import io
import os
import struct

import numpy as np
import pytest
import soundfile

from audio import wav
from common import load_wav

RATE = 16_000  # [Hz]
ERRORS = (ValueError, RuntimeError)  # soundfile's are the latter


def noise():
    return 0.1 * np.random.default_rng(0).standard_normal(8000)


def check(path):
    return wav.check(path, min_samples=2048, channel=None)


def wav_bytes(waveform=None, **options):
    content = io.BytesIO()
    options = {"format": "WAV", "subtype": "PCM_16"} | options
    soundfile.write(content, noise() if waveform is None else waveform, RATE, **options)
    return content.getvalue()


@pytest.mark.parametrize("options", [{}, {"endian": "BIG"}, {"format": "RF64"}, {"format": "WAVEX"}], ids=str)
def test_wav_files_of_every_kind_that_miss_sound_are_named(tmp_path, options):
    path = tmp_path / "clip.wav"
    content = wav_bytes(**options)
    path.write_bytes(content)
    assert check(path) == (8000, RATE, 1)
    path.write_bytes(content[:-301])
    with pytest.raises(ERRORS, match=r"truncated: 301 bytes of sound are missing"):
        check(tmp_path / "clip.wav")


@pytest.mark.parametrize("kind", ["W64", "AIFF", "FLAC", "AU", "CAF", "OGG"])
def test_other_files_under_the_name_of_a_wav_file_are_named(tmp_path, kind):
    path = tmp_path / "clip.wav"
    path.write_bytes(wav_bytes(format=kind, subtype="VORBIS" if kind == "OGG" else "PCM_16"))
    with pytest.raises(ERRORS, match=r"not a wav file but .*; convert it to wav"):
        check(tmp_path / "clip.wav")


@pytest.mark.parametrize("length", range(1, 80, 3))
def test_a_file_that_ends_in_its_header_is_named(tmp_path, length):
    (tmp_path / "clip.wav").write_bytes(wav_bytes(format="RF64")[:length])
    with pytest.raises(ERRORS, match=r"(Error opening|no sound in it|not a wav file)"):
        check(tmp_path / "clip.wav")


def test_a_coding_that_is_read_from_its_beginning_alone_is_named(tmp_path):
    (tmp_path / "clip.wav").write_bytes(wav_bytes(subtype="GSM610"))
    with pytest.raises(ERRORS, match=r"its coding, GSM 6.10, cannot be read from any place; convert it"):
        check(tmp_path / "clip.wav")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_named_pipe_is_named(tmp_path):
    os.mkfifo(tmp_path / "clip.wav")
    with pytest.raises(ERRORS, match="not a file, but"):
        check(tmp_path / "clip.wav")


def with_header(content, riff, sound, before=b""):
    """A wav file with other lengths in its header, and something before its data chunk."""
    assert content[36:40] == b"data"
    lengths = [struct.pack("<I", number) for number in (riff, sound)]
    return content[:4] + lengths[0] + content[8:36] + before + content[36:40] + lengths[1] + content[44:]


LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.29.100\0"


@pytest.mark.parametrize(
    ("riff", "sound", "before"),
    [
        (0xFFFFFFFF, 0xFFFFFFFF, b""),
        (0xFFFFFFFF, 0xFFFFFFFF, LIST),
        (0x7FFFF024, 0x7FFFF000, b""),
        (0x80000024, 0x80000000, b""),
        (8, 0, b""),
        (16036, 16000, b"LIST" + struct.pack("<I", 26) + bytes(26)),
        (16036, 16000, b"LIST" + struct.pack("<I", 4000) + bytes(4000)),
        (16036, 16000, b"bext" + struct.pack("<I", 602) + bytes(602)),
    ],
    ids=["ffmpeg", "ffmpeg with a comment", "sox", "arecord", "not closed", "zeros", "many zeros", "broadcast"],
)
def test_headers_that_recorders_write_are_read(tmp_path, riff, sound, before):
    content = wav_bytes()
    (tmp_path / "clip.wav").write_bytes(with_header(content, riff, sound, before))
    assert check(tmp_path / "clip.wav") == (8000, RATE, 1)
    waveform, _ = load_wav(tmp_path / "clip.wav")
    np.testing.assert_array_equal(waveform, soundfile.read(io.BytesIO(content), dtype="float32")[0])


def test_a_recording_that_was_not_closed_is_named(tmp_path):
    (tmp_path / "clip.wav").write_bytes(with_header(wav_bytes(), 0, 0))
    with pytest.raises(ERRORS, match=r"did not close it: the header says 0 bytes of sound, and 16000 bytes"):
        check(tmp_path / "clip.wav")


@pytest.mark.parametrize(
    ("declared", "behind", "message"),
    [
        (
            16000,
            2**32,
            r"declares 16,000 bytes of sound, and 4,294,967,296 more follow: .* 4 GiB, those of RF64 do not. Repair it",
        ),
        (8000, b"", r"declares 8,000 bytes of sound, and 8,000 more follow: its recorder did not close it"),
    ],
    ids=["wrapped", "not closed"],
)
def test_headers_that_promise_less_than_there_is_are_named(tmp_path, declared, behind, message):
    path = tmp_path / "clip.wav"
    content = with_header(wav_bytes(), 36 + declared, declared)
    path.write_bytes(content)
    if behind:
        os.truncate(path, len(content) + behind)  # a sparse file
    with pytest.raises(ERRORS, match=message):
        check(path)


ID3 = b"id3 " + struct.pack("<I", 10) + b"ID3\x03\0\0\0\0\0\0"


@pytest.mark.parametrize(
    "behind",
    [LIST, ID3, LIST + ID3, b"ID3\x03" + bytes(40), b"TAG" + bytes(125), bytes(4096), LIST + bytes(500), b"\0"],
)
def test_what_programs_write_behind_the_sound_is_no_fault(tmp_path, behind):
    (tmp_path / "clip.wav").write_bytes(wav_bytes() + behind)
    assert check(tmp_path / "clip.wav") == (8000, RATE, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a pointer of Git LFS; .* git lfs pull",
        ),
        (b"\n<!DOCTYPE HTML><title>403</title>", "a web page.* download it again"),
        (b"ID3\x03" + bytes(500), "MP3; convert it to wav: ffmpeg"),
        (b"\0\0\0\x18ftypM4A " + bytes(500), "an MP4 or M4A file; convert"),
        (b"\x1a\x45\xdf\xa3" + bytes(500), "a Matroska or WebM file; convert"),
        (b"PK\x03\x04" + bytes(500), "an archive; unpack it"),
        (b"time,value\n0,1\n", "text"),
    ],
    ids=["lfs", "html", "mp3", "m4a", "webm", "zip", "text"],
)
def test_what_stands_in_a_wav_files_place_is_told(tmp_path, content, message):
    (tmp_path / "clip.wav").write_bytes(content)
    with pytest.raises(ERRORS, match=f"not a wav file but {message}"):
        check(tmp_path / "clip.wav")
