"""What the official common.py has: the command line, logging, wav -> waveform -> log-mel energies -> vectors.

Importing this module is cheap; TensorFlow, librosa and SciPy are loaded where they are first used.
"""

import argparse
import contextlib
import errno
import functools
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse

__version__ = "1.0.0"
USER_AGENT = f"wei-liu-2020-asd/{__version__}"  # zenodo.org refuses the names that Python's libraries give themselves

LOG_FILE = "baseline.log"
TRAINING_DATA = ("dev", "eval", "dev+eval")
BROKEN_PIPE = 128 + 13  # what a shell reports of a program that SIGPIPE ends
MAX_FAULTS_SHOWN = 15  # an error fits on one screen; the log file has the whole list

ADVICE = {  # on errors of the file system
    errno.ENOSPC: "The disk is full: make room there",
    errno.EDQUOT: "Your share of the disk is used up: delete files of yours there, have the quota raised",
    errno.EFBIG: "The file would be larger than allowed, by the file system or `ulimit -f`: raise the limit",
    errno.EROFS: "The file system can only be read: have it mounted for writing",
}

logger = logging.getLogger(__name__)


class UserError(Exception):
    """Something the user can mend. Shown without a traceback; the script exits with 1."""


def fault_list(title: str, faults: Sequence[str], advice: str) -> UserError:
    """All faults of one kind as one error that fits on a screen; the log file gets them all."""
    for fault in faults[MAX_FAULTS_SHOWN:]:
        logger.debug("%s: %s", title, fault)
    lines = [f"{title}:", *(f"  {fault}" for fault in faults[:MAX_FAULTS_SHOWN])]
    if len(faults) > MAX_FAULTS_SHOWN:
        lines.append(f"  ... and {len(faults) - MAX_FAULTS_SHOWN} more, all of them in {LOG_FILE}")
    return UserError("\n".join([*lines, advice]))


@contextlib.contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Have environment variables other values for a while, None: not be set."""
    before = dict(os.environ)
    for name in values:
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in values.items() if value is not None})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# ---- command line and logging ----


def user_path(text: str) -> Path:
    """Path that an argument means: ``~`` is the home folder, which the shell leaves in ``--option=~/x``."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # nobody's home
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error


def plain_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Parser with the options that all numbered scripts share: version and YAML."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the examples keep their lines
    )
    parser.add_argument("-v", "--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--config", type=user_path, default=Path("baseline.yaml"), metavar="PATH", help="default: %(default)s"
    )
    return parser


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Parser with the official baseline's options and ours that 00_train.py and 01_test.py share."""
    parser = plain_parser(description)
    split = parser.add_mutually_exclusive_group(required=True)
    split.add_argument("-d", "--dev", dest="split", action="store_const", const="dev", help="development dataset")
    split.add_argument("-e", "--eval", dest="split", action="store_const", const="eval", help="evaluation dataset")
    parser.add_argument("--system", action="append", metavar="NAME", help="system of the YAML to run; may be repeated")
    parser.add_argument(
        "--machine-type", action="append", metavar="NAME", help="only this machine type; may be repeated (default: all)"
    )
    parser.add_argument(
        "--training-data",
        choices=TRAINING_DATA,
        help="what the models are trained on: the training clips of this dataset alone (default), or with dev+eval "
        "those of both, whichever is scored",
    )
    return parser


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; ``training_data`` is then ``dev``, ``eval`` or ``dev+eval``."""
    args = parser.parse_args(argv)
    args.training_data = args.training_data or args.split
    if args.split not in args.training_data.split("+"):
        other = args.training_data
        parser.error(
            f"--training-data {other} has no machine of the {args.split} clips: with -{args.split[0]} take "
            f"{args.split} (the default) or dev+eval"
        )
    return args


def scored_by(split: str, training_data: str) -> str:
    """Name of the folder of scores: those of the ``dev`` clips by models of both datasets have one of their own."""
    return "dev_by_dev+eval" if (split, training_data) == ("dev", "dev+eval") else training_data


def training_command(training_data: str, split: str | None = None) -> str:
    """What trains on these clips, for an error; ``split`` is the one that is to be scored, if any."""
    of_both = f"-{(split or 'eval')[0]} --training-data dev+eval"
    return f"python 00_train.py {of_both if training_data == 'dev+eval' else '-' + training_data[0]}"


def run_main(main: Callable[[], None]) -> None:
    """Run a script's ``main`` for the shell: errors become a message and an exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next file that is opened would take its place
            setattr(sys, name, Path(os.devnull).open(mode))
        elif name != "stdin":
            with contextlib.suppress(AttributeError):  # some consoles have streams of their own
                getattr(sys, name).reconfigure(errors="backslashreplace")  # for what the terminal cannot show
    logging.captureWarnings(True)
    configure_logging()
    code, spoilt = _exit_code(main), False
    try:
        sys.stdout.flush()
    except OSError as error:
        spoilt = True
        if not isinstance(error, BrokenPipeError):  # else `| head` has read enough
            logger.error("What was to be printed cannot be written: %s", error)
        code = code or (BROKEN_PIPE if isinstance(error, BrokenPipeError) else 1)
    if spoilt or code == BROKEN_PIPE:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # what Python writes at its end
            os.dup2(nowhere, stream.fileno())
    if code:
        sys.exit(code)


def _exit_code(main: Callable[[], None]) -> int:
    """Run ``main``, tell its errors to the user, and say what the shell gets."""
    try:
        main()
    except SystemExit as done:  # --help, wrong arguments
        return done.code
    except UserError as error:
        logger.error("%s", error)
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:  # no permission, a full disk, a file where a folder should be: the message names the path
        logger.debug("file system error", exc_info=True)
        advice = ADVICE.get(error.errno, "Make it accessible")
        logger.error(
            "A file or folder cannot be used: %s\n%s, or name another in the YAML or the command.", error, advice
        )
    except MemoryError as error:
        logger.debug("out of memory", exc_info=True)
        logger.error("Not enough memory (%s): lower fit.batch_size, or name fewer machine types", error)
    except KeyboardInterrupt:
        logger.error("interrupted; what was finished is kept: the same command again goes on from there")
        return 130
    else:
        return 0
    return 1


def configure_logging() -> None:
    """INFO to the screen, everything of ours to ``baseline.log`` in the current folder, as the official baseline."""
    screen = logging.StreamHandler()
    screen.setLevel(logging.INFO)
    screen.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - %(message)s"))
    log_file = LogFile(LOG_FILE, encoding="utf-8", delay=True, errors="backslashreplace")
    log_file.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - %(name)s - %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[screen, log_file], force=True)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # without a home folder it has much to say
    house = Path(__file__).parent
    for path in [*house.glob("*.py"), *(wing.parent for wing in house.glob("*/__init__.py"))]:
        logging.getLogger(path.stem).setLevel(logging.DEBUG)  # other people's details stay out of the log


class LogFile(logging.FileHandler):
    """The log file; where it cannot be written, a warning on the screen says so once, and the run goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            super().emit(record)  # opens the file, the first time
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 logging's name
        """Give up: another user's file, a folder, a full disk."""
        error = sys.exc_info()[1]
        logging.getLogger().removeHandler(self)
        logger.warning("%s cannot be written (%s): this run has no log file", LOG_FILE, error)


# ---- wav -> waveform, log-mel energies, vectors ----


def load_wav(
    path: Path, *, first: int = 0, n_samples: int = -1, channel: int | str | None = None
) -> tuple[np.ndarray, int]:
    """Waveform, shape (n_samples,), float32 in [-1, 1], and sample rate [Hz] of a wav file, or of a part of it.

    Parameters
    ----------
    first, n_samples : int [samples], the part; -1: to the end
    channel : a number from 0, or mean; None: the only one, or (n_samples, n_channels) where there are several
    """
    try:
        with soundfile_library().SoundFile(path) as file:
            sample_rate = file.samplerate
            file.seek(first)
            waveform = one_channel(read_samples(file, n_samples), channel)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); it was readable when the run began") from error
    if not np.isfinite(waveform).all():
        raise UserError(f"{path}: has samples that are not finite numbers; replace or remove it")
    return waveform, sample_rate


def soundfile_library():
    """The module that reads sound; UserError says what to install where it cannot be loaded."""
    try:
        import soundfile
    except (ImportError, OSError, AttributeError) as error:
        raise UserError(
            f"The library that reads sound cannot be loaded ({error})\nInstall it: python -m pip install "
            "--force-reinstall soundfile; where that brings no libsndfile: apt-get install libsndfile1, or "
            "conda install libsndfile."
        ) from error
    return soundfile


def read_samples(file, n_samples: int) -> np.ndarray:
    """The next samples of an opened file, (n,) or (n, n_channels), float32 in [-1, 1]; -1: to the end."""
    if file.subtype == "PCM_16":  # five times as fast as the library's own conversion, and equal to it
        return file.read(n_samples, dtype="int16") * np.float32(2**-15)
    return file.read(n_samples, dtype="float32")


def one_channel(samples: np.ndarray, channel: int | str | None) -> np.ndarray:
    """(n,) or (n, n_channels) -> (n,); unchanged where ``channel`` does not say which, or is not there."""
    if samples.ndim == 1 or channel is None:
        return samples
    if channel == "mean":
        return samples.mean(axis=1, dtype=np.float32)
    return samples[:, channel] if channel < samples.shape[1] else samples


@functools.lru_cache(maxsize=8)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> "scipy.sparse.csr_array":
    """Mel filter bank of librosa, shape (n_mels, 1 + n_fft // 2), float32; one value in 64 is not 0."""
    import scipy.sparse

    # librosa takes a second and 110 MB: here, so that what comes from the cache does without. Its numba wants to write,
    # if not beside librosa then in the home folder, which may be closed, or not be.
    with tempfile.TemporaryDirectory() as folder, environment(NUMBA_CACHE_DIR=folder):
        import librosa.filters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on empty filters, by no name that the user knows
        filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
    empty = np.flatnonzero(filters.max(axis=1) == 0)
    if len(empty):
        text = "feature: %d of %d mel bands hear no bin of the spectrum (the first: %d); raise n_fft or lower n_mels"
        logger.warning(text, len(empty), n_mels, empty[0])
    return scipy.sparse.csr_array(filters)


def log_mel_energies(
    waveform: np.ndarray,
    sample_rate: int,
    *,
    n_mels: int,
    n_fft: int,
    hop_length: int,
    power: float,
    pad_mode: str = "constant",
) -> np.ndarray:
    """Log-mel energies of one clip [dB].

    Parameters
    ----------
    waveform : ndarray, shape (n_samples,), in [-1, 1]
    sample_rate : int [Hz]
    n_fft, hop_length : int [samples]
    power : float, exponent of the magnitude spectrum: 1 for magnitudes, 2 for energies
    pad_mode : what stands around the clip; ``constant``: zeros, as librosa since 0.9, ``reflect``: as that of 2020

    Returns
    -------
    ndarray, shape (n_mels, 1 + n_samples // hop_length), float32

    Raises
    ------
    ValueError : if ``waveform`` is empty or not one-dimensional, or ``n_fft`` is odd.

    Notes
    -----
    ``20 / power * log10(mel + eps)``, equal to the official ``common.file_to_vector_array`` (librosa's
    melspectrogram: Hann window, centred frames) within rounding. The transform is taken in float64 and
    all that follows in float32, as librosa does: a float32 transform is off by up to 1e-3 dB in quiet bands.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or not waveform.size:
        raise ValueError(f"expected a waveform of shape (n_samples,), got {waveform.shape}")
    if n_fft % 2:
        raise ValueError(f"n_fft: {n_fft}; expected an even number, for the frames to be centred")
    filters = mel_filters(sample_rate, n_fft, n_mels)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)  # Hann's
    padded = np.pad(waveform, n_fft // 2, mode=pad_mode)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    log_mel = _mel_energies(frames, window, filters, power)
    log_mel += np.float32(sys.float_info.epsilon)
    np.log10(log_mel, out=log_mel)
    log_mel *= np.float32(20.0 / power)
    return log_mel.T


def _mel_energies(
    frames: np.ndarray, window: np.ndarray, filters: "scipy.sparse.csr_array", power: float
) -> np.ndarray:  # (n_frames, n_mels)
    """Sums of the mel filters over the spectra of frames, (n_frames, n_fft)."""
    import scipy.fft

    n_fft = frames.shape[1]
    mel = np.empty((len(frames), filters.shape[0]), np.float32)
    block = 48  # frames at once: the spectra stay in the processor's cache, and are memory that is used again
    windowed = np.empty((block, n_fft))
    energy = np.empty((block, n_fft // 2 + 1), np.float32)
    for start in range(0, len(frames), block):
        n = min(block, len(frames) - start)
        np.multiply(frames[start : start + n], window, out=windowed[:n])
        spectrum = scipy.fft.rfft(windowed[:n]).view(np.float64)
        spectrum *= spectrum
        np.add(spectrum[:, 0::2], spectrum[:, 1::2], out=energy[:n], casting="same_kind")
        if power != 2:
            energy[:n] **= power / 2
        mel[start : start + n] = (filters @ energy[:n].T).T
    return mel


def stack_frames(log_mel: np.ndarray, *, frames: int) -> np.ndarray:
    """(n_mels, n_frames) -> (n_frames - frames + 1, n_mels * frames), oldest frame first: the official vectors."""
    windows = np.lib.stride_tricks.sliding_window_view(log_mel, frames, axis=1)
    return windows.transpose(1, 2, 0).reshape(-1, log_mel.shape[0] * frames)
