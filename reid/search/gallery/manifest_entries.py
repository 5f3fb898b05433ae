"""The entries of an index's metadata and their types, checked because a manifest may come from anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from reid.errors import InputError

_MAX_NUMBER = 2**53 - 1  # numbers up to this are exact in every reader of JSON
_TOOL_ENTRIES = ("root", "weights", "feature", "flip")


def find_invalid_entry(metadata: Mapping[str, Any]) -> str:
    """Find an entry that is missing or of the wrong type.

    Args:
        metadata: Plain values by name.

    Returns:
        The name of the first such entry, "" if there is none.
    """
    missing = [name for name, is_valid in _REQUIRED.items() if not is_valid(metadata.get(name))]
    optional = [name for name in _OPTIONAL if metadata.get(name) is not None]
    return (missing + [name for name in optional if not _OPTIONAL[name](metadata[name])] + [""])[0]


def check_tool_entries(place: object, metadata: Mapping[str, Any]) -> None:
    """Check that an index has the entries of `svdnet index`, which `Gallery` does not require.

    Args:
        place: The folder or collection of the index, for the message.
        metadata: The metadata of the index.

    Raises:
        InputError: If the folder of the crops, the weights, the feature or the flip is unknown.
    """
    missing = [name for name in _TOOL_ENTRIES if metadata.get(name) is None]
    if missing:
        raise InputError(
            f"{place}: was built without svdnet index and does not say its {' and '.join(missing)}; to add this: "
            f"svdnet index DIR --index {place} --weights FILE"
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_NUMBER


def _is_size(value: Any) -> bool:
    return _is_count(value) and value >= 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _MAX_NUMBER  # and no NaN


def _is_faiss_entry(value: Any) -> bool:
    """Check the types; the name of the file may not lead out of the folder."""
    return (
        isinstance(value, dict)
        and re.fullmatch(r"faiss-[0-9]+\.index", str(value.get("file"))) is not None
        and all(_is_count(value.get(name)) for name in ("version", "rows", "k"))
        and _is_number(value.get("recall"))
        and _is_text(value.get("summary"))
        and value["summary"].isprintable()
        and _is_text(value.get("sha256", ""))
        and isinstance(value.get("centre"), list)
        and all(map(_is_number, value["centre"]))
    )


def _is_recall_entry(value: Any) -> bool:
    counts = ("k", "queries", "images")
    return isinstance(value, dict) and _is_number(value.get("value")) and all(_is_count(value.get(n)) for n in counts)


_REQUIRED: dict[str, Callable[[Any], bool]] = {
    "model_id": _is_text,
    "generation": _is_count,
    "version": _is_count,
    "dim": _is_size,
    "shard": _is_size,
}
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "root": _is_text,
    "weights": _is_text,
    "feature": _is_text,
    "pattern": _is_text,
    "flip": lambda value: isinstance(value, bool),
    "faiss_beyond": lambda value: type(value) is int,
    "faiss": _is_faiss_entry,
    "recall": _is_recall_entry,
}
