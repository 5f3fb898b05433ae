"""The page on an index in Milvus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import served

from reid.errors import InputError
from reid.search import gallery, milvus
from reid.search.serve import live_index


def test_the_page_searches_milvus(
    client: Callable[..., Any],
    own: served.SampleIndex,
    milvus_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = milvus.parse_collection(milvus_store, "page")
    embedder = served.calibrated(own.embedder)
    metadata = {"root": str(own.crops), "weights": str(own.weights), "feature": embedder.feature, "flip": False}
    index = milvus.MilvusIndex.create(place, model_id=embedder.model_id, dim=embedder.dim, metadata=metadata)
    gallery.update_index(index, gallery.list_crops(own.crops, served.PATTERN), embedder.embed, progress=False)
    pages = [client(own, embedder), client(served.SampleIndex(embedder, own.weights, own.crops, place))]  # type: ignore[arg-type]
    image = served.encode_image(served.person(0, 1))
    answers = []
    for page in pages:
        assert page.get("/").status_code == 200
        reply = page.post("/search", files=[("image", image), ("camera", (None, "2")), ("to", (None, "201"))]).json()
        assert reply["images"] == 1 and reply["about"]["cameras"] == ["1", "2"] and reply["about"]["images"] == 4
        reply = page.post("/search", files={"image": image}).json()
        answers.append([{name: value for name, value in one.items() if name != "id"} for one in reply["answers"]])
        thumbnail = page.get(f"/image/{reply['answers'][0]['id']}")
        assert thumbnail.status_code == 200 and thumbnail.headers["content-type"] == "image/jpeg"
        again = page.post("/search", files=[("id", (None, str(reply["answers"][0]["id"])))])
        assert again.json()["query"] == reply["answers"][0]["id"]
        missing = page.post("/search", files=[("image", image), ("camera", (None, "9"))])
        assert missing.status_code == 422 and missing.json()["error"] == "no image of camera 9; known are 1, 2"
        assert page.get("/image/5").status_code == 404
    assert answers[0] == answers[1] and answers[0][0]["probability"] > 0.5
    # A removal shows in the next search.
    index.set_removed([answers[0][0]["path"]], True)
    assert len(pages[1].post("/search", files={"image": image}).json()["answers"]) == 3
    # Another model builds the index anew, and then the server goes away.
    milvus.connection.connect(place)("drop_collection")
    milvus.MilvusIndex.create(place, model_id="b" * 64, dim=embedder.dim, metadata=metadata)
    assert pages[1].post("/search", files={"image": image}).status_code == 503
    assert "was built with the model bbbb" in capsys.readouterr().err

    def down(_: object) -> None:
        raise InputError(f"{place}: cannot be opened")

    monkeypatch.setattr(live_index.stores, "read_state", down)
    reply = pages[1].get("/")
    assert reply.status_code == 503 and milvus_store not in reply.text
