"""Datasets -> checked splits -> decoded arrays -> batches."""

from __future__ import annotations

from collections.abc import Callable

from reid.data.datasets.combine import combine
from reid.data.datasets.cuhk01 import read_cuhk01
from reid.data.datasets.cuhk03np import read_cuhk03np_detected, read_cuhk03np_labeled
from reid.data.datasets.dukemtmcreid import read_dukemtmcreid
from reid.data.datasets.folder import read_tree
from reid.data.datasets.layout import banner
from reid.data.datasets.market1501 import read_drawn_boxes, read_market1501
from reid.data.datasets.market1501_500k import read_market1501_500k
from reid.data.datasets.msmt17 import read_msmt17
from reid.data.datasets.pattern import compile_pattern
from reid.data.datasets.revisited import RevisitedGroundTruth, read_revisited
from reid.data.datasets.revisited_images import RevisitedImages, read_revisited_images
from reid.data.datasets.synthetic import read_synthetic
from reid.records import Split

DATASETS: dict[str, Callable[..., Split]] = {
    "market1501": read_market1501,
    "market1501_500k": read_market1501_500k,
    "dukemtmcreid": read_dukemtmcreid,
    "msmt17": read_msmt17,
    "cuhk03np_labelled": read_cuhk03np_labeled,
    "cuhk03np_detected": read_cuhk03np_detected,
    "cuhk01": read_cuhk01,
    "folder": read_tree,
    "synthetic": read_synthetic,
}

__all__ = [
    "DATASETS",
    "RevisitedGroundTruth",
    "RevisitedImages",
    "banner",
    "combine",
    "compile_pattern",
    "read_cuhk01",
    "read_cuhk03np_detected",
    "read_cuhk03np_labeled",
    "read_drawn_boxes",
    "read_dukemtmcreid",
    "read_market1501",
    "read_market1501_500k",
    "read_msmt17",
    "read_revisited",
    "read_revisited_images",
    "read_synthetic",
    "read_tree",
]
