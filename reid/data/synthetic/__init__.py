"""Synthetic datasets in the layouts of Market-1501, DukeMTMC-reID (pedestrians) and revisited Oxford (landmarks)."""

from __future__ import annotations

from reid.data.synthetic.dataset import generate_dataset
from reid.data.synthetic.landmarks import generate_landmarks

__all__ = ["generate_dataset", "generate_landmarks"]
