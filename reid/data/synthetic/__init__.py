"""A pedestrian dataset that the project draws itself, in the exact layout of Market-1501 or DukeMTMC-reID."""

from __future__ import annotations

from reid.data.synthetic.dataset import draw_dataset

__all__ = ["draw_dataset"]
