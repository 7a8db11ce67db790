"""The networks between a classifier's input and its embedding: MobileNetV2 without its top, or dense layers."""

import warnings
from collections.abc import Iterable

import keras
from keras import layers

from common import UserError
from config import L2Softmax
from training.metric_layers import FusedBatchNormalization

# Of the moving statistics of training, which clip_trainer.settle_statistics replaces.
BATCH_NORM_MOMENTUM = 0.9
MISFITS = (OSError, ValueError, KeyError, TypeError, UserWarning)  # what Keras raises of a file that does not fit
MIN_SIZE = 32  # [bands, frames] MobileNetV2 halves its input five times


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
    original = _original(model, (*size, 3))

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


def _original(model: L2Softmax, input_shape: tuple[int, int, int]) -> keras.Model:
    """Keras's MobileNetV2 with its start weights; Keras fetches those of ImageNet into its folder once."""
    with warnings.catch_warnings():
        if model.weights in (None, "imagenet"):
            warnings.simplefilter("ignore")  # on sizes for which there are no ImageNet weights
        else:
            warnings.simplefilter("error", UserWarning)  # Keras would skip what does not fit, with a warning
        try:
            return keras.applications.MobileNetV2(
                input_shape=input_shape, alpha=model.width, include_top=False, weights=model.weights, pooling="avg"
            )
        except Exception as error:  # noqa: BLE001 Keras raises no narrower one for a URLError; others go on
            if not isinstance(error, MISFITS) and not isinstance(error.__context__, OSError):
                raise
            raise UserError(
                f"model.weights: {model.weights}: {error}\nExpected null, imagenet (for a model.width of 0.35, 0.5, "
                "0.75, 1.0, 1.3 or 1.4), or a file of weights of a MobileNetV2 of Keras, no top, pooling avg, this wide"
            ) from error
