"""Checkpoints and other files of tensors: the zip, the pickle in it, what it says, and safetensors."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.harness import attempt, fuzz, mutated, texts, values
from hypothesis import strategies as st
from safetensors.torch import save

from reid.config import build
from reid.config.loading import defaults, load_config
from reid.inference.conversion import load_network
from reid.io.checkpoint import load_checkpoint, load_tensors, save_checkpoint
from reid.io.state_dicts import read_state_dict
from reid.model.pretrained import load_pretrained

SMALL = ["MODEL.BACKBONE", "osnet_x0_25", "MODEL.WEIGHTS", "none", "MODEL.EIGENLAYER.DIM", "8"]
READERS: tuple[Callable[[Path], Any], ...] = (
    load_tensors,
    load_checkpoint,
    read_state_dict,
    lambda path: load_pretrained("osnet_x0_25", str(path)),
)


def content() -> dict[str, Any]:
    model = {"a.weight": torch.zeros(3, 2), "a.bias": torch.ones(3), "a.count": torch.tensor(5)}
    return {
        "format": 1,
        "model": model,
        "config": defaults().dump(),
        "num_classes": 4,
        "epoch": 2,
        "rows": [{"x": 0.5}],
    }


def saved(what: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(what, buffer, **options)
    return buffer.getvalue()


FILES = [saved(content()), saved(content()["model"]), saved(content(), _use_new_zipfile_serialization=False)]
FILES += [pickle.dumps(content()["config"]), saved([1, 2]), saved({"state_dict": {"module.a": torch.zeros(2)}})]


def read(folder: Path, target: str, data: bytes, *, suffix: str = ".pth", readers: Any = READERS) -> None:
    path = folder / f"file{suffix}"
    path.write_bytes(data)
    for reader in readers:
        attempt(target, lambda reader=reader: reader(path))


@fuzz(mutated(*FILES))
def test_mutated_files(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, "checkpoints: mutated", data, readers=READERS[:2])


def repacked(change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The first file with other content in its parts and right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(FILES[0])) as good, zipfile.ZipFile(buffer, "w", compression) as out:
        for entry in good.infolist():
            out.writestr(entry.filename, change(entry.filename, good.read(entry)))
    return buffer.getvalue()


PICKLE = next(
    zipfile.ZipFile(io.BytesIO(FILES[0])).read(name)
    for name in zipfile.ZipFile(io.BytesIO(FILES[0])).namelist()
    if name.endswith("data.pkl")
)


@fuzz(mutated(PICKLE), st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
def test_mutated_pickles_in_a_sound_zip(tmp_path: Path, data: bytes, kind: int) -> None:
    file = repacked(lambda name, part: data if name.endswith("data.pkl") else part, kind)
    read(tmp_path, "checkpoints: inner pickle", file, readers=READERS[:2])


def odd_tensors() -> st.SearchStrategy[Any]:
    one = torch.zeros(1)
    return st.sampled_from(
        [
            *(one.expand(10**9), one.expand(2**20, 2**20), torch.zeros(0, 10**15), torch.empty(3, 2, device="meta")),
            *(torch.zeros(3, 2, dtype=kind) for kind in (torch.int8, torch.bool, torch.complex64, torch.bfloat16)),
            *(torch.eye(3).to_sparse(), torch.full((3, 2), float("nan")), torch.zeros([1] * 30), torch.zeros(())),
            torch.quantize_per_tensor(torch.zeros(3, 2), 0.1, 0, torch.quint8),
            *(torch.nn.Parameter(torch.zeros(3, 2)), torch.zeros(2, 3).T, torch.zeros(10)[::3]),
        ]
    )


def odd() -> st.SearchStrategy[Any]:
    return st.one_of(
        values(),
        odd_tensors(),
        st.dictionaries(st.one_of(texts(), st.integers(), st.tuples(st.integers())), odd_tensors(), max_size=3),
        st.just({1, 2}).map(set),
        st.just(OrderedDict(a=torch.zeros(2))),
        st.just("MODEL: {BACKBONE: small_full, POOLING: {NAME: flatten}}\nINPUT: {SIZE: [128, 64]}"),
    )


def around(value: dict[Any, Any]) -> dict[Any, Any]:
    value["model"], value["state_dict"] = value, {"model": value}
    value["teacher"] = {"a": {"b": torch.zeros(2)}, "c": {"d": torch.zeros(2)}}
    return value


@fuzz(
    st.dictionaries(
        st.one_of(st.sampled_from(("format", "model", "config", "num_classes", "state_dict", "net")), texts()),
        odd(),
        max_size=3,
    ),
    st.booleans(),
    share=0.5,
)
def test_other_content(tmp_path: Path, changes: dict[str, Any], circle: bool) -> None:
    changed: dict[Any, Any] = {**content(), **changes}
    try:
        data = saved(around(changed) if circle else changed)
    except (NotImplementedError, RuntimeError, OverflowError, UnicodeError, RecursionError):
        return  # no such file can be written
    read(tmp_path, "checkpoints: content", data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a checkpoint of a small network holds."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "c.yaml").write_text("")
    config = load_config(folder / "c.yaml", SMALL)
    model = build.network(config, num_classes=3)
    return {"model": model.state_dict(), "config": config.dump(), "num_classes": 3}


LINES = [
    *("MODEL.EIGENLAYER.DIM: 9000000000000000000", "MODEL.EIGENLAYER.DIM: 200000000", "MODEL.EIGENLAYER.DIM: 9"),
    *(
        "MODEL.BACKBONE: resnet101",
        "MODEL.NORM: {NAME: group, GROUPS: 7}",
        "MODEL.POOLING: {NAME: netvlad, CLUSTERS: 900000000}",
    ),
    *("MODEL.POOLING: {NAME: regional_weighted_gem, REGIONS: 1000000000}", "MODEL.POOLING: {NAME: rmac, LEVELS: 99}"),
    *("MODEL.EIGENLAYER.PARAMETRIZATION: orthogonal", "MODEL.CLASSIFIER: {NAME: arcface}", "MODEL.NECK: bnneck"),
    *("MODEL.POOLING: {NAME: ghost_vlad, GHOSTS: 900000000}", "SEED: 9", "nonsense: 1", "MODEL: 7", "[", ""),
]


@fuzz(
    st.lists(st.sampled_from(LINES), max_size=2),
    st.one_of(st.just(3), st.sampled_from((0, -1, 4, True, 2**31, 2**62, 10**30))),
    st.lists(st.tuples(st.integers(0, 200), odd_tensors()), max_size=2),
    share=0.25,
    short=3,
)
def test_networks(tmp_path: Path, whole: dict[str, Any], lines: list[str], classes: int, others: list[Any]) -> None:
    model = dict(whole["model"])
    for place, tensor in others:
        model[list(model)[place % len(model)]] = tensor
    path = tmp_path / "network.pth"
    try:
        save_checkpoint(path, {"model": model, "config": whole["config"] + "\n".join(lines), "num_classes": classes})
    except (NotImplementedError, RuntimeError, OverflowError):
        return  # no such file can be written
    attempt("checkpoints: networks", lambda: load_network(path))


def test_a_sound_network_is_loaded(tmp_path: Path, whole: dict[str, Any]) -> None:
    save_checkpoint(tmp_path / "network.pth", whole)
    assert attempt("checkpoints: networks", lambda: load_network(tmp_path / "network.pth")) is not None


TENSORS = save({"a": torch.zeros(3, 2), "b": torch.ones(4, dtype=torch.bfloat16)}, metadata={"format": "pt"})


@fuzz(mutated(TENSORS))
def test_mutated_safetensors(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, "checkpoints: safetensors", data, suffix=".safetensors", readers=(read_state_dict,))


@fuzz(
    st.dictionaries(
        texts(),
        st.one_of(
            values(),
            st.fixed_dictionaries(
                {
                    "dtype": st.one_of(st.sampled_from(("F32", "F64", "I8", "F8_E4M3", "BOOL", "X")), values()),
                    "shape": st.one_of(st.lists(st.integers(-1, 2**62), max_size=4), values()),
                    "data_offsets": st.one_of(st.lists(st.integers(-1, 2**62), min_size=2, max_size=2), values()),
                }
            ),
        ),
        max_size=3,
    )
)
def test_headers_of_safetensors(tmp_path: Path, header: dict[str, Any]) -> None:
    told = json.dumps(header).encode()
    data = len(told).to_bytes(8, "little") + told + bytes(64)
    read(tmp_path, "checkpoints: safetensors", data, suffix=".safetensors", readers=(read_state_dict,))
