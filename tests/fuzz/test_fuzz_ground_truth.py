"""Ground truth of image retrieval, a pickle or a JSON text."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.harness import altered, attempt, fuzz, mutated
from hypothesis import strategies as st

from reid.data.datasets.revisited import read_revisited
from reid.io.pickles import load_pickle


def truth(array: Any) -> dict[str, Any]:
    query = {"bbx": [1.0, 2.0, 3.0, 4.0], "easy": array([0, 1]), "hard": array([2]), "junk": array([])}
    return {"imlist": ["a", "b", "c"], "qimlist": ["q"], "gnd": [query]}


def as_array(numbers: list[int]) -> Any:
    return np.array(numbers, dtype=np.int64)


PICKLES = [pickle.dumps(truth(kind), protocol) for kind in (list, as_array) for protocol in range(6)]
INSTRUCTIONS = [
    *(b"(", b")", b"]", b"}", b"N", b"K\x02", b"M\xff\xff", b"U\x01a", b"X\x01\0\0\0b", b"C\x04\1\2\3\4", b"\x8f"),
    *(b"t", b"\x85", b"\x86", b"\x87", b"l", b"d", b"a", b"e", b"s", b"u", b"0", b"1", b"2", b"\x90", b"\x91", b"\x94"),
    *(
        b"q\0",
        b"h\0",
        b"r\xff\xff\xff\xff",
        b"j\xff\xff\xff\x7f",
        b"p99999999999\n",
        b"g0\n",
        b"R",
        b"b",
        b"o",
        b"\x81",
    ),
    *(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy._core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n"),
    *(b"cos\nsystem\n", b"ios\nsystem\n", b"\x93", b"Pid\n", b"Q", b"\x82\x01", b"I9999999999999999\n", b"F1e999\n"),
    *(
        b"L" + b"9" * 6000 + b"L\n",
        b"S'\\xff'\n",
        b"\x8a\x08" + b"\xff" * 8,
        b"\x95" + b"\xff" * 8,
        b"\x96" + b"\x7f" * 8,
    ),
    *(b"]" + b"(h\0h\0h\0h\0e" * 30, b"((" * 100, b"\x80\x05", b"."),
]


@fuzz(data=mutated(*PICKLES))
def test_mutated_pickles(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "gnd.pkl").write_bytes(data)
    attempt("ground truth: pickles", lambda: read_revisited(tmp_path / "gnd.pkl"))


@fuzz(st.lists(st.sampled_from(INSTRUCTIONS), max_size=40))
def test_pickles_of_any_instructions(tmp_path: Path, instructions: list[bytes]) -> None:
    (tmp_path / "gnd.pkl").write_bytes(b"\x80\x04" + b"".join(instructions) + b".")
    found = attempt("ground truth: instructions", lambda: load_pickle(tmp_path / "gnd.pkl"))
    assert found is None or isinstance(found, dict | list | str | int | float)


@fuzz(altered(truth(list)), st.integers(0, 5))
def test_other_content(tmp_path: Path, content: Any, protocol: int) -> None:
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(content, protocol))
    (tmp_path / "gnd.json").write_text(json.dumps(content), encoding="utf-8")
    attempt("ground truth: content, pickled", lambda: read_revisited(tmp_path / "gnd.pkl"))
    attempt("ground truth: content, JSON", lambda: read_revisited(tmp_path / "gnd.json"))


@fuzz(mutated(json.dumps(truth(list)).encode()))
def test_mutated_json(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "gnd.json").write_bytes(data)
    attempt("ground truth: JSON", lambda: read_revisited(tmp_path / "gnd.json"))
