"""One wav file: its header and first samples checked.

libsndfile reads; what it passes over without a word is found here: missing sound, dead microphones, other formats.
"""

import re
import struct
from pathlib import Path
from stat import S_ISDIR, S_ISFIFO, S_ISREG

import numpy as np

from common import one_channel

FORMATS = ("WAV", "WAVEX", "RF64")  # libsndfile's names of those whose header tells what is missing
UNKNOWN_LENGTH = 0x7FFF0000  # [bytes] what writes to a pipe declares this or more: sox 0x7FFFF000, ffmpeg 0xFFFFFFFF


def check(path: Path, *, min_samples: int, channel: int | str | None) -> tuple[int, int]:
    """Number of samples, and sample rate [Hz], of a wav file that can be used, by its header and its first samples.

    Parameters
    ----------
    channel : the key of the YAML

    Raises
    ------
    ValueError, OSError, RuntimeError : if it cannot be used; soundfile's errors are RuntimeErrors.
    """
    import soundfile

    stat = path.stat()
    if not S_ISREG(stat.st_mode):  # opening a pipe would wait for ever
        kind = "a folder" if S_ISDIR(stat.st_mode) else "a pipe" if S_ISFIFO(stat.st_mode) else "a device or socket"
        raise ValueError(f"{kind}, not a file")
    if stat.st_size == 0:
        raise ValueError("file is empty")
    with path.open("rb") as stream:
        declared, found = _sound_bytes(stream, stat.st_size)
    try:
        sound = soundfile.SoundFile(path)
    except RuntimeError as error:
        if "'data' chunk" in str(error):
            raise ValueError("no sound in it: the wav file has no data chunk") from None
        raise
    with sound:
        _require_whole(sound, declared, found)
        _require_channel(sound, channel)
        if sound.frames < min_samples:
            raise ValueError(f"{sound.frames} samples; one window of frames needs {min_samples}")
        _require_change(sound, channel)
        return sound.frames, sound.samplerate


def _require_whole(sound, declared: int | None, found: int) -> None:
    """Raise ValueError if it is another format, or has not the bytes of sound that its header declares."""
    if sound.format not in FORMATS:
        raise ValueError(f"not a wav file but {sound.format_info}; convert it to wav")
    if not sound.seekable():
        raise ValueError(f"its coding, {sound.subtype_info}, cannot be read from any place; convert it to PCM")
    if declared is not None and found < declared < UNKNOWN_LENGTH:
        raise ValueError(f"truncated: {declared - found} bytes of sound are missing")
    if declared == 0 < found and not sound.frames:
        raise ValueError(
            f"its recorder did not close it: the header says 0 bytes of sound, and {found} bytes follow. Repair it "
            "with a sound editor"
        )


def _require_channel(sound, channel: int | str | None) -> None:
    """Raise ValueError if the channel is not there, or there are several and none is asked for."""
    last = sound.channels - 1
    if channel is None and last > 0:
        raise ValueError(f"{last + 1} channels; expected one. Set channel in the YAML: 0 to {last}, or mean")
    if isinstance(channel, int) and channel > last:
        raise ValueError(f"no channel {channel}: it has {last + 1}, from 0 to {last}")


def _require_change(sound, channel: int | str | None) -> None:
    """Raise ValueError if all samples are the same; of most clips, the first block tells."""
    first = None
    for block in sound.blocks(1024, dtype="float32"):
        block = one_channel(block, channel)
        first = block[0] if first is None else first
        if (block != first).any():
            return
    if not first:
        raise ValueError("silent: every sample is zero")
    raise ValueError(f"constant: every sample is {first:.4g}, as from a dead microphone")


def _sound_bytes(stream, size: int) -> tuple[int | None, int]:
    """How many bytes of sound a RIFF file's header declares, and how many follow; None where no data chunk is found.

    libsndfile shortens a truncated clip without a word. RIFX is RIFF with the other order of bytes; RF64 has the length
    in a chunk of its own.
    """
    kind = stream.read(12)
    order = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}.get(kind[:4])
    if order is None or kind[8:] != b"WAVE":
        return None, 0  # soundfile judges it
    position, long_length = 12, None
    while position + 8 <= size:
        stream.seek(position)
        name, length = struct.unpack(f"{order}4sI", stream.read(8))
        if name == b"ds64":
            long_length = int.from_bytes(stream.read(16)[8:], "little")
        if name == b"data":
            declared = long_length if long_length is not None and length == 0xFFFFFFFF else length
            return declared, size - position - 8
        position += 8 + length + length % 2  # chunks are padded to even lengths
        if length % 2 and position < size and not _is_chunk(stream, position) and _is_chunk(stream, position - 1):
            position -= 1  # all but this writer's
    return None, 0


def _is_chunk(stream, position: int) -> bool:
    """True where the four letters of a chunk's name stand."""
    stream.seek(position)
    return re.fullmatch(rb"[ -~]{4}", stream.read(4)) is not None


def is_clipped(waveform: np.ndarray) -> bool:
    """True where over half of the samples stand at the highest or lowest value: the microphone's input was overdriven.

    A recording that is very quiet throughout has few values, and is none of these.
    """
    for samples in (waveform[::16], waveform):  # of most clips, a few samples tell
        low, high = samples.min(), samples.max()
        if max(-low, high) < 0.1 or np.count_nonzero((samples == low) | (samples == high)) <= len(samples) / 2:
            return False
    return True
