"""Choice of test identities and queries."""

from __future__ import annotations

import hashlib

import pytest

from reid.data.datasets.splitting import choose_queries, choose_test_identities, shuffled


def test_the_order_is_by_the_hash_of_seed_and_name() -> None:
    names = [f"person {number}" for number in range(50)]
    order = shuffled(names, 7)
    digests = [hashlib.sha256(b"7\x00" + name.encode()).hexdigest() for name in order]
    assert sorted(order) == sorted(names) and digests == sorted(digests)
    assert shuffled(reversed(names), 7) == order != shuffled(names, 8)


def test_only_eligible_identities_are_tested() -> None:
    images = {f"{n}": {"1": ["a"], "2": ["b"]} for n in range(10)} | {f"one{n}": {"1": ["a", "b"]} for n in range(10)}
    assert sorted(choose_test_identities(images, 1.0, 0)) == [f"{n}" for n in range(10)]
    assert len(choose_test_identities(images, 0.3, 0)) == 3
    assert len(choose_test_identities(images, 0.001, 0)) == 1
    unknown = {"a": {"": ["1", "2"]}, "b": {"": ["1"]}, "c": {"": ["1", "2", "3"]}}
    assert sorted(choose_test_identities(unknown, 1.0, 0)) == ["a", "c"]


def test_an_identity_is_left_for_training() -> None:
    images = {name: {"1": ["a"], "2": ["b"]} for name in "ab"}
    assert len(choose_test_identities(images, 1.0, 0)) == 1
    assert choose_test_identities({"a": images["a"]}, 1.0, 0) == []


@pytest.mark.parametrize(
    ("cameras", "counts"),
    [
        ({"1": ["a", "b", "c"], "2": ["d", "e"]}, (1, 1)),
        ({"1": ["a", "b"], "2": ["d"]}, (1, 0)),
        ({"": ["a", "b"]}, (1,)),
    ],
)
def test_each_camera_with_two_images_gives_a_query(cameras: dict[str, list[str]], counts: tuple[int, ...]) -> None:
    for seed in range(5):
        queries = choose_queries(cameras, seed)
        assert tuple(len(queries & set(paths)) for paths in cameras.values()) == counts


def test_of_single_images_one_is_the_query() -> None:
    chosen = {frozenset(choose_queries({"1": ["a"], "2": ["b"], "3": ["c"]}, seed)) for seed in range(30)}
    assert chosen == {frozenset("a"), frozenset("b"), frozenset("c")}
