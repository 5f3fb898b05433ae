"""JSON and YAML text parsed to plain values, within bounds and without executing anything.

A short text can expand enormously: lists nested until the stack overflows, or YAML aliases of aliases that expand to
more values than any memory holds. Every value that is returned here can be traversed safely.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import yaml

MAX_DEPTH = 64
MAX_JSON_VALUES = 10_000_000
MAX_YAML_CHARACTERS = 2**18
MAX_YAML_VALUES = 20_000
MAX_NUMBER = 100  # characters; numbers in base 60 take quadratic time
MAX_NUMBER_KEY = 18
_INT_LIMIT = 2**63
_TEXT, *_NUMBERS = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float"))


def parse_json(text: str) -> Any:
    """Parse JSON.

    Args:
        text: JSON document, possibly from an untrusted source.

    Returns:
        Nested dicts and lists of strings, numbers, booleans and None.

    Raises:
        ValueError: If the text is invalid or exceeds a bound; the message is one line.
    """
    try:
        tree = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    _check_bounds(tree, MAX_JSON_VALUES)
    return tree


def parse_yaml(text: str) -> Any:
    """Parse YAML with its standard tags only.

    Args:
        text: YAML document, possibly from an untrusted source.

    Returns:
        Nested dicts and lists of strings, numbers, dates, booleans and None.

    Raises:
        ValueError: If the text is invalid or exceeds a bound; the message is one line.
    """
    if len(text) > MAX_YAML_CHARACTERS:
        raise ValueError(f"{len(text):,} characters, above the limit of {MAX_YAML_CHARACTERS:,}")
    with _one_line_errors():
        loader = yaml.SafeLoader(text)  # which rejects control characters at once
        root = loader.get_single_node()
    if root is None:
        return None
    _check_nodes(root)
    with _one_line_errors():
        tree = loader.construct_document(root)
    _check_bounds(tree, MAX_YAML_VALUES)
    return tree


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except yaml.YAMLError as error:
        raise ValueError(f"invalid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    # A tag with an unsuitable value, such as `!!int x`, fails in the library in as many ways as there are tags.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"invalid YAML: a value does not fit its tag ({type(error).__name__})") from None


def _check_nodes(root: yaml.Node) -> None:
    """Check size and depth before values are made of nodes, which expands aliases and merged mappings."""
    pending: list[tuple[yaml.Node, int]] = [(root, 0)]
    count = 0
    while pending:
        node, depth = pending.pop()
        count += 1
        if count > MAX_YAML_VALUES:
            raise ValueError(f"more than {MAX_YAML_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                # Keys of other kinds can be chosen so that all of their hashes collide.
                if not (isinstance(key, yaml.ScalarNode) and (key.tag == _TEXT or len(key.value) <= MAX_NUMBER_KEY)):
                    raise ValueError("a key that is neither text nor a short number")
            pending += [(item, depth + 1) for pair in node.value for item in pair]
        elif isinstance(node, yaml.SequenceNode):
            pending += [(item, depth + 1) for item in node.value]
        elif isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and len(node.value) > MAX_NUMBER:
            raise ValueError(f"a number of more than {MAX_NUMBER} characters")


def _check_bounds(tree: Any, max_values: int) -> None:
    """Check size, depth and integers; a value shared by several containers counts in each of them."""
    pending, count = [(tree, 0)], 0
    while pending:
        value, depth = pending.pop()
        count += 1
        if count > max_values:
            raise ValueError(f"more than {max_values:,} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if isinstance(value, int) and not -_INT_LIMIT <= value < _INT_LIMIT:
            raise ValueError("an integer of more than 64 bits")
        if isinstance(value, dict):
            pending += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list | tuple | set):
            pending += [(item, depth + 1) for item in value]


def flatten(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the leaves of nested dicts.

    Args:
        tree: Dicts of dicts and other values.
        prefix: Put before every key.

    Yields:
        The keys from the root to a leaf, joined by dots, and the value of the leaf.
    """
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
