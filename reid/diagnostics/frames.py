"""A diagnosis as a table with one row per layer: CSV, and a data frame of pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reid.errors import InputError
from reid.io.json_yaml import flatten

if TYPE_CHECKING:
    import pandas


def flat_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Flatten the layers of a diagnosis.

    Args:
        content: Content of `diagnosis.json`, with a "survey" or with "changes".

    Returns:
        A row per layer, all with the same keys: nested ones are joined by dots, as in "spectral.alpha" and
        "before.correlation". None where a layer has no value.

    Raises:
        InputError: If the content has neither.
    """
    layers = content.get("survey") or (content.get("changes") or {}).get("layers")
    if not layers:
        raise InputError("a table of layers requires a diagnosis with a survey or of two checkpoints")
    rows = [dict(flatten(layer)) for layer in layers]
    # A row that has numbers under a key has no value of that key itself.
    keys = dict.fromkeys(key for row in rows for key in row)
    kept = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    return [{key: row.get(key) for key in kept} for row in rows]


def to_csv(content: Mapping[str, Any]) -> str:
    """Format the layers of a diagnosis as CSV, with all digits.

    Args:
        content: See `flat_rows`.

    Returns:
        A header and a line per layer.

    Raises:
        InputError: See `flat_rows`.
    """
    rows = flat_rows(content)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_frame(content: Mapping[str, Any]) -> pandas.DataFrame:
    """Convert the layers of a diagnosis to a data frame.

    Args:
        content: See `flat_rows`.

    Returns:
        A row per layer, indexed by its name.

    Raises:
        InputError: See `flat_rows`; also if pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise InputError("to_frame requires pandas: pip install pandas") from None
    return pandas.DataFrame(flat_rows(content)).set_index("name")
