"""Responses of the server: the same results as a search in the terminal, and clear error messages."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import served
from PIL import Image

from reid.errors import InputError
from reid.search import gallery
from reid.search.serve.limits import Limits, RequestError
from reid.search.serve.work_queue import WorkQueue

Client = Callable[..., Any]


def ask(client: Any, image: Image.Image, **fields: Any) -> Any:
    return client.post("/search", data=fields, files={"image": ("query.png", served.encode_image(image))})


def ask_index(client: Any, **fields: Any) -> Any:
    """Search by an image of the index; fields may be lists."""
    parts = [(name, (None, str(one))) for name, value in fields.items() for one in np.atleast_1d(value)]
    return client.post("/search", files=parts)


def test_results_equal_those_of_the_gallery(client: Client, sample: served.SampleIndex) -> None:
    query = served.person(2, seed=50)
    reply = ask(client(sample), query, top="7").json()
    rows = sample.embedder.embed([query])
    [expected] = gallery.search_snapshot(gallery.read_snapshot(sample.index), rows, 7)
    assert [answer["path"] for answer in reply["answers"]] == [answer.path for answer in expected]
    assert [answer["distance"] for answer in reply["answers"]] == [answer.distance for answer in expected]
    assert [answer["rank"] for answer in reply["answers"]] == list(range(1, 8))
    assert {answer["identity"] for answer in reply["answers"][:3]} == {"3"}
    assert reply["images"] == 12 and reply["query"] is None
    first = reply["answers"][0]
    assert (
        first["alt"]
        == f"rank 1, distance {first['distance']:.3f}, camera {first['camera']}, identity 3, time " + (first["time"])
    )
    assert str(sample.crops) not in json.dumps(reply)


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "L"), ("PNG", "RGBA"), ("BMP", "RGB"), ("WEBP", "RGB"), ("PNG", "1")]
)
def test_kinds_of_images(client: Client, sample: served.SampleIndex, kind: str, mode: str) -> None:
    image = served.person(0, 3).convert(mode)
    reply = client(sample).post("/search", files={"image": ("whatever.exe", served.encode_image(image, kind))})
    assert reply.status_code == 200 and len(reply.json()["answers"]) == 12


def test_probabilities_equal_those_of_the_calibration(client: Client, sample: served.SampleIndex) -> None:
    plain = ask(client(sample), served.person(1, 9)).json()
    assert all(answer["probability"] is None for answer in plain["answers"])
    assert plain["about"]["meaning"][0].startswith("not calibrated") and not plain["about"]["calibrated"]
    model = served.calibrated(sample.embedder)
    known = ask(client(sample, model), served.person(1, 9)).json()
    distances = np.array([answer["distance"] for answer in known["answers"]])
    said = [answer["probability"] for answer in known["answers"]]
    np.testing.assert_allclose(said, 1 / (1 + np.exp(8 * distances - 4)))
    assert "calibrated on synthetic people" in known["about"]["meaning"][0]
    rarer = ask(client(sample, model, prior=0.01), served.person(1, 9)).json()
    np.testing.assert_allclose(
        [answer["probability"] for answer in rarer["answers"]], 1 / (1 + 99 * np.exp(8 * distances - 4))
    )
    with pytest.raises(InputError, match="prior needs a calibrated model"):
        client(sample, prior=0.5)
    with pytest.raises(InputError, match="must be between 0 and 1"):
        client(sample, model, prior=1.5)


def test_by_an_image_of_the_index(client: Client, sample: served.SampleIndex) -> None:
    page = client(sample)
    by_path = ask_index(page, path="0002_c3s1_000302_00.png").json()
    # Its own content is left out on request only.
    assert by_path["answers"][0]["path"] == "0002_c3s1_000302_00.png"
    assert by_path["answers"][0]["id"] == by_path["query"]
    by_id = ask_index(page, id=by_path["query"], exclude_same="1").json()
    assert [answer["path"] for answer in by_id["answers"]] == [a["path"] for a in by_path["answers"]][1:]
    assert [answer["identity"] for answer in by_id["answers"][:2]] == ["2", "2"]
    upload = (sample.crops / "0002_c3s1_000302_00.png").read_bytes()
    same = page.post("/search", files={"image": ("x", upload)}, data={"exclude_same": "1"}).json()
    assert [a["path"] for a in same["answers"]] == [a["path"] for a in by_id["answers"]]


def test_filters(client: Client, sample: served.SampleIndex) -> None:
    page = client(sample)
    path = "0001_c1s1_000101_00.png"
    two = ask_index(page, path=path, camera=["2", "3"]).json()
    assert {answer["camera"] for answer in two["answers"]} == {"2", "3"} and two["images"] == 8
    late = ask_index(page, path=path, **{"from": " 203 ", "to": "302"}).json()
    assert sorted(answer["time"] for answer in late["answers"]) == ["203", "204", "301", "302"]
    assert late["about"]["times"] == ["101", "304"] and late["about"]["cameras"] == ["1", "2", "3"]
    none = ask_index(page, path=path, camera="1", **{"from": "200"}).json()
    assert none["answers"] == [] and none["images"] == 0
    assert ask_index(page, path=path, top="0").json()["answers"][0]["rank"] == 1


@pytest.mark.parametrize(
    ("fields", "status", "line"),
    [
        ({"camera": "9"}, 422, "no image of camera 9; known are 1, 2, 3"),
        ({"from": "soon"}, 422, "invalid time 'soon'; use a number or a date such as 2026-01-31T23:59:59"),
        ({"from": "9", "to": "1"}, 422, "the time range from 9 to 1 ends before it starts"),
        ({"top": "101"}, 422, "top: must be an integer in [0, 100], not '101'"),
        ({"top": "ten"}, 422, "top: must be an integer in [0, 100], not 'ten'"),
        ({"color": "red"}, 400, "unknown field 'color'; known are image, id, path, camera"),
        ({"id": "1"}, 400, "a search needs exactly one of: image, a file; id or path of an image of the index"),
    ],
)
def test_invalid_searches(
    client: Client, sample: served.SampleIndex, fields: dict[str, str], status: int, line: str
) -> None:
    reply = ask_index(client(sample), path="0001_c1s1_000101_00.png", **fields)
    assert reply.status_code == status and list(reply.json()) == ["error"]
    assert reply.json()["error"].startswith(line) and "\n" not in reply.json()["error"]


def test_the_page(client: Client, sample: served.SampleIndex) -> None:
    reply = client(sample).get("/")
    assert reply.status_code == 200 and reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    [nonce] = re.findall(r"<script nonce=\"(.+?)\">", reply.text)
    assert policy["script-src"] == f"'nonce-{nonce}'" and policy["style-src"] == f"'nonce-{nonce}'"
    assert f'<style nonce="{nonce}">' in reply.text and nonce not in client(sample).get("/").text
    assert "unsafe" not in reply.headers["content-security-policy"]
    # Nothing from other sites, and no handlers or styles in attributes, which the policy would block.
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]+\"", reply.text)
    assert not re.findall(r"<[^>]+\s(?:on\w+|style)=", reply.text.partition("<script nonce")[0])
    about = json.loads(re.findall(r'id="data">(.*?)</script>', reply.text, re.DOTALL)[0])
    assert about["images"] == 12 and about["cameras"] == ["1", "2", "3"] and str(sample.crops) not in reply.text


def test_pictures_are_small_jpegs_of_the_pixels_alone(client: Client, own: served.SampleIndex) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    large = served.person(0, 7, (300, 900))
    large.save(own.crops / "0009_c1s1_000900_00.jpg", exif=exif, quality=95)
    served.reindex(own)
    page = client(own)
    query = ask_index(page, path="0009_c1s1_000900_00.jpg").json()["query"]
    reply = page.get(f"/image/{query}")
    assert reply.status_code == 200 and reply.headers["content-type"] == "image/jpeg"
    picture = Image.open(io.BytesIO(reply.content))
    assert (picture.format, picture.size) == ("JPEG", (85, 256)) and b"where I live" not in reply.content
    expected = np.asarray(large.resize(picture.size), dtype=float)
    assert np.abs(np.asarray(picture, dtype=float) - expected).mean() < 6


def test_a_zero_feature_is_an_error(client: Client, sample: served.SampleIndex) -> None:
    class ZeroEmbedder:
        model_id, dim, calibration = sample.embedder.model_id, sample.embedder.dim, None

        def embed(self, images: list[Any]) -> np.ndarray:
            return np.zeros((len(images), self.dim), dtype=np.float32)

    reply = ask(client(sample, ZeroEmbedder()), served.person(0, 1))
    assert reply.status_code == 422 and "its feature is all zero" in reply.json()["error"]


def test_one_at_a_time_with_a_bounded_queue() -> None:
    running, peak, done = 0, 0, []

    def work(number: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        done.append(hashlib.sha256(bytes(10**6)).digest())
        running -= 1
        return number

    async def one(queue: WorkQueue, number: int) -> object:
        try:
            async with queue.slot():
                await asyncio.sleep(0)
                return await queue.run(work, number)
        except RequestError as error:
            return error.status

    async def all_at_once() -> list[object]:
        queue = WorkQueue(1, 3, 10, 10)
        first = await asyncio.gather(*(one(queue, number) for number in range(6)))
        return [*first, await one(queue, 6)]

    # In another thread, because the browser tests leave an event loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(asyncio.run, all_at_once()).result() == [0, 1, 2, 3, 503, 503, 6]
    assert peak == 1 and len(done) == 5


def test_a_full_queue_is_an_error(client: Client, sample: served.SampleIndex) -> None:
    reply = ask(client(sample, limits=Limits(max_queued=-1)), served.person(0, 1))
    assert reply.status_code == 503 and reply.json()["error"].startswith("busy: ") and reply.headers["retry-after"]
