"""What is done to the process as a whole, so that other modules need not know of it.

Nothing here changes a result; to live without a function, leave out its call. Gains were measured on two cores of an
AMD EPYC, without a GPU, with Python 3.11, TensorFlow 2.21 and Keras 3.15.

==========================  ============================================================================
``lean_import``             importing Keras takes 1.3 s and 100 MB less; nothing on the screen in place of
                            6 lines that TensorFlow prints and no setting of its own keeps away
``keep_freed_memory``       12,000 page faults in each training step of ``tuned_ae``, 9 % of its processor time or more;
                            500 of the smaller ``baseline_ae``'s; it costs 30 MB
``share_gpus``              other programs find memory on the GPU: TensorFlow takes all of it, whatever it needs
``compiles_with_xla``       on a CPU seconds and hundreds of megabytes, on a GPU (not measured) as Keras's ``fit``
==========================  ============================================================================
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from common import environment

UNUSED = ("sklearn", "matplotlib", "PIL", "scipy")  # Keras loads them for wrappers, galleries and images
KERAS = {  # what it reads when it is imported
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,  # where there is no keras.json: types of numbers, order of channels
    "KERAS_MAX_EPOCHS": None,
    "KERAS_MAX_STEPS_PER_EPOCH": None,
}


@contextlib.contextmanager
def lean_import() -> Iterator[None]:
    """Import Keras and TensorFlow without the packages that are not used here, and without a word.

    The user's own settings of Keras, which are for other programs, have no say. Packages that are loaded already stay,
    and all of them can be imported afterwards.
    """
    hidden = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))
    try:
        with environment(**KERAS), quiet():
            yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries write to standard error themselves, past Python, off the screen."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # for what TensorFlow says later
    screen = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)


def keep_freed_memory() -> None:
    """Have glibc keep freed memory, which it would give back to the system and fault in anew at every step.

    By its own rules it maps each array of 128 kB or more anew. A threshold does not hold: TensorFlow's
    ``from_generator`` (2.21, ApplyPython311MemoryPatch) sets it back to 128 kB when the training's batches begin.
    Hence no mapping at all: arrays come from the heap, also large ones that are gone soon, whose memory the process
    then keeps. What is large and stays for long is to be mapped by its owner.
    """
    if sys.platform != "linux":
        return
    megabyte = 2**20
    m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8  # malloc.h
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_trim_threshold, 64 * megabyte)
        mallopt(m_top_pad, 16 * megabyte)
        mallopt(m_mmap_max, 0)
        mallopt(m_arena_max, 2)  # else each of a dozen threads keeps freed memory of its own


def give_back_freed_memory() -> None:
    """Have glibc return what it keeps by now: what comes next needs other memory than what came before."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def share_gpus() -> None:
    """Have TensorFlow take memory of the GPUs as it needs it; to be called before it computes anything."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # GPUs that are in use already stay as they are
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)


def compiles_with_xla() -> bool:
    """True where XLA should compile training steps: on a GPU, but not on Apple's, for which TensorFlow has none."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU")) and sys.platform != "darwin"
