"""Datasets, image decoding, augmentation and batch loading."""

from __future__ import annotations

from reid.data.datasets import DATASETS
from reid.data.datasets.layout import split_table
from reid.data.datasets.revisited_images import RevisitedImages, read_revisited_images

__all__ = ["DATASETS", "RevisitedImages", "read_revisited_images", "split_table"]
