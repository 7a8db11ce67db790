"""Keras networks -> files of other runtimes."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from deployment.runtimes import FORMATS
from training import process


@keras.saving.register_keras_serializable("export")
class Scale(layers.Layer):
    """``(inputs - mean) / deviation`` with weights, where Keras's Normalization has constants.

    Constants that are not weights become inputs of an ONNX file.
    """

    def build(self, shape):
        """Make the weights."""
        self.mean = self.add_weight(name="mean", shape=(1, *shape[1:]), trainable=False)
        self.deviation = self.add_weight(name="deviation", shape=(1, *shape[1:]), trainable=False)

    def call(self, inputs):
        """(n, ...) -> (n, ...)."""
        return (inputs - self.mean) / self.deviation


def for_inference(network: keras.Model) -> keras.Model:
    """The same network in float32, for inference alone, with all its numbers in weights; its input is ``input``."""
    keras.config.set_dtype_policy("float32")

    def copied(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, layers.Normalization):
            return Scale(name=layer.name)
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(network, clone_function=copied, recursive=True)
    for old, new in zip(_layers(network), _layers(copy), strict=True):
        if isinstance(old, layers.Normalization):
            deviation = np.maximum(np.sqrt(np.asarray(old.variance)), keras.config.epsilon())
            new.set_weights([np.reshape(values, new.mean.shape) for values in (np.asarray(old.mean), deviation)])
        else:
            new.set_weights(old.get_weights())
    inputs = keras.Input(network.input_shape[1:], name="input")
    inference = keras.Model(inputs, copy(inputs, training=False))  # without, Keras exports some layers as in training
    inference(np.zeros((1, *network.input_shape[1:]), np.float32))  # it exports none that was never called
    return inference


def _layers(network: keras.Model) -> Iterator[layers.Layer]:
    flat = network._flatten_layers(recursive=True, include_self=False)
    return (layer for layer in flat if not isinstance(layer, keras.Model))


def write(network: keras.Model, path: Path, format_name: str, calibration: Iterable[np.ndarray] | None) -> None:
    """Write a network as a file of a format; with inputs of clips, (n, ...) each, as integers of 8 bits throughout."""
    options = {}
    if calibration is not None:
        options = {
            "input_signature": [keras.InputSpec(shape=(1, *network.input_shape[1:]), dtype="float32")],
            "optimizations": [tf.lite.Optimize.DEFAULT],
            "representative_dataset": lambda: ([single[None]] for of_clip in calibration for single in of_clip),
            "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
            "inference_input_type": tf.int8,
            "inference_output_type": tf.int8,
        }
    for name in ("tf2onnx", "tensorflow"):  # what they say while they work is of no use
        logging.getLogger(name).setLevel(logging.ERROR)
    with process.quiet():
        network.export(str(path), format=FORMATS[format_name].keras_name, verbose=False, **options)
