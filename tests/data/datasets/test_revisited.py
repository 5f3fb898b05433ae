from __future__ import annotations

import json
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid.data.datasets.revisited import RevisitedGroundTruth, read_revisited
from reid.errors import InputError


def miniature(arrays: bool) -> dict[str, Any]:
    """The published layout: 7 gallery images, 2 queries."""

    def index(*values: int) -> Any:
        return np.array(values, dtype=np.int64) if arrays else list(values)

    return {
        "imlist": [f"all_souls_{i:06d}" for i in range(7)],
        "qimlist": ["all_souls_000013", "hertford_000015"],
        "gnd": [
            {"bbx": [136.5, 34.1, 648.5, 955.7], "easy": index(0, 4), "hard": index(2), "junk": index(6, 1)},
            {
                "bbx": np.array([1.0, 2, 3, 4]) if arrays else [1, 2, 3, 4],
                "easy": index(),
                "hard": index(3),
                "junk": index(),
            },
        ],
    }


def assert_is_the_miniature(found: RevisitedGroundTruth) -> None:
    assert found.images == tuple(miniature(False)["imlist"]) and found.queries[1] == "hertford_000015"
    np.testing.assert_array_equal(found.boxes, [[136.5, 34.1, 648.5, 955.7], [1, 2, 3, 4]])
    assert [part.tolist() for part in found.easy] == [[0, 4], []]
    assert [part.tolist() for part in found.hard] == [[2], [3]]
    assert [part.tolist() for part in found.junk] == [[6, 1], []]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("arrays", [False, True])
def test_a_pickle_of_every_protocol(tmp_path: Path, protocol: int, arrays: bool) -> None:
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickle.dumps(miniature(arrays), protocol))
    assert_is_the_miniature(read_revisited(path))


@pytest.mark.parametrize("kind", [">i4", "<u2", "<f8", "int8"])
def test_numbers_of_other_types_and_single_ones(tmp_path: Path, kind: str) -> None:
    content = miniature(False)
    content["gnd"][0]["easy"] = np.array([0, 4]).astype(kind)
    content["gnd"][0]["hard"] = [np.int16(2)]
    content["gnd"][0]["junk"] = np.asfortranarray(np.array([[6, 1]], dtype=kind))
    content["imlist"] = np.array(content["imlist"], dtype=object)
    content["qimlist"] = np.array(content["qimlist"])
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickle.dumps(content, 2))
    assert_is_the_miniature(read_revisited(path))


def test_a_pickle_of_older_pythons(tmp_path: Path) -> None:
    """Python 2 wrote byte strings and NumPy 1 other module names."""
    raw = pickle.dumps(miniature(True), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    for name in ("imlist", "bbx", "all_souls_000000"):
        text = name.encode()
        assert pickle.BINUNICODE + len(text).to_bytes(4, "little") + text in raw
        raw = raw.replace(
            pickle.BINUNICODE + len(text).to_bytes(4, "little") + text,
            pickle.SHORT_BINSTRING + bytes([len(text)]) + text,
        )
    path = tmp_path / "gnd.pkl"
    path.write_bytes(raw)
    assert_is_the_miniature(read_revisited(path))


def test_json_of_the_same_content(tmp_path: Path) -> None:
    path = tmp_path / "gnd.json"
    path.write_text(json.dumps(miniature(False)))
    assert_is_the_miniature(read_revisited(path))


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


class Calls:
    """Pickles as a call of the given function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_is_executed(tmp_path: Path, protocol: int) -> None:
    victim, path = tmp_path / "touched", tmp_path / "gnd.pkl"
    content = miniature(True)
    content["gnd"][1]["easy"] = Touch(victim)
    path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(InputError, match=r"contains the global (posix|nt)\.system; .* nothing in it was executed"):
        read_revisited(path)
    assert not victim.exists()
    pickle.loads(path.read_bytes())
    assert victim.exists()  # an ordinary reader would have done it


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Calls(eval, "1"), "builtins.eval"),
        (Calls(np.load, "x"), "numpy"),
        (Calls(getattr, "a", "b"), "getattr"),
        (np.array([1 + 2j]), "'c16'"),
        (np.zeros(2, dtype=[("a", "i4")]), "array"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "array"),
        (np.datetime64(1, "D"), "array"),
        (Path("x"), "pathlib"),
        (1j, "complex"),
    ],
    ids=["eval", "numpy.load", "getattr", "complex array", "records", "dates", "date", "path", "complex"],
)
def test_only_plain_values_are_read(tmp_path: Path, value: Any, words: str) -> None:
    content = miniature(True)
    content["gnd"][0]["easy"] = value
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickle.dumps(content, 4))
    with pytest.raises(InputError, match=words):
        read_revisited(path)


def test_the_reader_itself_cannot_be_changed_by_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "gnd.pkl"
    # GLOBAL numpy ndarray, then BUILD with a state that sets attributes on what find_class gave.
    for state in (b"}X\x08\x00\x00\x00__call__K\x01s", b"N}X\x09\x00\x00\x00_functionK\x01s\x86"):
        path.write_bytes(b"\x80\x02cnumpy\nndarray\n" + state + b"b.")
        assert list(pickletools.genops(path.read_bytes()))
        with pytest.raises(InputError, match="contains"):
            read_revisited(path)
    path.write_bytes(pickle.dumps(miniature(True)))
    assert_is_the_miniature(read_revisited(path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("qimlist"), "qimlist missing; the keys are imlist, gnd"),
        (lambda c: c.update(gnd={}), "a dict whose gnd is a list"),
        (lambda c: c["gnd"].pop(), r"1 entries in gnd for 2 names"),
        (lambda c: c.update(imlist=[1, 2]), "imlist of .*: must be a list of names"),
        (lambda c: c["gnd"][1].pop("hard"), r"gnd\[1\] \(hertford_000015\): hard missing"),
        (lambda c: c["gnd"][0].update(bbx=[1, 2]), "bbx contains 2 numbers, not 4"),
        (lambda c: c["gnd"][0].update(easy=[7]), "easy must contain indices from 0 to 6"),
        (lambda c: c["gnd"][0].update(easy=[-1]), "easy must contain indices from 0 to 6"),
        (lambda c: c["gnd"][0].update(easy=[0.5]), "easy must contain indices"),
        (lambda c: c["gnd"][0].update(easy=["0"]), "easy: must be a list of numbers, but contains str 0"),
        (lambda c: c["gnd"][0].update(hard=[0]), "an image is in hard twice or also in another list"),
        (lambda c: c["gnd"][0].update(hard=[3, 3]), "in hard twice"),
    ],
)
def test_content_of_another_shape(tmp_path: Path, change: Any, words: str) -> None:
    content = miniature(False)
    change(content)
    for path, raw in ((tmp_path / "g.json", json.dumps(content).encode()), (tmp_path / "g.pkl", pickle.dumps(content))):
        path.write_bytes(raw)
        with pytest.raises(InputError, match=words):
            read_revisited(path)


def test_invalid_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such ground-truth file"):
        read_revisited(tmp_path / "gnd.pkl")
    (tmp_path / "gnd.mat").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a \.pkl or \.json file"):
        read_revisited(tmp_path / "gnd.mat")
    raw = pickle.dumps(miniature(True))
    for content in (raw[:200], raw[: len(raw) // 2], raw[:-1], b"", b"hello", pickle.dumps([1]), b"\x80\x04\x95\xff"):
        (tmp_path / "gnd.pkl").write_bytes(content)
        with pytest.raises(InputError):
            read_revisited(tmp_path / "gnd.pkl")
    (tmp_path / "gnd.json").write_text('{"imlist": [')
    with pytest.raises(InputError, match="invalid JSON"):
        read_revisited(tmp_path / "gnd.json")
