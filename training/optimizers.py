"""Optimisers and learning rates of the YAML."""

import math

import keras
import tensorflow as tf

from config import Fit
from training import distribution


def make_optimizer(fit: Fit) -> keras.optimizers.Optimizer:
    """Optimiser of the YAML; Keras's own learning rate where none is given."""
    settings = {"use_ema": fit.compile.use_ema, "ema_momentum": fit.compile.ema_momentum}
    if fit.compile.learning_rate is not None:
        settings["learning_rate"] = fit.compile.learning_rate
    optimizer = keras.optimizers.get({"class_name": fit.compile.optimizer, "config": settings})
    fusible = type(optimizer) in (keras.optimizers.Adam, keras.optimizers.AdamW)
    if fusible and not distribution.is_distributed(tf.distribute.get_strategy()):
        return FusedAdam.from_config(optimizer.get_config())
    return optimizer


@keras.saving.register_keras_serializable("training")
class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam, whose dozen passes over each weight are TensorFlow's one; with a weight decay it is AdamW."""

    def update_step(self, gradient, variable, learning_rate):
        """Move ``variable`` and its moments."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def schedule(fit: Fit) -> list[keras.callbacks.Callback]:
    """What changes the learning rate: nothing, or half a cosine from the YAML's to nearly 0, a step per epoch.

    Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017, eq. 5, without restarts.
    """
    if fit.compile.learning_rate_schedule == "constant":
        return []
    start = float(make_optimizer(fit).learning_rate)
    falling = lambda epoch, _: start * (1 + math.cos(math.pi * epoch / fit.epochs)) / 2  # noqa: E731
    return [keras.callbacks.LearningRateScheduler(falling)]


def reset_optimizer(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Bring the optimiser to its start, also when it has trained another machine type before."""
    fresh = type(optimizer).from_config(optimizer.get_config())
    for one in (optimizer, fresh):
        if not one.built:
            one.build(model.trainable_variables)
    for variable, start in zip(optimizer.variables, fresh.variables, strict=True):
        variable.assign(start)
