"""The YAML: read once, checked whole, passed on as frozen dataclasses.

Every key is a field of a dataclass, here or in audio/settings.py, whose type says what is allowed. A key without a
default must stand in the YAML. To give a system a new setting, add a field to its model's dataclass and the key to
``baseline.yaml``; a new kind of model is a dataclass with ``@model`` and a block of that ``type``.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, ValidationInfo
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from audio.settings import Descriptor, Feature, Spectra
from common import UserError, fault_list
from storage import blocks
from storage.blocks import KEYS, FileName, FilePath, PathText, filled, is_plain_name, nearest, number, read_block, whole
from storage.strict_yaml import read_yaml
from years import year as years

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "nadam", "adamax", "adagrad", "adadelta", "lion")
AE_LOSSES = ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh")
LOSSES = (*AE_LOSSES, "categorical_crossentropy")
OF_ERRORS = ("mean", "median", "std", "max")  # aggregates of the errors of a clip's vectors, to its score
OF_RESIDUALS = ("mahalanobis", "mahalanobis_official")  # of what its frames and their reconstructions differ by
AGGREGATES = (*OF_ERRORS, *OF_RESIDUALS)
MAX_SEED = 2**32 - 2**16  # NumPy takes less than 2**32, and each network adds a little


def _known_system(name: str, info: ValidationInfo) -> str:
    if info.context is not None and name not in info.context:  # the YAML's systems, while it is read
        words = {"words": f"{blocks.key_text(name)}: {nearest(name, info.context)}"}
        raise PydanticCustomError("told", "{words}", words)
    return name


def _known_year(year: int) -> int:
    if year not in years.known_years():
        raise PydanticCustomError("expected", f"one of {', '.join(map(str, years.known_years()))}")
    return year


SystemName = Annotated[str, AfterValidator(_known_system)]
ListOrOne = BeforeValidator(lambda names: [names] if isinstance(names, str) else names)


@dataclass(frozen=True, config=KEYS)
class Compile:
    """Arguments of Keras's ``compile`` and of its optimiser, whose own learning rate is taken where it is null."""

    optimizer: Literal[OPTIMIZERS]
    loss: Literal[LOSSES]
    learning_rate: number(gt=0) | None = None
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    use_ema: StrictBool = False  # the model gets a moving average of its weights when it is trained
    ema_momentum: number(ge=0, lt=1) = 0.99


@dataclass(frozen=True, config=KEYS)
class Fit:
    """Arguments of Keras's ``fit``, as the official baseline's ``fit`` block."""

    compile: Compile
    epochs: whole(1)
    batch_size: whole(1)
    shuffle: StrictBool
    validation_split: number(ge=0, lt=1)
    verbose: whole(0, 2)
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"


GENERAL = ("feature", "fit", "descriptor", "spectra")  # blocks that stand once, and in systems where they differ
MODELS: dict[str, type] = {}  # the ``type`` of a model block -> its dataclass


def model(name: str) -> Callable[[type], type]:
    """Make a class the frozen dataclass into which model blocks of this ``type`` are read.

    Its MODULE trains it, the general BLOCKS have an effect on it, LOSSES can train it, and its keys AFTER_TRAINING do
    not decide what is trained.
    """

    def register(cls: type) -> type:
        cls.TYPE, MODELS[name] = name, dataclass(frozen=True, config=KEYS)(cls)
        return MODELS[name]

    return register


@dataclass(frozen=True, kw_only=True, config=KEYS)
class Autoencoder:
    """What the autoencoders share."""

    MODULE = "keras_model"
    BLOCKS = ("feature", "fit")
    LOSSES = AE_LOSSES
    AFTER_TRAINING = ("aggregate",)

    aggregate: Literal[AGGREGATES] = "mean"


@model("dense_ae")
class DenseAutoencoder(Autoencoder):
    """Dense + BN + ReLU for each of ``units``, then a linear layer of the input's size."""

    hop = 1  # from one input to the next [frames]
    units: filled(tuple[whole(1), ...])


@model("vae")
class VariationalAutoencoder(Autoencoder):
    """Dense + BN + ReLU for each of ``units``, a Gaussian latent vector, and the same layers in reverse order."""

    hop = 1
    units: filled(tuple[whole(1), ...])
    latent: whole(1)
    kl_weight: number(ge=0)


@model("conv_ae")
class ConvAutoencoder(Autoencoder):
    """2-D convolutional autoencoder on patches of ``feature.frames`` frames (Ribeiro et al. 2020)."""

    LAYERS = ((5, (1, 2)), (5, (1, 2)), (5, (2, 2)), (3, (2, 2)), (3, (2, 2)))  # kernel, strides

    filters: filled(tuple[whole(1), ...])  # of each convolution
    latent: whole(1)
    hop: whole(1)  # from one patch to the next

    def faults(self, feature: Feature) -> Iterator[tuple[tuple[str, str], str]]:
        """Keys that do not fit the strides, and what would."""
        if len(self.filters) != len(self.LAYERS):
            words = f"expected {len(self.LAYERS)} numbers, one for each convolution"
            yield ("model", "filters"), f"{list(self.filters)}; {words}"
        for axis, name in enumerate(("frames", "n_mels")):
            step, value = math.prod(strides[axis] for _, strides in self.LAYERS), getattr(feature, name)
            if value % step:
                yield ("feature", name), f"{value}; expected a multiple of {step} for the strides"


@dataclass(frozen=True, kw_only=True, config=KEYS)
class Detector:
    """Keys of an outlier detector on one vector per clip; they do not decide what is trained."""

    AFTER_TRAINING = ("score", "lof_per", "n_neighbors", "n_nearest", "metric")
    STANDARDISED = False  # each number of a vector, by the training clips that share the detector

    score: Literal["lof", "knn", "density"]
    lof_per: Literal["machine_type", "machine_id"]  # clips that share a detector
    n_neighbors: whole(1)
    n_nearest: whole(1) = 5  # of density alone: training clips that a score is the mean over
    metric: Literal["euclidean", "cosine", "manhattan"]


@dataclass(frozen=True, kw_only=True, config=KEYS)
class Classifier(Detector):
    """What the classifiers share: L2 normalisation, softmax; then an outlier detector on the embeddings."""

    MODULE = "metric_model"
    BLOCKS = ("feature", "fit")
    LOSSES = ("categorical_crossentropy",)

    classes: Literal["machine_type", "machine_id", "attributes"]  # what the network learns to tell apart
    alpha: number(gt=0) | Literal["trained"]  # norm of the embeddings
    mixup: number(ge=0)  # parameter of the Beta distribution; 0: none
    mixup_share: number(ge=0, le=1) = 1.0  # of the examples that are mixed
    score: Literal["lof", "knn", "density", "softmax"]


@model("l2_softmax")
class L2Softmax(Classifier):
    """MobileNetV2 on windows of log-mel energies (report, section 3)."""

    margin: number(ge=0, lt=1.5)  # [rad] of ArcFace; 0: the report's L2-softmax
    width: number(gt=0)  # of MobileNetV2, which calls it alpha
    weights: PathText | None  # null: random; imagenet; or the path of a file
    input_size: whole(32) | None  # side of the square that the input is resized to; null: it is not
    resize: Literal["bilinear", "nearest", "bicubic"]
    scaling: Literal["standard", "standard_per_band", "minmax"]  # of the log-mel energies


@dataclass(frozen=True, kw_only=True, config=KEYS)
class ClipClassifier(Classifier):
    """What the classifiers share that hear a clip as a whole: the report's L2-softmax on another input."""

    network_per: Literal["all", "machine_type"]  # whose machine IDs one network learns to tell apart
    networks: whole(1, 64)  # of different start weights; each has detectors of its own, scores are summed
    embedding: whole(2)  # numbers of an embedding
    min_steps: whole(0)  # training steps; with few clips there are more epochs than fit.epochs
    max_passes: whole(1) = 150  # over a clip, for the sake of min_steps
    folds: whole(1, 100) = 5  # at most, each left out of a training, to be scored as new; 1: none


@model("dense_l2_softmax")
class DenseL2Softmax(ClipClassifier):
    """Dense layers on the descriptor of a clip."""

    BLOCKS = ("feature", "fit", "descriptor")

    units: filled(tuple[whole(1), ...])  # of the layers, Dense + BN + ReLU each
    exchange: number(ge=0, le=1)  # share of the examples whose lower bands are those of another clip
    shift: number(ge=0, le=1) = 0.0  # share of the others, whose bands are all shifted up or down
    noise: number(ge=0) = 0.0  # added to each number in training [its deviation]


@model("spectral_l2_softmax")
class SpectralL2Softmax(ClipClassifier):
    """Convolutions on the spectra of a clip's waveform, a branch for each; an embedding is that of all branches."""

    BLOCKS = ("fit", "spectra")

    filters: filled(tuple[whole(1), ...])  # of a spectrogram's stages, two residual blocks each
    over_time: Literal["max", "mean"]
    l2: number(ge=0)  # of the weights
    sub_centres: whole(0)  # of each class (sub-cluster AdaCos); 0: the report's softmax
    margin: number(ge=0, lt=1.5) = 0.0  # [rad] of the class that has the largest part of a mixture


@model("neighbors")
class Neighbors(Detector):
    """No network: an outlier detector on each part of the descriptors."""

    MODULE = "neighbor_model"
    BLOCKS = ("feature", "descriptor")
    AFTER_TRAINING = (*Detector.AFTER_TRAINING, "combine", "decorrelation")
    STANDARDISED = True

    combine: Literal["max", "sum"]  # how the scores of a descriptor's parts become one
    decorrelation: number(ge=0, le=1) = 0.0  # of the numbers of a vector; 1: they are whitened


@model("fusion")
class Fusion:
    """Weighted sum of the standardised log scores of other systems."""

    MODULE = "fusion"
    BLOCKS = ()
    AFTER_TRAINING = ("members",)

    members: filled(dict[SystemName, number(gt=0)], description="a system and its weight in each line")


@dataclasses.dataclass(frozen=True)
class System:
    """One named system: its model, and its features and fit with the general blocks filled in."""

    name: str
    model: Any  # a dataclass of MODELS
    feature: Feature
    fit: Fit
    descriptor: Descriptor | None = None  # of the models that have it in their BLOCKS
    spectra: Spectra | None = None  # the same
    members: tuple["System", ...] = ()  # of a Fusion

    @property
    def model_type(self) -> str:
        """The ``type`` of the YAML's model block."""
        return self.model.TYPE

    @property
    def min_samples(self) -> int:
        """Length of the shortest clip that can be used [samples]; a classifier repeats a clip that is too short.

        A deviation takes two of an autoencoder's vectors.
        """
        if isinstance(self.model, Fusion):
            return max(member.min_samples for member in self.members)
        if isinstance(self.model, Detector):
            return 1
        hop = self.model.hop if getattr(self.model, "aggregate", None) == "std" else 0
        return self.feature.min_samples + hop * self.feature.hop_length


@dataclass(frozen=True, config=KEYS)
class Submission:
    """One entry of the submission package."""

    system: SystemName
    training_data: Literal["eval", "dev+eval"]


@dataclass(frozen=True, config=KEYS)
class Config:
    """The whole YAML."""

    dev_directory: FilePath
    eval_directory: FilePath
    model_directory: FilePath
    result_directory: FilePath
    cache_directory: FilePath | None  # null: log-mel energies are computed anew in each run
    result_file: FileName
    max_fpr: number(gt=0, le=1)
    seed: whole(0, MAX_SEED)
    cache_gigabytes: number(gt=0)
    feature: Feature
    fit: Fit
    system: Annotated[filled(tuple[SystemName, ...]), ListOrOne]  # what runs without --system
    systems: dict[str, System]
    submissions: Annotated[dict[whole(1, 4), Submission], Field(description="a number from 1 to 4 each")]
    names: Literal["official", "any"] = "official"  # of the clips
    channel: whole(0, description="0 is the first channel") | Literal["mean"] | None = None  # null: the clips have one
    year: Annotated[whole(0), AfterValidator(_known_year)] = years.DEFAULT  # of the challenge, with official names
    supplemental: StrictBool = False  # whether supplemental clips, of the machine alone, are trained on too
    descriptor: Descriptor | None = None  # this and the next only where a system needs them
    spectra: Spectra | None = None
    distribution: Literal["none", "mirrored", "multi_worker"] = "none"
    decision: Literal["gamma", "empirical"] = "gamma"  # how a threshold follows from training scores
    decision_quantile: number(gt=0, lt=1) = 0.9  # of normal clips

    @property
    def challenge(self) -> years.Year:
        """The year's file."""
        return years.read_year(self.year)

    def directory(self, split: str) -> Path:
        """Folder of the ``dev`` or ``eval`` dataset."""
        return self.dev_directory if split == "dev" else self.eval_directory

    def model_folder(self, training_data: str, system_name: str) -> Path:
        """Folder of a system's models."""
        return self.model_directory / training_data / system_name

    def result_folder(self, scored_by: str, system_name: str) -> Path:
        """Folder of a system's score CSVs, see :func:`common.scored_by`."""
        return self.result_directory / scored_by / system_name

    def select(self, names: list[str] | None) -> list[System]:
        """The systems that the user asked for, or those that the YAML runs by default."""
        for name in names or ():
            if name not in self.systems:
                raise UserError(f"--system {name}: {nearest(name, self.systems)}")
        return [self.systems[name] for name in dict.fromkeys(names or self.system)]


# ---- reading ----


def load_config(path: Path) -> Config:
    """Read and check ``path``; relative folders in it are relative to the current directory, as in the baseline.

    Raises
    ------
    UserError : naming each key that is unknown, missing, of the wrong type or out of range, and what is allowed.
    """
    try:
        block = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"--config: no file {path} (looked for {path.resolve()})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from error
    faults: blocks.Faults = {}
    config = _config(block, faults)
    lines = blocks.in_order(faults, block)
    if len(lines) == 1:
        raise UserError(f"{path}: {lines[0]}")
    if lines:
        raise fault_list(f"{path}: {len(lines)} faults", lines, "Mend them, then run again.")
    return config


def _config(block: Any, faults: blocks.Faults) -> Config | None:
    """Build the Config; systems are read with the general blocks, which they override."""
    own = block.get("systems") if isinstance(block, dict) else None
    if not isinstance(own, dict):
        return read_block(Config, block, faults)
    names = [blocks.key_text(name) for name in own]
    read = {name: _system(name, own[name], block, names, faults) for name in own}
    systems = _with_members({name: system for name, system in read.items() if system}, faults)
    config = read_block(Config, block | {"systems": systems}, faults, context=names)
    if config and config.names == "any" and config.year != years.DEFAULT:
        faults["year",] = f"{config.year}; has no effect with names: any; remove it"
    elif config and config.names == "official" and config.channel is None:
        config = dataclasses.replace(config, channel=config.challenge.channel)
    for where, words in list(faults.items()):
        if where[:1] == ("systems",) and faults.get(where[2:]) in (words, "missing"):  # of a general block, told there
            del faults[where]
    return config


@dataclass(frozen=True, config=KEYS)
class _Blocks:
    """What one of ``systems`` consists of."""

    model: dict
    feature: Feature
    fit: Fit
    descriptor: Descriptor | None = None
    spectra: Spectra | None = None


def _system(name: Any, own: Any, general: dict, names: list[str], faults: blocks.Faults) -> System | None:
    """One entry of ``systems``: ``model`` in full, and the general blocks where it differs from them."""
    where = ("systems", name)
    if not is_plain_name(name) or name.startswith("."):
        faults[where] = "a system's name becomes a folder: letters, digits, _ and -"
    if not isinstance(own, dict):
        return read_block(_Blocks, own, faults, where)
    merged = {key: blocks.merged(general.get(key), own.get(key)) for key in GENERAL}
    parts = read_block(_Blocks, own | merged, faults, where)
    if not isinstance(own.get("model"), dict):
        return None
    keys = dict(own["model"])
    if "type" not in keys:
        faults[(*where, "model", "type")] = f"missing; {', '.join(MODELS)} are there"
        return None
    model_type = read_block(Literal[tuple(MODELS)], keys.pop("type"), faults, (*where, "model", "type"))
    if model_type is None:
        return None
    model = read_block(MODELS[model_type], keys, faults, (*where, "model"), context=names)
    faults |= {(*where, *at): words for at, words in _misfits(MODELS[model_type], own, model, parts)}
    if any(at[:2] == where for at in faults):
        return None
    heard = {key: getattr(parts, key) for key in ("descriptor", "spectra") if key in model.BLOCKS}
    return System(name, model, parts.feature, parts.fit, **heard)


def _misfits(kind: type, own: dict, model: Any, parts: _Blocks | None) -> Iterator[tuple[tuple, str]]:
    """What does not fit together in a system."""
    for key in GENERAL:
        if key in own and key not in kind.BLOCKS:
            yield (key,), f"has no effect on a model of type {kind.TYPE}; remove it"
    if isinstance(own.get("fit"), dict) and "verbose" in own["fit"]:
        yield ("fit", "verbose"), "set it in the general fit block: a run has one progress bar"
    yield from (((key,), "missing") for key in kind.BLOCKS if parts and getattr(parts, key) is None)
    if parts and "fit" in kind.BLOCKS and (loss := parts.fit.compile.loss) not in kind.LOSSES:
        yield ("fit", "compile", "loss"), f"{loss!r}; expected one of {', '.join(kind.LOSSES)}"
    if parts and isinstance(model, ConvAutoencoder):
        yield from model.faults(parts.feature)
    if isinstance(model, SpectralL2Softmax) and model.margin and model.sub_centres:
        yield ("model", "margin"), f"{model.margin:g}; classes with sub_centres have none: set one of the two to 0"
    if isinstance(model, Classifier) and (model.classes, model.score) == ("attributes", "softmax"):
        yield ("model", "score"), "softmax; the attributes of test clips, their classes, are hidden: take another score"


def _with_members(systems: dict[str, System], faults: blocks.Faults) -> dict[str, System]:
    """The systems, each fusion with its members."""
    complete = dict(systems)
    for name, system in systems.items():
        if isinstance(system.model, Fusion):
            members = tuple(systems[member] for member in system.model.members if member in systems)
            complete[name] = dataclasses.replace(system, members=members)
            for member in members:
                if isinstance(member.model, Fusion):
                    words = f"{member.name}: is a fusion itself; name its members"
                    faults["systems", name, "model", "members"] = words
    return complete
