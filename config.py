"""The YAML: read once, checked whole, passed on as frozen dataclasses.

Every key is a field of a dataclass below; ``key(...)`` says what is allowed. A key without a default must stand in the
YAML. To give a system a new setting, add a field to its model's dataclass and the key to ``baseline.yaml``.
"""

import dataclasses
import difflib
import importlib
import math
import reprlib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from common import UserError

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "nadam", "adamax", "adagrad", "adadelta", "lion")
AE_LOSSES = ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh")
LOSSES = (*AE_LOSSES, "categorical_crossentropy")
AGGREGATES = ("mean", "median", "std", "max")  # of the errors of a clip's vectors, to its score
TRAINING_DATA = ("dev", "eval", "dev+eval")
MAX_INT = 2**31 - 1  # of whole numbers: TensorFlow counts in 32 bits
MAX_NAME_BYTES = 200  # of a file or folder; file systems take 255, and a file that is being written has a longer name
MAX_SHOWN = 80  # characters of a value in a message
MAX_KEYS = 10_000  # of one block of the YAML


def key(*, low=None, above=None, high=None, below=None, multiple_of=None, choices=None, default=dataclasses.MISSING):
    """Field of a YAML block with its allowed range (``low`` and ``high`` included) or choices."""
    allowed = {"low": low, "above": above, "high": high, "below": below, "multiple_of": multiple_of, "choices": choices}
    return dataclasses.field(default=default, metadata={k: v for k, v in allowed.items() if v is not None})


@dataclass(frozen=True)
class Feature:
    """Log-mel energies, as the official baseline's ``feature`` block."""

    n_mels: int = key(low=1, high=4096)
    frames: int = key(low=1)  # frames in one input of the model
    n_fft: int = key(low=2, high=2**20, multiple_of=2)  # [samples]
    hop_length: int = key(low=1)  # [samples]
    power: float = key(low=0.1, high=8)  # the energies of loud and silent clips stay numbers, also in 16 bits
    pad_mode: str = key(choices=("constant", "reflect"), default="constant")

    @property
    def min_samples(self) -> int:
        """Length of the shortest clip that gives one input [samples]."""
        return max(1, (self.frames - 1) * self.hop_length)


@dataclass(frozen=True)
class Modulation:
    """A modulation spectrum: how strongly and how fast the envelopes of frequency bands go up and down."""

    n_bands: int = key(low=1)
    low_frequency: float = key(above=0)  # [Hz]
    high_frequency: float | None = key(above=0)  # [Hz]; null: half the sample rate
    window: float = key(above=0, high=10)  # [s]
    hop: float = key(above=0, high=10)  # [s]
    power: int = key(choices=(1, 2))  # of the envelopes
    n_modulations: int = key(low=1)
    low_modulation: float = key(above=0)  # [Hz]
    high_modulation: float = key(above=0)  # [Hz]
    segment: float = key(above=0, high=60)  # [s]


@dataclass(frozen=True)
class Descriptor:
    """Numbers that describe a whole clip (descriptors.py), for the systems that do not look at log-mel frames.

    ``statistics`` are of the log-mel energies of the system's ``feature`` block.
    """

    parts: tuple[tuple[str, ...], ...] = key(choices=("slow", "fast", "statistics"))  # in groups, see neighbor_model
    level: float = key(low=0, high=1)  # of ``statistics``: share of the clip's overall level in that of a band
    slow: Modulation
    fast: Modulation


@dataclass(frozen=True)
class Compile:
    """Arguments of Keras's ``compile`` and of its optimiser, whose own learning rate is taken where it is null."""

    optimizer: str = key(choices=OPTIMIZERS)
    loss: str = key(choices=LOSSES)
    learning_rate: float | None = key(above=0, default=None)  # noqa: RUF009
    learning_rate_schedule: str = key(choices=("constant", "cosine"), default="constant")
    use_ema: bool = key(default=False)  # the model gets a moving average of its weights when it is trained
    ema_momentum: float = key(low=0, below=1, default=0.99)


@dataclass(frozen=True)
class Fit:
    """Arguments of Keras's ``fit``, as the official baseline's ``fit`` block."""

    compile: Compile
    epochs: int = key(low=1)
    batch_size: int = key(low=1)
    shuffle: bool = key()
    validation_split: float = key(low=0, below=1)
    verbose: int = key(choices=(0, 1, 2))
    precision: str = key(choices=("float32", "mixed_float16", "mixed_bfloat16"), default="float32")


@dataclass(frozen=True)
class DenseAutoencoder:
    """Dense + BN + ReLU for each of ``units``, then a linear layer of the input's size."""

    MODULE: ClassVar[str] = "keras_model"
    AFTER_TRAINING: ClassVar[tuple[str, ...]] = ("aggregate",)
    hop: ClassVar[int] = 1
    units: tuple[int, ...] = key(low=1)
    aggregate: str = key(choices=AGGREGATES, default="mean")


@dataclass(frozen=True)
class VariationalAutoencoder:
    """Dense + BN + ReLU for each of ``units``, a Gaussian latent vector, and the same layers in reverse order."""

    MODULE: ClassVar[str] = "keras_model"
    AFTER_TRAINING: ClassVar[tuple[str, ...]] = ("aggregate",)
    hop: ClassVar[int] = 1
    units: tuple[int, ...] = key(low=1)
    latent: int = key(low=1)
    kl_weight: float = key(low=0)
    aggregate: str = key(choices=AGGREGATES, default="mean")


@dataclass(frozen=True)
class ConvAutoencoder:
    """2-D convolutional autoencoder on patches of ``feature.frames`` frames (Ribeiro et al. 2020)."""

    MODULE: ClassVar[str] = "keras_model"
    AFTER_TRAINING: ClassVar[tuple[str, ...]] = ("aggregate",)
    LAYERS: ClassVar[tuple] = ((5, (1, 2)), (5, (1, 2)), (5, (2, 2)), (3, (2, 2)), (3, (2, 2)))  # kernel, strides

    filters: tuple[int, ...] = key(low=1)  # of each convolution
    latent: int = key(low=1)
    hop: int = key(low=1)  # from one patch to the next [frames]
    aggregate: str = key(choices=AGGREGATES, default="mean")

    def fault(self, feature: Feature) -> str | None:
        """Which key does not fit the strides, None where all fit."""
        if len(self.filters) != len(self.LAYERS):
            return f"model.filters: {list(self.filters)}; expected {len(self.LAYERS)} numbers, one for each convolution"
        for axis, name in enumerate(("frames", "n_mels")):
            step = math.prod(strides[axis] for _, strides in self.LAYERS)
            if getattr(feature, name) % step:
                return f"feature.{name}: {getattr(feature, name)}; expected a multiple of {step} for the strides"
        return None


@dataclass(frozen=True)
class OfficialModel:
    """Files that the official baseline has trained; for ``--official-model``, no part of the YAML."""

    MODULE: ClassVar[str] = "keras_model"
    hop: ClassVar[int] = 1
    aggregate: ClassVar[str] = "mean"
    directory: Path


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Keys of an outlier detector on one vector per clip; they do not decide what is trained."""

    AFTER_TRAINING: ClassVar[tuple[str, ...]] = ("score", "lof_per", "n_neighbors", "n_nearest", "metric")
    SCORES: ClassVar[tuple[str, ...]] = ("lof", "knn", "density")
    STANDARDISED: ClassVar[bool] = False  # each number of a vector, by the training clips that share the detector

    score: str = key(choices=SCORES)
    lof_per: str = key(choices=("machine_type", "machine_id"))  # clips that share a detector
    n_neighbors: int = key(low=1)
    n_nearest: int = key(low=1, default=5)  # of density alone: training clips that a score is the mean over
    metric: str = key(choices=("euclidean", "cosine", "manhattan"))


@dataclass(frozen=True, kw_only=True)
class Classifier(Detector):
    """What the classifiers share: L2 normalisation, softmax; then an outlier detector on the embeddings."""

    MODULE: ClassVar[str] = "metric_model"

    classes: str = key(choices=("machine_type", "machine_id"))  # what the network learns to tell apart
    alpha: float | str = key(above=0, choices=("trained",))  # norm of the embeddings
    mixup: float = key(low=0)  # parameter of the Beta distribution; 0: none
    mixup_share: float = key(low=0, high=1, default=1.0)  # of the examples that are mixed
    score: str = key(choices=(*Detector.SCORES, "softmax"))


@dataclass(frozen=True, kw_only=True)
class L2Softmax(Classifier):
    """MobileNetV2 on windows of log-mel energies (report, section 3)."""

    margin: float = key(low=0, below=1.5)  # [rad] of ArcFace; 0: the report's L2-softmax
    width: float = key(above=0)  # of MobileNetV2, which calls it alpha
    weights: str | None = key()  # null: random; imagenet; or the path of a file
    input_size: int | None = key(low=32)  # side of the square that the input is resized to; null: it is not
    resize: str = key(choices=("bilinear", "nearest", "bicubic"))
    scaling: str = key(choices=("standard", "standard_per_band", "minmax"))  # of the log-mel energies


@dataclass(frozen=True, kw_only=True)
class DenseL2Softmax(Classifier):
    """Dense layers on the descriptor of a clip: the report's L2-softmax on another input."""

    network_per: str = key(choices=("all", "machine_type"))  # whose machine IDs one network learns to tell apart
    networks: int = key(low=1, high=64)  # of different start weights; each has detectors of its own, scores are summed
    units: tuple[int, ...] = key(low=1)  # of the layers, Dense + BN + ReLU each
    embedding: int = key(low=2)  # numbers of an embedding
    exchange: float = key(low=0, high=1)  # share of the examples whose lower bands are those of another clip
    noise: float = key(low=0, default=0.0)  # added to each number in training [its deviation]
    min_steps: int = key(low=0)  # training steps; with few clips there are more epochs than fit.epochs
    max_passes: int = key(low=1, default=150)  # over a clip, for the sake of min_steps
    folds: int = key(low=1, high=100, default=5)  # at most, each left out of a training, to be scored as new; 1: none


@dataclass(frozen=True, kw_only=True)
class Neighbors(Detector):
    """No network: an outlier detector on each part of the descriptors."""

    MODULE: ClassVar[str] = "neighbor_model"
    AFTER_TRAINING: ClassVar[tuple[str, ...]] = (*Detector.AFTER_TRAINING, "combine", "decorrelation")
    STANDARDISED: ClassVar[bool] = True

    combine: str = key(choices=("max", "sum"))  # how the scores of a descriptor's parts become one
    decorrelation: float = key(low=0, high=1, default=0.0)  # of the numbers of a vector; 1: they are whitened


@dataclass(frozen=True)
class Fusion:
    """Weighted sum of the standardised log scores of other systems."""

    MODULE: ClassVar[str] = "fusion"
    AFTER_TRAINING: ClassVar[tuple[str, ...]] = ("members",)
    members: dict[str, float] = key(above=0)  # system -> weight


MODELS = {
    "dense_ae": DenseAutoencoder,
    "vae": VariationalAutoencoder,
    "conv_ae": ConvAutoencoder,
    "l2_softmax": L2Softmax,
    "dense_l2_softmax": DenseL2Softmax,
    "neighbors": Neighbors,
    "fusion": Fusion,
}
GENERAL = {"feature": Feature, "fit": Fit, "descriptor": Descriptor}  # blocks that stand once, and in systems again
WITHOUT = {  # model type -> general blocks without effect on it; "descriptor" for those not named here
    "dense_l2_softmax": set(),
    "neighbors": {"fit"},
    "fusion": {"feature", "fit", "descriptor"},
}
DESCRIBED = (DenseL2Softmax, Neighbors)  # models whose input is a descriptor of the whole clip


@dataclass(frozen=True)
class System:
    """One named system: its model, and its features and fit with the general blocks filled in."""

    name: str
    model: Any  # a dataclass of MODELS
    feature: Feature
    fit: Fit
    descriptor: Descriptor | None = None  # of the models in DESCRIBED
    members: tuple["System", ...] = ()  # of a Fusion

    @property
    def model_type(self) -> str:
        """The ``type`` of the YAML's model block."""
        return next(name for name, model in MODELS.items() if isinstance(self.model, model))

    @property
    def min_samples(self) -> int:
        """Length of the shortest clip that can be used [samples]; a classifier repeats a clip that is too short.

        A deviation takes two of an autoencoder's vectors.
        """
        if isinstance(self.model, Fusion):
            return max(member.min_samples for member in self.members)
        if isinstance(self.model, Detector):
            return 1
        second = self.model.hop * self.feature.hop_length if self.model.aggregate == "std" else 0
        return self.feature.min_samples + second

    @property
    def module(self) -> types.ModuleType:
        """Module with the model's functions, imported when first asked for (it brings TensorFlow)."""
        return importlib.import_module(self.model.MODULE)


@dataclass(frozen=True)
class Submission:
    """One entry of the submission package."""

    system: str
    training_data: str = key(choices=("eval", "dev+eval"))


@dataclass(frozen=True)
class Config:
    """The whole YAML."""

    dev_directory: Path
    eval_directory: Path
    model_directory: Path
    result_directory: Path
    cache_directory: Path | None  # null: log-mel energies are computed anew in each run
    result_file: str
    max_fpr: float = key(above=0, high=1)
    seed: int = key(low=0, high=2**32 - 1)
    cache_gigabytes: float = key(above=0)
    feature: Feature = key()
    fit: Fit = key()
    system: tuple[str, ...] = key()  # what runs without --system
    systems: dict[str, System] = key()
    submissions: dict[int, Submission] = key()
    names: str = key(choices=("official", "any"), default="official")  # of the clips
    channel: int | str | None = key(low=0, choices=("mean",), default=None)  # of the clips; null: they have one
    descriptor: Descriptor | None = key(default=None)  # only where a system needs it
    distribution: str = key(choices=("none", "mirrored", "multi_worker"), default="none")
    decision: str = key(choices=("gamma", "empirical"), default="gamma")  # how a threshold follows from training scores
    decision_quantile: float = key(above=0, below=1, default=0.9)  # of normal clips

    def directory(self, split: str) -> Path:
        """Folder of the ``dev`` or ``eval`` dataset."""
        return self.dev_directory if split == "dev" else self.eval_directory

    def model_folder(self, training_data: str, system_name: str) -> Path:
        """Folder of a system's models."""
        return self.model_directory / training_data / system_name

    def result_folder(self, training_data: str, system_name: str) -> Path:
        """Folder of a system's score CSVs."""
        return self.result_directory / training_data / system_name

    def select(self, names: list[str] | None) -> list[System]:
        """The systems that the user asked for, or those that the YAML runs by default."""
        for name in names or ():
            if name not in self.systems:
                raise UserError(f"--system {name}: {_nearest(name, self.systems)}")
        return [self.systems[name] for name in dict.fromkeys(names or self.system)]


def load_config(path: Path) -> Config:
    """Read and check ``path``; relative folders in it are relative to the current directory, as in the baseline.

    Raises
    ------
    UserError : naming the first key that is unknown, missing, of the wrong type or out of range, and what is allowed.
    """
    try:
        block = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"--config: no file {path} (looked for {path.resolve()})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from error
    try:
        return _config(block)
    except InvalidKeyError as fault:
        raise UserError(f"{path}: {fault}") from fault


def read_yaml(path: Path, *, aliases: bool = True) -> Any:
    """Content of a YAML file as plain values; nothing in it is executed.

    Without ``aliases`` these (``*name``) are refused: by them, a few lines are a billion values.

    Raises
    ------
    OSError : if it cannot be read.
    ValueError : if it is no YAML, in words that fit on a screen.
    """
    text = path.read_text(encoding="utf-8")
    try:
        return yaml.load(text, Loader=_StrictLoader if aliases else _PlainLoader)
    except RecursionError:
        raise ValueError("its brackets or blocks are nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # PyYAML lets all of these through, such as OverflowError for a date, IndexError for an empty !!int
        raise ValueError(str(error)[:500]) from error


def is_plain_name(name: Any) -> bool:
    """True for text that can be the name of a file or folder on every system, and leads to no other folder."""
    plain = isinstance(name, str) and name.isprintable() and name not in ("", ".", "..")
    return plain and not set(name) & set('/\\:*?"<>|') and len(name.encode()) <= MAX_NAME_BYTES


class InvalidKeyError(Exception):
    """A key of the YAML and what is wrong with it."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice; YAML would silently take the last."""

    def construct_mapping(self, node, deep=False):
        """Construct a mapping after looking for keys that occur twice."""
        names = set()
        for child, _ in node.value:
            if not isinstance(child, yaml.ScalarNode):
                continue  # is refused below
            if child.value in names:
                fault = f"key {child.value[:MAX_SHOWN]} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, fault, child.start_mark)
            names.add(child.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node):
        """Take the keys of merged blocks (<<), a bounded number: blocks that merge blocks grow without end."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_KEYS:
            fault = f"a block of more than {MAX_KEYS} keys"
            raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)


class _PlainLoader(_StrictLoader):
    """The same without aliases, for files that we have written."""

    def compose_node(self, parent, index):
        """Compose a node unless it is an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias", self.peek_event().start_mark)
        return super().compose_node(parent, index)


def _config(block: Any) -> Config:
    """Build the Config; systems are read after the general feature and fit blocks, which they override."""
    _check_keys(Config, block, "")
    general = {name: block.get(name) or {} for name in GENERAL}
    values = {
        field.name: _value(field.type, block[field.name], field.name, field.metadata)
        for field in dataclasses.fields(Config)
        if field.name in block and field.name not in ("system", "systems", "submissions")
    }
    _check_mapping(block["systems"], "systems")
    blocks = {name if isinstance(name, str) else _name(name): system for name, system in block["systems"].items()}
    systems = _with_members({name: _system(name, system, general) for name, system in blocks.items()})
    chosen = [block["system"]] if isinstance(block["system"], str) else block["system"]
    chosen = _value(tuple[str, ...], chosen, "system", {})
    _check_mapping(block["submissions"], "submissions")
    submissions = {
        _value(int, number, "submissions", {"low": 1, "high": 4}): _block(Submission, entry, f"submissions.{number}")
        for number, entry in block["submissions"].items()
    }
    named = [("system", name) for name in chosen]
    named += [(f"submissions.{number}.system", entry.system) for number, entry in submissions.items()]
    for where, name in named:
        if name not in systems:
            raise InvalidKeyError(f"{where}: {name}: {_nearest(name, systems)}")
    if not is_plain_name(values["result_file"]):
        raise InvalidKeyError(f"result_file: {_shown(values['result_file'])}; expected a file name without folders")
    return Config(**values, system=chosen, systems=systems, submissions=submissions)


def _system(name: str, block: Any, general: dict[str, dict]) -> System:
    """One entry of ``systems``: ``model`` in full, and the ``general`` blocks where it differs from them."""
    where = f"systems.{_name(name)}"
    if not is_plain_name(name) or name.startswith("."):
        raise InvalidKeyError(f"{where}: a system's name becomes a folder: letters, digits, _ and -")
    _check_mapping(block, where)
    _check_known(block, ("model", *general), where)
    if isinstance(block.get("fit"), dict) and "verbose" in block["fit"]:
        raise InvalidKeyError(f"{where}.fit.verbose: set it in the general fit block: a run has one progress bar")
    model = block.get("model")
    _check_mapping(model, f"{where}.model")
    if "type" not in model:
        raise InvalidKeyError(f"{where}.model.type: missing; {', '.join(MODELS)} are there")
    model_type = _value(str, model["type"], f"{where}.model.type", {"choices": tuple(MODELS)})
    for without in sorted(set(block) & WITHOUT.get(model_type, {"descriptor"})):
        raise InvalidKeyError(f"{where}.{without}: has no effect on a model of type {model_type}; remove it")
    model = {k: v for k, v in model.items() if k != "type"}
    model = _block(MODELS[model_type], model, f"{where}.model")
    blocks = {
        key: _block(kind, _merged(general[key], block.get(key), f"{where}.{key}"), f"{where}.{key}")
        for key, kind in GENERAL.items()
        if key != "descriptor" or isinstance(model, DESCRIBED)
    }
    system = System(name, model, **blocks)
    fault = system.model.fault(system.feature) if isinstance(system.model, ConvAutoencoder) else None
    if fault:
        raise InvalidKeyError(f"{where}.{fault}")
    if "fit" not in WITHOUT.get(model_type, ()):
        losses = ("categorical_crossentropy",) if isinstance(model, Classifier) else AE_LOSSES
        _check_allowed(system.fit.compile.loss, f"{where}.fit.compile.loss", {"choices": losses})
    return system


def _with_members(systems: dict[str, System]) -> dict[str, System]:
    """The systems, each fusion with its members."""
    complete = dict(systems)
    for name, system in systems.items():
        if isinstance(system.model, Fusion):
            where = f"systems.{name}.model.members"
            for member in system.model.members:
                if member not in systems:
                    raise InvalidKeyError(f"{where}: {member}: {_nearest(member, systems)}")
                if isinstance(systems[member].model, Fusion):
                    raise InvalidKeyError(f"{where}: {member}: is a fusion itself; name its members")
            members = tuple(systems[member] for member in system.model.members)
            complete[name] = dataclasses.replace(system, members=members)
    return complete


def _merged(general: dict, own: dict | None, where: str) -> dict:
    """``general`` with the values of ``own`` in their place, block by block."""
    if own is None:
        return general
    _check_mapping(own, where)
    merged = dict(general)
    for name, value in own.items():
        both = isinstance(value, dict) and isinstance(general.get(name), dict)
        merged[name] = _merged(general[name], value, f"{where}.{name}") if both else value
    return merged


def _block(cls: type, block: Any, where: str) -> Any:
    """Instance of the dataclass ``cls`` from a YAML mapping."""
    _check_keys(cls, block, where)
    return cls(
        **{
            field.name: _value(field.type, block[field.name], f"{where}.{field.name}", field.metadata)
            for field in dataclasses.fields(cls)
            if field.name in block
        }
    )


def _check_keys(cls: type, block: Any, where: str) -> None:
    """Every key is a field of ``cls``, and every field without a default is there."""
    _check_mapping(block, where or "the file")
    fields = dataclasses.fields(cls)
    _check_known(block, [field.name for field in fields], where)
    for field in fields:
        if field.name not in block and field.default is dataclasses.MISSING:
            raise InvalidKeyError(f"{where + '.' if where else ''}{field.name}: missing")


def _check_mapping(block: Any, where: str) -> None:
    if not isinstance(block, dict):
        raise InvalidKeyError(f"{where}: {_shown(block)}; expected keys with values")


def _check_known(block: dict, known: typing.Iterable[str], where: str) -> None:
    for name in block:
        if name not in known:
            prefix = f"{where}." if where else ""
            raise InvalidKeyError(f"{prefix}{_name(name)}: unknown key; {_nearest(name, known)}")


def _shown(value: Any) -> str:
    """A value as Python writes it, cut to what a message can hold: an alias may hide a billion values."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"  # Python does not write the largest
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, MAX_SHOWN, MAX_SHOWN
    text = short.repr(value)
    return text if len(text) <= 2 * MAX_SHOWN else f"{text[: 2 * MAX_SHOWN]}..."


def _name(key: Any) -> str:
    """A key as text, cut to what a message can hold."""
    return key[:MAX_SHOWN] if isinstance(key, str) else _shown(key)


def _nearest(name: Any, known: typing.Iterable[str]) -> str:
    """What the user may have meant, and all there is."""
    close = difflib.get_close_matches(_name(name), known, n=1)
    return (f"did you mean {close[0]}? There" if close else "there") + f" is {', '.join(known)}"


def _value(kind: Any, value: Any, where: str, allowed: typing.Mapping) -> Any:
    """``value`` as ``kind`` (a type, a union, a tuple of one type or a dataclass), checked against what is allowed."""
    if dataclasses.is_dataclass(kind):
        return _block(kind, value, where)
    if isinstance(kind, types.UnionType):
        return _union(typing.get_args(kind), value, where, allowed)
    if typing.get_origin(kind) is dict:
        _check_mapping(value, where)
        if not value:
            raise InvalidKeyError(f"{where}: empty; expected a name and a number in each line")
        number = typing.get_args(kind)[1]
        return {_name(name): _value(number, item, f"{where}.{_name(name)}", allowed) for name, item in value.items()}
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list) or not value:
            raise InvalidKeyError(f"{where}: {_shown(value)}; expected a list, for example [128, 8, 128]")
        return tuple(_value(typing.get_args(kind)[0], item, where, allowed) for item in value)
    converted = _converted(kind, value)
    if converted is None:
        raise InvalidKeyError(f"{where}: {_shown(value)}; expected {_expected(kind, allowed)}")
    _check_allowed(converted, where, allowed, kind)
    return converted


def _union(kinds: tuple, value: Any, where: str, allowed: typing.Mapping) -> Any:
    """A value of one of several types; choices concern text, bounds concern numbers."""
    if value is None and types.NoneType in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not types.NoneType)
    rules = dict.fromkeys(kinds, allowed)
    if len(kinds) > 1:
        rules = {
            kind: {k: v for k, v in allowed.items() if (k == "choices") == (kind in (str, Path))} for kind in kinds
        }
    for kind in kinds:
        if typing.get_origin(kind) is tuple or dataclasses.is_dataclass(kind) or _converted(kind, value) is not None:
            return _value(kind, value, where, rules[kind])
    expected = " or ".join(_expected(kind, rules[kind]) for kind in kinds)
    raise InvalidKeyError(f"{where}: {_shown(value)}; expected {expected}")


def _converted(kind: type, value: Any) -> Any:
    """``value`` as ``kind``, None where it is of another type. YAML 1.1 reads 1e-3 as text; we take it as a number."""
    if isinstance(value, str) and "\0" in value:  # no system call takes it
        return None
    if isinstance(value, str) and not _is_text(value):
        return None
    if kind is Path:
        return Path(value) if isinstance(value, str) and value else None
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None
    return value if type(value) is kind else None


def _is_text(value: str) -> bool:
    """False for what no file can be called: YAML can write NUL and half of a surrogate pair."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _check_allowed(value: Any, where: str, allowed: typing.Mapping, kind: type = str) -> None:
    tests = {
        "low": lambda bound: value >= bound,
        "above": lambda bound: value > bound,
        "high": lambda bound: value <= bound,
        "below": lambda bound: value < bound,
        "multiple_of": lambda step: value % step == 0,
        "choices": lambda choices: value in choices,
    }
    if kind is int:
        allowed = {**allowed, "high": allowed.get("high", MAX_INT)} if value > MAX_INT else allowed
    if not all(tests[name](bound) for name, bound in allowed.items()) or (kind is float and not abs(value) < 1e300):
        hint = ""
        if "choices" in allowed and kind is str:
            close = difflib.get_close_matches(value, allowed["choices"], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
        raise InvalidKeyError(f"{where}: {_shown(value)}; expected {_expected(kind, allowed)}{hint}")


def _expected(kind: type, allowed: typing.Mapping) -> str:
    """What a value may be, in words."""
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "text", Path: "a path"}
    if kind in (str, int) and "choices" in allowed:
        return "one of " + ", ".join(str(choice) for choice in allowed["choices"])
    names = {"low": "at least", "above": "above", "high": "at most", "below": "below", "multiple_of": "a multiple of"}
    bounds = [f"{names[name]} {bound}" for name, bound in allowed.items() if name in names]
    return words.get(kind, str(kind)) + (" " + " and ".join(bounds) if bounds and kind in (int, float) else "")
