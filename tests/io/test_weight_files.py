"""Shards, folders of Hugging Face and ONNX files as state dicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reid.diagnostics.survey import find_layers
from reid.errors import InputError
from reid.io.weight_files import read_weights

TENSORS = {"a.weight": torch.randn(4, 6), "b.weight": torch.randn(5, 4), "b.bias": torch.zeros(5)}


def sharded(folder: Path) -> Path:
    names = {"a.weight": "model-1-of-2.safetensors", "b.weight": "model-2-of-2.safetensors"}
    names["b.bias"] = names["b.weight"]
    for file in set(names.values()):
        save_file({name: TENSORS[name] for name in names if names[name] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def assert_same(path: Path) -> None:
    found, groups = read_weights(path)
    assert groups == {} and found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())


def test_shards_and_folders(tmp_path: Path) -> None:
    assert_same(sharded(tmp_path))
    assert_same(tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"other: a folder without weights; expected one of model\.safetensors, "):
        read_weights(tmp_path / "other")
    torch.save(TENSORS, tmp_path / "other" / "pytorch_model.bin")
    assert_same(tmp_path / "other")
    (tmp_path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-2-of-2\.safetensors: no such file"):
        read_weights(tmp_path)


def test_wrappers_are_removed_from_all_shards_together(tmp_path: Path) -> None:
    tensors = {"model.embed.weight": torch.randn(4, 6), "model.layers.0.weight": torch.randn(4, 4)}
    tensors["head.weight"] = torch.randn(3, 4)
    files = ["1.safetensors", "2.safetensors", "2.safetensors"]
    for file in set(files):
        save_file({key: tensors[key] for key, own in zip(tensors, files, strict=True) if own == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(tensors, files, strict=True))}))
    assert read_weights(index)[0].tensors.keys() == tensors.keys()
    index.write_text(json.dumps({"weight_map": {"model.embed.weight": files[0]}}))
    assert list(read_weights(index)[0].tensors) == ["embed.weight"]


@pytest.mark.parametrize(
    "content", ["[", "[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../x.safetensors"}}']
)
def test_an_index_that_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"index\.json: (not an index of shards|names the shard '\.\./x)"):
        read_weights(path)


def test_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    shapes = {"conv.weight": (8, 2, 3, 3), "gemm.weight": (5, 8), "plain": (8, 5), "val_7": (5, 3), "stack": (2, 3, 3)}
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["1"], group=4),
        helper.make_node("Gemm", ["1", "gemm.weight"], ["2"], transB=1),
        helper.make_node("Gemm", ["1", "plain"], ["3"]),
        helper.make_node("MatMul", ["3", "val_7"], ["4"]),
        helper.make_node("MatMul", ["4", "stack"], ["5"]),
        helper.make_node("MatMul", ["4", "x"], ["6"]),
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], initializers)), path)
    found, groups = read_weights(path)
    expected = {
        "conv.weight": arrays["conv.weight"],
        "gemm.weight": arrays["gemm.weight"],
        "plain.weight": arrays["plain"].T,
        "val_7.weight": arrays["val_7"].T,
    }
    assert found.notes == ("left out, as a diagnosis cannot read them: stack (float32, (2, 3, 3))",)
    assert found.tensors.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found.tensors[name].numpy(), array)
    layers = find_layers(found.tensors, network=groups)
    assert [(layer.groups, layer.groups_from) for layer in layers] == [(4, "network"), *[(1, "network")] * 3]
    initializers[0].raw_data = initializers[0].raw_data[:-4]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], initializers)), path)
    with pytest.raises(InputError, match=r"model\.onnx: conv\.weight: cannot reshape"):
        read_weights(path)
    path.write_bytes(b"hello")
    with pytest.raises(InputError, match=r"model\.onnx: corrupt or not an ONNX file"):
        read_weights(path)


def test_onnx_in_bfloat16(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weight = torch.randn(5, 8).bfloat16()
    raw = weight.view(torch.int16).numpy().tobytes()
    stored = onnx.helper.make_tensor("fc.weight", onnx.TensorProto.BFLOAT16, (5, 8), raw, raw=True)
    node = onnx.helper.make_node("Gemm", ["x", "fc.weight"], ["y"], transB=1)
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [], [stored])), path)
    assert torch.equal(read_weights(path)[0].tensors["fc.weight"], weight.float())


def test_onnx_weights_behind_other_nodes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    names = ("constant", "embedding.weight", "transposed", "half", "left", "left_gemm", "scaled", "unused")
    arrays: dict[str, Any] = {name: random.normal(size=(5, 8)).astype(np.float32) for name in names}
    arrays["half"] = arrays["half"].astype(np.float16)
    arrays["int8"] = random.integers(-9, 9, size=(8, 5)).astype(np.int8)
    arrays["scale"], arrays["stem"] = np.float32(0.1), random.normal(size=(3, 3, 2, 4)).astype(np.float32)
    stored = {name: numpy_helper.from_array(array, name) for name, array in arrays.items()}
    make = helper.make_node
    nodes = [
        make("Constant", [], ["constant_value"], value=stored.pop("constant")),
        make("Gemm", ["x", "constant_value"], ["1"], transB=1),
        make("Identity", ["embedding.weight"], ["alias"]),
        make("Transpose", ["alias"], ["flat"]),
        make("MatMul", ["x", "flat"], ["2"]),
        make("Transpose", ["transposed"], ["turned"], perm=[0, 1]),
        make("Gemm", ["x", "turned"], ["3"], transB=1),
        make("Cast", ["half"], ["single"], to=onnx.TensorProto.FLOAT),
        make("Gemm", ["x", "single"], ["4"], transB=1),
        make("MatMul", ["left", "x"], ["5"]),
        make("Gemm", ["left_gemm", "x"], ["6"], transA=1),
        make("Transpose", ["stem"], ["kernel"], perm=[3, 2, 0, 1]),
        make("Conv", ["x", "kernel"], ["7"]),
        make("DequantizeLinear", ["int8", "scale"], ["float8"]),
        make("MatMul", ["x", "float8"], ["8"]),
        make("Mul", ["scaled", "scale"], ["product"]),
        make("Gemm", ["x", "product"], ["9"]),
        make("MatMul", ["8", "9"], ["10"]),
        make("ConvTranspose", ["x", "kernel"], ["11"], name="up"),
    ]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], list(stored.values()))), path)
    found, groups = read_weights(path)
    expected = {
        "constant_value.weight": arrays["constant"],
        "embedding.weight": arrays["embedding.weight"],
        "transposed.weight": arrays["transposed"],
        "half.weight": arrays["half"],
        "left.weight": arrays["left"],
        "left_gemm.weight": arrays["left_gemm"].T,
        "stem.weight": arrays["stem"].transpose(3, 2, 0, 1),
    }
    assert list(found.tensors) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found.tensors[name].numpy(), array)
    note = "left out, as a diagnosis cannot read them: int8 (DequantizeLinear), scaled (Mul), up (ConvTranspose)"
    assert found.notes == (note,)
    # Named like an embedding table, without a bias: the graph shows that it is a layer.
    assert "embedding.weight" in {layer.name for layer in find_layers(found.tensors, network=groups)}
    onnx.save(helper.make_model(helper.make_graph(nodes[-6:-4], "g", [], [], [stored["int8"], stored["scale"]])), path)
    with pytest.raises(InputError, match=r"no Gemm, MatMul or Conv .*left out.*int8 \(DequantizeLinear\)"):
        read_weights(path)
