"""Plain data is read within bounds: what passes can be walked through without a second thought."""

from __future__ import annotations

import json

import pytest

from reid.io.json_yaml import MAX_DEPTH, parse_json, parse_yaml

ALIASES = "a: &a [1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)
# Merged mappings grow like aliases, but before there are values to count.
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n" for old, new in zip("abcdef", "bcdefg", strict=True)
)


def test_ordinary_texts_are_what_their_libraries_make_of_them() -> None:
    tree = {"a": [1, 2.5, None, True, "x"], "b": {"c": -(2**63), "d": 2**63 - 1}}
    assert parse_json(json.dumps(tree)) == tree == parse_yaml(json.dumps(tree))
    assert parse_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}
    assert parse_yaml("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3, 4: 5, true: 6}") == {
        "a": {"b": 1, "c": 2},
        "d": {"b": 1, "c": 3, 4: 5, True: 6},
    }
    assert parse_yaml("") is None
    assert parse_json("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested deeper"),
        (str(2**63), "64 bits"),
        ("9" * 5000, "digits"),
        ("{", "Expecting"),
    ],
    ids=["deep", "too deep", "wide", "long", "broken"],
)
def test_json_beyond_the_bounds(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ALIASES, "more than 20,000 values"),
        ("&a {b: *a}", "nested deeper"),
        ("[" * 50_000, "nested deeper"),
        ("!!int x", "does not fit its tag"),
        ("!!bool x", "does not fit its tag"),
        ("!!timestamp x", "does not fit its tag"),
        ("2020-99-99", "does not fit its tag"),
        ("!!python/object/apply:os.system ['true']", "invalid YAML"),
        ("a: 0x" + "f" * 20, "64 bits"),
        ("a" * 300_000, "300,000 characters"),
        (MERGES, "more than 20,000 values"),
        (f"{{{2**61 - 1}: 1}}", "a key that is neither text nor a short number"),
        ("{? [1] : 1}", "a key that is neither text nor a short number"),
        ("a: 1" + ":0" * 50_000, "a number of more than 100 characters"),
    ],
    ids=[
        "aliases",
        "circle",
        "deep",
        "int",
        "bool",
        "timestamp",
        "date",
        "code",
        "wide",
        "long",
        "merges",
        "key",
        "list as key",
        "base 60",
    ],
)
def test_yaml_beyond_the_bounds(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        parse_yaml(text)
    assert "\n" not in str(raised.value)
