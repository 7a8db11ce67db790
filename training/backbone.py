"""The networks between a classifier's input and its embedding: MobileNetV2 without its top, or dense layers."""

import logging
import os
import urllib.request
import warnings
from collections.abc import Iterable
from pathlib import Path

import keras
from keras import layers

from common import USER_AGENT, UserError
from config import L2Softmax
from storage.files import write_whole
from training.metric_layers import FusedBatchNormalization

IMAGENET_URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
IMAGENET_WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
IMAGENET_SIZES = (96, 128, 160, 192, 224)
# Of the moving statistics of training, which metric_trainer.settle_statistics replaces.
BATCH_NORM_MOMENTUM = 0.9
MIN_SIZE = 32  # [bands, frames] MobileNetV2 halves its input five times

logger = logging.getLogger(__name__)


def check_size(size: tuple[int, int]) -> None:
    """Raise UserError unless MobileNetV2 takes pictures of this size, (n_mels, frames)."""
    if min(size) < MIN_SIZE:
        raise UserError(
            f"feature: {size[0]} bands x {size[1]} frames; MobileNetV2 needs {MIN_SIZE} x {MIN_SIZE} at least. "
            "Raise n_mels or frames, or set model.input_size"
        )


def mobilenet(model: L2Softmax, size: tuple[int, int]) -> keras.Model:
    """MobileNetV2 without its top, (n, *size, 3) -> (n, 1280).

    Its batch normalisation is replaced by ours, which is the same and faster.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on sizes for which there are no ImageNet weights
        original = keras.applications.MobileNetV2(
            input_shape=(*size, 3), alpha=model.width, include_top=False, weights=None, pooling="avg"
        )
    if model.weights:
        load_weights(original, weights_path(model))

    def clone(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, layers.BatchNormalization):
            return FusedBatchNormalization.from_config({**layer.get_config(), "momentum": BATCH_NORM_MOMENTUM})
        return type(layer).from_config(layer.get_config())

    backbone = keras.models.clone_model(original, clone_function=clone)
    backbone.set_weights(original.get_weights())
    return backbone


def dense(h: keras.KerasTensor, units: Iterable[int]) -> keras.KerasTensor:
    """Dense + BN + ReLU for each of ``units``; (n, n_numbers) -> (n, units[-1])."""
    for width in units:
        h = layers.Dense(width)(h)
        h = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(h)
        h = layers.Activation("relu")(h)
    return h


def weights_path(model: L2Softmax) -> Path:
    """File of the weights that the network starts from; ImageNet's are fetched into Keras's folder once."""
    if model.weights != "imagenet":
        return Path(model.weights)
    if model.width not in IMAGENET_WIDTHS:
        raise UserError(
            f"model.width: {model.width}; ImageNet weights are there for {', '.join(map(str, IMAGENET_WIDTHS))}. "
            "Take one of these, or set model.weights: null"
        )
    rows = model.input_size if model.input_size in IMAGENET_SIZES else 224
    name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{model.width}_{rows}_no_top.h5"
    path = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models" / name
    if not path.exists():
        logger.info("fetching %s%s", IMAGENET_URL, name)
        try:
            request = urllib.request.Request(IMAGENET_URL + name, headers={"User-Agent": USER_AGENT})
            with urllib.request.urlopen(request, timeout=60) as answer, write_whole(path) as beside:
                beside.write_bytes(answer.read())
        except OSError as error:  # URLError is one
            raise UserError(
                f"model.weights: imagenet: {IMAGENET_URL}{name} cannot be fetched ({error})\n"
                f"Fetch it elsewhere and put it to {path}, or set model.weights: null"
            ) from error
    return path


def load_weights(backbone: keras.Model, path: Path) -> None:
    """Weights of a file into a MobileNetV2 without top."""
    if not path.is_file():
        raise UserError(f"model.weights: no file {path} (looked for {path.resolve()})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras would skip what does not fit, with a warning
            backbone.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError, UserWarning) as error:
        raise UserError(
            f"model.weights: {path} does not hold the weights of a Keras MobileNetV2 without top, pooling avg, of "
            f"this model.width: {error}"
        ) from error
