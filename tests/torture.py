"""Kill, crowd and starve the scripts, and flip bits of all that they have written: ``make torture``.

Every run must end with the bytes of a run that nobody disturbed, or with an error that names the file. One process
loads TensorFlow and forks for each run, so that kills hit the work and not the loading: for Linux and macOS.

    python tests/torture.py --kills 50 --flips 200 --seed 0
"""

import argparse
import contextlib
import importlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from conftest import merge, tiny_settings, write_dataset  # noqa: E402 the path comes first
from test_faults import Place, call, command  # noqa: E402
from test_fusion import SYSTEMS  # noqa: E402

FAMILIES = {
    "small": None,  # dense_ae, of the tiny settings
    "vae": {"model": {"type": "vae", "units": [16, 8], "latent": 2, "kl_weight": 1}},
    "conv": {
        "model": {"type": "conv_ae", "filters": [2, 2, 2, 2, 2], "latent": 4, "hop": 4},
        "feature": {"frames": 8},
        "fit": {"batch_size": 16},
    },
    "classifier": {
        "model": {
            **{"type": "l2_softmax", "classes": "machine_id", "alpha": 16, "margin": 0, "mixup": 1.0, "width": 0.35},
            **{"weights": None, "input_size": None, "resize": "bilinear", "scaling": "standard"},
            **{"score": "lof", "lof_per": "machine_type", "n_neighbors": 2, "metric": "euclidean"},
        },
        "feature": {"frames": 32},
        "fit": {"compile": {"loss": "categorical_crossentropy"}, "batch_size": 8, "epochs": 2},
    },
    **SYSTEMS,  # near, dense, and both with small
}
FORK = multiprocessing.get_context("fork")
SCRIPTS = ("00_train", "01_test", "02_evaluate", "03_submit")
MODULES = ("fusion", "keras_model", "metric_model", "neighbor_model")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DISKS = (40, 80, 150, 300, 600)  # [kB]
PATIENCE = 600  # [s] for one run
NAMED = "named"  # how a run may end, beside "same"


class Failures(list):
    """What did not end as it must; each is printed when it comes."""

    def append(self, text: str) -> None:
        """Add one."""
        print(f"FAILED: {text}", flush=True)
        super().append(text)


# ---- runs in processes of their own ----


def lines(system: str) -> list[str]:
    """The commands whose bytes are compared."""
    return [f"00_train -d --system {system}", f"01_test -d --system {system}"]


def of_fan(system: str) -> list[str]:
    """The same for one machine type."""
    return [f"{line} --machine-type fan" for line in lines(system)]


def start(place: Place, system: str, steps: slice = slice(None)) -> multiprocessing.Process:
    """Train and test a system in another process; what it says goes to a file in the place."""

    def run() -> None:
        os.chdir(place.folder)
        screen = os.open("screen.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(screen, 1)
        os.dup2(screen, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for line in lines(system)[steps]:
            code = call(*command(line))
            if code:
                sys.stderr.flush()
                os._exit(code)
        os._exit(0)

    process = FORK.Process(target=run)
    process.start()
    return process


def finished(process: multiprocessing.Process) -> int:
    """Exit code of a process; None is never given."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode


def screen(place: Place) -> str:
    """All that the runs in a place have said."""
    path = place.folder / "screen.txt"
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def outcome(place: Place) -> dict[str, bytes]:
    """Models and results, half-written files among them."""
    return {name: content for name, content in place.contents().items() if name.startswith(("model/", "result/"))}


def difference(one: dict[str, bytes], other: dict[str, bytes]) -> str:
    """Files that differ, or nothing."""
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return ", ".join(names[:5])


@contextlib.contextmanager
def copy_of(template: Path, where: Path) -> Iterator[Place]:
    """A place of its own, gone afterwards."""
    shutil.copytree(template, where)
    try:
        yield Place(where)
    finally:
        shutil.rmtree(where)


# ---- the tortures ----


def references(template: Path, work: Path, failures: Failures) -> dict[str, tuple[dict[str, bytes], float]]:
    """System -> what an undisturbed run leaves, and how long it takes [s]."""
    found = {}
    for system in FAMILIES:
        with copy_of(template, work / "reference") as place:
            begin = time.monotonic()
            code = finished(start(place, system))
            found[system] = outcome(place), time.monotonic() - begin
            if code:
                failures.append(f"{system}: exit code {code}\n{screen(place)}")
            print(f"{system}: {found[system][1]:.1f} s undisturbed", flush=True)
    return found


def kills(template: Path, work: Path, expected: dict, n: int, rng: random.Random, failures: Failures) -> int:
    """Kill runs at random moments, and let them go on; how many ended as they must."""
    done = tried = 0
    while tried < n:
        system = list(FAMILIES)[tried % len(FAMILIES)]
        files, duration = expected[system]
        moment, how = rng.uniform(0, duration), rng.choice(SIGNALS)
        with copy_of(template, work / "killed") as place:
            process = start(place, system)
            process.join(moment)
            if process.exitcode is not None:  # it was faster this time
                continue
            os.kill(process.pid, how)
            finished(process)
            tried += 1
            code = finished(start(place, system))
            change = difference(files, outcome(place))
            print(f"kill {tried}: {system}, {how.name} after {moment:.2f} of {duration:.2f} s", flush=True)
            if code or change:
                failures.append(
                    f"{system}, {how.name} after {moment:.2f} s: exit code {code}; {change}\n{screen(place)}"
                )
            else:
                done += 1
    return done


def pairs(template: Path, work: Path, expected: dict, failures: Failures) -> int:
    """Two runs of the same commands at once in one folder."""
    done = 0
    for system in FAMILIES:
        with copy_of(template, work / "pair") as place:
            codes = []
            for step in range(len(lines(system))):
                both = [start(place, system, slice(step, step + 1)) for _ in range(2)]
                codes += [finished(process) for process in both]
            change = difference(expected[system][0], outcome(place))
            if any(codes) or change:
                failures.append(f"{system}, two at once: exit codes {codes}; {change}\n{screen(place)}")
            else:
                done += 1
    return done


def disks(template: Path, work: Path, expected: dict, failures: Failures) -> tuple[int, int]:
    """A disk that is full at some moment, and then is not; needs the right to mount."""
    done = n = 0
    for kilobytes in DISKS:
        for system in FAMILIES:
            with copy_of(template, work / "disk") as place:
                disk = place.folder / "disk"
                disk.mkdir()
                place.change(**{f"{name}_directory": f"disk/{name}" for name in ("model", "result", "cache")})
                mounting = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
                if subprocess.run(mounting, capture_output=True, check=False).returncode:
                    return done, n
                try:
                    n += 1
                    code = finished(start(place, system))
                    said = screen(place)
                    hidden = [path.name for path in disk.rglob(".*")]
                    named = code == 0 or (code == 1 and "ERROR" in said and "disk/" in said[said.rindex("ERROR") :])
                    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
                    again = finished(start(place, system))
                    left = {f"{p.relative_to(disk).as_posix()}": p.read_bytes() for p in disk.rglob("*") if p.is_file()}
                    left = {name: content for name, content in left.items() if not name.startswith("cache/")}
                finally:
                    subprocess.run(["umount", str(disk)], check=True)
                change = difference(expected[system][0], left)
                if not named or hidden or again or change or "Traceback" in said:
                    failures.append(f"{system}, {kilobytes} kB: exit codes {code}, {again}; {hidden}; {change}\n{said}")
                else:
                    done += 1
    return done, n


# ---- flipped bits ----


def flips(
    template: Path, work: Path, n: int, kinds: Sequence[str], rng: random.Random, failures: Failures
) -> dict[str, list[int]]:
    """Flip bits of each kind of file; kind -> how many ended with the same results, and how many were named."""
    place = Place(work / "flipped")
    shutil.copytree(template, place.folder)
    os.chdir(place.folder)
    for system in ("small", "both", "classifier"):
        for line in lines(system):
            assert say(line)[0] == 0, line
    for line in ("00_train -e", "01_test -e", PACK):
        assert say(line)[0] == 0, line
    resume(place)
    counts: dict[str, list[int]] = {}
    for kind in kinds:
        pattern, consume = KINDS[kind]
        pristine = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
        victims = [path for path in pristine if path.match(pattern)]
        assert victims, kind
        counts[kind] = [0, 0]
        expected = consume(place, None)[1]
        restore(place, pristine)
        for _ in range(n):
            victim = rng.choice(victims)
            content = bytearray(pristine[victim])
            where, bit = rng.randrange(len(content)), rng.randrange(8)
            content[where] ^= 1 << bit
            victim.write_bytes(content)
            forget()
            try:
                said, result = consume(place, victim)
            except (Exception, SystemExit) as error:  # noqa: BLE001 what no run must end in
                said, result = f"{type(error).__name__}: {error}", None
            if result == expected:
                counts[kind][0] += 1
            elif result == NAMED:
                counts[kind][1] += 1
            else:
                failures.append(f"{victim.relative_to(place.folder)}, byte {where}, bit {bit}:\n{said}")
            restore(place, pristine)
        print(f"{kind}: {counts[kind][0]} the same, {counts[kind][1]} named of {n}", flush=True)
    return counts


def restore(place: Place, pristine: dict[Path, bytes]) -> None:
    """Bring all files back that have changed, and remove new ones."""
    for path in place.folder.rglob("*"):
        if path.is_file() and path not in pristine:
            path.unlink()
    for path, content in pristine.items():
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def forget() -> None:
    """Forget what one process remembers and the next does not know."""
    for module in list(sys.modules.values()):
        if str(getattr(module, "__file__", "")).startswith(str(ROOT)):
            for value in vars(module).values():
                if hasattr(type(value), "cache_clear"):  # asked itself, absl's flags would read the command line
                    value.cache_clear()


def say(line: str) -> tuple[int, str]:
    """Run a command here; its exit code, and what it says."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = call(*command(line))
    return code, out.getvalue() + err.getvalue()


def resume(place: Place) -> None:
    """Leave a training of another system interrupted after its first epoch."""
    from training.fit import TrainingState

    after = TrainingState.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        after(self, epoch, logs)
        raise KeyboardInterrupt

    TrainingState.on_epoch_end = on_epoch_end
    assert say("00_train -d --system vae --machine-type fan")[0] == 130
    TrainingState.on_epoch_end = after


def ends(lines: list[str], results: Callable[[Place], object]) -> Callable:
    """Run commands; what they say, and their results, or that the first error names the file."""

    def consume(place: Place, victim: Path | None) -> tuple[str, object]:
        said = ""
        for line in lines:
            code, words = say(line)
            said += words
            if code:
                message = words[words.index("ERROR - ") :]
                named = code == 1 and victim is not None and victim.name in message and "Traceback" not in words
                return said, NAMED if named else code
        return said, results(place)

    return consume


def csvs(system: str, split: str = "dev") -> Callable[[Place], dict[str, bytes]]:
    return lambda place: place.contents(f"result/{split}/{system}/*.csv")


def package(place: Place) -> dict[str, bytes]:
    """Content of the package."""
    with zipfile.ZipFile(place.folder / "package.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


PACK = "03_submit --authors authors.yaml --config settings.yaml --output package.zip"
CHECK = "03_submit --check package.zip --truth eval_data_list.csv"
EVALUATE = "02_evaluate result/dev/small --config settings.yaml"
# What is flipped, which commands read it, and what of theirs is compared.
KINDS = {
    "model of an autoencoder": ("model/dev/small/model_fan.keras", ends(of_fan("small")[1:], csvs("small"))),
    "model of a classifier": ("model/dev/classifier/*.keras", ends(of_fan("classifier")[1:], csvs("classifier"))),
    "model of a dense classifier": ("model/dev/dense/*.keras", ends(of_fan("dense")[1:], csvs("dense"))),
    "record of a model, tested": ("model/dev/small/record_fan.yaml", ends(of_fan("small")[1:], csvs("small"))),
    "record of a model, trained": ("model/dev/small/record_fan.yaml", ends(of_fan("small"), csvs("small"))),
    "scores of the training clips": ("model/dev/small/scores_fan.npz", ends(of_fan("both")[1:], csvs("both"))),
    "embeddings": ("model/dev/dense/embeddings_fan.npz", ends(of_fan("dense")[1:], csvs("dense"))),
    "descriptors": ("model/dev/near/descriptors_fan.npz", ends(of_fan("near")[1:], csvs("near"))),
    "state of a training": ("model/dev/vae/resume_fan.npz", ends(of_fan("vae"), csvs("vae"))),
    "cache": ("cache/*.npy", ends(of_fan("small")[1:], csvs("small"))),
    "checksums of the clips": ("cache/*.json", ends(of_fan("small"), csvs("small"))),
    "scores": ("result/dev/small/anomaly_score_*.csv", ends([EVALUATE], csvs("small"))),
    "decisions": ("result/dev/small/decision_result_*.csv", ends([EVALUATE], csvs("small"))),
    "record of scores": ("result/dev/small/record_*.yaml", ends([EVALUATE], csvs("small"))),
    "result.csv": ("result/dev/small/result.csv", ends([PACK], package)),
    "scores to be sent in": ("result/eval/small/anomaly_score_*.csv", ends([PACK], package)),
    "record of scores to be sent in": ("result/eval/small/record_*.yaml", ends([PACK], package)),
    "package": ("package.zip", ends([CHECK], package)),
}


# ---- all together ----


def prepare(folder: Path) -> None:
    """Dataset, YAML and all else that the commands read."""
    write_dataset(folder)
    settings = merge(tiny_settings(Path(), Path()), {"systems": {k: v for k, v in FAMILIES.items() if v}})
    settings["submissions"] = {1: {"system": "small", "training_data": "eval"}}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    shutil.copy(ROOT / "examples/authors.yaml", folder / "authors.yaml")
    truth = []
    for machine_type in ("ToyCar", "fan"):
        truth.append(machine_type)
        for number, path in enumerate(sorted((folder / "eval_data" / machine_type / "test").glob("*.wav"))):
            label = number % 2
            truth.append(f"{path.name},{('normal', 'anomaly')[label]}_{path.name},{label}")
    (folder / "eval_data_list.csv").write_text("\n".join(truth) + "\n", encoding="utf-8")


def in_a_child(function: Callable, *arguments) -> object:
    """What a function gives, called in a process of its own; its failures are added to ours."""
    *arguments, failures = arguments
    reader, writer = FORK.Pipe(duplex=False)

    def run() -> None:
        of_child = Failures()
        writer.send((function(*arguments, of_child), list(of_child)))

    process = FORK.Process(target=run)
    process.start()
    writer.close()
    try:
        result, of_child = reader.recv()
    except EOFError:
        raise SystemExit(f"{function.__name__} did not come to its end") from None
    process.join()
    list.extend(failures, of_child)
    return result


def main() -> None:
    """Parse the arguments, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--flips", type=int, default=200, metavar="N", help="of each kind of file; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--only", action="append", choices=["kills", "pairs", "disks", "flips"], help="default: all")
    parser.add_argument("--kind", action="append", choices=KINDS, help="of file, to flip bits of; default: all")
    args = parser.parse_args()
    wanted = args.only or ["kills", "pairs", "disks", "flips"]

    for module in (*SCRIPTS, *MODULES):  # TensorFlow with them, once for all
        importlib.import_module(module)
    failures, rng = Failures(), random.Random(args.seed)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        template = work / "template"
        template.mkdir()
        prepare(template)
        expected = references(template, work, failures) if set(wanted) - {"flips"} else {}
        if "kills" in wanted:
            done = kills(template, work, expected, args.kills, rng, failures)
            print(f"kills: {done} of {args.kills} runs ended with the same bytes", flush=True)
        if "pairs" in wanted:
            done = pairs(template, work, expected, failures)
            print(f"two at once: {done} of {len(FAMILIES)} ended with the same bytes", flush=True)
        if "disks" in wanted:
            done, n = disks(template, work, expected, failures)
            print(
                f"full disk: {done} of {n} named the path, and ended with the same bytes when there was room",
                flush=True,
            )
        if "flips" in wanted:
            counts = in_a_child(flips, template, work, args.flips, args.kind or list(KINDS), rng, failures)
            same, named = (sum(count[k] for count in counts.values()) for k in (0, 1))
            total = args.flips * len(counts)
            print(
                f"flipped bits: of {total} in {len(counts)} kinds of files {same} with the same results, {named} named"
            )
    print(f"{len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
