"""Installs the dependencies and the modules; `pip install -e .[test]` is the usual way."""

from pathlib import Path

from setuptools import find_packages, setup

EXPORT = [
    "tf2onnx>=1.17,<2",
    "onnx>=1.18,<2",
    "onnxruntime>=1.22,<2",
    'ai-edge-litert>=2.1,<3; python_version >= "3.11"',  # Keras writes LiteRT from 3.13 on, which needs this Python
]

setup(
    name="wei-liu-2020-asd",
    version="1.0.0",
    description="Autoencoders and metric learning for anomalous sound detection (DCASE 2020 Challenge Task 2)",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    py_modules=sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem != "setup"),
    packages=find_packages(exclude=["tests*", "benchmarks*", "docs*", "examples*"]),
    package_data={"": ["*.yaml", "*.css"]},
    install_requires=[
        "tensorflow>=2.20,<2.23",
        "keras>=3.12,<4",
        "librosa>=0.10.2,<0.12",
        "scikit-learn>=1.5,<2",
        "threadpoolctl>=3.1,<4",  # scikit-learn brings it
        "numpy>=1.26,<3",
        "scipy>=1.13,<2",
        "soundfile>=0.12,<1",
        "matplotlib>=3.8,<4",
        "pyyaml>=6,<7",
        "pydantic>=2.7,<3",
        "tqdm>=4.66,<5",
        "requests>=2.31,<3",
        "urllib3>=2,<3",
    ],
    extras_require={
        "export": EXPORT,
        "openvino": ["openvino>=2025,<2027"],
        "test": ["pytest>=8", "pytest-xdist>=3.6", "ruff>=0.9", "import-linter>=2,<3", *EXPORT],
    },
)
