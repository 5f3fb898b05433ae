"""Packaging of `reid`. Lower bounds are versions the tests have run with."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "reid/__init__.py").read_text(encoding="utf-8"))
assert VERSION is not None

REPORT = ["jinja2>=3.1.6", "matplotlib>=3.11"]
SEARCH = ["faiss-cpu>=1.15"]
LOSSES = ["pytorch-metric-learning>=2.9"]
EXPORT = ["onnx>=1.23", "onnxscript>=0.7", "onnxruntime>=1.31", "jinja2>=3.1.6"]
SERVE = ["fastapi>=0.165", "uvicorn>=0.54", "python-multipart>=0.0.34", "jinja2>=3.1.6"]
TENSORBOARD = ["tensorboard>=2.21"]
TEST = ["pytest>=9.2", "pytest-xdist>=3.8", "hypothesis>=6.170", "playwright>=1.65", "httpx>=0.28", "packaging>=26"]
LINT = ["ruff>=0.17", "mypy>=2.4", "types-PyYAML", "types-setuptools", "types-tqdm"]

setup(
    name="reid",
    version=VERSION.group(1),
    description="SVDNet for pedestrian retrieval: training, correlation and exact ranking evaluation",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["reid", "reid.*"]),
    package_data={"reid": ["assets/*"], "reid.report": ["templates/*"], "reid.inference.export": ["templates/*"]},
    install_requires=[
        "torch>=2.15",
        "torchvision>=0.29",
        "numpy>=2.4",
        "scipy>=1.17",
        "scikit-learn>=1.9",
        "pillow>=13.0",
        "tqdm>=4.70",
        "yacs>=0.1.8",
        "pyyaml>=6.0.3",
        "safetensors>=0.8",
    ],
    extras_require={
        "report": REPORT,
        "tensorboard": TENSORBOARD,
        "search": SEARCH,
        "losses": LOSSES,
        "export": EXPORT,
        "serve": SERVE,
        "dev": [*REPORT, *TENSORBOARD, *SEARCH, *LOSSES, *EXPORT, *SERVE, *TEST, *LINT],
    },
)
