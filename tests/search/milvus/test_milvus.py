"""An index in Milvus answers as the index in a folder does, and says in one line what is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="needs the extra milvus")
pytest.importorskip("milvus_lite", reason="needs the extra milvus")

from reid.errors import InputError
from reid.search import gallery, milvus, stores
from reid.search.milvus import candidates, connection, entities, view, writer
from reid.search.serve.live_index import LiveIndex

DIM = 16
PATTERN = "{identity}/c{camera}_{time}"
MODEL = "a" * 64


@pytest.fixture
def place(milvus_store: str, request: pytest.FixtureRequest) -> milvus.Collection:
    return milvus.parse_collection(milvus_store, request.node.originalname)


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Files of four identities and three cameras, one content twice, and labels that need quoting."""
    folder = tmp_path / "crops"
    names = [f"{identity:04d}/c{camera}_{100 * camera}" for identity in range(4) for camera in (1, 2, 3)]
    for name in (*names, "0009/c5_x", "-1/c1_7", "o'x/c\"\\é_2026-01-31T10:00:00"):
        path = folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (folder / "0003" / "c2_250.jpg").write_bytes((folder / "0000" / "c1_100.jpg").read_bytes())
    return folder


class Embed:
    """Maps the bytes of files to unit rows; stops at the call `stop`."""

    def __init__(self, stop: int = 10**9) -> None:
        self.seen: list[str] = []
        self.stop = stop

    def __call__(self, paths: Sequence[str]) -> np.ndarray:
        self.stop -= 1
        if not self.stop:
            raise KeyboardInterrupt
        self.seen += paths
        rows = [vector(Path(path).read_bytes()) for path in paths]
        return np.stack(rows)


def vector(content: bytes) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    row = np.random.default_rng(seed).normal(size=DIM)
    return (row / np.linalg.norm(row)).astype(np.float32)


def update(place: stores.Place, crops: Path, embed: Embed | None = None) -> gallery.UpdateSummary:
    metadata = {"root": str(crops), "pattern": PATTERN}
    index = (
        stores.open_writer(place)
        if stores.is_index(place)
        else stores.create_writer(place, model_id=MODEL, dim=DIM, metadata=metadata)
    )
    with index:
        listing = gallery.list_crops(crops, PATTERN)
        return gallery.update_index(index, listing, embed or Embed(), progress=False)


def same_answers(place: milvus.Collection, folder: Path) -> None:
    """Compare what a view of either store returns, but the ids of images."""
    ours, expected = stores.open_view(place), stores.open_view(folder)
    assert ours.summary == expected.summary
    queries = np.stack([vector(b"0000/c1_100"), vector(b"new")])
    own = hashlib.sha256(b"0000/c1_100").digest()
    filters: list[dict[str, Any]] = [
        {},
        {"exclude": [{own}, set()]},
        {"cameras": ["2", "3"]},
        {"cameras": [*expected.summary.cameras][-1:]},
        {"time_range": (-np.inf, 200)},
        {"time_range": (150, np.inf), "cameras": ["1", "2"], "exclude": [{own}, {own}]},
    ]
    for options in filters:
        count = [view.count(options.get("cameras", ()), options.get("time_range")) for view in (ours, expected)]
        assert count[0] == count[1]
        for k in (1, 4, 100):
            found = ours.search(queries, k, **options)
            assert [[dataclasses.replace(one, id=0) for one in results] for results in found] == [
                [dataclasses.replace(one, id=0) for one in results]
                for results in expected.search(queries, k, **options)
            ]
    for crop in gallery.list_crops(Path(expected.metadata["root"]), PATTERN).crops:
        image, other = ours.find_path(crop.path), expected.find_path(crop.path)
        assert (image is None) == (other is None)
        if image and other:
            assert image[1:] == other[1:]
            np.testing.assert_array_equal(ours.feature(image), expected.feature(other))
            again = ours.find_id(image.id)
            assert again is not None and again.digest == image.digest


def test_equals_the_index_in_a_folder(
    place: milvus.Collection, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_SAMPLE", 3)
    summaries = [update(where, crops) for where in (place, tmp_path / "index")]
    assert summaries[0] == summaries[1] and summaries[0].added == 16 and summaries[0].embedded == 15
    same_answers(place, tmp_path / "index")
    # Changed, deleted and renamed files, then removed and restored images.
    (crops / "0001" / "c1_100.jpg").write_bytes(b"changed")
    (crops / "0002" / "c3_300.jpg").unlink()
    os.rename(crops / "0002" / "c2_200.jpg", crops / "0002" / "c2_222.jpg")
    for where in (place, tmp_path / "index"):
        update(where, crops)
    same_answers(place, tmp_path / "index")
    paths = ["0000/c1_100.jpg", "0001/c2_200.jpg", "0001/c3_300.jpg"]
    for change in (
        lambda index: index.set_removed(paths, True),
        lambda index: index.set_removed(paths[:1], False),
        lambda index: index.compact(),
        lambda index: index.set_removed(paths[1:], False),  # without features: embedded again by the next update
    ):
        for where in (place, tmp_path / "index"):
            with stores.open_writer(where) as index:
                change(index)
        same_answers(place, tmp_path / "index")
    embed = Embed()
    assert update(place, crops, embed).added == 2 and len(embed.seen) == 2
    update(tmp_path / "index", crops)
    same_answers(place, tmp_path / "index")
    with stores.open_writer(place) as index, stores.open_writer(tmp_path / "index") as other:
        assert sorted(index.images()) == sorted(other.images()) and index.find_corrupt() == []


def test_the_address_of_a_server_reaches_the_same_index(place: milvus.Collection, crops: Path) -> None:
    from milvus_lite.server_manager import server_manager_instance

    update(place, crops)
    address = f"milvus:{server_manager_instance.start_and_get_uri(place.uri)}"
    other = milvus.parse_collection(address, place.name)
    assert update(other, crops).unchanged == 16
    assert stores.open_view(other).search(vector(b"new")[None], 9) == stores.open_view(place).search(
        vector(b"new")[None], 9
    )


def test_a_load_goes_on_where_it_stopped(
    place: milvus.Collection, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reid.search.gallery.update._BATCH_SIZE", 4)
    first, second = Embed(stop=3), Embed()
    with pytest.raises(KeyboardInterrupt):
        update(place, crops, first)
    # The server fails between two calls of one commit.
    monkeypatch.setattr(entities, "_BATCH", 2)
    call, calls = connection.Connection.__call__, iter(range(3))

    def failing(self: connection.Connection, method: str, **arguments: Any) -> Any:
        if method == "upsert" and next(calls, None) is None:
            raise InputError("the server is gone")
        return call(self, method, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(connection.Connection, "__call__", failing)
        with pytest.raises(InputError, match="the server is gone"):
            update(place, crops, second)
    third = Embed()
    summary = update(place, crops, third)
    assert len(first.seen) == 8 and summary.unchanged >= 10
    assert not {*first.seen} & {*second.seen, *third.seen}
    update(tmp_path / "index", crops)
    same_answers(place, tmp_path / "index")


def test_an_interrupted_creation_is_repeated(place: milvus.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(entities, "store_metadata", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            milvus.MilvusIndex.create(place, model_id=MODEL, dim=DIM + 1)
    assert not stores.is_index(place)
    with pytest.raises(InputError, match="no such index"):
        stores.read_metadata(place)
    milvus.MilvusIndex.create(place, model_id=MODEL, dim=DIM)
    with pytest.raises(InputError, match="already holds an index"):
        milvus.MilvusIndex.create(place, model_id=MODEL, dim=DIM)


def test_what_does_not_fit_is_refused(place: milvus.Collection, crops: Path) -> None:
    with pytest.raises(InputError, match="no such index"):
        stores.open_view(place)
    update(place, crops)
    opened, link = stores.open_view(place), connection.connect(place)
    for model_id, dim, message in (
        ("b" * 64, DIM, "was built with the model aaaa"),
        (MODEL, DIM + 1, "holds features of dimension 16, but the model outputs 17"),
    ):
        with pytest.raises(InputError, match=message):
            LiveIndex(place, model_id, dim).view()
    with pytest.raises(InputError, match="--faiss-beyond: an index in --store"):
        stores.open_view(place, faiss_beyond=1)
    with stores.open_writer(place) as index:
        with pytest.raises(InputError, match="--shard: an index in --store"):
            index.check(MODEL, DIM, 5)
        with pytest.raises(InputError, match="not of unit length"):
            index.commit(features={b"1" * 32: np.full(DIM, 2.0)})
    for call, message in (
        (lambda: opened.search(vector(b"")[None], 0), "--top 0"),
        (lambda: opened.search(vector(b"")[None], 20_000), "--top 20000: Milvus finds at most 16,368"),
        (lambda: opened.search(np.eye(1, 3), 1), "do not fit an index of dimension 16"),
        (lambda: opened.count(["8"], None), "no image of camera 8; known are 1, 2, 3"),
        (lambda: opened.count([""], None), "no image of camera"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    # A feature that somebody else wrote.
    [entity] = link("query", filter=f'key == "{entities.path_key("0000/c1_100.jpg")}"', output_fields=["*"])
    link("upsert", data=[{**entity, "feature": vector(b"other")}])
    with pytest.raises(InputError, match=r"the feature of 0000/c1_100\.jpg does not match its checksum"):
        opened.search(vector(b"other")[None], 1)
    with stores.open_writer(place) as index:
        assert index.find_corrupt() == ["0000/c1_100.jpg"]
    # Metadata of another width, and a collection of something else.
    entities.store_metadata(link, {"model_id": MODEL, "dim": DIM, "root": 3})
    with pytest.raises(InputError, match="the entry 'root' of its metadata"):
        stores.open_view(place)
    monkeyed = entities.make_entity(
        gallery.Crop('{"model_id": "m", "dim": 99}', 0, 0, gallery.Labels()), b"", vector(b"")
    )
    link("upsert", data=[{**monkeyed, "key": "metadata", "removed": True}])
    with pytest.raises(InputError, match="a collection of width 16, but its metadata says 99"):
        stores.open_view(place)
    link("drop_collection")
    link("create_collection", dimension=4)
    with pytest.raises(InputError, match="is a collection of something else; choose another --index"):
        update(place, crops)


def test_recall_is_measured_against_exact_search(
    place: milvus.Collection, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update(place, crops)
    index = milvus.MilvusIndex(place)
    assert "recall not measured; svdnet index --recall" in stores.open_view(place).describe_search(
        filtered=False, advice=True
    )
    assert index.finish().startswith("Milvus index over 16 images: recall@10 1.0000 on 16 images")
    assert "recall@10 1.0000 when it held 16 images" in stores.open_view(place).describe_search(filtered=True)
    assert index.finish() == ""  # nothing has changed
    call: Callable[..., Any] = candidates.find_candidates

    def half(*arguments: Any) -> Any:
        distances, found = call(*arguments)
        kept = np.argsort(distances)[:6]  # the query itself and five others
        return distances[kept], [found[i] for i in kept]

    monkeypatch.setattr(candidates, "find_candidates", half)
    assert candidates.measure_recall(connection.connect(place), DIM) == (0.5, 16)
    monkeypatch.setattr(writer, "_GROWTH", 1.0)
    (crops / "0000" / "c1_100.jpg").unlink()
    update(place, crops)
    monkeypatch.setattr(writer, "_MEASURED_IMAGES", 14)  # a large index is measured on request
    large = "Milvus index over 15 images: --recall measures its recall, by reading 0.0 GB"
    assert milvus.MilvusIndex(place).finish() == large
    assert "recall@10 1.0000 when it held 16 images" in stores.open_view(place).describe_search(filtered=True)
    assert "recall@10 0.5000" in milvus.MilvusIndex(place).finish(measure=True)


def test_images_that_its_graph_does_not_reach(
    place: milvus.Collection, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in (place, tmp_path / "index"):
        update(where, crops)
    call = connection.Connection.__call__

    def forgetting(self: connection.Connection, method: str, **arguments: Any) -> Any:
        found = call(self, method, **arguments)
        return [found[0][1::2]] if method == "search" else found

    monkeypatch.setattr(connection.Connection, "__call__", forgetting)
    same_answers(place, tmp_path / "index")
    monkeypatch.setattr(candidates, "_SCANNED", 9)
    assert len(stores.open_view(place).search(vector(b"new")[None], 100)[0]) == 8


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("faiss:x.db", "index", "must be milvus:http://HOST:19530, or milvus:FILE.db"),
        ("milvus:", "index", "must be milvus:"),
        ("milvus:folder", "index", "must be milvus:"),
        ("milvus:ftp://host/x.db", "index", "must be milvus:"),
        ("milvus:http://", "index", "must be milvus:"),
        ("milvus:x.db", "a/b", "--index a/b: with --store it is the name of a collection"),
        ("milvus:http://root:secret@host", "index", "may not hold a password; set MILVUS_TOKEN"),
    ],
)
def test_an_invalid_place(text: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        milvus.parse_collection(text, name)
    assert "secret" not in str(caught.value)


def test_no_server_no_folder_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import pymilvus

    monkeypatch.setattr(connection, "_CONNECT_SECONDS", 0.2)
    monkeypatch.setenv("MILVUS_TOKEN", "root:secret")
    with pytest.raises(InputError, match=r"cannot be opened .*; does the server run, is the address right") as caught:
        stores.is_index(milvus.parse_collection("milvus:http://127.0.0.1:1", "index"))
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"the folder .* does not exist"):
        connection.connect(milvus.parse_collection(f"milvus:{tmp_path}/none/x.db", "index"))
    (tmp_path / "file.db").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"cannot be opened .*; does another process use it"):
        stores.is_index(milvus.parse_collection(f"milvus:{tmp_path}/file.db", "index"))
    given: dict[str, Any] = {}
    monkeypatch.setattr(pymilvus, "MilvusClient", lambda uri, **options: given.update(options, uri=uri))
    connection.connect(milvus.parse_collection("milvus:https://cluster:19530/db", "index"))
    assert given == {"uri": "https://cluster:19530/db", "token": "root:secret", "timeout": 0.2}
    for missing in ("pymilvus", "milvus_lite"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            with pytest.raises(InputError, match=r"--store needs Milvus .*; pip install .*milvus"):
                connection.Connection(milvus.parse_collection(f"milvus:{tmp_path}/new.db", "index"))
    assert capfd.readouterr().err == ""
