"""Networks in the files of other runtimes: what each format needs, and how a file is run. Imports none of them."""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import UserError
from training import process

LITERT_KERAS = (3, 13)  # the first that writes LiteRT; it needs Python 3.11


@dataclass(frozen=True)
class Format:
    """A format that Keras writes."""

    keras_name: str  # as Keras calls it
    suffix: str  # of its files; a folder has none
    packages: tuple[str, ...]  # beside those that are always there, by the names they are imported by


FORMATS = {
    "onnx": Format("onnx", ".onnx", ("tf2onnx", "onnx", "onnxruntime")),
    "litert": Format("litert", ".tflite", ("ai_edge_litert",)),
    "saved_model": Format("tf_saved_model", "", ()),
    "openvino": Format("openvino", ".xml", ("openvino",)),
}


def require_packages(name: str) -> None:
    """Raise UserError, saying what to install, unless files of a format can be written and run here."""
    version = importlib.metadata.version("keras")
    if name == "litert" and tuple(map(int, version.split(".")[:2])) < LITERT_KERAS:
        raise UserError(
            f"--format litert needs Keras {LITERT_KERAS[0]}.{LITERT_KERAS[1]} or newer, which needs Python 3.11; "
            f"there is Keras {version}. Take another format, or another Python"
        )
    missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
    if missing:
        extra = "openvino" if name == "openvino" else "export"
        raise UserError(
            f"--format {name} needs {', '.join(missing)}, which the project's folder installs: "
            f'pip install -e ".[{extra}]" -c constraints.txt'
        )


@dataclass(frozen=True)
class Network:
    """A network that was read from a file."""

    run: Callable[[np.ndarray], np.ndarray]  # inputs (n, ...) -> outputs (n, ...), float32 both
    facts: dict  # what a caller must know of its inputs and outputs


def load(path: Path, name: str) -> Network:
    """Read a file, or a folder, of a format."""
    return {"onnx": _onnx, "litert": _litert, "saved_model": _saved_model, "openvino": _openvino}[name](path)


def _onnx(path: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (source,), (result,) = session.get_inputs(), session.get_outputs()
    return Network(
        lambda values: session.run([result.name], {source.name: values})[0],
        {"input": {"name": source.name, "dtype": "float32"}, "output": {"name": result.name, "dtype": "float32"}},
    )


def _litert(path: Path) -> Network:
    from ai_edge_litert.interpreter import Interpreter

    with process.quiet():
        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    facts = {"input": _tensor_facts(source), "output": _tensor_facts(result)}

    def run(values: np.ndarray) -> np.ndarray:
        if values.shape != tuple(interpreter.get_input_details()[0]["shape"]):
            interpreter.resize_tensor_input(source["index"], values.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], quantised(values, facts["input"]))
        interpreter.invoke()
        return dequantised(interpreter.get_tensor(result["index"]), facts["output"])

    return Network(run, facts)


def _tensor_facts(tensor: dict) -> dict:
    facts = {"name": tensor["name"], "dtype": np.dtype(tensor["dtype"]).name}
    scale, zero_point = tensor["quantization"]
    return facts if facts["dtype"] == "float32" else {**facts, "scale": float(scale), "zero_point": int(zero_point)}


def quantised(values: np.ndarray, facts: dict) -> np.ndarray:
    """Values as a tensor takes them: ``round(value / scale) + zero_point`` within the integers' range."""
    if "scale" not in facts:
        return values
    limits = np.iinfo(facts["dtype"])
    integers = np.round(values / facts["scale"]) + facts["zero_point"]
    return np.clip(integers, limits.min, limits.max).astype(facts["dtype"])


def dequantised(values: np.ndarray, facts: dict) -> np.ndarray:
    """The other way round."""
    if "scale" not in facts:
        return values
    return (values.astype(np.float32) - facts["zero_point"]) * np.float32(facts["scale"])


def _saved_model(path: Path) -> Network:
    import tensorflow as tf

    model = tf.saved_model.load(str(path))
    facts = {"input": {"name": "serve", "dtype": "float32"}, "output": {"dtype": "float32"}}
    return Network(lambda values: model.serve(values).numpy(), facts)


def _openvino(path: Path) -> Network:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32"}  # by default some processors compute in bfloat16
    model = openvino.Core().compile_model(path, "CPU", options)
    (source,), (result,) = model.inputs, model.outputs
    facts = {"input": {"name": source.get_any_name(), "dtype": "float32"}, "output": {"dtype": "float32"}}
    facts["compile_options"] = options
    return Network(lambda values: model(values)[result], facts)
