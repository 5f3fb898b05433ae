"""The arguments of each command. Nothing here imports NumPy or PyTorch, so that `--help` takes no time."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from reid.commands.parsers import evaluation, files, searching, training

# Name of a command, which is that of its module in `reid.commands` -> function that makes its parser.
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "train": training.train,
    "evaluate": evaluation.evaluate,
    "diagnose": evaluation.diagnose,
    "report": training.report,
    "sweep": training.sweep,
    "ranks": evaluation.ranks,
    "extract": evaluation.extract,
    "index": searching.index,
    "search": searching.search,
    "serve": searching.serve,
    "calibrate": searching.calibrate,
    "export": files.export,
    "convert": files.convert,
    "dataset": files.dataset,
    "retrieve": evaluation.retrieve,
    "attend": evaluation.attend,
    "pack": files.pack,
    "profile": training.profile,
}

# Name of a command -> the arguments of an example in its help text.
EXAMPLES = {
    "train": "--config-file configs/demo_synthetic.yaml OUTPUT_DIR runs/demo",
    "evaluate": "--weights runs/demo/checkpoints/rri_last.pth --rerank",
    "diagnose": "--weights runs/demo/checkpoints/rri_last.pth --config-file configs/demo_synthetic.yaml",
    "report": "runs/demo runs/other --output comparison.html",
    "sweep": "--config-file configs/demo_synthetic.yaml --grid 'RRI.VARIANT=US,U,UVt' --seeds 3",
    "ranks": "--weights runs/demo/checkpoints/rri_last.pth --against runs/demo/checkpoints/control_last.pth",
    "extract": "--weights runs/demo/checkpoints/rri_last.pth --output features",
    "index": "crops --weights demo --pattern market1501",
    "search": "person.jpg --top 20 --output answers.html",
    "serve": "--index index --port 8000",
    "calibrate": "--weights runs/demo/checkpoints/rri_last.pth --config-file configs/demo_synthetic.yaml",
    "export": "--weights runs/demo/checkpoints/rri_last.pth --output model.onnx",
    "convert": "osnet_x1_0_market.pth market.pth --family torchreid",
    "dataset": "--size tiny --seed 0 --output datasets/tiny",
    "retrieve": "--weights runs/demo/checkpoints/rri_last.pth --dataset roxford5k --scales 1,0.7071,0.5",
    "attend": "--weights runs/parts/pooling_weighted_gem/checkpoints/rri_last.pth crops/0001.jpg --output attention",
    "pack": "runs/demo/checkpoints/rri_last.pth model.safetensors --no-classifier",
    "profile": "--config-file configs/demo_synthetic.yaml --steps 50",
}
