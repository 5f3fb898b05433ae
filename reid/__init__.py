"""SVDNet for pedestrian retrieval: training, correlation diagnostics and exact ranking evaluation.

Where to start:
    - `Embedder`: a trained model at work. `Embedder.load("demo").embed(paths)` gives one row per image.
    - `evaluate`: exact CMC, mAP and mINP of features. `evaluate(query, gallery)`, two `reid.records.Features`.
    - `top_k`: exact search. `top_k(query, gallery, 10)` gives the ten nearest rows and their distances.
    - `correlation_metric`: S(W), how correlated the weight vectors of a layer are. `correlation_metric(model.fc)`.
    - `train`: SVDNet from a configuration. `train("demo_synthetic")` gives the scores and where the files are.

`help(reid.train)` and the like describe each. On the command line: `svdnet --help`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reid.commands.train import train as train
    from reid.decorrelation import correlation_metric as correlation_metric
    from reid.inference.embedder import Embedder as Embedder
    from reid.ranking import evaluate as evaluate
    from reid.ranking import top_k as top_k

__version__ = "0.2.0"

# Imported when they are used, because they import PyTorch.
_MODULES = {
    "Embedder": "reid.inference.embedder",
    "correlation_metric": "reid.decorrelation",
    "evaluate": "reid.ranking",
    "top_k": "reid.ranking",
    "train": "reid.commands.train",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_MODULES, "__version__"]
