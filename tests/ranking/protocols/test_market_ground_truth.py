"""The protocol compared with the lists of good and junk images of Market-1501."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from reid.ranking import matches_and_junk
from reid.records import JUNK


def test_good_and_junk_equal_the_official_lists(real_data: Path) -> None:
    """For every eighth of the 3,368 queries, numbers from 1 in the gallery sorted by file name.

    What the official junk lists hold: the images of the query's identity by its own camera, and never those of identity
    -1, which the authors' evaluation removes by their label. 14 of all lists are empty, 13 of them written as a
    single 0.
    """
    empty = 0
    with zipfile.ZipFile(real_data / "Market-1501-v15.09.15.zip") as archive:
        names = [Path(name) for name in archive.namelist()]
        gallery = sorted(name.name for name in names if name.parent.name == "bounding_box_test" and ".jpg" in name.name)
        query = sorted(name for name in names if name.parent.name == "query" and ".jpg" in name.name)
        assert len(gallery) == 19732 and len(query) == 3368
        identities, cameras = np.array([label(name) for name in gallery]).T
        for path in query[::8]:
            matches, junk = matches_and_junk(*label(path.name), identities, cameras)
            lists = path.parent.parent / "gt_query" / path.name.split(".")[0]
            good = numbers(archive.read(f"{lists}_good.mat"), "good_index")
            own_camera = numbers(archive.read(f"{lists}_junk.mat"), "junk_index")
            assert np.array_equal(matches, good - 1), path.name
            assert np.array_equal(junk[identities[junk] != JUNK], own_camera - 1), path.name
            assert (identities[junk] == JUNK).sum() == 3819
            empty += len(own_camera) == 0
    assert empty == 4


def label(name: str) -> tuple[int, int]:
    """Identity and camera, from a file name such as 0001_c1s1_001051_00.jpg."""
    found = re.match(r"(-?\d+)_c(\d)", name)
    assert found, name
    return int(found[1]), int(found[2])


def numbers(content: bytes, name: str) -> np.ndarray:
    """The ascending numbers of a list; 0 stands for none."""
    listed = loadmat(io.BytesIO(content))[name].ravel().astype(np.int64)
    return np.sort(listed[listed > 0])
