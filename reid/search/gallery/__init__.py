"""An index of person crops: one writer keeps it up to date with a folder, any number of readers search it.

An index is a folder that holds

- `manifest.sqlite`: every known image and the feature row of its content, with digests of itself and a checksum
  of every feature row.
- `features/GENERATION-NUMBER.npy`: float32 feature rows, append-only. Each file has room for a fixed number of rows and
  is a plain `.npy` matrix once it is full. Rows that the manifest does not reference were left by a killed process and
  are overwritten.
- `features/GENERATION-NUMBER.codes.npz`: 8-bit codes of a large file of features, with which exact search reads less.
- `faiss-VERSION.index`, an optional FAISS index, whose digest is in the manifest; `.lock`, held by the writer.

Nothing is used before it is verified: the manifest when it is opened, features and FAISS index at their first use.
"""

from __future__ import annotations

from reid.search.gallery.contract import IndexedImage, IndexSummary, IndexView, IndexWriter
from reid.search.gallery.crops import (
    PATTERNS,
    Crop,
    CropListing,
    Labels,
    check_crops,
    list_crops,
    parse_time,
    parse_time_range,
)
from reid.search.gallery.faiss_file import (
    build_faiss_index,
    has_current_faiss_index,
    has_low_recall,
    is_faiss_index_intact,
    load_faiss_index,
    rebuild_command,
    select_search,
)
from reid.search.gallery.manifest import check_model, is_index
from reid.search.gallery.manifest_entries import check_tool_entries
from reid.search.gallery.results import describe_calibration, results_to_dicts
from reid.search.gallery.search import NeighborSearch, SearchResult, mean_query, search_snapshot
from reid.search.gallery.snapshot import Snapshot, read_metadata, read_snapshot
from reid.search.gallery.update import EmbedFunction, UpdateSummary, update_codes, update_index
from reid.search.gallery.view import SnapshotView, open_snapshot_view
from reid.search.gallery.writer import Gallery

__all__ = [
    "PATTERNS",
    "Crop",
    "CropListing",
    "EmbedFunction",
    "Gallery",
    "IndexSummary",
    "IndexView",
    "IndexWriter",
    "IndexedImage",
    "Labels",
    "NeighborSearch",
    "SearchResult",
    "Snapshot",
    "SnapshotView",
    "UpdateSummary",
    "build_faiss_index",
    "check_crops",
    "check_model",
    "check_tool_entries",
    "describe_calibration",
    "has_current_faiss_index",
    "has_low_recall",
    "is_faiss_index_intact",
    "is_index",
    "list_crops",
    "load_faiss_index",
    "mean_query",
    "open_snapshot_view",
    "parse_time",
    "parse_time_range",
    "read_metadata",
    "read_snapshot",
    "rebuild_command",
    "results_to_dicts",
    "search_snapshot",
    "select_search",
    "update_codes",
    "update_index",
]
