"""Dataset readers, one file per dataset, each from folders on disk to a checked `Split`."""

from __future__ import annotations

from collections.abc import Callable

from reid.data.datasets.cuhk01 import read_cuhk01
from reid.data.datasets.cuhk03np import read_cuhk03np_detected, read_cuhk03np_labeled
from reid.data.datasets.dukemtmcreid import read_dukemtmcreid
from reid.data.datasets.folder import read_tree
from reid.data.datasets.market1501 import read_market1501
from reid.data.datasets.market1501_500k import read_market1501_500k
from reid.data.datasets.msmt17 import read_msmt17
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
"""`DATASETS.NAME` -> reader, called as `reader(root, strict=..., cache=...)` with options of its own."""
