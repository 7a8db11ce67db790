"""Log-mel energies of many clips: computed on all cores, kept in a cache on disk, handed out clip by clip."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import tokenize
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common import Clip, load_clip, log_mel_energies, n_frames
from config import Feature

ABANDONED = 24 * 3600  # [s] a half-written file of this age belongs to a run that was killed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """Folder of log-mel energies, one npy file per clip list and setting.

    A file's name is a digest of all that decides its content: the feature settings and each clip's path, size, time of
    change and first samples. Files appear whole, so that runs may share the folder; it may be deleted at any time.
    """

    directory: Path
    gigabytes: float  # the files least recently used go when there would be more

    def path(self, clips: Sequence[Clip], feature: Feature) -> Path:
        """File of these clips' log-mel energies, whether it exists or not."""
        settings = (feature.n_mels, feature.n_fft, feature.hop_length, feature.power)
        facts = [
            (str(c.path.resolve()), c.size, c.mtime_ns, c.head_crc, c.sample_rate, c.first, c.n_samples) for c in clips
        ]
        digest = hashlib.sha256(json.dumps([settings, facts]).encode()).hexdigest()
        return self.directory / f"log_mel_{digest[:32]}.npy"

    def read(self, path: Path, shape: tuple[int, int]) -> BinaryIO | None:
        """File whose energies are those of ``shape``, opened where they begin; None where there is none.

        Not mapped into memory: pages of a mapped file count as the run's own.
        """
        try:
            stream = path.open("rb")
        except OSError:
            return None
        with contextlib.suppress(OSError, ValueError, tokenize.TokenError):  # NumPy lets the last one through
            np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0(stream)
            whole = os.fstat(stream.fileno()).st_size == stream.tell() + 4 * shape[0] * shape[1]
            if header == (shape, False, np.dtype(np.float32)) and whole:
                with contextlib.suppress(OSError):  # a folder of somebody else's, to be read only
                    path.touch()  # the time of last use decides which file goes first
                return stream
        stream.close()
        return None

    def make_room(self, n_bytes: int) -> bool:
        """Delete the files least recently used until ``n_bytes`` more fit; False where they cannot."""
        limit = self.gigabytes * 1e9
        self.directory.mkdir(parents=True, exist_ok=True)
        files = []
        for path in self.directory.glob("*log_mel_*.npy"):
            with contextlib.suppress(OSError):  # another run may have deleted it
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        used = sum(size for _, size, _ in files)
        for mtime, size, path in sorted(files):
            abandoned = path.name.startswith(".") and time.time() - mtime > ABANDONED
            needed = used + n_bytes > limit and not path.name.startswith(".") and n_bytes <= limit
            if abandoned or needed:
                with contextlib.suppress(OSError):  # on Windows a file in use stays
                    path.unlink()
                    used -= size
        return used + n_bytes <= limit and n_bytes <= shutil.disk_usage(self.directory).free


def clip_offsets(clips: Sequence[Clip], feature: Feature) -> np.ndarray:
    """First frame of each clip among the frames of all, and their number at the end; shape (n_clips + 1,)."""
    counts = [n_frames(clip.n_samples, feature.hop_length) for clip in clips]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def window_starts(offsets: np.ndarray, frames: int, hop: int = 1) -> np.ndarray:
    """First frame of each window of ``frames`` frames within one clip, ``hop`` frames apart; (n_windows,), int32."""
    return np.concatenate(
        [
            np.arange(start, end - frames + 1, hop, dtype=np.int32)
            for start, end in zip(offsets[:-1], offsets[1:], strict=True)
        ]
    )


def log_mel_clips(clips: Sequence[Clip], feature: Feature, cache: Cache | None) -> Iterator[np.ndarray]:
    """Log-mel energies [dB] of each clip in turn, shape (n_frames, n_mels), float32; cached ones where there are."""
    if cache is None:
        yield from _computed(clips, feature)
        return
    offsets = clip_offsets(clips, feature)
    path = cache.path(clips, feature)
    shape = (int(offsets[-1]), feature.n_mels)
    cached = cache.read(path, shape)
    if cached is None:
        yield from _stored(_computed(clips, feature), path, shape, cache)
        return
    logger.debug("log-mel energies of %d clips from %s", len(clips), path)
    with cached:
        for count in np.diff(offsets):
            yield np.fromfile(cached, np.float32, count * feature.n_mels).reshape(count, feature.n_mels)


def _computed(clips: Sequence[Clip], feature: Feature) -> Iterator[np.ndarray]:
    """Read the clips and compute, on all cores; a bounded number of clips is under way at a time."""
    import joblib

    def compute(clip: Clip) -> np.ndarray:
        waveform, sample_rate = load_clip(clip)
        log_mel = log_mel_energies(
            waveform,
            sample_rate,
            n_mels=feature.n_mels,
            n_fft=feature.n_fft,
            hop_length=feature.hop_length,
            power=feature.power,
        )
        return np.ascontiguousarray(log_mel.T)

    # Several clips per task: handing out single ones takes a tenth of the time.
    threads = joblib.Parallel(
        n_jobs=-1, prefer="threads", return_as="generator", batch_size=8, pre_dispatch="16*n_jobs"
    )
    yield from threads(joblib.delayed(compute)(clip) for clip in clips)


def _stored(blocks: Iterator[np.ndarray], path: Path, shape: tuple[int, int], cache: Cache) -> Iterator[np.ndarray]:
    """Hand the blocks on and write them to ``path``; a cache that cannot be written costs time, not the run."""
    stream = beside = None
    try:
        if cache.make_room(4 * shape[0] * shape[1]):
            beside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.npy")
            stream = beside.open("wb")
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
        else:
            logger.info("log-mel energies are not cached: no room for %.1f GB", 4e-9 * shape[0] * shape[1])
    except OSError as error:
        logger.warning("log-mel energies are not cached: %s", error)
    try:
        for block in blocks:
            try:
                if stream:
                    stream.write(block.astype("<f4", copy=False).tobytes())
            except OSError as error:  # the disk is full
                logger.warning("log-mel energies are not cached: %s", error)
                stream.close()
                stream = None
            yield block
        if stream:
            stream.close()
            with contextlib.suppress(PermissionError):  # Windows: another run has the same file open
                beside.replace(path)
    finally:
        if stream:
            stream.close()
        if beside:
            beside.unlink(missing_ok=True)
