"""The declarations of the keys are consistent in themselves and with the page that documents them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reid.config import table
from reid.config.checks import get_value
from reid.config.conversion import convert
from reid.config.keys import KEYS, MOVABLE, STAGES
from reid.config.loading import defaults, parse_config
from reid.errors import InputError
from reid.io.json_yaml import flatten
from reid.model.backbones import BACKBONES, INPUT_SIZES

ROOT = Path(__file__).parents[2]
NUMBERS = [name for name, key in KEYS.items() if key.limits]


def test_the_defaults_are_the_declared_ones_and_pass_every_check() -> None:
    config = parse_config("")
    assert [name for name, _ in flatten(config)] == list(KEYS)
    for name, key in KEYS.items():
        value = get_value(config, name)
        assert value == convert(key.default, key) and type(value) is type(convert(key.default, key))
    assert config == defaults()


def test_the_default_lists_are_not_shared() -> None:
    defaults().INPUT.SIZE.append(3)
    assert defaults().INPUT.SIZE == [256, 128]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_below_their_limit_are_refused(name: str) -> None:
    key = KEYS[name]
    for value in (key.above, key.low - 1 if isinstance(key.default, int) else key.low - 0.1, key.high + 1):
        if abs(value) < float("inf"):
            text = f"{value:.0f}" if isinstance(key.default, int) else str(value)
            with pytest.raises(InputError, match=f"{name} .* must be {key.limits}"):
                parse_config("", [name, text])


def test_help_is_one_sentence_per_key_without_a_table_bar() -> None:
    for name, key in KEYS.items():
        assert key.help.endswith(".") and "|" not in key.help and "\n" not in key.help, name


def test_stages_have_the_same_keys() -> None:
    keys = [[name.partition(".")[2] for name in KEYS if name.startswith(f"{stage}.")] for stage in STAGES]
    assert keys[1] and [*keys[1], "CHECKPOINT"] == [*keys[2], "CHECKPOINT"] == keys[0]


def test_keys_that_may_change_on_resume() -> None:
    assert {"OUTPUT_DIR", "MODEL.DEVICE", "DATASETS.ROOT", "SOLVER.NONFINITE"} <= MOVABLE
    assert not {"SEED", "MODEL.BACKBONE", "DATASETS.NAME", "SOLVER.BATCH_SIZE"} & MOVABLE


def test_the_page_shows_the_declarations() -> None:
    page = (ROOT / table.PAGE).read_text(encoding="utf-8")
    assert page == table.updated(page), "out of date: run `make docs`"


def test_input_sizes_are_those_of_the_backbones() -> None:
    with torch.device("meta"):
        sizes = {name: getattr(make(), "input_size", None) for name, make in BACKBONES.items()}
    assert {name: size for name, size in sizes.items() if size} == INPUT_SIZES
