"""Clips of a synthetic dataset: which there are, what a year of the challenge calls them, what they sound like."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import SimpleNamespace
from zlib import crc32

import numpy as np

from challenge.demo_machines import MACHINES, NOISE_SLOPE, SAMPLE_RATE, SPEEDS, factory_noise, machine_of
from years.year import DEFAULT, Year, read_year

NOISE_RMS = 0.01  # of the factory noise, full scale 1; all other levels are rms relative to it
CLIP_SPREAD_DB = 0.7  # standard deviation of the level from clip to clip [dB], of machine and noise each
FAR_MACHINE, FAR_NOISE, OWN_NOISE = 0.15, 0.8, 0.6  # what a far microphone hears of the near one's, and beside it
TARGET_SHARE = 8  # training clips of the first domain for each one of another
DEFAULT_IDS = {"dev": 2, "eval": 1}  # machine IDs per type; the official numbers are 3 or 4 and 3
DEFAULT_TYPES = 3  # machine types of a split, of the years whose splits have others
EVAL_LIST = "eval_data_list.csv"
TRUTH = "ground_truth"  # folder, and beginning of the names in it, as the official evaluators have them
NO_ATTRIBUTES = "noAttribute"  # what names say that hide them
Files = list[tuple[str, "DemoClip"]]  # path below the dataset's folder, what it holds


@dataclass(frozen=True)
class Options:
    """What the content of a demo dataset depends on."""

    seed: int
    clips: int  # training clips per machine ID or section, those of its target domain aside
    test_clips: int  # normal test clips per machine ID, or section and domain, and as many anomalous ones
    seconds: float | None  # of every clip [s]; None for the official lengths
    all_machine_ids: bool  # all official ones, or DEFAULT_IDS per machine type; of sections always all
    year: int = DEFAULT  # of the challenge
    all_machine_types: bool = False  # or DEFAULT_TYPES per split of a year with domains
    hide_attributes: tuple[str, ...] = ()  # machine types whose names do not tell them


# ---- what a clip sounds like ----


@dataclass(frozen=True)
class Condition:
    """How a machine is run while it is recorded."""

    speed: float = 1.0  # relative to the specimen's
    load: float = 1.0  # level of the machine, relative to the specimen's
    noise: str = "n-A"  # of NOISES

    @property
    def attributes(self) -> dict[str, str]:
        """Name and value of each."""
        return {"speed": f"{self.speed}", "load": f"{self.load}", "noise": self.noise}


NOISES = {"n-A": NOISE_SLOPE, "n-B": -2.0}  # slope [dB per octave]
CONDITIONS = (  # of each domain, in turn
    (Condition(), Condition(speed=0.9, load=1.2)),
    (Condition(speed=0.7, noise="n-B"), Condition(speed=0.6, load=1.2, noise="n-B")),
)


@dataclass(frozen=True)
class DemoClip:
    """One clip to write: ``number`` counts the clips of a machine that have the same folder, label and domain."""

    machine_type: str
    machine_id: str  # or section
    folder: str  # train | test
    label: int  # 0 normal, 1 anomaly
    number: int
    domain: int | None = None  # place in the year's list of them; None: it has none

    @property
    def key(self) -> tuple[int, ...]:
        """What sets its random numbers apart from all others; the first two say the machine."""
        known, name = list(MACHINES), self.machine_type
        machine_type = known.index(name) if name in known else crc32(name.encode())
        machine_id = int(re.search(r"\d+$", self.machine_id)[0])
        key = machine_type, machine_id, int(self.folder == "test"), self.label, self.number
        return key if self.domain is None else (*key, self.domain)

    @property
    def condition(self) -> Condition:
        """How its machine is run."""
        if self.domain is None:
            return Condition()
        conditions = CONDITIONS[self.domain]
        return conditions[self.number % len(conditions)]


def random(seed: int, key: tuple[int, ...]) -> np.random.Generator:
    """Random numbers of one thing alone, so that neither order nor number of the others matter."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def specimen(clip: DemoClip, seed: int) -> SimpleNamespace:
    """The machine that a clip is of: its ID's own draw from the type's table, at the clip's speed."""
    rng = random(seed, clip.key[:2])
    drawn = {
        name: int(rng.integers(low, high + 1)) if isinstance(low, int) else rng.uniform(low, high)
        for name, (low, high) in machine_of(clip.machine_type).specimen.items()
    }
    return SimpleNamespace(**drawn | {name: drawn[name] * clip.condition.speed for name in SPEEDS if name in drawn})


def synthesise(clip: DemoClip, *, seconds: float, seed: int, channel: int | None = None) -> np.ndarray:
    """Waveform of a clip, from a seed of its own: the order of writing is irrelevant.

    Parameters
    ----------
    channel : of the microphone near the machine; another one is farther away. None: there is one channel

    Returns
    -------
    ndarray, shape (n_samples,), or (n_samples, n_channels) if there is a ``channel``
    """
    machine = machine_of(clip.machine_type)
    rng = random(seed, clip.key)
    m = specimen(clip, seed)
    bad = dict.fromkeys(machine.faults, 0.0)
    if clip.label:  # kinds in turn; severities spread evenly whatever their number (golden ratio)
        bad[machine.faults[clip.number % len(bad)]] = m.severity * (0.1 + 0.9 * ((clip.number + 1) * 0.618034 % 1))
    n = round(seconds * SAMPLE_RATE)
    slope = NOISES[clip.condition.noise]
    machine_gain, noise_gain = 10 ** (CLIP_SPREAD_DB * rng.standard_normal(2) / 20)
    sound = machine_gain * clip.condition.load * machine.sound(m, bad, n, rng)
    noise = noise_gain * factory_noise(n, rng, slope)
    near = np.clip(NOISE_RMS * (sound + noise), -1, 1)
    if channel is None:
        return near
    far = FAR_MACHINE * sound + FAR_NOISE * noise + OWN_NOISE * factory_noise(n, rng, slope)
    waveforms = [np.clip(NOISE_RMS * far, -1, 1)] * max(2, channel + 1)
    waveforms[channel] = near
    return np.stack(waveforms, axis=1)


# ---- which clips there are ----


def layout(options: Options) -> tuple[Files, dict[str, str]]:
    """Paths below the dataset's folder with the clips they hold, and with the texts of the lists beside them."""
    year = read_year(options.year)
    files, texts = [], {}
    for split in ("dev", "eval"):
        for machine_type, machine_id in machines(year, split, options):
            found = _files(year, split, machine_type, machine_id, options)
            files += found
            if _tells_attributes(year):
                number = machine_id.rpartition("_")[2]
                texts[f"{split}_data/{machine_type}/attributes_{number}.csv"] = _attributes(split, found)
    return files, texts | _ground_truth(year, [file for file in files if file[0].startswith("eval_data/")])


def machines(year: Year, split: str, options: Options) -> Iterator[tuple[str, str]]:
    """Machine type and machine ID, or section, of each machine of ``dev`` or ``eval``."""
    n_types = DEFAULT_TYPES if year.domains and not options.all_machine_types else None
    n_ids = None if year.domains or options.all_machine_ids else DEFAULT_IDS[split]
    for machine_type in list(year.test_clips[split])[:n_types]:
        ids = dict.fromkeys(map(year.id_of, year.units(split, machine_type)))
        yield from ((machine_type, machine_id) for machine_id in list(ids)[:n_ids])


def _files(year: Year, split: str, machine_type: str, machine_id: str, options: Options) -> Files:
    """Paths and clips of one machine."""

    def clips(folder: str, domain: int | None, labels: Sequence[int], count: int) -> list[DemoClip]:
        pairs = [(label, number) for label in labels for number in range(count)]
        return [DemoClip(machine_type, machine_id, folder, label, number, domain) for label, number in pairs]

    train, units = [], defaultdict(list)
    for domain in range(len(year.domains)) if year.domains else [None]:
        train += clips("train", domain, [0], max(1, options.clips // TARGET_SHARE) if domain else options.clips)
        units[_unit(year, machine_id, domain)] += clips("test", domain, [0, 1], options.test_clips)
    hidden = machine_type in options.hide_attributes
    found = [("train", name_of(clip, year, hidden), clip) for clip in train]
    for index, (unit, test) in enumerate(units.items()):
        names = [name_of(clip, year, hidden) for clip in test]
        if split == "eval":  # names that do not tell the label, in an order that does not either
            rng = random(options.seed, (*train[0].key[:2], 2 + index))
            test = [test[place] for place in rng.permutation(len(test))]
            first = year.first_number.get(machine_type, 0)
            names = [year.eval_clip.format(unit=unit, number=first + number) for number in range(len(test))]
        found += [(_test_folder(year, clip), name, clip) for name, clip in zip(names, test, strict=True)]
    return [(f"{split}_data/{machine_type}/{folder}/{name}", clip) for folder, name, clip in found]


def _unit(year: Year, machine_id: str, domain: int | None) -> str:
    return year.unit_of(machine_id, None if domain is None else year.domains[domain])


def _test_folder(year: Year, clip: DemoClip) -> str:
    """The folder of the clip's domain, or the only one."""
    domain = "" if clip.domain is None else year.domains[clip.domain]
    return next((name for name in year.test_folders if name.startswith(domain)), year.test_folders[0])


def name_of(clip: DemoClip, year: Year, hidden: bool = False) -> str:
    """File name with the label, as the clip has it where that is not hidden."""
    label = ("normal", "anomaly")[clip.label]
    if clip.domain is None:
        return f"{label}_{clip.machine_id}_{clip.number:08}.wav"
    parts = [clip.machine_id, year.domains[clip.domain], clip.folder, label, f"{clip.number:04}"]
    if clip.folder == "train" or _tells_attributes(year):
        parts += [NO_ATTRIBUTES] if hidden else [text for pair in clip.condition.attributes.items() for text in pair]
    return "_".join(parts) + ".wav"


# ---- the lists beside them ----


def _tells_attributes(year: Year) -> bool:
    """Whether test clips have attributes, and a list: not where each domain is tested for itself."""
    return bool(year.domains) and "{domain}" not in year.unit


def _attributes(split: str, files: Files) -> str:
    """``file_name,d1p,d1v,…`` and such a row for each clip of a machine whose name is not hidden."""
    lines = []
    for path, clip in files:
        cells = [text for pair in clip.condition.attributes.items() for text in pair]
        if not lines:
            lines.append(",".join(["file_name", *(f"d{1 + k // 2}{'pv'[k % 2]}" for k in range(len(cells)))]))
        if clip.folder == "train" or split == "dev":
            lines.append(",".join([path.partition("/")[2], *cells]))
    return _text(lines)


def _ground_truth(year: Year, files: Files) -> dict[str, str]:
    """The official list of the evaluation clips' labels; with domains, the files of the official evaluators."""
    tested = [(PurePosixPath(path).name, clip) for path, clip in files if clip.folder == "test"]
    if not year.domains:
        of_type = defaultdict(list)
        for name, clip in tested:
            of_type[clip.machine_type].append(f"{name},{name_of(clip, year)},{clip.label}")
        in_order = [
            *(name for name in MACHINES if name in of_type),
            *(name for name in of_type if name not in MACHINES),
        ]
        return {EVAL_LIST: _text([line for name in in_order for line in (name, *of_type[name])])}
    texts = defaultdict(list)
    for name, clip in tested:
        file = year.file_name(TRUTH, clip.machine_type, _unit(year, clip.machine_id, clip.domain))
        texts[f"{TRUTH}/{TRUTH}_data/{file}"].append(f"{name},{clip.label}")
        if year.parse(name).domain is None:
            texts[f"{TRUTH}/{TRUTH}_domain/{file}"].append(f"{name},{clip.domain}")
    return {path: _text(lines) for path, lines in texts.items()}


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
