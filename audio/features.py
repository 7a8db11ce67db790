"""What is computed of each clip: on all cores, kept in a cache on disk, handed out clip by clip.

A :class:`Quantity` says what; log-mel energies are one. The cache is checked at the speed of reading: a file that does
not hold what was written is renewed, and costs time, not the run.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import math
import operator
import os
import shutil
import tokenize
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from audio.clips import Clip, load_clip
from audio.descriptors import N_STATISTICS, band_statistics, modulation_spectrum
from audio.settings import Descriptor, Feature, Modulation, Spectra
from audio.spectra import fitted, layout
from audio.spectra import spectra as magnitudes
from common import UserError, log_mel_energies
from storage.files import path_beside, remove_leftovers_once

VERSION = 2  # of the code that computes features, here and where they are computed: raise it when values change
CACHE_FILES = "*_" + 32 * "[0-9a-f]" + "*.npy"  # ours; the user may keep others in the folder

logger = logging.getLogger(__name__)


def n_frames(n_samples: int, hop_length: int) -> int:
    """Number of frames of a clip of ``n_samples`` samples."""
    return 1 + n_samples // hop_length


@dataclass(frozen=True)
class Quantity:
    """What is computed of each clip's waveform: a block of rows."""

    name: str  # plural, for messages and for its files in the cache
    settings: tuple  # all that decides a block, beside the clip and the code
    width: int  # of a row
    rows: Callable[[Clip], int]  # how many a clip gives
    compute: Callable[[np.ndarray, int], np.ndarray]  # waveform (n_samples,), sample rate [Hz] -> (rows, width)
    dtype: str = "<f4"  # of the values


def log_mel(feature: Feature) -> Quantity:
    """Log-mel energies [dB], a row per frame."""
    settings = dataclasses.asdict(feature)
    del settings["frames"]  # these are cut out of the energies

    def compute(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        return log_mel_energies(waveform, sample_rate, **settings).T

    return Quantity(
        "log-mel energies",
        tuple(settings.values()),
        feature.n_mels,
        lambda clip: n_frames(clip.n_samples, feature.hop_length),
        compute,
    )


def modulation(settings: Modulation) -> Quantity:
    """Modulation spectrum, a row per clip."""

    def compute(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        return modulation_spectrum(waveform, sample_rate, settings).reshape(1, -1)

    width = settings.n_bands * settings.n_modulations
    return Quantity("modulation spectra", dataclasses.astuple(settings), width, lambda clip: 1, compute)


def statistics(feature: Feature, level: float) -> Quantity:
    """Statistics of the log-mel energies of each band, a row per clip."""
    frames = log_mel(feature)

    def compute(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        return band_statistics(frames.compute(waveform, sample_rate).T, level=level).reshape(1, -1)

    width = N_STATISTICS * feature.n_mels
    return Quantity("band statistics", (*frames.settings, level), width, lambda clip: 1, compute)


def waveforms(settings: Spectra, sample_rate: int) -> Quantity:
    """The waveform itself, cut or repeated to its length for :func:`spectra`, a row per clip of 16 bits."""
    n_samples = layout(settings, sample_rate).n_samples

    def compute(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        return fitted(waveform, n_samples)[None]

    return Quantity("waveforms", (n_samples,), n_samples, lambda clip: 1, compute, "<i2")


def spectra(settings: Spectra, sample_rate: int) -> Quantity:
    """Magnitude spectra, a row per clip: see audio/spectra.py."""
    parts = layout(settings, sample_rate)

    def compute(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        return magnitudes(fitted(waveform, parts.n_samples), parts)[None]

    return Quantity("spectra", dataclasses.astuple(settings), parts.width, lambda clip: 1, compute)


@dataclass(frozen=True)
class Cache:
    """Folder of blocks, one file per quantity and clip list; it may be deleted at any time.

    A file's name is a digest of all that decides its content: the quantity's settings, the version of the code, and
    each clip's content. Files appear whole, so that runs may share the folder.
    A file is a npy file of the clips' rows, with the checksum of each clip's block, little-endian uint32, behind it.
    """

    directory: Path
    gigabytes: float  # the files least recently used go when there would be more

    def path(self, clips: Sequence[Clip], quantity: Quantity) -> Path:
        """File of these clips' blocks, whether it exists or not."""
        name = quantity.name.replace(" ", "_")
        facts = [(c.crc, c.size, c.sample_rate, c.first, c.n_samples, c.channel) for c in clips]
        digest = hashlib.sha256(json.dumps([VERSION, quantity.settings, facts]).encode()).hexdigest()
        return self.directory / f"{name}_{digest[:32]}.npy"

    def read(self, path: Path, counts: Sequence[int], quantity: Quantity) -> Iterator[np.ndarray]:
        """Blocks of ``counts`` rows from a file, up to the first one that is not what was written; none without a file.

        Not mapped into memory: pages of a mapped file count as the run's own.
        """
        stream, checksums = self._open(path, counts, quantity)
        if stream is None:
            return
        with stream:
            checksum = 0
            for count, expected in zip(counts, checksums, strict=True):
                block = np.fromfile(stream, quantity.dtype, count * quantity.width)
                checksum = zlib.crc32(block, checksum)
                if checksum != expected:  # also where the file cannot be read on
                    return
                yield block.reshape(count, quantity.width)

    def _open(self, path: Path, counts: Sequence[int], quantity: Quantity) -> tuple[BinaryIO | None, np.ndarray | None]:
        """A file of this shape, opened where its rows begin, and its checksums; None and None where there is none."""
        try:
            stream = path.open("rb")
        except OSError:
            return None, None
        with contextlib.suppress(OSError, ValueError, tokenize.TokenError):  # NumPy lets the last one through
            np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0(stream)
            begin, shape, dtype = stream.tell(), (int(sum(counts)), quantity.width), np.dtype(quantity.dtype)
            end = begin + dtype.itemsize * math.prod(shape)
            whole = os.fstat(stream.fileno()).st_size == end + 4 * len(counts)
            if header == (shape, False, dtype) and whole:
                stream.seek(end)
                checksums = np.fromfile(stream, "<u4", len(counts))
                stream.seek(begin)
                with contextlib.suppress(OSError):  # a folder of somebody else's, to be read only
                    path.touch()  # the time of last use decides which file goes first
                return stream, checksums
        stream.close()
        return None, None

    def make_room(self, n_bytes: int) -> bool:
        """Delete the files least recently used until ``n_bytes`` more fit; False where they cannot."""
        limit = self.gigabytes * 1e9
        self.directory.mkdir(parents=True, exist_ok=True)
        files = []
        for path in {*self.directory.glob(CACHE_FILES), *self.directory.glob(".*.npy")}:
            with contextlib.suppress(OSError):  # another run may have deleted it
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        used = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if used + n_bytes > limit >= n_bytes and not path.name.startswith("."):
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
    return blocks(clips, log_mel(feature), cache)


def parts(descriptor: Descriptor, feature: Feature) -> list[dict[str, Quantity]]:
    """The descriptor's parts by name, in groups."""
    quantities = {
        "slow": modulation(descriptor.slow),
        "fast": modulation(descriptor.fast),
        "statistics": statistics(feature, descriptor.level),
    }
    return [{name: quantities[name] for name in group} for group in descriptor.parts]


def band_rows(descriptor: Descriptor, feature: Feature) -> list[np.ndarray]:
    """Rows of a descriptor's numbers, (n_bands,) each: the indices of those that tell one thing, lowest band first."""
    shapes = {
        "slow": (descriptor.slow.n_bands, descriptor.slow.n_modulations),
        "fast": (descriptor.fast.n_bands, descriptor.fast.n_modulations),
        "statistics": (N_STATISTICS, feature.n_mels),
    }
    rows: list[np.ndarray] = []
    for part in (part for group in descriptor.parts for part in group):
        table = np.arange(math.prod(shapes[part])).reshape(shapes[part]) + sum(map(len, rows))
        rows += [*(table if part == "statistics" else table.T)]
    return rows


def check_descriptor(descriptor: Descriptor, feature: Feature, sample_rate: int) -> None:
    """Raise UserError where clips of this sample rate cannot have the descriptor."""
    for group in parts(descriptor, feature):
        for name, quantity in group.items():
            try:
                quantity.compute(np.zeros(1, np.float32), sample_rate)
            except UserError as error:
                raise UserError(f"descriptor.{name}.{error}") from error


def descriptors(
    clips: Sequence[Clip], descriptor: Descriptor, feature: Feature, cache: Cache | None
) -> Iterator[np.ndarray]:
    """Descriptor of each clip in turn, shape (n_numbers,), float32: its parts one after the other.

    A clip is read once for all parts that are not cached; each part has a file of its own in the cache.
    """
    quantities = [quantity for group in parts(descriptor, feature) for quantity in group.values()]
    missing = [quantity for quantity in quantities if not (cache and cache.path(clips, quantity).exists())]
    copies = iter(itertools.tee(_computed(clips, missing), len(missing)))  # that read a clip ahead of others at most
    of_parts = [
        blocks(clips, part, cache, map(operator.itemgetter(missing.index(part)), next(copies)))
        if part in missing
        else blocks(clips, part, cache)
        for part in quantities
    ]
    for of_clip in zip(*of_parts, strict=True):
        yield np.concatenate(of_clip, axis=1)[0]


def blocks(
    clips: Sequence[Clip], quantity: Quantity, cache: Cache | None, computed: Iterator[np.ndarray] | None = None
) -> Iterator[np.ndarray]:
    """Block of each clip in turn, shape (rows, width); cached ones where there are.

    Where a cached file turns out to be damaged, the blocks from there on are computed anew and the file is replaced.

    Parameters
    ----------
    computed : gives the blocks of all clips where they are to be computed; None: they are computed here

    Raises
    ------
    UserError : if a clip cannot be read, is not as it was when it was checked, or gives values that are not finite.
    """

    def missing(first: int) -> Iterator[np.ndarray]:
        if computed is not None:
            return itertools.islice(computed, first, None)
        return itertools.chain.from_iterable(_computed(clips[first:], [quantity]))

    if cache is None:
        yield from missing(0)
        return
    remove_leftovers_once(cache.directory)
    path = cache.path(clips, quantity)
    counts = [quantity.rows(clip) for clip in clips]
    n_good = 0
    for block in cache.read(path, counts, quantity):
        n_good += 1
        yield block
    if n_good == len(clips):
        logger.debug("%s of %d clips from %s", quantity.name, len(clips), path)
        return
    if path.exists():
        logger.warning("%s: damaged; %d clips are computed anew", path, len(clips) - n_good)
    file = _NewFile(path, quantity, sum(counts), cache)
    try:
        for block in itertools.islice(cache.read(path, counts, quantity), n_good):
            file.add(block)
        for block in missing(n_good):
            file.add(block)
            yield block
        file.finish()
    finally:
        file.abandon()


def mapped(clips: Sequence[Clip], quantity: Quantity, cache: Cache | None, watch: Callable = iter) -> np.ndarray:
    """Rows of all clips in one array, (n_rows, width): the cache's file, of which what is asked for is read.

    In memory where there is no cache; waveforms of the whole development set are 6 GB.

    Parameters
    ----------
    watch : shows the progress of what comes clip by clip
    """
    if cache is None:
        return np.concatenate([*watch(blocks(clips, quantity, None))])
    for _ in watch(blocks(clips, quantity, cache)):
        pass
    try:
        return np.load(cache.path(clips, quantity), mmap_mode="r")
    except (OSError, ValueError):  # there was no room for it
        return np.concatenate([*blocks(clips, quantity, None)])


def _computed(clips: Sequence[Clip], quantities: Sequence[Quantity]) -> Iterator[list[np.ndarray]]:
    """Read each clip and compute its blocks, on all cores; a bounded number of clips is under way at a time.

    Threads do: most of the time goes where Python lets others run, and processes would each import what it takes.
    """
    import joblib
    import threadpoolctl

    # Several clips per task: handing out single ones takes a tenth of the time.
    threads = joblib.Parallel(
        n_jobs=-1, prefer="threads", return_as="generator", batch_size=8, pre_dispatch="16*n_jobs"
    )
    # Each clip has a thread: products that took several would wait for each other, twenty times as long.
    with threadpoolctl.threadpool_limits(1, "blas"):
        if clips:  # alone: what it takes is imported by one thread
            yield _blocks(clips[0], quantities)
        yield from threads(joblib.delayed(_blocks)(clip, quantities) for clip in clips[1:])


def _blocks(clip: Clip, quantities: Sequence[Quantity]) -> list[np.ndarray]:
    """Blocks of one clip, computed."""
    waveform, sample_rate = load_clip(clip)
    return [_block(clip, quantity, waveform, sample_rate) for quantity in quantities]


def _block(clip: Clip, quantity: Quantity, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """One of them."""
    with np.errstate(over="ignore"):  # is found below
        block = np.ascontiguousarray(quantity.compute(waveform, sample_rate), quantity.dtype)
    shape = (quantity.rows(clip), quantity.width)
    if block.shape != shape:  # an error of ours
        raise ValueError(f"{clip.path}: {quantity.name} of shape {block.shape}; expected {shape}")
    if not np.isfinite(block).all():
        raise UserError(
            f"{clip.path}: {quantity.name} has values that are not finite; the samples reach from "
            f"{waveform.min():.3g} to {waveform.max():.3g}, expected -1 to 1. Replace or remove the clip"
        )
    return block


class _NewFile:
    """A file of the cache in the making: what goes wrong with it costs time, not the run."""

    def __init__(self, path: Path, quantity: Quantity, n_rows: int, cache: Cache):
        self.path, self.quantity, self.checksums = path, quantity, []
        self.beside = path_beside(path)
        self.stream: BinaryIO | None = None
        n_bytes = np.dtype(quantity.dtype).itemsize * n_rows * quantity.width
        with self._tried():
            if not cache.make_room(n_bytes):
                logger.info("%s are not cached: no room for %.1f GB", quantity.name, n_bytes * 1e-9)
                return
            self.stream = self.beside.open("wb")
            header = {"descr": quantity.dtype, "fortran_order": False, "shape": (n_rows, quantity.width)}
            np.lib.format.write_array_header_1_0(self.stream, header)

    @contextlib.contextmanager
    def _tried(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # no such folder, another's folder, a full disk
            logger.warning("%s are not cached: %s", self.quantity.name, error)
            self.abandon()

    def add(self, block: np.ndarray) -> None:
        """Write the next clip's block."""
        if self.stream:
            with self._tried():
                block = block.astype(self.quantity.dtype, copy=False)
                self.checksums.append(zlib.crc32(block, self.checksums[-1] if self.checksums else 0))
                self.stream.write(block.tobytes())

    def finish(self) -> None:
        """Write the checksums and give the file its name."""
        if self.stream:
            with self._tried():
                self.stream.write(np.array(self.checksums, "<u4").tobytes())
                self.stream.close()
                with contextlib.suppress(PermissionError):  # Windows: another run has the same file open
                    self.beside.replace(self.path)

    def abandon(self) -> None:
        """Remove what was written, unless it is finished."""
        if self.stream:
            with contextlib.suppress(OSError):  # closing writes what is left: the disk may be full
                self.stream.close()
            with contextlib.suppress(OSError):
                self.beside.unlink(missing_ok=True)
            self.stream = None
