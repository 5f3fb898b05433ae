"""The searches and thumbnails behind the page."""

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
from reid.report.search_page import answer_lines, default_threshold, describe_answer, meaning
from reid.search.gallery import IndexView, describe_calibration, results_to_dicts
from reid.search.serve.limits import Limits, RequestError
from reid.search.serve.live_index import ImageUnavailable, LiveIndex, read_file
from reid.search.serve.request import SearchRequest

_NO_IMAGE = "this image is not in the index or was removed"


@dataclass(frozen=True, eq=False)
class SearchService:
    """A model and an index to search. All methods raise InputError if the index cannot be read.

    Attributes:
        embedder: Model that embeds the uploaded images.
        index: Index to search, reread after each change.
        limits: Limits of a request.
        prior: Share of matching pairs for the probabilities; None uses the prior of the calibration.
    """

    embedder: Embedder
    index: LiveIndex
    limits: Limits
    prior: float | None = None

    def describe(self) -> dict[str, Any]:
        """Describe the index.

        Returns:
            What the page shows of it, and the filters that it offers.
        """
        return self._describe(self.index.view())

    def search(self, request: SearchRequest) -> dict[str, Any]:
        """Run a search.

        Args:
            request: Images and options from `read_search_request`.

        Returns:
            The JSON of the reply: `answers` by rank, and what they were found among.

        Raises:
            RequestError: If the index is empty, or the query or a filter does not fit it.
        """
        view = self.index.view()
        total = view.summary.images
        if not total:
            raise RequestError(409, "the index is empty; add images with svdnet index")
        try:
            count = view.count(request.cameras, request.time_range)
        except InputError as error:
            # The place of the index is not for clients.
            raise RequestError(422, str(error).removeprefix(f"{self.index.place}: ")) from None
        feature, digest, query_id = self._query(view, request)
        exclude = [{digest}] if request.exclude_same else []
        [results] = view.search(
            feature, request.top_k, cameras=request.cameras, time_range=request.time_range, exclude=exclude
        )
        answers = [
            {**answer, "alt": describe_answer(answer), "lines": answer_lines(answer)}
            for answer in results_to_dicts(results, self.embedder.calibration, self.prior)
        ]
        return {
            "query": query_id,
            "images": count,
            **describe_calibration(self.embedder.calibration, self.prior),
            "answers": answers,
            "about": {**self._describe(view), "search": view.describe_search(filtered=count < total)},
        }

    def thumbnail(self, image_id: int) -> bytes:
        """Encode a thumbnail from the pixels of an image of the index, without its metadata.

        Args:
            image_id: Id of the image from a search result.

        Returns:
            Content of a JPEG file.

        Raises:
            RequestError: If there is no such image, or its file is not the indexed one.
        """
        view = self.index.view()
        image = view.find_id(image_id)
        if image is None:
            raise RequestError(404, _NO_IMAGE)
        name = Path(image.crop.path).name
        try:
            return encode(
                read_image(name, read_file(Path(view.metadata["root"]), image)), max_side=self.limits.thumbnail_side
            )[0]
        except ImageUnavailable as error:
            raise RequestError(404, f"{name}: {error}") from None
        except InputError as error:
            raise RequestError(404, str(error)) from None

    def _describe(self, view: IndexView) -> dict[str, Any]:
        summary = view.summary
        calibration = describe_calibration(self.embedder.calibration, self.prior)
        return {
            "name": view.name,
            "images": summary.images,
            "cameras": summary.cameras,
            "times": summary.times,
            "search": view.describe_search(filtered=False),
            "meaning": meaning({**calibration, "kinds": summary.kinds.values()}),
            "calibrated": self.embedder.calibration is not None,
            "thresholds": calibration["thresholds"],
            "default_threshold": default_threshold(calibration["thresholds"]),
            "answers": self.limits.max_results,
            "page_results": self.limits.page_results,
            "upload_bytes": self.limits.upload_bytes,
        }

    def _query(self, view: IndexView, request: SearchRequest) -> tuple[np.ndarray, bytes, int | None]:
        """Return the (1, D) float32 feature, the digest of the content, and the id if the index holds the image."""
        if request.image is not None:
            try:
                feature = self.embedder.embed([read_image("the image", request.image)])
            except InputError as error:
                raise RequestError(422, str(error)) from None
            if not feature.any():
                raise RequestError(422, "the image: its feature is all zero, so it cannot be searched")
            return feature, hashlib.sha256(request.image).digest(), None
        image = view.find_id(request.id) if request.id is not None else view.find_path(request.path or "")
        if image is None:
            raise RequestError(404, f"{_NO_IMAGE}; search again")
        return view.feature(image), image.digest, image.id
