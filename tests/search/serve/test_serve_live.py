"""An index that changes while it is served, and files that differ from the indexed ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import served

from reid.errors import InputError
from reid.search import gallery
from reid.search.serve.live_index import LiveIndex

Client = Callable[..., Any]
FIRST = "0001_c1s1_000101_00.png"


def search(client: Any, path: str = FIRST) -> Any:
    return client.post("/search", files=[("path", (None, path))])


def paths(reply: Any) -> set[str]:
    return {answer["path"] for answer in reply.json()["answers"]}


def test_changes_of_a_writer_show_at_once(client: Client, own: served.SampleIndex) -> None:
    page = client(own)
    before = search(page)
    assert len(paths(before)) == 4
    new = "0002_c7s1_000702_00.png"
    served.person(1, 77).save(own.crops / new)
    served.reindex(own)
    after = search(page)
    assert paths(after) - paths(before) == {new} and after.json()["about"]["cameras"] == ["1", "2", "7"]
    # Images keep their ids.
    assert {a["path"]: a["id"] for a in before.json()["answers"]}.items() <= {
        a["path"]: a["id"] for a in after.json()["answers"]
    }.items()
    (own.crops / FIRST).unlink()
    served.reindex(own)
    gone = before.json()["query"]
    assert page.get(f"/image/{gone}").status_code == 404
    reply = search(page)
    assert (
        reply.status_code == 404
        and "this image is not in the index or was removed; search again" in reply.json()["error"]
    )
    assert paths(search(page, new)) == paths(after) - {FIRST}


def test_compacting_invalidates_ids(client: Client, own: served.SampleIndex) -> None:
    page = client(own)
    ids = {answer["id"] for answer in search(page).json()["answers"]}
    assert all(page.get(f"/image/{id}").status_code == 200 for id in ids)
    (own.crops / FIRST).unlink()
    served.reindex(own, compact=True)
    # The rows have moved, so an old id could refer to another image.
    assert [page.get(f"/image/{id}").status_code for id in ids] == [404] * 4
    new = {answer["id"] for answer in search(page, "0002_c1s1_000102_00.png").json()["answers"]}
    assert len(new) == 3 and not new & ids and all(page.get(f"/image/{id}").status_code == 200 for id in new)


def test_an_index_is_read_once_per_state(own: served.SampleIndex) -> None:
    index = LiveIndex(own.index, own.embedder.model_id, own.embedder.dim)
    first = index.view()
    assert index.view() is first
    served.person(0, 99).save(own.crops / "0001_c5s1_000501_00.png")
    served.reindex(own)
    second = index.view()
    assert second is not first and second.summary.images == 5 and first.summary.images == 4
    # A new index in the same folder may have the same version.
    shutil.rmtree(own.index)
    served.reindex(own)
    third = index.view()
    assert third is not second
    # What is no image counts, too, such as the folder of the crops.
    with gallery.Gallery.open(own.index) as writer:
        writer.set_metadata(root=str(own.crops.parent))
    assert index.view() is not third


def test_two_paths_of_one_content(client: Client, own: served.SampleIndex) -> None:
    twin = "0001_c2s1_000999_00.png"
    shutil.copy(own.crops / FIRST, own.crops / twin)
    served.reindex(own)
    page = client(own)
    reply = search(page).json()
    ids = {answer["path"]: answer["id"] for answer in reply["answers"]}
    assert ids[FIRST] == ids[twin] and len(set(ids.values())) == 4
    without = page.post("/search", files=[("path", (None, FIRST)), ("exclude_same", (None, "1"))]).json()
    assert {answer["path"] for answer in without["answers"]} == set(ids) - {FIRST, twin}


def test_an_empty_index_is_served_and_says_so(client: Client, own: served.SampleIndex) -> None:
    for path in own.crops.iterdir():
        path.unlink()
    with gallery.Gallery.open(own.index, model_id=own.embedder.model_id, dim=own.embedder.dim) as index:
        index.set_removed([crop.path for crop, _, _ in index.images()], removed=True)
    page = client(own)
    assert "The index is empty" in page.get("/").text
    reply = page.post("/search", files={"image": ("a.png", served.encode_image(served.person(0, 1)))})
    assert reply.status_code == 409 and reply.json()["error"].startswith("the index is empty")


def test_a_deleted_index_is_reported_in_the_terminal(
    client: Client, own: served.SampleIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    page = client(own)
    shutil.rmtree(own.index)
    for reply in (search(page), page.get("/"), page.get("/image/0")):
        assert reply.status_code == 503 and str(own.index) not in reply.text
        assert reply.json()["error"].startswith("the index cannot be searched now")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(f"{own.index}: no such index" in line for line in lines)
    with pytest.raises(InputError, match="no such index"):
        client(own)


def test_an_index_of_another_model_is_rejected(own: served.SampleIndex) -> None:
    with pytest.raises(InputError, match="was built with the model"):
        LiveIndex(own.index, "0" * 64, own.embedder.dim).view()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("deleted", "can no longer be read"),
        ("folder", "can no longer be read"),
        ("pipe", "has changed since it was indexed"),
        ("other", "has changed since it was indexed"),
        ("longer", "has changed since it was indexed"),
        ("outside", "lies outside the indexed folder"),
        ("outside folder", "lies outside the indexed folder"),
    ],
)
def test_only_indexed_content_is_shown(
    client: Client, own: served.SampleIndex, tmp_path: Path, change: str, reason: str
) -> None:
    page = client(own)
    query, file = search(page).json()["query"], own.crops / FIRST
    content, secret = file.read_bytes(), tmp_path / "secret" / FIRST
    secret.parent.mkdir()
    file.unlink()
    if change == "other":
        # The same size, other content.
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif change == "longer":
        file.write_bytes(content + b"more")
    elif change == "folder":
        file.mkdir()
    elif change == "pipe":
        os.mkfifo(file)
    elif change == "outside":
        secret.write_bytes(content)
        file.symlink_to(secret)
    elif change == "outside folder":
        secret.write_bytes(content)
        shutil.rmtree(own.crops)
        own.crops.symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / FIRST).symlink_to(secret)
    reply = page.get(f"/image/{query}")
    assert reply.status_code == 404 and str(tmp_path) not in reply.text
    assert reply.json()["error"] == f"{FIRST}: {reason}"
    # It can still be searched for: its features are in the index.
    assert len(paths(search(page))) == 4


@pytest.mark.parametrize("path", ["../secret.png", "{root}/secret.png"])
def test_an_index_with_paths_outside_its_folder(client: Client, own: served.SampleIndex, path: str) -> None:
    """An untrusted index may contain the path of any file."""
    secret = own.crops.parent / "secret.png"
    secret.write_bytes((own.crops / FIRST).read_bytes())
    path = path.format(root=own.crops.parent)
    with gallery.Gallery.open(own.index, model_id=own.embedder.model_id, dim=own.embedder.dim) as index:
        crop, digest = next((crop, digest) for crop, digest, _ in index.images() if crop.path == FIRST)
        index.commit([(gallery.Crop(path, crop.size, crop.mtime_ns, crop.labels), digest)], deleted=[FIRST])
    page = client(own)
    reply = search(page, path)
    assert reply.status_code == 200 and path in paths(reply)
    shown = page.get(f"/image/{reply.json()['query']}")
    assert shown.status_code == 404 and "lies outside the indexed folder" in shown.json()["error"]
