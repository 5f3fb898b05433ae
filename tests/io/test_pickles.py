"""Pickles that would take for ever, fill the memory or call something; what is read is tested with its data set."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid.errors import InputError
from reid.io.pickles import load_pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"a": (1, 2.5, None, True), 3: b"\xff\0"}, {"a": [1, 2.5, None, True], "3": "\xff\0"}),
        (np.array([[1, 2], [3, 4]], dtype=">i4", order="F"), [[1, 2], [3, 4]]),
        (np.array(["ä", "b"]), ["ä", "b"]),
        (np.array(["a", [1], None], dtype=object), ["a", [1], None]),
        ([np.float32(0.5), np.zeros(0), np.zeros((2, 0)), {1}], [0.5, [], [[], []], [1]]),
        (bytearray(b"ab"), "ab"),
    ],
)
def test_plain_values_and_arrays(tmp_path: Path, value: Any, plain: Any, protocol: int) -> None:
    if isinstance(value, bytearray | list) and protocol < (5 if isinstance(value, bytearray) else 4):
        return  # written as calls of bytearray and set, which are not read
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
    assert load_pickle(tmp_path / "a.pkl") == plain


TUPLES = b"\x80\x02)q\0" + b"".join(
    b"h" + bytes([n]) * 1 + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(60)
)
LISTS = b"\x80\x02]q\0" + b"".join(b"](" + (b"h" + bytes([n])) * 16 + b"eq" + bytes([n + 1]) for n in range(12)) + b"."


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (TUPLES + b"}h\x3cK\x01s.", "unusual keys"),
        (LISTS, "more than 20,000 values"),
        (b"\x80\x02(((((.", "corrupt"),
        (b"\x80\x02]q\x00h\x00ah\x00a.", "nested deeper"),
        (
            pickle.dumps(np.zeros((3, 0)), 2).replace(b"K\x03K\x00", b"J\xff\xff\xff\x7fK\x00"),
            "more than|unusual shape",
        ),
        (b"\x80\x02ccopyreg\n_reconstructor\n.", r"the global copyreg\._reconstructor"),
        (b"\x80\x02(ios\nsystem\n.", "the instruction INST"),
        (b"\x80\x02Pid\n.", "the instruction PERSID"),
        (b"\x80\x02\x82\x01.", "the instruction EXT1"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", None),
        (b"\x80\x05\x96" + b"\xff" * 7 + b"\x7fabc.", "corrupt"),
        (b"\x80\x02\x8f(" + TUPLES[2:] + b"h\x3ce.", "more than 20,000 values"),
        (b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\1btR.", None),
        (b"\x80\x02cnumpy\ndtype\nU\2V9\x85R.", "an array of 'V9'"),
    ],
    ids=[
        "hash",
        "shared",
        "marks",
        "circle",
        "empty rows",
        "global",
        "inst",
        "persid",
        "extension",
        "memo",
        "bytearray",
        "set",
        "reconstruct",
        "void",
    ],
)
def test_hostile_pickles_are_harmless(
    tmp_path: Path, data: bytes, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "reid.io.pickles.MAX_VALUES", 20_000
    )  # else counting takes seconds, as tests/fuzz/bombs.py does
    (tmp_path / "a.pkl").write_bytes(data)
    if words is None:  # harmless here
        assert load_pickle(tmp_path / "a.pkl") == []
        return
    with pytest.raises(InputError, match=words):
        load_pickle(tmp_path / "a.pkl")
