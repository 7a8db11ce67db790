"""Layers and loss of the classifiers: L2 constraint, logits with a margin, batch normalisation of images."""

import math

import keras
import tensorflow as tf
from keras import layers, ops


@keras.saving.register_keras_serializable(package="metric_model")
class L2Constraint(layers.Layer):
    """``alpha * f / ||f||`` per sample (Ranjan et al. 2017, L2-constrained softmax).

    Parameters
    ----------
    alpha : float, norm of the outputs; where ``trained`` it is where the training starts from
    """

    def __init__(self, alpha: float, trained: bool, **kwargs):
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.start, self.trained = alpha, trained

    def build(self, input_shape):
        """Make alpha a weight, whether it is trained or not."""
        initializer = keras.initializers.Constant(self.start)
        self.alpha = self.add_weight(shape=(), initializer=initializer, trainable=self.trained, name="alpha")

    def call(self, inputs):
        """Normalise along the last axis."""
        return self.alpha * ops.normalize(inputs, axis=-1, order=2, epsilon=1e-12)

    def get_config(self):
        """Arguments of the constructor."""
        return {**super().get_config(), "alpha": self.start, "trained": self.trained}


@keras.saving.register_keras_serializable(package="metric_model")
class FusedBatchNormalization(layers.BatchNormalization):
    """Keras's batch normalisation of images, computed by TensorFlow's fused operation.

    Keras 3 puts it together from a dozen operations, which take longer than all of MobileNetV2's convolutions.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalise by the batch's statistics in training, by the moving ones otherwise."""
        if self.synchronized:  # over the replicas of a distributed step
            return super().call(inputs, training=training, mask=mask)
        ones = tf.ones_like(self.moving_mean)
        gamma = tf.cast(self.gamma, tf.float32) if self.scale else ones
        beta = tf.cast(self.beta, tf.float32) if self.center else 0 * ones
        if not (training and self.trainable):
            return tf.compat.v1.nn.fused_batch_norm(
                inputs,
                gamma,
                beta,
                mean=tf.convert_to_tensor(self.moving_mean),
                variance=tf.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon,
                is_training=False,
            )[0]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, epsilon=self.epsilon, is_training=True
        )
        n = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        variance *= (n - 1) / n  # fused: of the sample; Keras: of the population
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="metric_model")
class CosineLogits(layers.Layer):
    """``||f|| * cos(f, w_j)`` for each class j: a Dense layer without bias whose columns have unit norm."""

    def __init__(self, n_classes: int, **kwargs):
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.n_classes = n_classes

    def build(self, input_shape):
        """Make the class vectors."""
        self.kernel = self.add_weight(shape=(*input_shape[1:], self.n_classes), name="kernel")

    def call(self, inputs):
        """Project on the class vectors; (n, n_numbers) -> (n, n_classes), or the same of several networks between."""
        units = ops.normalize(self.kernel, axis=-2, order=2, epsilon=1e-12)
        return ops.squeeze(ops.matmul(ops.expand_dims(inputs, -2), units), -2)

    def get_config(self):
        """Arguments of the constructor."""
        return {**super().get_config(), "n_classes": self.n_classes}


@keras.saving.register_keras_serializable(package="metric_model")
class SubclusterLogits(layers.Layer):
    """``log sum_j exp(s cos(f, w_j))`` over the sub-centres ``w_j`` of each class, for each of several networks.

    Sub-cluster AdaCos (Wilkinghoff, IJCNN 2021) with a fixed scale, ``s = sqrt(2) log(n_classes * sub_centres - 1)``:
    the softmax of these is the sum of the probabilities of a class's sub-centres.
    """

    def __init__(self, n_classes: int, sub_centres: int, **kwargs):
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.n_classes, self.sub_centres = n_classes, sub_centres
        self.scale = math.sqrt(2) * math.log(n_classes * sub_centres - 1)

    def build(self, input_shape):
        """Make the sub-centres."""
        _, n_networks, n_numbers = input_shape
        self.kernel = self.add_weight(
            shape=(n_networks, n_numbers, self.n_classes, self.sub_centres),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="kernel",
        )

    def call(self, inputs):
        """(n, n_networks, n_numbers) -> (n, n_networks, n_classes)."""
        unit = {"order": 2, "epsilon": 1e-12}
        directions, centres = ops.normalize(inputs, axis=-1, **unit), ops.normalize(self.kernel, axis=1, **unit)
        cosines = ops.einsum("nke,kecs->nkcs", directions, centres)
        return ops.logsumexp(self.scale * cosines, axis=-1)

    def get_config(self):
        """Arguments of the constructor."""
        return {**super().get_config(), "n_classes": self.n_classes, "sub_centres": self.sub_centres}


def margin_softmax_loss(labels: tf.Tensor, logits: tf.Tensor, *, alpha: tf.Tensor, margin: float) -> tf.Tensor:
    """ArcFace loss (Deng et al. 2019, eq. 3) for labels that may be mixtures of classes; shape (n, ...).

    The margin is that of the class j with the largest part, ``exp(a cos(t_j + m))`` in place of ``exp(a cos t_j)``; the
    others' parts are softmax cross-entropy (after Choi and Choi, Noisy-ArcMix, 2023). Where ``t_j`` is above
    ``pi - m``, ``cos t_j - m sin m`` takes the place of ``cos(t_j + m)``, which would rise again (the authors' code):
    without it a network learns to turn its embeddings away from all classes.

    Parameters
    ----------
    labels : (n, ..., n_classes), each row sums to one
    logits : (n, ..., n_classes), ``alpha * cos t``
    margin : float [rad]
    """
    cosines = tf.clip_by_value(logits / alpha, -1 + 1e-6, 1 - 1e-6)  # acos has no gradient at the ends
    turned = tf.where(
        cosines > -math.cos(margin), tf.cos(tf.acos(cosines) + margin), cosines - margin * math.sin(margin)
    )
    largest = tf.one_hot(tf.argmax(labels, axis=-1), logits.shape[-1])
    with_margin = tf.nn.log_softmax(tf.where(largest > 0, alpha * turned, logits))
    return -tf.reduce_sum(labels * tf.where(largest > 0, with_margin, tf.nn.log_softmax(logits)), axis=-1)
