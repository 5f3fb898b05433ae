"""Datasets -> checked splits -> decoded arrays -> batches."""

from __future__ import annotations

from collections.abc import Callable

from reid.data.dukemtmcreid import read_dukemtmcreid
from reid.data.layout import banner
from reid.data.market1501 import read_drawn_boxes, read_market1501
from reid.data.market1501_500k import read_market1501_500k
from reid.data.revisited import RevisitedGroundTruth, read_revisited
from reid.data.synthetic_reader import read_synthetic
from reid.records import Split

DATASETS: dict[str, Callable[..., Split]] = {
    "market1501": read_market1501,
    "market1501_500k": read_market1501_500k,
    "dukemtmcreid": read_dukemtmcreid,
    "synthetic": read_synthetic,
}

__all__ = [
    "DATASETS",
    "RevisitedGroundTruth",
    "banner",
    "read_drawn_boxes",
    "read_dukemtmcreid",
    "read_market1501",
    "read_market1501_500k",
    "read_revisited",
    "read_synthetic",
]
