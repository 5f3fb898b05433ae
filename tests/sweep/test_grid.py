"""Grids of configuration overrides."""

from __future__ import annotations

import pytest

from reid.errors import InputError
from reid.sweep.grid import parse_grids, setting_name


def test_a_grid_is_every_combination() -> None:
    grid = "MODEL.POOLING.NAME=gem,netvlad RRI.CONTROL=True,False RRI.PATIENCE=3"
    expected = [
        (("MODEL.POOLING.NAME", name), ("RRI.CONTROL", control), ("RRI.PATIENCE", "3"))
        for name in ("gem", "netvlad")
        for control in ("True", "False")
    ]
    assert parse_grids([grid]) == expected


def test_grids_are_concatenated_without_duplicates() -> None:
    assert parse_grids(["A=1,2", "B=1", "A=2,3"]) == [(("A", "1"),), (("A", "2"),), (("B", "1"),), (("A", "3"),)]
    assert parse_grids([]) == [()]


def test_commas_and_spaces_in_brackets_belong_to_the_value() -> None:
    assert parse_grids(["STEP0.LR=[1e-3],[2e-3] STEP0.MILESTONES=[0.4, 0.8]"]) == [
        (("STEP0.LR", lr), ("STEP0.MILESTONES", "[0.4, 0.8]")) for lr in ("[1e-3]", "[2e-3]")
    ]


@pytest.mark.parametrize("grid", ["A", "A=", "=1", "A=1,,2", "A=1 B"])
def test_invalid_grid(grid: str) -> None:
    with pytest.raises(InputError, match="is not of the form KEY=VALUE,VALUE"):
        parse_grids([grid])


def test_repeated_key() -> None:
    with pytest.raises(InputError, match="A is given twice"):
        parse_grids(["A=1 A=2"])


@pytest.mark.parametrize(("key", "option"), [("SEED", "--seeds"), ("OUTPUT_DIR", "--output")])
def test_reserved_keys(key: str, option: str) -> None:
    """They would be overridden: two settings would have different names, but the same run."""
    with pytest.raises(InputError, match=f"the sweep sets {key} itself; vary it by {option}"):
        parse_grids([f"{key}=1,2"])


def test_names() -> None:
    (setting,) = parse_grids(["MODEL.POOLING.NAME=gem RRI.CONTROL=True"])
    assert setting_name(setting) == "NAME=gem,CONTROL=True"
    assert setting_name(()) == "default"


def test_too_many_settings() -> None:
    with pytest.raises(InputError, match="more than 10,000 settings"):
        parse_grids([" ".join(f"k{i}=a,b,c,d,e,f,g,h" for i in range(20))])
