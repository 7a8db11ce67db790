"""Sounds of six machine types, computed and not recorded: rotating, reciprocating, switching and geared machines.

Simple physical models in factory noise. Faults are as loud as it takes for better systems to score better.
"""

import functools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

SAMPLE_RATE = 16_000  # [Hz]
SPEED_SPREAD = 0.015  # standard deviation of the speed from clip to clip, relative
WANDER = 0.004  # standard deviation of the speed within a clip, relative
NOISE_SLOPE = -4.5  # of the factory noise [dB per octave]

# ---- parts of a sound; waveforms have shape (n,) ----


def white(n: int, rng: np.random.Generator) -> np.ndarray:
    """White noise, rms 1."""
    return rng.standard_normal(n, dtype=np.float32)


def turns(rate: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Angle [turns] of something that goes round at about ``rate`` [Hz], no two clips at the same speed."""
    knots = np.arange(0.0, n / SAMPLE_RATE + 1.0, 0.5)  # [s]
    speed = rate * (1 + SPEED_SPREAD * rng.standard_normal() + WANDER * rng.standard_normal(len(knots)))
    angle = rng.random() + np.cumsum(0.5 * speed)
    return np.interp(np.arange(n) / SAMPLE_RATE, knots, angle)


def periodic(angle: np.ndarray, cycle: np.ndarray) -> np.ndarray:
    """What repeats with every turn: ``cycle``, one turn of it, read at ``angle`` [turns]."""
    return cycle[(angle * len(cycle)).astype(np.int64) % len(cycle)]


def tone(angle: np.ndarray, amplitudes: dict[int, float]) -> np.ndarray:
    """Sum of harmonics of a turn: ``{order: amplitude}``."""
    spectrum = np.zeros(2**13 + 1, complex)
    for order, amplitude in amplitudes.items():
        spectrum[order] = amplitude * 2**13 * np.exp(1j * order**2)  # fixed phases that do not pile up in a peak
    return periodic(angle, np.fft.irfft(spectrum))


def ring(excitation: np.ndarray, hz: float, bandwidth: float) -> np.ndarray:
    """Resonance of a housing or a pipe at ``hz``, ``bandwidth`` [Hz] wide, with gain 1 at its peak."""
    import scipy.signal  # slow to import, and --help does not need it

    b, a = scipy.signal.iirpeak(hz, hz / bandwidth, fs=SAMPLE_RATE)
    return scipy.signal.lfilter(b.astype(np.float32), a.astype(np.float32), excitation)


def hiss(n: int, rng: np.random.Generator, hz: float, bandwidth: float) -> np.ndarray:
    """Band of noise around ``hz``, rms 1: flow, friction, leaks."""
    noise = ring(white(n, rng), hz, bandwidth)
    return noise / noise.std()


def every(angle: np.ndarray, per_turn: float) -> np.ndarray:
    """Samples at which the angle passes a multiple of ``1 / per_turn``."""
    return np.flatnonzero(np.diff(np.floor(angle * per_turn)))


def knocks(
    n: int, rng: np.random.Generator, samples: np.ndarray, hz: float, bandwidth: float, spread: float = 0.2
) -> np.ndarray:
    """Blows at the given samples that a part resonating at ``hz`` answers, peak about 1, uneven by ``spread``."""
    blows = np.zeros(n, np.float32)
    samples = samples[samples < n]
    np.add.at(blows, samples, 1 + spread * rng.standard_normal(len(samples)))
    return ring(blows, hz, bandwidth) * (SAMPLE_RATE / (2 * math.pi * bandwidth))


@functools.lru_cache(maxsize=4)
def octaves(n: int) -> np.ndarray:
    """Frequencies of a spectrum of ``n`` samples in octaves above 100 Hz; those below 30 Hz as 30 Hz."""
    return np.log2(np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 30.0) / 100.0).astype(np.float32)


def factory_noise(n: int, rng: np.random.Generator, slope: float = NOISE_SLOPE) -> np.ndarray:
    """Noise of a hall, rms 1: falling with frequency, a broad bump of other machines, mains hum, far blows."""
    import scipy.fft

    slope_here = rng.normal(slope, 0.3)
    bump = rng.uniform(1.5, 4.5)  # [octaves above 100 Hz]
    level = slope_here * octaves(n) + 3.0 * np.exp(-((octaves(n) - bump) ** 2))  # [dB]
    spectrum = white(2 * len(level), rng).view(np.complex64) * np.exp(level * np.float32(math.log(10) / 20))
    noise = scipy.fft.irfft(spectrum, n)
    noise /= noise.std()
    blows = rng.integers(0, n, rng.poisson(0.15 * n / SAMPLE_RATE))
    return noise + 0.15 * tone(turns(50.0, n, rng), {1: 1.0, 2: 0.7, 4: 0.3}) + 3 * knocks(n, rng, blows, 900.0, 60.0)


# ---- the machines: `m` is the specimen (see MACHINES), `bad` the severity of each fault, 0 for none ----


def fan(m: SimpleNamespace, bad: dict[str, float], n: int, rng: np.random.Generator) -> np.ndarray:
    """Shaft and blade-passing harmonics, and flow noise that pulses with the blades."""
    angle = turns(m.shaft_hz * (1 - 0.05 * bad["blockage"]), n, rng)
    shaft = {order: 0.15 * m.tone / order for order in range(1, 2 * m.blades)}
    blade = {order * m.blades: m.tone / order for order in range(1, 7)}
    flow = m.flow * (1 + 0.8 * bad["blockage"]) * hiss(n, rng, m.flow_hz, 1.5 * m.flow_hz)
    sound = tone(angle, shaft | blade) + flow * (1 + 0.4 * tone(angle, {m.blades: 1.0}))
    if bad["imbalance"]:
        sound *= 1 + 0.9 * bad["imbalance"] * tone(angle, {1: 1.0})
        sound += 1.2 * bad["imbalance"] * tone(angle, {1: 1.0, 2: 0.7, 3: 0.5})
    if bad["bearing"]:
        sound += 3 * bad["bearing"] * knocks(n, rng, every(angle, m.balls * 0.6), m.housing_hz, 300.0)
    return sound


def pump(m: SimpleNamespace, bad: dict[str, float], n: int, rng: np.random.Generator) -> np.ndarray:
    """Pressure strokes of a piston, the clack of its check valve, and the motor's hum."""
    angle = turns(m.stroke_hz, n, rng)
    stroke = np.maximum(np.sin(2 * math.pi * np.arange(1024) / 1024), 0) ** 2
    pressure = periodic(angle, stroke) * np.where(_missed(angle, 0.6 * bad["missed strokes"], rng), 0.1, 1.0)
    sound = 2 * m.flow * pressure * hiss(n, rng, m.flow_hz, m.flow_hz)
    sound += m.clack * knocks(n, rng, every(angle, 1), m.clack_hz, 200.0)
    sound += m.hum * tone(angle, {m.gear: 1.0, 2 * m.gear: 0.6, 3 * m.gear: 0.4, 5 * m.gear: 0.2})
    if bad["leak"]:
        sound += 0.5 * bad["leak"] * hiss(n, rng, 5000.0, 2500.0)
    if bad["cavitation"]:
        bubbles = rng.integers(0, n, rng.poisson(60 * n / SAMPLE_RATE))
        sound += 8 * bad["cavitation"] * periodic(angle, stroke) * knocks(n, rng, bubbles, 3000.0, 900.0, 0.5)
    return sound


def _missed(angle: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """True during the turns that fail, shape (n,)."""
    turn = (angle - angle[0]).astype(np.int64)
    return (rng.random(turn[-1] + 1) < probability)[turn]


def slider(m: SimpleNamespace, bad: dict[str, float], n: int, rng: np.random.Generator) -> np.ndarray:
    """A carriage that a screw drives to and fro on a rail, with a stop at each end."""
    angle = turns(m.stroke_hz, n, rng)
    ramp = np.clip(np.minimum(np.linspace(0, 8, 1024), np.linspace(8, 0, 1024)) - 0.5, 0, 1)  # rest, go, rest
    speed = periodic(2 * angle, ramp)  # a turn is one way to and one fro
    screw = np.cumsum(speed) * (m.screw_hz / SAMPLE_RATE)  # [turns]
    sound = m.rail * speed * hiss(n, rng, m.rail_hz, 0.8 * m.rail_hz)
    sound += m.screw * speed * tone(screw, {1: 0.4, m.starts: 1.0, 2 * m.starts: 0.6, 3 * m.starts: 0.3})
    sound += m.stop * knocks(n, rng, every(angle, 2), m.stop_hz, 150.0)
    if bad["rail pit"]:
        sound += 25 * bad["rail pit"] * knocks(n, rng, every(angle + 0.3, 2), 2600.0, 250.0)
    if bad["second rail"]:
        sound += 1.0 * bad["second rail"] * speed * hiss(n, rng, 1.7 * m.rail_hz, 0.3 * m.rail_hz)
    if bad["dry rail"]:
        sound += 0.35 * bad["dry rail"] * speed * tone(turns(2300.0, n, rng), {1: 1.0})
    return sound


def valve(m: SimpleNamespace, bad: dict[str, float], n: int, rng: np.random.Generator) -> np.ndarray:
    """A solenoid that opens and closes in a pattern, with a puff of air while it is open."""
    angle = turns(m.cycle_hz, n, rng)
    opens = np.sort(np.concatenate([every(angle + shift, 1) for shift in (0.0, m.second, m.third)]))
    closes = opens + int(m.open_s * SAMPLE_RATE)
    gate = np.zeros(n + SAMPLE_RATE, np.float32)
    np.add.at(gate, opens, 1)
    np.add.at(gate, closes, -1)
    gate = np.clip(np.cumsum(gate)[:n], 0, 1)
    sound = m.click * knocks(n, rng, np.concatenate([opens, closes]), m.click_hz, 400.0)
    sound += 0.5 * m.click * knocks(n, rng, opens, 0.35 * m.click_hz, 120.0)
    sound += m.puff * gate * hiss(n, rng, m.puff_hz, m.puff_hz)
    if bad["buzz"]:  # an armature that does not seat hums at twice the mains frequency
        sound += 2 * bad["buzz"] * gate * tone(turns(100.0, n, rng), {k: 1 / k for k in range(1, 16)})
    if bad["bounce"]:
        again = np.concatenate([closes + int(delay * SAMPLE_RATE) for delay in (0.012, 0.021, 0.027)])
        sound += bad["bounce"] * m.click * knocks(n, rng, again, 1.3 * m.click_hz, 400.0)
    if bad["leak"]:
        sound += 0.4 * bad["leak"] * (1 - gate) * hiss(n, rng, 4500.0, 2500.0)
    return sound


def toy_car(m: SimpleNamespace, bad: dict[str, float], n: int, rng: np.random.Generator) -> np.ndarray:
    """A small motor whose pinion drives the axle's gear; brushes, and wheels that rattle."""
    motor = turns(m.motor_hz * (1 - 0.1 * bad["low voltage"]), n, rng)
    axle = motor * (m.pinion / m.gear)
    mesh = {order * m.pinion: m.mesh / order for order in range(1, 5)}
    sound = tone(motor, {1: 0.5, 2: 0.4, 3: 0.3, 6: 0.2} | mesh)
    sound += m.brush * hiss(n, rng, m.brush_hz, 2000.0) * (1 + 0.3 * tone(motor, {3: 1.0}))
    sound += m.rattle * knocks(n, rng, every(axle, 2), m.body_hz, 150.0, 0.5)
    if bad["bent shaft"]:
        sound *= 1 + 0.9 * bad["bent shaft"] * tone(axle, {1: 1.0})
        sound += 1.5 * bad["bent shaft"] * tone(axle, {1: 1.0, 2: 0.8, 3: 0.6, 4: 0.4})
    if bad["broken tooth"]:
        sound += 6 * bad["broken tooth"] * knocks(n, rng, every(axle, 1), 3500.0, 500.0)
    return sound


def toy_conveyor(m: SimpleNamespace, bad: dict[str, float], n: int, rng: np.random.Generator) -> np.ndarray:
    """A slower geared motor, rollers that rumble, and a belt whose seam thumps once per round."""
    motor = turns(m.motor_hz * (1 - 0.08 * bad["tight belt"]), n, rng)
    roller = motor / m.reduction
    belt = roller / m.rollers
    whine = m.whine * (1 + bad["tight belt"])
    sound = tone(motor, {1: 0.4, 2: 0.2} | {order * m.teeth: whine / order for order in range(1, 5)})
    sound += m.friction * hiss(n, rng, m.friction_hz, m.friction_hz) * (1 + 0.5 * tone(roller, {1: 1.0, 2: 0.4}))
    sound += m.seam * knocks(n, rng, every(belt, 1), m.frame_hz, 60.0)
    if bad["pulley"]:
        sound += 9 * bad["pulley"] * knocks(n, rng, every(roller, 1), 1800.0, 250.0)
    if bad["stuck object"]:
        scrape = np.clip(np.sin(2 * math.pi * np.arange(1024) / 1024) - 0.5, 0, 1) * 2
        sound += 1.5 * bad["stuck object"] * periodic(belt, scrape) * hiss(n, rng, 3200.0, 1500.0)
    return sound


@dataclass(frozen=True)
class Machine:
    """A machine type: its sound, what a specimen of it (a machine ID) is drawn from, and the official length.

    ``specimen`` has bounds of uniform draws: frequencies ``*_hz`` [Hz], times ``*_s`` [s], counts where the bounds are
    integers, and levels relative to the factory noise. ``severity`` is that of the specimen's worst anomalies: faults
    are easier to hear on one specimen than on another.
    """

    sound: Callable[..., np.ndarray]
    faults: tuple[str, ...]
    seconds: float
    specimen: dict[str, tuple[float, float]]


# fmt: off
MACHINES = {  # in the order of the official eval_data_list.csv
    "fan": Machine(fan, ("imbalance", "bearing", "blockage"), 10.0, {
        "shaft_hz": (18.0, 32.0), "blades": (5, 9), "balls": (7, 11), "tone": (0.3, 0.8), "flow": (0.4, 0.9),
        "flow_hz": (500.0, 1500.0), "housing_hz": (2200.0, 4500.0), "severity": (0.3, 1.2)}),
    "pump": Machine(pump, ("leak", "missed strokes", "cavitation"), 10.0, {
        "stroke_hz": (2.5, 6.0), "gear": (18, 30), "flow": (0.3, 0.7), "flow_hz": (400.0, 1200.0), "clack": (1.0, 3.0),
        "clack_hz": (1200.0, 2600.0), "hum": (0.3, 0.7), "severity": (0.8, 1.6)}),
    "slider": Machine(slider, ("rail pit", "second rail", "dry rail"), 10.0, {
        "stroke_hz": (0.4, 0.9), "screw_hz": (25.0, 45.0), "starts": (7, 13), "rail": (0.4, 0.9),
        "rail_hz": (900.0, 2200.0), "screw": (0.2, 0.5), "stop": (2.0, 6.0), "stop_hz": (300.0, 900.0),
        "severity": (0.8, 1.6)}),
    "valve": Machine(valve, ("buzz", "bounce", "leak"), 10.0, {
        "cycle_hz": (0.5, 1.1), "second": (0.2, 0.4), "third": (0.5, 0.8), "open_s": (0.05, 0.15), "click": (4.0, 12.0),
        "click_hz": (1800.0, 4500.0), "puff": (0.3, 0.8), "puff_hz": (1500.0, 4000.0), "severity": (1.2, 2.2)}),
    "ToyCar": Machine(toy_car, ("bent shaft", "broken tooth", "low voltage"), 11.0, {
        "motor_hz": (90.0, 140.0), "pinion": (8, 12), "gear": (30, 42), "mesh": (0.4, 1.0), "brush": (0.2, 0.6),
        "brush_hz": (3000.0, 5500.0), "rattle": (0.5, 2.0), "body_hz": (500.0, 1200.0), "severity": (0.6, 1.4)}),
    "ToyConveyor": Machine(toy_conveyor, ("tight belt", "pulley", "stuck object"), 10.0, {
        "motor_hz": (45.0, 75.0), "teeth": (9, 14), "reduction": (9.0, 15.0), "rollers": (6, 10), "whine": (0.3, 0.8),
        "friction": (0.5, 1.2), "friction_hz": (300.0, 900.0), "seam": (2.0, 5.0), "frame_hz": (120.0, 250.0),
        "severity": (0.6, 1.4)}),
}
# fmt: on

SPEEDS = ("shaft_hz", "stroke_hz", "screw_hz", "cycle_hz", "motor_hz")  # how fast a specimen goes
SIMILAR = {  # part of a machine type's name -> the type that sounds most like it
    "car": "ToyCar", "train": "ToyCar", "toothbrush": "ToyCar", "gear": "ToyConveyor", "band": "ToyConveyor",
    "sewing": "ToyConveyor", "printer": "slider", "scanner": "slider", "arm": "slider", "shaker": "pump",
    "compressor": "pump", "bearing": "fan", "grinder": "fan", "drone": "fan", "vacuum": "fan", "blower": "fan",
    "dryer": "fan", "motor": "fan", "sander": "fan",
}  # fmt: skip


def machine_of(machine_type: str) -> Machine:
    """The machine that clips of a type sound like: its own, a similar one, or any, always the same one."""
    name = machine_type.lower()
    table = {own.lower(): own for own in MACHINES} | SIMILAR
    found = next((own for part, own in table.items() if part in name), None)
    return MACHINES[found or list(MACHINES)[zlib.crc32(machine_type.encode()) % len(MACHINES)]]
