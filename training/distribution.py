"""Training on several GPUs, or on several machines: the YAML's ``distribution`` key, with tf.distribute.

Every replica gets the indices of the whole batch and takes its own part; the losses of the parts are weighted by their
sizes, and batch normalisation takes its statistics over all parts. A distributed step is therefore the same step as
that of one device, up to rounding, for any number of replicas and any batch size.

With ``multi_worker`` the same command is started on every machine, each with its own TF_CONFIG. One of them, the
chief, reads and writes the model folder; the others are told what it has read.
"""

import contextlib
import functools
import json
import logging
import os
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from common import UserError

EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'

logger = logging.getLogger(__name__)


@functools.cache
def strategy(kind: str) -> tf.distribute.Strategy:
    """The process's strategy for ``none``, ``mirrored`` or ``multi_worker``.

    TensorFlow wants that of several workers before it has computed anything.
    """
    if kind == "multi_worker":
        check_tf_config(os.environ.get("TF_CONFIG", ""))
        return tf.distribute.MultiWorkerMirroredStrategy()
    if kind == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(devices) > 1:
            return tf.distribute.MirroredStrategy([device.name for device in devices])
        logger.warning("distribution: mirrored: there is one device, %s; it trains alone", devices[0].name)
    return tf.distribute.get_strategy()


def check_tf_config(text: str) -> None:
    """Raise UserError unless ``text``, the value of TF_CONFIG, names the workers and which of them this one is."""
    try:
        settings = json.loads(text)
        hosts = {kind: list(names) for kind, names in settings["cluster"].items()}
        task = settings["task"]
        hosts[task["type"]][task["index"]]  # raises what is caught below if there is no such host
        known = set(hosts) <= {"chief", "worker"} and task["index"] >= 0 and hosts.get("worker")
    except (json.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError):
        known = False
    if not known:
        raise UserError(
            f"distribution: multi_worker: the environment variable TF_CONFIG is {text or 'not set'!r}\n"
            f"Expected on each machine, with its own index: {EXAMPLE}\n"
            "On one machine, set distribution: none, or mirrored for several GPUs."
        )


@contextlib.contextmanager
def lost_worker_is_user_error(used: tf.distribute.Strategy) -> Iterator[None]:
    """What TensorFlow raises when another worker does not answer becomes an error that says what to do."""
    try:
        yield
    except tf.errors.OpError as error:
        if used.cluster_resolver is None:
            raise
        raise UserError(
            f"another worker has stopped, or cannot be reached ({error.message.splitlines()[0][:200]})\n"
            "See its log for the cause. Then start the same command on all of them: training goes on after the last "
            "epoch that the chief has kept."
        ) from error


def is_distributed(used: tf.distribute.Strategy) -> bool:
    """True if a step is shared among several replicas or machines."""
    return isinstance(used, tf.distribute.MirroredStrategy | tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(used: tf.distribute.Strategy) -> bool:
    """True for the process that writes models: the only one, or the first of several workers."""
    resolver = used.cluster_resolver
    if resolver is None or not resolver.cluster_spec().jobs:
        return True
    kind = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (kind, 0)


def from_chief(used: tf.distribute.Strategy, content: bytes | None) -> bytes | None:
    """The chief's ``content``, on every worker; each must call this at the same place."""
    if used.cluster_resolver is None or not used.cluster_resolver.cluster_spec().jobs:
        return content

    @tf.function
    def total(numbers: tf.Tensor) -> tf.Tensor:
        def add() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = tf.equal(context.replica_id_in_sync_group, 0)  # a replica of the chief
            return context.all_reduce(tf.distribute.ReduceOp.SUM, numbers * tf.cast(first, numbers.dtype))

        return used.experimental_local_results(used.run(add))[0]

    with lost_worker_is_user_error(used):
        length = int(total(tf.constant([-1 if content is None else len(content)]))[0])
        if length < 1:  # TensorFlow's sum over no numbers kills the process
            return None if length < 0 else b""
        own = np.frombuffer((content or b"")[:length].ljust(length), np.uint8)
        return total(tf.constant(own, tf.int32)).numpy().astype(np.uint8).tobytes()


# ---- parts of a batch ----


def whole_batches(used: tf.distribute.Strategy, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches for ``fit``: every replica of the strategy is given each whole batch."""
    if not is_distributed(used):
        return batches

    if isinstance(used, tf.distribute.MirroredStrategy):
        options = tf.distribute.InputOptions(  # TensorFlow's default iterator takes seconds an epoch, and to end
            experimental_fetch_to_device=False,
            experimental_replication_mode=tf.distribute.InputReplicationMode.PER_REPLICA,
        )
        return used.distribute_datasets_from_function(lambda _: batches, options)

    def for_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        n_local = context.num_replicas_in_sync // context.num_input_pipelines
        return batches.flat_map(lambda batch: tf.data.Dataset.from_tensors(batch).repeat(n_local))

    return used.distribute_datasets_from_function(for_worker)


def own_part(batch: tf.Tensor, *, never_empty: bool = False) -> tf.Tensor:
    """The part of a whole batch that this replica works on; all of it outside of a distributed step."""
    batch = tf.cast(batch, tf.int32)  # Keras builds a model with a mean over replicas
    return own_rows(batch, never_empty=never_empty)


def own_rows(values: tf.Tensor, *, never_empty: bool = False) -> tf.Tensor:
    """The same of ``values`` that have a row for each index of the batch.

    Parameters
    ----------
    never_empty : bool, a batch smaller than the number of replicas goes to each of them as a whole; TensorFlow's
        convolutions do not bear a part without rows
    """
    first, step = replica()
    if step == 1:
        return values
    n = tf.shape(values)[0]
    if never_empty:
        first, step = (tf.where(n < step, alone, several) for alone, several in ((0, first), (1, step)))
    return tf.gather(values, tf.range(first, n, step))


def row_weight(batch: tf.Tensor) -> tf.Tensor:
    """By what a row of a part that is never empty counts: less than 1 where all replicas have the same rows."""
    n_replicas = replica()[1]
    return tf.where(tf.shape(batch)[0] < n_replicas, 1 / n_replicas, 1.0)


def replica() -> tuple[int | tf.Tensor, int]:
    """Number of this replica and how many there are; 0 and 1 outside of a distributed step."""
    context = tf.distribute.get_replica_context()
    if context is None:
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync


def own_tensors(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Those of ``tensors`` that are on this replica's device; all of them outside of a distributed step."""
    if replica()[1] == 1:
        return tensors

    def place(device: str) -> tuple:
        spec = tf.DeviceSpec.from_string(device)
        return spec.device_type, spec.device_index

    here = place(tf.zeros(()).device)
    return [tensor for tensor in tensors if place(tensor.device) == here]


def share(batch: tf.Tensor, *, never_empty: bool = False) -> tf.Tensor:
    """By what a mean over this replica's part counts in the mean over the replicas; 1 where parts are of equal size."""
    parts = tf.shape(own_part(batch, never_empty=never_empty))[0] * replica()[1]
    weight = row_weight(batch) if never_empty else 1.0
    return tf.cast(parts, tf.float32) / tf.cast(tf.shape(batch)[0], tf.float32) * weight


def reducible(logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A replica's metrics as Keras can average them over workers: it takes the mean along their first axis."""
    return {name: value[None] for name, value in logs.items()}


def synchronise(network: keras.Model, yes: bool) -> None:
    """Have batch normalisation take its statistics over the whole batch, or (to be saved) over what it is given."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            synchronise(layer, yes)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = yes
