"""One wav file: its header checked.

libsndfile reads; what it passes over without a word is found here: missing sound, sound that the header does not tell
of, other formats.
"""

import re
import struct
from pathlib import Path
from stat import S_ISREG

from common import soundfile_library

FORMATS = ("WAV", "WAVEX", "RF64")  # libsndfile's names of those whose header tells what is missing
UNKNOWN_LENGTH = 0x7FFF0000  # [bytes] what writes to a pipe declares this or more: sox 0x7FFFF000, ffmpeg 0xFFFFFFFF
REPAIR = "Repair it: ffmpeg -ignore_length 1 -i IN.wav -c copy -rf64 auto OUT.wav"
BEGINNINGS = (  # of what people have in a wav file's place, in lower case, and what to do about it
    (rb"version https://git-lfs", "a pointer of Git LFS; fetch the file itself: git lfs pull"),
    (rb"\s*<(!doctype|html|\?xml)", "a web page, as a server sends in place of a file; download it again"),
    (rb"(id3|\xff[\xe2-\xfb])", "MP3; convert it to wav: ffmpeg -i IN OUT.wav"),
    (rb"....ftyp", "an MP4 or M4A file; convert it to wav: ffmpeg -i IN OUT.wav"),
    (rb"\x1ae\xdf\xa3", "a Matroska or WebM file; convert it to wav: ffmpeg -i IN OUT.wav"),
    (rb"(pk\x03\x04|\x1f\x8b|7z\xbc\xaf|rar!)", "an archive; unpack it"),
    (rb"[\t\r\n -~]+$", "text; replace it with the recording"),
)


def check(path: Path, *, min_samples: int, channel: int | str | None) -> tuple[int, int, int]:
    """Number of samples, sample rate [Hz] and number of channels of a wav file that can be used, by its header.

    Parameters
    ----------
    channel : the key of the YAML

    Raises
    ------
    ValueError, OSError, RuntimeError : if it cannot be used; soundfile's errors are RuntimeErrors.
    UserError : if no wav file can be read here.
    """
    stat = path.stat()
    if not S_ISREG(stat.st_mode):  # opening a pipe would wait for ever
        raise ValueError("not a file, but a folder, pipe or device")
    if stat.st_size == 0:
        raise ValueError("file is empty")
    with path.open("rb") as stream:
        beginning = stream.read(256)
        declared, found, is_sound = _sound_bytes(stream, stat.st_size)
    try:
        sound = soundfile_library().SoundFile(path)
    except RuntimeError as error:
        if "'data' chunk" in str(error):
            raise ValueError("no sound in it: the wav file has no data chunk") from None
        raise ValueError(_other_kind(beginning) or str(error)) from None
    with sound:
        if sound.format not in FORMATS:
            kind = _other_kind(beginning) or f"{sound.format_info}; convert it to wav: ffmpeg -i IN -rf64 auto OUT.wav"
            raise ValueError(kind if kind.startswith("not") else f"not a wav file but {kind}")
        _require_whole(sound, declared, found, is_sound)
        require_channel(sound.channels, channel)
        if sound.frames < min_samples:
            raise ValueError(f"{sound.frames} samples; one window of frames needs {min_samples}")
        return sound.frames, sound.samplerate, sound.channels


def _other_kind(beginning: bytes) -> str | None:
    """What a file that is no wav file is, by its first bytes, and what to do; None where they say nothing."""
    for pattern, kind in BEGINNINGS:
        if re.match(pattern, beginning.lower(), re.DOTALL):
            return f"not a wav file but {kind}"
    return None


def _require_whole(sound, declared: int | None, found: int, is_sound: bool) -> None:
    """Raise ValueError if the file has not just the bytes of sound that its header declares."""
    if not sound.seekable():
        raise ValueError(f"its coding, {sound.subtype_info}, cannot be read from any place; convert it to PCM")
    if declared is not None and found < declared < UNKNOWN_LENGTH:
        raise ValueError(f"truncated: {declared - found} bytes of sound are missing")
    if declared == 0 < found and not sound.frames:
        raise ValueError(
            f"its recorder did not close it: the header says 0 bytes of sound, and {found} bytes follow. {REPAIR}"
        )
    if is_sound and declared:
        long = "a wav file's lengths end at 4 GiB, those of RF64 do not"
        raise ValueError(
            f"its header declares {declared:,} bytes of sound, and {found - declared:,} more follow: "
            f"{long if found >= 2**32 else 'its recorder did not close it'}. {REPAIR}"
        )


def require_channel(n_channels: int, channel: int | str | None) -> None:
    """Raise ValueError if the channel is not there, or there are several and none is asked for."""
    last = n_channels - 1
    if channel is None and last > 0:
        raise ValueError(
            f"{last + 1} channels; expected one. Set channel: 0 in the YAML, which fits models trained on one channel "
            f"too (from 0 to {last}, or mean; 04_detect.py judges each with --channels all), or mix it down: ffmpeg -i "
            "IN.wav -ac 1 OUT.wav"
        )
    if isinstance(channel, int) and channel > last:
        raise ValueError(f"no channel {channel}: it has {last + 1}, from 0 to {last}")


def _sound_bytes(stream, size: int) -> tuple[int | None, int, bool]:
    """How many bytes of sound a RIFF file's header declares, how many follow, and whether more than these are sound.

    The first is None where no data chunk is found. libsndfile shortens a truncated clip without a word. RIFX is RIFF
    with the other order of bytes; RF64 has the length in a chunk of its own.
    """
    stream.seek(0)
    kind = stream.read(12)
    order = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}.get(kind[:4])
    if order is None or kind[8:] != b"WAVE":
        return None, 0, False  # soundfile judges it
    long_length = None
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        name, length = struct.unpack(f"{order}4sI", stream.read(8))
        position += 8
        if name == b"ds64":
            long_length = int.from_bytes(stream.read(16)[8:], "little")
        if name == b"data":
            declared = long_length if long_length is not None and length == 0xFFFFFFFF else length
            return declared, size - position, _is_sound(stream, position + declared, size, order)
        position += length + length % 2  # chunks are padded to even lengths
    return None, 0, False


def _is_sound(stream, position: int, size: int, order: str) -> bool:
    """True where what stands behind the declared sound is, by its beginning, no chunk, tag or padding."""
    position += position % 2
    stream.seek(position)
    behind = stream.read(8)
    if len(behind) < 8 or size - position >= 2**32:  # more than a chunk can say
        return len(behind) == 8
    name, length = struct.unpack(f"{order}4sI", behind)
    is_chunk = re.fullmatch(rb"[ -~]{4}", name) and position + 8 + length <= size
    return not is_chunk and not behind.startswith((b"ID3", b"TAG", bytes(8)))
