"""An index in Milvus from the command line: the same results as an index in a folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import served
from called import Tool


def test_index_search_and_remove(tool: Tool, milvus_store: str, tmp_path: Path) -> None:
    sample = served.build_sample_index(tmp_path, identities=2, cameras=3)
    store = ("--store", milvus_store, "--index", "people")
    ended = tool("index", sample.crops, *store, "--weights", sample.weights, "--pattern", "market1501").ok()
    assert re.search(r"index people: 6 images \(6 new\); 6 embedded", ended.out)
    assert re.search(r"Milvus index over 6 images: recall@10 1\.0000 on 6 images \(", ended.out)
    query, found = sample.crops / "0001_c1s1_000101_00.png", []
    for place in (store, ("--index", sample.index)):
        options = ("--camera", "2", "3", "--time", "..302", "--exclude-same-file", "--json", tmp_path / "a.json")
        tool("search", query, *place, *options).ok()
        found.append(json.loads((tmp_path / "a.json").read_text()))
        for answer in found[-1]["queries"][0]["answers"]:
            del answer["id"]
    assert found[0]["queries"] == found[1]["queries"] and len(found[0]["queries"][0]["answers"]) == 4
    assert found[0]["search"].startswith("Milvus, recall@10 1.0000 when it held 6 images")
    assert found[0]["images"] == found[1]["images"] == 4
    again = tool("index", sample.crops, *store).out
    assert "6 unchanged" in again and "recall" not in again
    assert "recall@10 1.0000 on 6 images" in tool("index", sample.crops, *store, "--recall").out
    assert "1 images removed" in tool("index", sample.crops, *store, "--remove", "0001_c2*").out
    assert "1 feature rows" in tool("index", sample.crops, *store, "--compact").out
    assert "all features match their checksums" in tool("index", sample.crops, *store, "--check").out
    tool("search", query, *store, "--json", tmp_path / "a.json").ok()
    assert len(json.loads((tmp_path / "a.json").read_text())["queries"][0]["answers"]) == 5
    for arguments, message in (
        (("index", sample.crops, *store, "--faiss-beyond", "3"), "--faiss-beyond: an index in --store"),
        (("index", sample.crops, "--index", sample.index, "--recall"), "--recall: an index in a folder"),
        (("index", sample.crops, *store, "--flip"), "was built with the model"),
        (("index", tmp_path, *store), "is the index of"),
        (("search", query, "--store", milvus_store, "--index", "other"), "no such index"),
        (("serve", "--store", "milvus:http://user:secret@host"), "may not hold a password"),
    ):
        ended = tool(*arguments).fails(message, alone=True)
        assert "secret" not in ended.err
