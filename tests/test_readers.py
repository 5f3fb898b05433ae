"""Every call that parses stored bytes is in the table of docs/security.md, with what guards it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEADING = "## Readers"

# Names that read stored bytes, or load or execute what they contain; a name covers what is under it.
READERS = (
    *(
        "pickle",
        "marshal",
        "shelve",
        "dill",
        "cloudpickle",
        "joblib",
        "eval",
        "exec",
        "runpy",
        "importlib.import_module",
    ),
    *("torch.load", "torch.jit", "torch.hub", "torch.export.load", "torch.package", "torch.from_file"),
    *("torch._C.PyTorchFileReader", "torch.PyTorchFileReader"),
    *("torchvision.io", "torchvision.datasets", "safetensors.safe_open", "safetensors.torch.load"),
    *("safetensors.torch.load_file", "safetensors.torch.load_model", "onnx.load", "onnx.load_model"),
    *("onnxruntime.InferenceSession", "faiss.read_index", "faiss.deserialize_index", "sqlite3.connect"),
    *("numpy.load", "numpy.memmap", "numpy.fromfile", "numpy.loadtxt", "numpy.genfromtxt", "numpy.fromregex"),
    *("numpy.lib.format.read_array", "numpy.lib.format.open_memmap", "scipy.io", "h5py", "pandas"),
    *("json.load", "json.loads", "csv.reader", "csv.DictReader", "tomllib", "configparser", "plistlib"),
    *("yaml.load", "yaml.safe_load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "yaml.safe_load_all"),
    *("yaml.Loader", "yaml.SafeLoader", "yaml.FullLoader", "yaml.UnsafeLoader", "yaml.CLoader", "yaml.CSafeLoader"),
    *("zipfile.ZipFile", "tarfile", "shutil.unpack_archive", "zlib.decompress", "zlib.decompressobj", "gzip", "bz2"),
    *("PIL.Image.open", "cv2", "imageio", "xml", "yacs.config.CfgNode.load_cfg"),
)
# Only write, or name an exception.
HARMLESS = (
    *("pickle.dumps", "pickle.UnpicklingError", "pickle._Unpickler.dispatch"),
    *("xml.etree.ElementTree.tostring", "torch.hub.get_dir"),
)
# Methods, found whatever their object is.
METHODS = ("get_state_dict", "load_state_dict_from_url", "merge_from_file", "read_feather")


def is_reader(name: str) -> bool:
    """Whether a full name is one of `READERS` or under one."""
    under = [name == reader or name.startswith(f"{reader}.") for reader in READERS]
    return any(under) and name not in HARMLESS


def imports(tree: ast.AST) -> dict[str, str]:
    """Full names by the names under which a module imports them."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                found[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def full_name(node: ast.AST, known: dict[str, str]) -> str | None:
    """The full name of `a.b.c`, or None for another expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    builtin = node.id if node.id in ("eval", "exec") else None
    base = known.get(node.id, builtin)
    return ".".join([base, *reversed(parts)]) if base else None


def readers(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Pairs of the outermost function or class and the full name of the reader used in it."""
    known = imports(tree)

    def visit(node: ast.AST, owner: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and not owner:
            owner = node.name
        name = full_name(node, known) if isinstance(node, ast.Attribute | ast.Name) else None
        if name:
            if is_reader(name):
                yield owner or "module", name
            elif name.rpartition(".")[2] in METHODS:
                yield owner or "module", name.rpartition(".")[2]
            return
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield owner or "module", node.attr
        if isinstance(node, ast.Call):
            called = full_name(node.func, known) or ""
            if isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                return
            given = [keyword.value for keyword in node.keywords if keyword.arg in ("weights", "pretrained")]
            constants = [isinstance(value, ast.Constant) and not value.value for value in given]
            if called.startswith("torchvision.") and not all(constants):
                yield owner or "module", f"{called}(weights)"
        for field, value in ast.iter_fields(node):
            if field not in ("annotation", "returns"):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        yield from visit(child, owner)

    yield from visit(tree, "")


def used() -> set[tuple[str, str]]:
    """Pairs of `module.function` and reader in the whole project."""
    found = set()
    for folder in ("reid", "tools", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found |= {(f"{module}.{owner}", reader) for owner, reader in readers(tree)}
    return found


def listed() -> set[tuple[str, str]]:
    """The same from the table: the first column names functions, the second readers."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").split(f"\n{HEADING}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    assert rows and all(row[2].strip() for row in rows)
    return {
        (function, reader)
        for row in rows
        for function in re.findall(r"`([^`]+)`", row[0])
        for reader in re.findall(r"`([^`]+)`", row[1])
    }


def test_every_reader_is_listed_with_its_guard() -> None:
    new, gone = used() - listed(), listed() - used()
    assert not new, f"add to the table {HEADING!r} of docs/security.md what guards them: {sorted(new)}"
    assert not gone, f"remove from the table {HEADING!r} of docs/security.md: {sorted(gone)}"


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ndef f(p): return torch.load(p)",
        "from torch import load as read\ndef f(p): return read(p)",
        "import numpy as np\ndef f(p): return np.load(p)",
        "import torch.hub as hub\ndef f(p): return hub.load_state_dict_from_url(p)",
        "def f(w): return w.get_state_dict(progress=True)",
        "import torchvision\ndef f(w): return torchvision.models.resnet18(weights=w)",
        "import pickle\nclass f(pickle.Unpickler): pass",
        "def f(p):\n  import yaml\n  return map(yaml.unsafe_load, p)",
        "from PIL import Image\ndef f(p): return Image.open(p)",
        "def f(p): return eval(p)",
    ],
)
def test_readers_are_found(code: str) -> None:
    assert [owner for owner, _ in readers(ast.parse(code))] == ["f"]


def test_what_reads_nothing_is_not_found() -> None:
    code = "import json, pickle, torchvision\ndef f(p):\n  torchvision.models.resnet18(weights=None)\n  "
    assert not list(readers(ast.parse(code + "return json.dumps(p), pickle.dumps(p), p.load()")))
