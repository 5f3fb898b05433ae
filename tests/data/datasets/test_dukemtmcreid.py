"""DukeMTMC-reID: file names, and the error for a missing copy."""

from __future__ import annotations

import pytest

from reid.data.datasets.dukemtmcreid import read_dukemtmcreid
from reid.errors import InputError

NAMES = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c8_f0055972.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0051341.jpg", "7139_c1_f0090001.jpg"],
}


def test_labels_come_from_the_names(tmp_path, make_folder):
    make_folder(tmp_path / "DukeMTMC-reID", NAMES)
    split = read_dukemtmcreid(tmp_path, strict=False, cache=tmp_path / "cache")
    assert split.name == "dukemtmcreid"
    assert [(image.identity, image.camera) for image in split.train] == [(1, 2), (1, 8)]
    assert [(image.identity, image.camera) for image in split.gallery] == [(5, 5), (7139, 1)]


def test_the_official_counts_are_checked(tmp_path, make_folder):
    make_folder(tmp_path / "DukeMTMC-reID", NAMES)
    with pytest.raises(InputError, match=r"train has 2 images, not 16,522.*gallery has 2 identities, not 1,110"):
        read_dukemtmcreid(tmp_path, cache=tmp_path / "cache")


def test_a_missing_copy_is_not_downloaded(tmp_path):
    with pytest.raises(InputError, match=r"withdrawn by its owners in 2019.*only an existing copy"):
        read_dukemtmcreid(tmp_path, cache=tmp_path / "cache")


def test_market_names_are_not_taken_for_duke_names(tmp_path, make_folder):
    make_folder(tmp_path / "DukeMTMC-reID")
    with pytest.raises(InputError, match="not a file name of DukeMTMC-reID"):
        read_dukemtmcreid(tmp_path, strict=False, cache=tmp_path / "cache")
