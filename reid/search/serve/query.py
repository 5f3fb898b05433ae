"""From what was asked to what is answered."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid.data.images.decode import read_image
from reid.errors import InputError
from reid.inference.embedder import Embedder
from reid.report.pages import encode
from reid.report.search_page import describe_answer, meaning
from reid.search.gallery import describe_calibration, find, plain_answers
from reid.search.serve.limits import Limits, Refused
from reid.search.serve.live_index import Gone, LiveIndex, View
from reid.search.serve.upload import Asked


@dataclass(frozen=True, eq=False)
class Search:
    """A model and an index. prior: share of pairs of one person that probabilities are told for, None: the model's."""

    embedder: Embedder
    index: LiveIndex
    limits: Limits
    prior: float | None = None

    def about(self) -> dict[str, Any]:
        """What the page says of the index and offers to filter by."""
        return self._about(self.index.view())

    def _about(self, view: View) -> dict[str, Any]:
        snapshot = view.snapshot
        calibration = describe_calibration(self.embedder.calibration, self.prior)
        return {
            "name": snapshot.folder.resolve().name,
            "images": len(snapshot.crops),
            "cameras": view.cameras,
            "times": view.times,
            "search": view.search if view.nearest else "exact",
            "meaning": meaning(calibration),
            "calibrated": self.embedder.calibration is not None,
            "answers": self.limits.answers,
            "upload_bytes": self.limits.upload_bytes,
        }

    def answer(self, asked: Asked) -> dict[str, Any]:
        """`answers`, by rank, and what they were found among. Raises Refused for what cannot be searched for, and
        InputError, as everything here does, where the index cannot be read.
        """
        view = self.index.view()
        snapshot = view.snapshot
        if not snapshot.crops:
            raise Refused(409, "the index holds no image yet; tools/index.py puts some into it")
        try:
            among = snapshot.chosen(asked.cameras, asked.period)
        except InputError as error:
            raise Refused(422, str(error).removeprefix(f"{snapshot.folder}: ")) from None
        row, digest, id = self._query(view, asked)
        without = [{digest}] if asked.exclude_same else []
        [found] = find(snapshot, row, asked.top, among=among, without=without, nearest=view.nearest)
        answers = []
        for plain in plain_answers(found, self.embedder.calibration, self.prior):
            image = view.image_at(plain["path"])
            assert image is not None
            answers.append({**plain, "id": view.id_of(image), "alt": describe_answer(plain)})
        return {
            "query": id,
            "images": int(among.sum()),
            **describe_calibration(self.embedder.calibration, self.prior),
            "answers": answers,
            "about": {**self._about(view), "search": view.search if view.nearest and among.all() else "exact"},
        }

    def _query(self, view: View, asked: Asked) -> tuple[np.ndarray, bytes, int | None]:
        """(1, D) float32 features, digest of the content, and the id where it is an image of the index."""
        if asked.image is not None:
            try:
                row = self.embedder.embed([read_image("the image", asked.image)])
            except InputError as error:
                raise Refused(422, str(error)) from None
            if not row.any():
                raise Refused(422, "the image: the model sees nothing in it (its feature is zero)")
            return row, hashlib.sha256(asked.image).digest(), None
        image = view.image_of(asked.id) if asked.id is not None else view.image_at(asked.path or "")
        if image is None:
            raise Refused(404, "the index has no such image (any more); search again")
        return view.row(image), view.snapshot.digests[image], view.id_of(image)

    def picture(self, id: int) -> bytes:
        """The JPEG of an image of the index, made anew from its pixels. Raises Refused where there is none to show."""
        view = self.index.view()
        image = view.image_of(id)
        if image is None:
            raise Refused(404, "the index has no such image (any more)")
        name = Path(view.snapshot.crops[image].path).name
        try:
            return encode(read_image(name, view.content(image)), max_side=self.limits.side)[0]
        except Gone as error:
            raise Refused(404, f"{name}: {error}") from None
        except InputError as error:
            raise Refused(404, str(error)) from None
