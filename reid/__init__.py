"""SVDNet for pedestrian retrieval: training, correlation diagnostics and exact ranking evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reid.inference.embedder import Embedder as Embedder

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # Imported lazily, because it imports PyTorch.
    if name == "Embedder":
        from reid.inference.embedder import Embedder

        return Embedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
