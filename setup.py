"""Packaging of `reid` as `svdnet`. The lower bounds are those of constraints/oldest.txt, which tests run with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "reid/__init__.py").read_text(encoding="utf-8"))
assert VERSION is not None

REPORT = ["jinja2>=3.1.2", "matplotlib>=3.8.4"]
SEARCH = ["faiss-cpu>=1.8", "numkong>=7.8.6"]
EXPORT = ["onnx>=1.23", "onnxscript>=0.7", "onnxruntime>=1.31", "jinja2>=3.1.2"]
OPENVINO = ["openvino>=2025.1", "onnx>=1.23"]
SERVE = ["fastapi>=0.165", "uvicorn>=0.54", "python-multipart>=0.0.34", "jinja2>=3.1.2"]
MILVUS = ["pymilvus>=3.0", "milvus-lite>=3.2"]
TENSORBOARD = ["tensorboard>=2.21"]
TIMM = ["timm>=1.0.24"]
LIGHTNING = ["lightning>=2.5"]
TRANSFORMERS = ["transformers>=4.57", "accelerate>=1.10"]
TEST = [
    *("pytest>=9.2", "pytest-xdist>=3.8", "hypothesis>=6.170", "playwright>=1.65", "httpx>=0.28", "packaging>=26"),
    *("ipython>=9.18", "nbformat>=5.11", "ipykernel>=7.4"),
    "pytorch-metric-learning>=2.9,<3",  # losses to compare ours with
    "mpmath>=1.3",  # singular values to hundreds of digits
]
COMPARED = ["weightwatcher>=0.7.7"]  # spectral quantities to compare ours with
DOCS = ["mkdocs>=1.6.1,<2", "mkdocs-material>=9.8", "mkdocstrings-python>=2.0.11", "ruff>=0.17"]
COVERAGE = ["pytest-cov>=7.1"]
LINT = ["ruff>=0.17", "mypy>=2.4", "types-PyYAML", "types-setuptools"]


class BuildWithConfigs(build_py):
    """Copies `configs/` into a built package; an editable installation reads the folder itself."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree(HERE / "configs", Path(self.build_lib, "reid", "configs"), dirs_exist_ok=True)


setup(
    name="svdnet",
    version=VERSION.group(1),
    description="SVDNet for pedestrian retrieval: training, correlation and exact ranking evaluation",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    author="The reid authors",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    cmdclass={"build_py": BuildWithConfigs},
    python_requires=">=3.11",
    packages=find_packages(include=["reid", "reid.*"]),
    package_data={
        "reid": ["py.typed", "assets/*"],
        "reid.report": ["templates/*"],
        "reid.inference.export": ["templates/*"],
    },
    entry_points={"console_scripts": ["svdnet = reid.commands:main"]},
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=1.26.4",
        "scipy>=1.11.4",
        "scikit-learn>=1.4.2",
        "threadpoolctl>=3.8",
        "pillow>=10.4",
        "rich>=13.3.1",
        "yacs>=0.1.8",
        "pyyaml>=6.0.1",
        "safetensors>=0.4.3",
    ],
    extras_require={
        "report": REPORT,
        "tensorboard": TENSORBOARD,
        "search": SEARCH,
        "export": EXPORT,
        "openvino": OPENVINO,
        "serve": SERVE,
        "milvus": MILVUS,
        "timm": TIMM,
        "lightning": LIGHTNING,
        "transformers": TRANSFORMERS,
        "tests": [*REPORT, *SEARCH, *TEST],  # what runs with constraints/oldest.txt
        "docs": DOCS,
        "dev": [
            *REPORT,
            *TENSORBOARD,
            *SEARCH,
            *EXPORT,
            *OPENVINO,
            *SERVE,
            *MILVUS,
            *TIMM,
            *LIGHTNING,
            *TRANSFORMERS,
            *TEST,
            *COMPARED,
            *COVERAGE,
            *LINT,
            *DOCS,
        ],
    },
)
