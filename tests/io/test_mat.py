"""MATLAB's files as SciPy writes and reads them, and damaged ones."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from reid.io.mat import list_variables, load_variables

CELLS = np.empty((2, 2), dtype=object)
CELLS[:] = [["a.png", np.arange(3.0)], [np.zeros((0, 0)), "ä"]]


@pytest.mark.parametrize("packed", [False, True])
def test_what_scipy_writes_is_read_as_scipy_reads_it(tmp_path: Path, packed: bool) -> None:
    random = np.random.default_rng(0)
    content: dict[str, Any] = {
        **{
            kind: random.integers(0, 100, (3, 4)).astype(kind)
            for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
        },
        "f4": random.normal(size=(5, 2)).astype("f4"),
        "f8": random.normal(size=(2, 3, 4)),
        "row": np.arange(4),
        "one": 7,
        "empty": np.zeros((0, 3)),
        "logical": np.array([True, False]),
    }
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {**content, "cells": CELLS, "text": "hällo", "n": "x"}, do_compression=packed)
    expected = scipy.io.loadmat(path)
    assert list_variables(path) == [*content, "cells", "text", "n"]
    found = load_variables(path, [*content, "cells", "text", "missing"])
    assert set(found) == {*content, "cells", "text"}
    for name in content:
        np.testing.assert_array_equal(found[name], expected[name])
        assert found[name].dtype == expected[name].dtype, name
    assert found["text"] == expected["text"] == "hällo"
    assert found["cells"].shape == (2, 2) and found["cells"][0, 0] == "a.png" and found["cells"][1, 1] == "ä"
    np.testing.assert_array_equal(found["cells"][0, 1], [[0.0, 1, 2]])


def matlab(**content: Any) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, content)
    return buffer.getvalue()


def test_a_file_of_the_other_byte_order(tmp_path: Path) -> None:
    assert sys.byteorder == "little"
    data = matlab(x=np.array([[1, 2, 3, 4]], "i4"))
    # Of a matrix of int32 all but the name is of four-byte units.
    name = data.index(b"x", 128)
    swapped = b"".join(
        data[i : i + 4][::-1] if not name <= i + 3 < name + 4 else data[i : i + 4] for i in range(128, len(data), 4)
    )
    swapped = swapped.replace(b"\x01\0\0\0x", b"\0\x01\0\1x")
    (tmp_path / "a.mat").write_bytes(data[:124] + b"\x01\x00MI" + swapped)
    assert load_variables(tmp_path / "a.mat", ["x"])["x"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    "value",
    [{"a": 1}, np.array([1 + 2j]), scipy.sparse.eye(3)],
    ids=["structure", "complex", "sparse"],
)
def test_variables_of_other_kinds(tmp_path: Path, value: Any) -> None:
    (tmp_path / "a.mat").write_bytes(matlab(x=value, y=1))
    assert load_variables(tmp_path / "a.mat", ["y"])["y"] == 1
    with pytest.raises(ValueError, match="not a plain array"):
        load_variables(tmp_path / "a.mat", ["x"])


def test_every_cut_and_every_changed_byte_is_read_or_refused(tmp_path: Path) -> None:
    """A compiled reader that trusts a tag of these ends the process."""
    data = matlab(x=np.arange(6.0).reshape(2, 3), c=CELLS)
    path = tmp_path / "a.mat"
    for place in range(0, len(data)):
        for changed in (
            data[:place],
            data[:place] + b"\xff" + data[place + 1 :],
            data[:place] + b"\1" + data[place + 1 :],
        ):
            path.write_bytes(changed)
            try:
                found = load_variables(path, ["x", "c"])
            except ValueError:
                continue
            assert all(isinstance(value, np.ndarray) for value in found.values())
