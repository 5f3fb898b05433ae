"""SVDNet for pedestrian retrieval: training, correlation diagnostics and exact ranking evaluation."""

__version__ = "0.2.0"
