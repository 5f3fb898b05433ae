"""A section of the configuration fills the dataclass whose fields have its names."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from yacs.config import CfgNode

from reid.config.records import record_from


@dataclass(frozen=True)
class Settings:
    momentum: float = 0.5
    milestones: tuple[float, ...] = ()
    seed: int = 0


SECTION = CfgNode({"MOMENTUM": 0.9, "MILESTONES": [0.4, 0.8], "BATCH_SIZE": 32})


def test_fields_are_filled_by_name_and_lists_become_tuples() -> None:
    assert record_from(SECTION, Settings, seed=3) == Settings(0.9, (0.4, 0.8), 3)


def test_extra_values_take_precedence() -> None:
    assert record_from(SECTION, Settings, seed=3, momentum=0.0).momentum == 0.0


def test_a_field_without_a_key_is_an_error_although_it_has_a_default() -> None:
    with pytest.raises(TypeError, match="Settings: no key for seed"):
        record_from(SECTION, Settings)


def test_an_unknown_extra_is_an_error() -> None:
    with pytest.raises(TypeError, match="unexpected"):
        record_from(SECTION, Settings, seed=3, epochs=1)
