"""The page of ranked lists says what `ranked_lists.json` says, holds each picture once, and escapes every name."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from reid.diagnostics.retrieval import Embedded, describe_retrieval
from reid.records import Features
from reid.report import ranked_lists
from reid.report.ranked_figures import MAX_SIDE, thumbnails
from reid.report.ranked_lists import render, write_page

EVIL = "<script>alert(1)</script>&'\".jpg"


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """Two checkpoints on 20 queries and 40 gallery images, drawn to files."""
    random = np.random.default_rng(0)

    def part(name: str, count: int, lowest: int) -> Features:
        paths = []
        for i in range(count):
            path = tmp_path / f"{name}{i:02d}.jpg"
            Image.fromarray(random.integers(0, 255, (16, 8, 3), dtype=np.uint8)).resize((64, 128)).save(path)
            paths.append(str(path))
        labels = random.integers(lowest, 6, count), random.integers(1, 4, count)
        return Features(random.normal(size=(count, 6)).astype(np.float32), *labels, tuple(paths))

    query, gallery = part("query", 20, 1), part("gallery", 40, -1)
    other = dataclasses.replace(query, values=query.values[::-1].copy())
    sides = [Embedded("rri_last.pth", query, gallery, "input"), Embedded("control_last.pth", other, gallery, "input")]
    return describe_retrieval("drawn", sides, queries=8, top=5, gain=(False, "for a test"))


class Parsed(HTMLParser):
    """Tags with their attributes, the text within elements that have an id, and table cells by the table's id."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: dict[str, str] = {}
        self._table = self._id = ""
        self._open = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        if tag == "table":
            self._table = named["id"] or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self._open = True
        if named.get("id"):
            self._id = named["id"] or ""
            self.texts[self._id] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.tables[self._table][-1][-1] += data
        if self._id:
            self.texts[self._id] += data

    def of(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [named for t, named in self.tags if t == tag and all(named.get(k) == v for k, v in wanted.items())]


def test_scores_and_comparison_stand_as_they_are(content: dict[str, Any]) -> None:
    page = Parsed(render(content))
    names = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")
    head, *rows, last = page.tables["scores"]
    assert head[0] == "checkpoint" and len(rows) == 2
    for row, side in zip(rows, content["sides"], strict=True):
        assert row == [side["name"], *(f"{100 * side['scores'][name]:.1f}" for name in names)]
    comparison = content["comparison"]
    assert last == ["difference", *(f"{100 * comparison[name]:+.1f}" for name in names)]
    assert page.texts["repaired"].split() == [str(comparison["repaired"]), "/", str(comparison["broken"])]
    assert "not a gain of RRI" in page.texts["comparison"] and "for a test" in page.texts["comparison"]


def test_a_gain_is_called_one_only_where_it_is(content: dict[str, Any]) -> None:
    assert "gain of RRI, points" not in render(content)
    content["comparison"] |= {"name": "gain of RRI", "reason": "RRI and its control, each after 8 epochs"}
    text = render(content)
    assert "gain of RRI, points" in text and "not a gain" not in text and "each after 8 epochs." in text


def test_each_answer_is_told_in_words(content: dict[str, Any]) -> None:
    page = Parsed(render(content))
    told = [named["aria-label"] for named in page.of("svg", **{"class": "shot"})]
    wanted = []
    for entry in content["lists"]:
        wanted.append(f"query: identity {entry['identity']}, camera {entry['camera']}")
        for side in entry["sides"]:
            for answer in side["answers"]:
                who = f"identity {answer['identity']}" if answer["identity"] else "a distractor"
                verdict = "right" if answer["right"] else "wrong"
                wanted.append(f"{who}, camera {answer['camera']}, rank {answer['rank']}, {verdict}")
    assert told == wanted
    signs = [named["href"] for named in page.of("use") if (named["href"] or "").startswith("#sign")]
    assert signs == [f"#sign-{word.rpartition(', ')[2]}" for word in wanted if "rank" in word]
    assert [named["class"] for named in page.of("li") if named.get("class") in ("right", "wrong")] == [
        sign.removeprefix("#sign-") for sign in signs if sign
    ]
    cards = page.of("article")
    assert [card["data-identity"] for card in cards] == [str(entry["identity"]) for entry in content["lists"]]
    assert [card["data-change"] for card in cards] == [entry["change"] for entry in content["lists"]]


def test_each_picture_is_held_once_and_small(content: dict[str, Any]) -> None:
    page = Parsed(render(content))
    named = {entry["path"] for entry in content["lists"]}
    named |= {a["path"] for entry in content["lists"] for side in entry["sides"] for a in side["answers"]}
    sources = [tag["href"] or "" for tag in page.of("image")]
    assert len(sources) == len(set(sources)) == len(named)
    for source in sources:
        assert source.startswith("data:image/jpeg;base64,")
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            assert image.size == (MAX_SIDE // 2, MAX_SIDE)
    held = {tag["id"] for tag in page.of("symbol")}
    assert all((tag["href"] or "")[1:] in held for tag in page.of("use", width="56"))


def test_camera_pairs_stand_as_they_are(content: dict[str, Any]) -> None:
    page = Parsed(render(content))
    one, two = (side["camera_pairs"] for side in content["sides"])
    for name in ("rank1", "mAP"):
        head, *rows = page.tables[f"pairs-{name.lower()}"]
        assert head == ["", "to 1", "to 2", "to 3"]
        for row, camera, values, others in zip(rows, one["query_cameras"], one[name], two[name], strict=True):
            cells = [
                "–" if a is None else f"{100 * a:.1f}{100 * (a - b):+.1f}" for a, b in zip(values, others, strict=True)
            ]
            assert row == [f"from {camera}", *cells]
    counts = page.tables["pairs-queries"]
    assert counts[1][2] == f"{one['queries'][0][1]}{one['left_out'][0][1]} left out"
    assert counts[-1][1:] == [str(count) for count in one["images"]]


def test_one_checkpoint_without_map_or_lists(content: dict[str, Any]) -> None:
    content |= {"sides": content["sides"][:1], "comparison": None, "lists": []}
    content["sides"][0]["map"] = None
    page = Parsed(render(content))
    assert not page.of("article") and not page.of("figure") and not page.of("form") and not page.of("script")
    assert page.tables["scores"][1][0] == "rri_last.pth" and len(page.tables["scores"]) == 2


def test_maps_are_told_in_words(content: dict[str, Any]) -> None:
    page = Parsed(render(content))
    charts = [tag["aria-label"] or "" for tag in page.of("div", role="img")]
    assert len(charts) == 2
    for chart, side in zip(charts, content["sides"], strict=True):
        same = side["map"]["same_identity"]
        assert chart.startswith(f"PCA, {side['name']}. {len(side['map']['points'])} images of ")
        for share in (same["map"]["any_camera"], same["space"]["any_camera"], same["chance"]):
            assert f"{100 * share:.1f} %" in chart


def test_names_are_escaped(content: dict[str, Any], tmp_path: Path) -> None:
    evil = tmp_path / EVIL.replace("/", "∕")
    (tmp_path / "query00.jpg").rename(evil)
    content["dataset"] = content["sides"][0]["name"] = EVIL
    content["comparison"]["reason"] = EVIL
    for entry in content["lists"]:
        entry["path"] = str(evil)
        entry["sides"][0]["answers"][0]["path"] = f"/nowhere/{EVIL}\udcff"
    text = render(content)
    assert "<script>alert" not in text and len(re.findall("<script", text)) == 1
    page = Parsed(text)
    assert f"<title>{escape(evil.name)}</title>" in text
    assert not [named for _, named in page.tags if any(key.startswith("on") for key in named)]
    assert str(tmp_path) not in text, "the page tells where the images lie"
    write_page(tmp_path / "page.html", content)


def test_pictures_that_cannot_be_read_leave_a_frame(content: dict[str, Any], tmp_path: Path) -> None:
    entry = content["lists"][0]
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "query01.jpg").read_bytes()[:700])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "huge.pgm").write_bytes(b"P5 60000 60000 255\n")
    os.mkfifo(tmp_path / "pipe.jpg")
    faults = ["cut.jpg", "text.png", "huge.pgm", "pipe.jpg", "missing.jpg", ".", "nul\0.jpg"]
    names = [str(tmp_path / name) for name in faults] + [""]
    assert thumbnails(names) == dict.fromkeys(sorted(names))
    entry["path"] = names[0]
    for name, answer in zip(names[1:], entry["sides"][0]["answers"], strict=False):
        answer["path"] = name
    text = render(content)
    assert "6 images could not be read" in re.sub(r"\s+", " ", text)
    page = Parsed(text)
    assert sum((tag.get("aria-label") or "").endswith(", no picture") for tag in page.of("svg")) == 5
    assert len(page.of("path", **{"class": "none"})) == 6


def test_a_full_page_takes_no_more_pictures(content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = content["lists"][0]["path"]
    size = len(thumbnails([first])[first].src)  # type: ignore[union-attr]
    monkeypatch.setattr(ranked_lists, "MAX_BYTES", 3 * size)
    text = render(content)
    page = Parsed(text)
    held = sum(len(tag["href"] or "") for tag in page.of("image"))
    assert 0 < held <= 3 * size and page.of("image")[0]["href"] == thumbnails([first])[first].src  # type: ignore[union-attr]
    named = {entry["path"] for entry in content["lists"]}
    named |= {a["path"] for entry in content["lists"] for side in entry["sides"] for a in side["answers"]}
    assert f"no room on this page for {len(named) - len(page.of('image'))} more images" in re.sub(r"\s+", " ", text)
