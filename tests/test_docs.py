"""README.md and docs/: every command in them runs, on a tiny dataset, or is marked with what it needs."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import FAMILIES, SHIPPED, merge

import common
from audio import clips
from storage.files import write_text

ROOT = Path(common.__file__).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(r"<!-- needs (.+?) -->")
SHELL = re.compile(
    r"(?:git|make|pip|cp|\.|python(?! \S+\.py)|cd|ffmpeg|sbatch|tar|docker)\b"
)  # not Python scripts of ours
RUN_BY_HAND = {  # what a test cannot do in passing, and what looks after it
    "make demo": "the targets of the Makefile are looked up; its scripts run in test_make_demo_data.py",
    "make test": "continuous integration",
    "make benchmark": "by hand, on an idle machine",
    "make torture": "by hand",
    "git clone": "",
    "cd <": "",
    ". .venv": "",
    "pip install": "continuous integration",
    "python -m venv": "continuous integration",
    "python -m pytest": "continuous integration",
}
# Commands that are expected to say something is wrong with the tiny dataset.
FAULTS = {"python 03_submit.py --check Doe_EXU_task2.zip": "official evaluation clips"}
SMALL = {"type": "dense_ae", "units": [8, 4, 8]}


def commands(page: Path) -> list[tuple[str, str, str | None]]:
    """(section, command, what it needs or None) of each line of the page's blocks of code."""
    found, section, inside, needs, before = [], "", False, None, ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside
            marked = MARK.fullmatch(before)
            needs = marked[1] if inside and marked else None
        elif inside and (line.startswith("python ") or SHELL.match(line)):
            found += [(section, part.strip(), needs) for part in line.split(" #")[0].split("&&")]
        elif line.startswith("#") and not inside:
            section = line.lstrip("# ")
        before = line
    return found


ALL = [(page.name, *command) for page in PAGES for command in commands(page)]


def test_commands_are_found():
    texts = [command for _, _, command, _ in ALL]
    assert "python 00_train.py -d" in texts and "make demo" in texts and len(texts) > 15


def tiny_yaml(folder: Path, **changes) -> None:
    """baseline.yaml of ``folder``: the shipped one with small networks and one epoch."""
    settings = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    names = ("neighbors", "dense_l2_softmax", "dense_l2_softmax_type", "fusion")
    systems = {name: settings["systems"][name] for name in names}
    systems["neighbors"]["model"] |= {"n_neighbors": 1, "n_nearest": 1}
    for name in ("dense_l2_softmax", "dense_l2_softmax_type"):
        systems[name]["model"] |= {
            "units": [8],
            "embedding": 4,
            "min_steps": 1,
            "folds": 1,
            "n_neighbors": 1,
            "n_nearest": 1,
        }
        systems[name]["fit"] |= {"epochs": 1, "batch_size": 4}
    systems |= {"tuned_ae": {"model": SMALL}, "baseline_ae": {"model": SMALL}}
    systems |= {"spectral_l2_softmax": FAMILIES["spectral"]}
    submissions = {
        1: {"system": "tuned_ae", "training_data": "eval"},
        2: {"system": "tuned_ae", "training_data": "dev+eval"},
    }
    settings |= {"systems": systems, "submissions": submissions}
    settings = merge(settings, {"fit": {"epochs": 1, "batch_size": 64, "verbose": 0}, **changes})
    write_text(folder / "baseline.yaml", yaml.safe_dump(settings, sort_keys=False))


@pytest.fixture(scope="module")
def official(dataset, tmp_path_factory) -> Path:
    """Folder as a challenge participant has it, with a tiny dataset."""
    folder = tmp_path_factory.mktemp("official")
    for split in ("dev", "eval"):
        shutil.copytree(dataset / f"{split}_data", folder / f"{split}_data")
    lines = []
    for machine_type in sorted(path.name for path in (folder / "eval_data").iterdir()):
        names = sorted(path.name for path in (folder / "eval_data" / machine_type / "test").iterdir())
        labels = [("normal", 0), ("anomaly", 1)] * len(names)
        lines += [
            machine_type,
            *(f"{name},{word}_{name},{label}" for name, (word, label) in zip(names, labels, strict=False)),
        ]
    write_text(folder / "eval_data_list.csv", "\n".join(lines) + "\n")
    shutil.copytree(ROOT / "examples", folder / "examples")
    tiny_yaml(folder)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """Folder of somebody with recordings of one machine."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for name in (
        [f"recordings/lathe/train/monday {k}.wav" for k in range(12)]
        + ["recording.wav", "an_hour.wav"]
        + [f"recordings/lathe/test/{kind}/{k}.wav" for kind in ("normal", "anomaly") for k in range(3)]
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        seconds = 5 if "hour" in name else 1.5
        soundfile.write(folder / name, 0.1 * rng.standard_normal(int(seconds * 22050)), 22050)
    tiny_yaml(folder, dev_directory="recordings", names="any", system="neighbors")
    return folder


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_commands_run(page, official, own, monkeypatch):
    for _, section, command, needs in [one for one in ALL if one[0] == page]:
        if needs or any(command.startswith(known) for known in RUN_BY_HAND):
            if command.startswith("make "):
                assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
            continue
        monkeypatch.chdir(own if "own machine" in section.lower() else official)
        words = shlex.split(command)
        if words[0] == "cp":
            shutil.copy(words[1], words[2])
        elif words[0] == "python":
            run_script(command, Path(words[1]).stem, words[2:])
        else:
            pytest.fail(f"{page}: {command}: neither run nor named as run by hand")


def run_script(command: str, name: str, arguments: list[str]) -> None:
    """Run a script of ours as the shell would."""
    if "demo/baseline.yaml" in arguments or name == "make_demo_data":
        return  # in test_make_demo_data.py
    main = importlib.import_module(name).main
    if command in FAULTS:
        with pytest.raises(common.UserError, match=FAULTS[command]):
            main(arguments)
    else:
        main(arguments)


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_table_of_folders_is_that_of_the_errors():
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert "".join(f"| `{name}` | {what} |\n" for name, what in clips.FOLDERS.items()) in text


def test_readme_is_read_in_ten_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
