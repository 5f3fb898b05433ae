"""The short form of `make fault` on single bits, and that it sees what it is to see."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault.bit_flips import FORMATS, Format, flip, same

FLIPS = 40  # a format, of up to 20,000 in `make fault`


@pytest.mark.parametrize("name", FORMATS)
def test_a_flipped_bit_is_refused_or_harmless(tmp_path: Path, name: str) -> None:
    outcome = flip(FORMATS[name], tmp_path, FLIPS)
    assert not outcome.faults, "\n".join(outcome.faults[:3])
    assert outcome.counts.total() == FLIPS


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "a").write_bytes(b"12")

    outcome = flip(Format(write, lambda folder: int((folder / "a").read_bytes()), same), tmp_path, 100)
    assert outcome.counts.total() == 16 and outcome.counts["traceback"] > 0 and outcome.counts["wrong"] > 0
