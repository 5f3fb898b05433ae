"""Datasets that the project draws itself: pedestrians in the exact layout of Market-1501 or DukeMTMC-reID, landmarks in
that of revisited Oxford and Paris.
"""

from __future__ import annotations

from reid.data.synthetic.dataset import generate_dataset
from reid.data.synthetic.landmarks import generate_landmarks

__all__ = ["generate_dataset", "generate_landmarks"]
