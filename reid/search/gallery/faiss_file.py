"""A FAISS index over an index of crops, on the disk beside it, with its recall in the manifest."""

from __future__ import annotations

from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.atomic import atomic_file
from reid.io.shards import Shards
from reid.ranking.faiss_index import SearchIndex, build_index, search
from reid.search.gallery.ranked_search import Nearest
from reid.search.gallery.snapshot import Snapshot, read_snapshot
from reid.search.gallery.writer import Gallery

RECALL_AT = 10


class Living:
    """The rows of a snapshot that an image has, as one matrix that is read where it is asked for."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._rows, self._places = Shards(snapshot.parts), snapshot.living()
        self._all = len(self._places) == len(self._rows)
        self.shape, self.dtype, self.ndim = (len(self._places), snapshot.dim), np.dtype(np.float32), 2

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self._rows[rows] if self._all else self._rows[self._places[rows]]


def build_faiss(gallery: Gallery, *, kind: str = "ivf", seed: int = 0) -> dict[str, Any]:
    """Build an index over all that can be found, write it beside the shards and note it in the manifest.

    Returns the note: `file`, `version` of the state it is of, `rows`, `recall` (recall@10 against exact search, on rows
    drawn from the gallery) and `summary`. Raises InputError where FAISS is missing or there is nothing to search.
    """
    snapshot = read_snapshot(gallery.folder)
    if not len(snapshot.crops):
        raise InputError(f"{gallery.folder}: holds no image to build a FAISS index over")
    built = build_index(Living(snapshot), kind=kind, k=RECALL_AT, seed=seed)
    import faiss

    version = int(snapshot.notes["version"])
    path = gallery.folder / f"faiss-{version}.index"
    with atomic_file(path) as file:
        try:
            faiss.write_index(built.index, file.name)
        except RuntimeError as error:  # FAISS tells a full disk in its own way
            raise InputError(
                f"{path}: could not be written ({' '.join(str(error).split())[:200]}); is the disk full?"
            ) from None
    note = {
        "file": path.name,
        "version": version,
        "rows": len(snapshot.living()),
        "k": built.k,
        "recall": built.recall,
        "summary": built.summary,
        "centre": np.asarray(built.centre, dtype=np.float64).tolist(),
    }
    gallery.note(faiss=note)
    for old in gallery.folder.glob("faiss-*.index"):
        if old != path:
            old.unlink()
    return note


def is_current(snapshot: Snapshot) -> bool:
    """Whether there is a FAISS index, and of this state of the index."""
    note: dict[str, Any] = snapshot.notes.get("faiss") or {}
    return note.get("version") == snapshot.notes["version"]


def choose_search(snapshot: Snapshot, beyond: int | None = None) -> tuple[Nearest | None, str]:
    """The search to use, None for the exact one, and what it is in words.

    beyond: rows above which FAISS is used; None is what was asked for when the images were indexed. An index of FAISS
    that is of an earlier state is an error where `beyond` is given and left alone otherwise.
    """
    limit = snapshot.notes.get("faiss_beyond") if beyond is None else beyond
    if limit is None or len(snapshot.living()) <= limit:
        return None, "exact"
    if beyond is None and not is_current(snapshot):
        # Right answers, if slower ones, are better than none.
        again = f"tools/index.py {snapshot.notes['root']} --index {snapshot.folder} builds it anew"
        return None, f"exact, as the FAISS index is of an earlier state: {again}"
    return open_faiss(snapshot), snapshot.notes["faiss"]["summary"]


def open_faiss(snapshot: Snapshot) -> Nearest:
    """The search for `find`. Raises InputError where there is no FAISS index, or one of an earlier state."""
    note: dict[str, Any] = snapshot.notes.get("faiss") or {}
    again = f"tools/index.py {snapshot.notes.get('root', 'DIR')} --index {snapshot.folder} --faiss-beyond N builds one"
    if not note:
        raise InputError(f"{snapshot.folder}: has no FAISS index; {again}")
    if not is_current(snapshot):
        raise InputError(f"{snapshot.folder}: its FAISS index is of an earlier state; {again}")
    path = snapshot.folder / note["file"]
    try:
        import faiss
    except ImportError as error:
        raise InputError(f"a FAISS index needs FAISS ({error}); pip install 'reid[search]'") from None
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise InputError(f"{path}: missing or broken ({' '.join(str(error).split())[:200]}); {again}") from None
    living = Living(snapshot)
    if index.ntotal != len(living) or index.d != snapshot.dim:
        raise InputError(f"{path}: holds {index.ntotal} rows of {index.d}, not {living.shape}; {again}")
    centre = np.array(note["centre"], dtype=np.float32)
    held = SearchIndex(index, living, "euclidean", centre, note["k"], note["recall"], note["summary"])
    return lambda queries, k: search(held, queries, k)
