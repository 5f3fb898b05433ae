"""A folder tree of crops as an index of features: made and kept up by a writer, searched by any number of readers.

An index is a folder:

- `manifest.sqlite`: what is known of every image, and which row of features is that of which content.
- `features/GENERATION-NUMBER.npy`: float32 rows, appended only; each file has room for a fixed number of rows and, once
  full, is a plain `.npy` matrix. Rows that the manifest does not name were written by a process that was killed, and
  are overwritten.
- `faiss-VERSION.index`, where asked for; `.lock`, of the one writer.
"""

from __future__ import annotations

from reid.search.gallery.answers import describe_calibration, plain_answers
from reid.search.gallery.crops import PATTERNS, Crop, Labels, Names, parse_period, parse_time, read_names
from reid.search.gallery.faiss_file import build_faiss, choose_search, is_current, open_faiss
from reid.search.gallery.manifest import is_index
from reid.search.gallery.ranked_search import Answer, Nearest, find, mean_query
from reid.search.gallery.snapshot import Snapshot, check_model, read_notes, read_snapshot
from reid.search.gallery.updating import Embed, Update, update
from reid.search.gallery.writer import Gallery

__all__ = [
    "PATTERNS",
    "Answer",
    "Crop",
    "Embed",
    "Gallery",
    "Labels",
    "Names",
    "Nearest",
    "Snapshot",
    "Update",
    "build_faiss",
    "check_model",
    "choose_search",
    "describe_calibration",
    "find",
    "is_current",
    "is_index",
    "mean_query",
    "open_faiss",
    "parse_period",
    "parse_time",
    "plain_answers",
    "read_names",
    "read_notes",
    "read_snapshot",
    "update",
]
