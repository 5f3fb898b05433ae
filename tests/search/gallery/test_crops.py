"""Labels in the names of crops."""

from __future__ import annotations

import errno
import math
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reid.errors import InputError
from reid.search.gallery import PATTERNS, check_crops, list_crops, parse_time, parse_time_range

NAMES = {
    "market1501": ("0002_c1s1_000451_03.jpg", ("2", "1", "451")),
    "dukemtmcreid": ("0001_c2_f0046182.jpg", ("1", "2", "46182")),
    "cuhk03np": ("0003_c1_21.png", ("3", "1", "")),
    "msmt17": ("0000_000_01_0303morning_0008_0.jpg", ("", "1", "")),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_names_of_datasets(tmp_path: Path, pattern: str) -> None:
    name, expected = NAMES[pattern]
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / name).write_bytes(b"x")
    names = list_crops(tmp_path, pattern)
    labels = names.crops[0].labels
    assert names.unmatched == () and (labels.identity, labels.camera, labels.time) == expected


def test_junk_keeps_its_sign(tmp_path: Path) -> None:
    (tmp_path / "-1_c3s2_000451_03.jpg").write_bytes(b"x")
    assert list_crops(tmp_path, "market1501").crops[0].labels.identity == "-1"


def test_unmatched_names_have_no_labels(tmp_path: Path) -> None:
    for name in ("a_1.jpg", "a_noon.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    names = list_crops(tmp_path, "{camera}_{time}")
    assert names.unmatched == ("a_noon.jpg", "b.jpg")
    assert [crop.labels.camera for crop in names.crops] == ["a", "", ""]


@pytest.mark.parametrize("pattern, message", [("{place}_*", "--pattern .* a field is"), ("*", "no field in braces")])
def test_wrong_patterns(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_crops(tmp_path, pattern)


def test_times() -> None:
    assert parse_time("000451") == 451 and parse_time("1.5") == 1.5
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
    texts = ("2026-01-31T12:00:00", "20260131T120000", "20260131_120000", "2026-01-31_12:00", "2026-01-31T13:00+01:00")
    for text in texts:
        assert parse_time(text) == noon
    for text in ("noon", "", "nan", "inf", "1_0", "1e5", "９"):
        with pytest.raises(InputError, match="invalid time"):
            parse_time(text)


def test_a_range_of_times() -> None:
    day = datetime(2026, 1, 31, tzinfo=UTC).timestamp()
    assert parse_time_range("2026-01-31", "") == (day, math.inf) and parse_time_range("5", "000451") == (5, 451)
    first, last = parse_time_range("2026-01-31", "2026-01-31") or (0, 0)
    assert first == day and day + 86_399.9 < last < day + 86_400  # the whole day
    assert parse_time_range("", "2026-01-31T12:00") == (-math.inf, day + 43_200)
    assert parse_time_range("20261399", "20269999") == (20261399, 20269999)  # no dates
    for wrong in (("20260131", ""), ("", "20260131"), ("19700101", "20260131")):
        with pytest.raises(
            InputError, match=r"may be a number or a date; write (2026-01-31|1970-01-01) or [0-9]{8}\.0"
        ):
            parse_time_range(*wrong)
    with pytest.raises(InputError, match="ends before it starts"):
        parse_time_range("7", "5")


def test_a_folder_that_cannot_be_listed_now_is_not_called_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(os, "scandir", fail)
    for check in (check_crops, list_crops):
        with pytest.raises(OSError, match="Input/output error"):
            check(tmp_path)
