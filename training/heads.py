"""From what the layers of a classifier give to its embeddings, and from these to its classes."""

import math
from collections.abc import Sequence

import keras
from keras import layers

from config import Classifier
from training.metric_layers import CosineLogits, L2Constraint, SubclusterLogits

ALPHA_START = 16.0  # of a trained alpha


def l2_constraint(model: Classifier) -> L2Constraint:
    """Layer whose outputs are the embeddings."""
    trained = model.alpha == "trained"
    return L2Constraint(ALPHA_START if trained else float(model.alpha), trained, name="embedding")


def joint(
    model: Classifier,
    networks: Sequence[keras.KerasTensor],
    n_classes: int,
    *,
    sub_centres: int = 0,
    margin: float = 0.0,
) -> keras.KerasTensor:
    """Logits (n, n_networks, n_classes) of networks that share nothing but their input.

    Parameters
    ----------
    networks : what each gives, (n, n_numbers)
    sub_centres : of each class, to which the nearer ones count for more; 0: the report's softmax
    margin : of the loss, which takes logits that are cosines
    """
    n_numbers = networks[0].shape[-1]
    h = layers.Concatenate(axis=1)([layers.Reshape((1, n_numbers))(network) for network in networks])
    h = l2_constraint(model)(h)
    if sub_centres:
        return SubclusterLogits(n_classes, sub_centres, name="logits")(h)
    if margin:
        return CosineLogits(n_classes, name="logits")(h)
    limit = math.sqrt(6 / (n_numbers + n_classes))  # Glorot's, of each network
    return layers.EinsumDense(
        "nke,kec->nkc",
        (len(networks), n_classes),
        bias_axes="kc",
        kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        dtype="float32",
        name="logits",
    )(h)
