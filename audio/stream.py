"""Sound that arrives through a pipe: what its header says, and windows of it as wav files of their own."""

import queue
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from audio.wav import UNKNOWN_LENGTH

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # wFormatTag: codings in which each sample takes the same bytes
MAX_CHUNK = 2**20  # [bytes] ahead of the sound
END = object()


@dataclass(frozen=True)
class Format:
    """What the samples of a stream are."""

    chunk: bytes  # content of a wav file's "fmt " chunk
    length: int | None = None  # [bytes] of sound; None: until the pipe is closed

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return struct.unpack_from("<H", self.chunk, 2)[0]

    @property
    def sample_rate(self) -> int:
        """Sample rate [Hz]."""
        return struct.unpack_from("<I", self.chunk, 4)[0]

    @property
    def n_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return struct.unpack_from("<H", self.chunk, 12)[0]

    def wav(self, sound: bytes) -> bytes:
        """A wav file of these samples."""
        body = b"WAVE" + b"".join(
            name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
            for name, content in ((b"fmt ", self.chunk), (b"data", sound))
        )
        return b"RIFF" + struct.pack("<I", len(body)) + body


def raw_format(sample_rate: int, n_channels: int) -> Format:
    """Format of signed 16-bit samples, little-endian, channels interleaved (arecord's S16_LE)."""
    n_bytes = 2 * n_channels
    return Format(struct.pack("<HHIIHH", PCM, n_channels, sample_rate, sample_rate * n_bytes, n_bytes, 16))


def read_format(stream: BinaryIO) -> Format:
    """Format of a stream that begins as a wav file; what is read next is sound.

    A length of 0, or one that no file has, is that of a recorder which does not know it.

    Raises
    ------
    ValueError : if the stream does not begin so, or its samples take different numbers of bytes.
    """
    kind, chunk = read_exactly(stream, 12), b""
    if kind[:4] not in (b"RIFF", b"RF64") or kind[8:] != b"WAVE":
        raise ValueError("does not begin as a wav file; of samples without a header, tell --raw RATE,CHANNELS")
    while len(header := read_exactly(stream, 8)) == 8:
        name, length = struct.unpack("<4sI", header)
        if name == b"data":
            break
        if length > MAX_CHUNK:
            raise ValueError(f"{length:,} bytes of {name!r} stand ahead of the sound")
        content = read_exactly(stream, length + length % 2)[:length]
        chunk = content if name == b"fmt " else chunk
    else:
        raise ValueError("no sound in it: it ends before the data chunk")
    if len(chunk) < 16 or struct.unpack_from("<H", chunk)[0] not in (PCM, FLOAT, EXTENSIBLE):
        raise ValueError("its coding is not PCM; have it converted, for example with: ffmpeg -i IN -f wav -")
    sound = Format(chunk, length if 0 < length < UNKNOWN_LENGTH else None)
    if not (sound.n_channels and sound.sample_rate and sound.n_bytes):
        raise ValueError("its header says nothing of channels, sample rate or size of the samples")
    return sound


def windows(stream: BinaryIO, sound: Format, n_samples: int) -> Iterator[tuple[int, bytes]]:
    """Windows of a stream, each as soon as its samples are there: its first sample, and all of them.

    The last one ends where the stream ends, and overlaps the one before.
    """
    size, first, before, left = n_samples * sound.n_bytes, 0, b"", sound.length
    while block := read_exactly(stream, size if left is None else min(size, left)):
        left = None if left is None else left - len(block)
        block = block[: len(block) // sound.n_bytes * sound.n_bytes]
        if len(block) == size:
            yield first, block
            first, before = first + n_samples, block
        elif block:
            window = (before + block)[-size:]
            yield first + (len(block) - len(window)) // sound.n_bytes, window


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """The next ``size`` bytes; fewer where the stream ends."""
    found = bytearray()
    while len(found) < size and (block := stream.read(size - len(found))):
        found += block
    return bytes(found)


def read_ahead(items: Iterator, most: int) -> Iterator:
    """The items, taken by a thread, which begins at once and has at most so many waiting.

    A recorder drops what a pipe does not take, and a pipe holds a quarter of a second of eight channels.
    """
    waiting: queue.Queue[Any] = queue.Queue(most)

    def take() -> None:
        try:
            for item in items:
                waiting.put(item)
            waiting.put(END)
        except Exception as error:  # noqa: BLE001 raised below, by the thread that asks
            waiting.put(error)

    threading.Thread(target=take, daemon=True).start()

    def given() -> Iterator:
        while (item := waiting.get()) is not END:
            if isinstance(item, Exception):
                raise item
            yield item

    return given()
