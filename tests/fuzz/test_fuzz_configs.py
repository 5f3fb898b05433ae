"""Configurations: YAML files, overrides, grids of sweeps, and what a file of an earlier run says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from fuzz.harness import INPUTS, TEXTS, altered, attempt, fuzz, mutated, texts, values
from hypothesis import strategies as st
from yacs.config import CfgNode

from reid.config.loading import complete_config, defaults, load_config
from reid.io.json_yaml import flatten
from reid.sweep.grid import parse_grids, setting_name
from reid.training.run_folder import RunFolder


def plain(node: Any) -> Any:
    return {key: plain(value) for key, value in node.items()} if isinstance(node, CfgNode) else node


TREE = plain(defaults())
TEXT = defaults().dump()
KEYS = [key for key, _ in flatten(TREE)]
ALIASES = "a: &a [1, 1]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)
# Lines of long files, which take seconds.
MANY = 50_000 if INPUTS else 5_000
HOSTILE = [
    *("!!python/object/apply:os.system ['true']", "!!int x", "!!bool x", "!!timestamp x", "!!binary x", "!!set {a, b}"),
    *("&a {b: *a}", "*x", "? {a: 1}\n: 2", "0o7777777777777777777777777", "1:99:99:99", "2020-99-99", "!!omap [a]"),
    *(
        "[" * 3000,
        "{a: " * 3000,
        "- " * 3000,
        "? " * 3000,
        ALIASES,
        "BASE: config.yaml",
        "BASE: [1]",
        "BASE: ../../x.yaml",
    ),
    *("SEED: " + "9" * 5000, "SEED: 0x" + "f" * 5000, "OUTPUT_DIR: " + "a" * 200_000, "x: 1\n" * MANY),
    *(
        "\n".join(f"k{i}: 1" for i in range(MANY // 3)),
        "DATASETS: {NAME: " + "a+" * 90_000 + "}",
        "MODEL: 1",
        "MODEL: {}",
        "\0",
        "%YAML 9",
    ),
]


def read(folder: Path, target: str, data: bytes, overrides: list[str] | None = None) -> None:
    path = folder / "config.yaml"
    path.write_bytes(data)
    found = attempt(target, lambda: load_config(path, overrides or []))
    if found is not None:
        assert set(KEYS) == {key for key, _ in flatten(plain(found))}
        assert all(isinstance(value, str | int | float | bool | list) for _, value in flatten(plain(found)))


@fuzz(mutated(TEXT.encode()))
def test_mutated_files(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, "configurations: mutated", data)


@fuzz(altered(TREE))
def test_other_values(tmp_path: Path, tree: Any) -> None:
    read(tmp_path, "configurations: values", yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@fuzz(st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=2), share=0.2)
def test_hostile_yaml(tmp_path: Path, pieces: list[str]) -> None:
    read(tmp_path, "configurations: hostile YAML", "\n".join(pieces).encode())


def test_every_hostile_yaml(tmp_path: Path) -> None:
    for piece in HOSTILE:
        read(tmp_path, "configurations: hostile YAML", piece.encode())


@fuzz(st.lists(st.tuples(st.one_of(st.sampled_from(KEYS), texts()), st.one_of(texts(), values().map(str))), max_size=3))
def test_overrides(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    read(tmp_path, "configurations: overrides", b"", [text for pair in pairs for text in pair])


@fuzz(mutated(TEXT.encode(), *(piece.encode() for piece in HOSTILE)))
def test_the_configuration_of_a_run_to_go_on_with(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(data)
    attempt(
        "configurations: to go on with", lambda: RunFolder(tmp_path).check(TEXT, resume=True, complete=complete_config)
    )


GRIDS = ["SEED=1,2", "STEP0.LR=[1e-3],[1e-2, 1e-4]", "a=1 b=2", "=", ",", "[", "]", "((", "=,", "  ", *TEXTS]


@fuzz(st.lists(st.lists(st.one_of(st.sampled_from(GRIDS), texts()), max_size=3).map(" ".join), max_size=2))
def test_grids(grids: list[str]) -> None:
    attempt("configurations: grids", lambda: [setting_name(setting) for setting in parse_grids(grids)])


def test_a_grid_of_very_many_settings() -> None:
    attempt("configurations: grids", lambda: parse_grids([" ".join(f"k{i}={','.join('abcdefgh')}" for i in range(20))]))
