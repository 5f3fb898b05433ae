"""The network and data of `small_run`, as fixtures."""

from small_run import loader, make_model

__all__ = ["loader", "make_model"]
