"""A FAISS index over an index of crops, stored in the same folder, with its recall in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError, install_command
from reid.io.atomic import atomic_file
from reid.io.digest import compute_file_digest
from reid.ranking.faiss_index import LOW_RECALL, IndexOptions, SearchIndex, build_index, search_index
from reid.search.gallery.search import NeighborSearch
from reid.search.gallery.snapshot import Snapshot, read_snapshot
from reid.search.gallery.writer import Gallery

RECALL_AT = 10


class ActiveRows:
    """The feature rows of a snapshot that belong to an image, as one matrix that is read on access.

    Args:
        snapshot: The state of the index.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot, self._rows = snapshot, snapshot.active_rows
        self.shape, self.dtype, self.ndim = (len(self._rows), snapshot.dim), np.dtype(np.float32), 2

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: Any) -> np.ndarray:
        return self._snapshot.read_rows(self._rows[indices])


def build_faiss_index(gallery: Gallery, *, kind: str = "ivf") -> dict[str, Any]:
    """Build a FAISS index over all active rows, write it to the folder and record it in the manifest.

    Args:
        gallery: The index, open for writing.
        kind: "ivf" or "flat", see `reid.ranking.faiss_index.build_index`.

    Returns:
        The recorded entry: `file` and its `sha256`, `version` of the indexed state, `rows`, `k`, `recall` (recall@10
        against exact search), `summary` and `centre`.

    Raises:
        InputError: If FAISS is missing, the index is empty, or the file cannot be written.
    """
    snapshot = read_snapshot(gallery.folder)
    if not len(snapshot.crops):
        raise InputError(f"{gallery.folder}: holds no image to build a FAISS index over")
    built = build_index(ActiveRows(snapshot), IndexOptions(kind, k=RECALL_AT))
    version = int(snapshot.metadata["version"])
    path = gallery.folder / f"faiss-{version}.index"
    _write_faiss_index(built.index, path)
    entry = {
        "file": path.name,
        "sha256": compute_file_digest(path),
        "version": version,
        "rows": len(snapshot.active_rows),
        "k": built.k,
        "recall": built.recall,
        "probes_chosen": True,  # missing where an earlier version took a fixed number
        "summary": built.summary,
        # Existing indexes use this key.
        "centre": np.asarray(built.center, dtype=np.float64).tolist(),
    }
    gallery.set_metadata(faiss=entry)
    for old in gallery.folder.glob("faiss-*.index"):
        if old != path:
            old.unlink()
    return entry


def has_current_faiss_index(snapshot: Snapshot) -> bool:
    """Check for a FAISS index of this state of the index.

    Args:
        snapshot: The state of the index.

    Returns:
        False if there is no FAISS index, or one of an earlier state or without a digest.
    """
    entry: dict[str, Any] = snapshot.metadata.get("faiss") or {}
    return entry.get("version") == snapshot.metadata["version"] and bool(entry.get("sha256"))


def is_faiss_index_intact(snapshot: Snapshot) -> bool:
    """Compare the file of the FAISS index with its digest.

    Args:
        snapshot: A state of the index for which `has_current_faiss_index` is true.

    Returns:
        False if it is missing or was not written by `build_faiss_index`.

    Raises:
        OSError: If it cannot be read now.
    """
    entry = snapshot.metadata["faiss"]
    try:
        return bool(compute_file_digest(snapshot.folder / entry["file"]) == entry["sha256"])
    except FileNotFoundError:
        return False


def has_low_recall(entry: Mapping[str, Any]) -> bool:
    """Check whether a FAISS index finds too few of the nearest images to be used without being asked for.

    Args:
        entry: What `build_faiss_index` recorded.

    Returns:
        True for a recall below 0.9.
    """
    return bool(entry["recall"] < LOW_RECALL)


def rebuild_command(snapshot: Snapshot) -> str:
    """Return the command that brings an index up to date.

    Args:
        snapshot: A state of the index.

    Returns:
        The command, with DIR for the folder of an index that was not made by `svdnet index`.
    """
    return f"svdnet index {snapshot.metadata.get('root', 'DIR')} --index {snapshot.folder}"


def select_search(snapshot: Snapshot, faiss_beyond: int | None = None) -> tuple[NeighborSearch | None, str]:
    """Choose between exact search and the FAISS index.

    Args:
        snapshot: The state of the index.
        faiss_beyond: Number of rows above which FAISS is used; None uses the value recorded at indexing, and falls
            back to exact search if the FAISS index is outdated or its recall low.

    Returns:
        The search, None for exact search, and its description.

    Raises:
        InputError: If `faiss_beyond` is given and asks for a FAISS index that is missing or outdated.
    """
    limit = snapshot.metadata.get("faiss_beyond") if faiss_beyond is None else faiss_beyond
    if limit is None or len(snapshot.active_rows) <= limit:
        return None, "exact"
    if faiss_beyond is None and not has_current_faiss_index(snapshot):
        return None, f"exact, because the FAISS index is outdated; rebuild it with {rebuild_command(snapshot)}"
    if faiss_beyond is None and has_low_recall(snapshot.metadata["faiss"]):
        return None, "exact, because the FAISS index misses too many; --faiss-beyond uses it nevertheless"
    return load_faiss_index(snapshot), snapshot.metadata["faiss"]["summary"]


def load_faiss_index(snapshot: Snapshot) -> NeighborSearch:
    """Load the FAISS index of a snapshot as the search for `search_snapshot`.

    Args:
        snapshot: The state of the index.

    Returns:
        Search over the FAISS index.

    Raises:
        InputError: If FAISS is missing, or the FAISS index is missing, outdated or unreadable.
    """
    entry: dict[str, Any] = snapshot.metadata.get("faiss") or {}
    advice = f"build one with {rebuild_command(snapshot)} --faiss-beyond N"
    if not entry:
        raise InputError(f"{snapshot.folder}: has no FAISS index; {advice}")
    if not has_current_faiss_index(snapshot):
        raise InputError(f"{snapshot.folder}: the FAISS index is outdated; {advice}")
    path = snapshot.folder / entry["file"]
    if not is_faiss_index_intact(snapshot):  # FAISS would crash or return wrong results
        raise InputError(f"{path}: missing or corrupt, its digest is not that of the manifest; {advice}")
    try:
        import faiss
    except ImportError as error:
        raise InputError(f"a FAISS index needs FAISS ({error}); {install_command('search')}") from None
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read ({_first_characters(error)}); {advice}") from None
    rows = ActiveRows(snapshot)
    if index.ntotal != len(rows) or index.d != snapshot.dim or len(entry["centre"]) != snapshot.dim:
        raise InputError(f"{path}: holds {index.ntotal} rows of {index.d}, expected {rows.shape}; {advice}")
    center = np.array(entry["centre"], dtype=np.float32)
    loaded = SearchIndex(index, rows, "euclidean", center, entry["k"], entry["recall"], entry["summary"])
    return lambda queries, k: search_index(loaded, queries, k)


def _write_faiss_index(index: Any, path: Path) -> None:
    import faiss

    with atomic_file(path) as file:
        try:
            faiss.write_index(index, file.name)
        except RuntimeError as error:  # FAISS raises no OSError for a full disk
            message = f"{path}: cannot be written ({_first_characters(error)}); is the disk full?"
            raise InputError(message) from None


def _first_characters(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
