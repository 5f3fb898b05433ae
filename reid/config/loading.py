"""Loading of a configuration: defaults, a YAML file over them, `KEY VALUE` overrides over that, then frozen.

A file may name another file as its BASE, relative to its own folder; then it holds only what differs.

All errors are collected and reported together, each with suggestions of near names.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from reid.config.checks import find_errors, suggestion
from reid.config.conversion import convert
from reid.config.keys import KEYS, MOVABLE
from reid.errors import InputError
from reid.io.json_yaml import flatten, parse_yaml

# In an installation a part of the package, in a clone the folder beside it.
_PACKAGE = Path(__file__).parents[1]
CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"

_RENAMED = {old: name for name, key in KEYS.items() for old in key.old_names}


def defaults() -> CfgNode:
    """Build a configuration with every key at its default.

    Returns:
        A new configuration, not frozen.
    """
    config = CfgNode()
    for name, key in KEYS.items():
        node, last = _locate(config, name)
        node[last] = list(key.default) if isinstance(key.default, tuple) else key.default
    return config


def find_config(name: str | Path) -> Path:
    """Find a configuration.

    Args:
        name: YAML file, or a file of `configs/`, with or without the folder and the suffix, such as "demo_synthetic" or
            "parts/pooling_gem". A file that exists is preferred.

    Returns:
        Path of the file.

    Raises:
        InputError: If there is no such file; the message names similar ones.
    """
    path = Path(name).expanduser()
    own = [path, path.with_name(f"{path.name}.yaml")]
    bundled = str(path.as_posix()).removeprefix("configs/")
    candidates = [*own, *(CONFIGS / f"{bundled}{suffix}" for suffix in ("", ".yaml"))]
    found = next((file for file in candidates if file.is_file()), None)
    if found is not None:
        return found
    known = [file.relative_to(CONFIGS).with_suffix("").as_posix() for file in CONFIGS.rglob("*.yaml")]
    near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.yaml")], n=3)
    near += [file for file in difflib.get_close_matches(bundled.removesuffix(".yaml"), known, n=3) if file not in near]
    raise InputError(f"{path}: no such configuration{suggestion(near[:3])}")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """Load a configuration from a YAML file.

    Args:
        path: YAML file or name, see `find_config`, over the file that it names as BASE, if any, and the defaults.
        overrides: Alternating keys and values, such as ("SEED", "1"), which take precedence.

    Returns:
        The checked and frozen configuration.

    Raises:
        InputError: If a file cannot be read, or for unknown keys and names, wrong types, values out of range and
            combinations that cannot work; all of these are in one message.
    """
    path = find_config(path)
    text, base = _read_yaml_text(path), _load_base(path, ())
    return parse_config(text, overrides, source=str(path), base=base)


def parse_config(
    text: str, overrides: Sequence[str] = (), *, source: str = "the configuration", base: CfgNode | None = None
) -> CfgNode:
    """Load a configuration from the text of a YAML file, such as the one in a checkpoint.

    Args:
        text: YAML text. Its BASE is ignored.
        overrides: Same as in `load_config`.
        source: What error messages call the text.
        base: Replaces the defaults.

    Returns:
        The checked and frozen configuration.

    Raises:
        InputError: If `load_config` raises it.
    """
    config = base.clone() if base else defaults()
    config.defrost()
    tree = _parse_tree(text, source)
    pairs = list(flatten({key: value for key, value in tree.items() if key != "BASE"}))
    if len(overrides) % 2:
        raise InputError(f"overrides are KEY VALUE pairs; '{overrides[-1]}' has no value")
    pairs += list(zip(overrides[::2], overrides[1::2], strict=True))
    errors = [error for key, value in pairs if (error := _set(config, _RENAMED.get(key, key), value))]
    errors += find_errors(config)
    if errors:
        raise InputError(f"{source}: " + "; ".join(dict.fromkeys(errors)))
    config.freeze()
    return config


def complete_config(text: str) -> str:
    """Add the keys that did not exist when an earlier version wrote a configuration.

    Args:
        text: YAML text of a configuration.

    Returns:
        YAML text with every key, the new ones at their defaults.

    Raises:
        InputError: If `load_config` raises it.
    """
    return parse_config(text).dump()


def config_digest(config: CfgNode) -> str:
    """Name what a run measures, whatever its folder, machine and seed.

    Args:
        config: Configuration of the run.

    Returns:
        Twelve hexadecimal digits, which depend on the values that differ from the defaults, movable keys, SEED and
        STEP0.CHECKPOINT left out. Keys that are added later thus change no digest.
    """
    left_out = {*MOVABLE, "SEED", "STEP0.CHECKPOINT"}
    before = dict(flatten(defaults()))
    changed = sorted((key, value) for key, value in flatten(config) if key not in left_out and value != before[key])
    return hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:12]


def _load_base(path: Path, visited: tuple[Path, ...]) -> CfgNode | None:
    """Load the configuration that a file names as its BASE, None if it names none."""
    tree = _parse_tree(_read_yaml_text(path), str(path))
    if "BASE" not in tree:
        return None
    base = path.parent / str(tree["BASE"])
    visited = (*visited, path.resolve())
    if base.resolve() in visited:
        raise InputError(f"{path}: circular BASE reference to {tree['BASE']}")
    below = _load_base(base, visited)
    return parse_config(_read_yaml_text(base), source=f"{base}, the BASE of {path}", base=below)


def _parse_tree(text: str, source: str) -> dict[Any, Any]:
    try:
        tree = parse_yaml(text) or {}
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{source}: a configuration is a mapping of keys, not a {type(tree).__name__}")
    return tree


def _read_yaml_text(path: Path) -> str:
    """Read a YAML file. A `.py` file is refused, since yacs would execute it."""
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: a configuration must be a .yaml file; Python files are never executed")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=3)
        raise InputError(f"{path}: no such configuration{suggestion(near)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a text file ({error})") from None


def _locate(config: CfgNode, key: str) -> tuple[CfgNode, str]:
    """The node that holds a dotted key, created if missing, and the last part of the key."""
    *sections, last = key.split(".")
    for section in sections:
        config = config.setdefault(section, CfgNode())
    return config, last


def _set(config: CfgNode, key: str, value: Any) -> str | None:
    """Set one key; the error message if that is impossible."""
    if key not in KEYS:
        if any(name.startswith(f"{key}.") for name in KEYS):
            return f"{key} is a section, not a value"
        near = difflib.get_close_matches(key.upper(), KEYS, n=3, cutoff=0.5)
        near += [name for name in KEYS if name.split(".")[-1] == key.split(".")[-1].upper() and name not in near]
        return f"unknown key {key}{suggestion(near[:3])}"
    node, last = _locate(config, key)
    try:
        node[last] = convert(value, KEYS[key])
    except TypeError as error:
        return f"{key} {error}"
    return None
