from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve
from traced import traced

from reid.errors import InputError
from reid.ranking.exact import tiles as tiles_module
from reid.ranking.exact.tiles import distance_tiles
from reid.ranking.protocols.verification import FALSE_POSITIVE_RATES, verify
from reid.records import Features


def drawn(seed: int, kind: str, queries: int = 30, gallery: int = 400) -> tuple[Features, Features]:
    random = np.random.default_rng(seed)
    parts = []
    for count, lowest in ((queries, 1), (gallery, -1)):
        identities = random.integers(lowest, 12, count)
        if kind == "tied":
            values = random.integers(0, 3, (count, 2)).astype(np.float32)
        else:
            values = (np.eye(14)[identities] + random.normal(size=(count, 14))).astype(np.float32)
        parts.append(Features(values, identities, random.integers(1, 4, count)))
    return parts[0], parts[1]


def pairs(query: Features, gallery: Features, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and distances of all pairs that count, pair by pair in float64."""
    labels, distances = [], []
    for q, identity, camera in zip(query.values.astype(np.float64), query.identities, query.cameras, strict=True):
        for g, other, place in zip(gallery.values.astype(np.float64), gallery.identities, gallery.cameras, strict=True):
            if other == -1 or (other == identity and place == camera):
                continue
            labels.append(other == identity)
            cosine = (q @ g) / (np.linalg.norm(q) * np.linalg.norm(g)) if metric == "cosine" else 0
            distances.append(1 - cosine if metric == "cosine" else np.sqrt(((q - g) ** 2).sum()))
    return np.array(labels), np.array(distances)


@pytest.mark.parametrize("kind", ["clustered", "tied"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(kind: str, seed: int) -> None:
    query, gallery = drawn(seed, kind)
    labels, distances = pairs(query, gallery, "euclidean")
    found = verify(query, gallery)
    assert (found.matches, found.others) == (labels.sum(), (~labels).sum())
    assert found.area == pytest.approx(roc_auc_score(labels, -distances), abs=1e-12)
    fpr, tpr, _ = roc_curve(labels, -distances, drop_intermediate=False)
    for rate in (*FALSE_POSITIVE_RATES, 0.5, 1.0):
        assert found.at(rate)[0] == pytest.approx(tpr[fpr <= rate].max(), abs=1e-12), rate
    # Every point of ours is one of its points.
    corners = {(round(a, 12), round(b, 12)) for a, b in zip(fpr, tpr, strict=True)}
    ours = zip(found.false_positive_rate, found.true_positive_rate, strict=True)
    assert {(round(a, 12), round(b, 12)) for a, b in ours} <= corners
    assert found.true_positive_rate[-1] == 1


def test_cosine_equals_scikit_learn() -> None:
    query, gallery = drawn(4, "clustered")
    labels, distances = pairs(query, gallery, "cosine")
    found = verify(query, gallery, metric="cosine")
    assert found.area == pytest.approx(roc_auc_score(labels, -distances), abs=1e-9)
    tpr, threshold = found.at(0.1)
    assert ((distances <= threshold + 1e-6) & ~labels).sum() / (~labels).sum() <= 0.1
    assert ((distances <= threshold + 1e-6) & labels).sum() / labels.sum() == pytest.approx(tpr)


def test_by_hand() -> None:
    def side(values: list[float], identities: list[int], cameras: list[int]) -> Features:
        return Features(np.array(values, dtype=np.float64)[:, None], np.array(identities), np.array(cameras))

    # True matches at 1 and 4; others at 1, 2, 5; the image at 0.5 is junk.
    found = verify(side([0], [1], [1]), side([1, 4, 1, 2, -5, 0.5], [1, 1, 2, 3, 0, 1], [2, 3, 1, 1, 2, 1]))
    assert found.distances.tolist() == [1, 4]
    assert (found.accepted.tolist(), found.nearer.tolist(), found.as_near.tolist()) == ([1, 2], [0, 2], [1, 2])
    # Won: 2 of 3 and half of the equal one; 1 of 3.
    assert found.area == pytest.approx((2.5 + 1) / 6)
    assert found.at(0.3) == (0.0, pytest.approx(np.nan, nan_ok=True))
    assert found.at(1 / 3) == (0.5, 1.0) and found.at(0.7) == (1.0, 4.0)
    content = found.to_json()
    assert content["threshold_at_fpr"]["0.1"] is None and content["tpr_at_fpr"]["0.1"] == 0
    assert content["curve"] == {"fpr": [1 / 3, 2 / 3], "tpr": [0.5, 1.0]}


@pytest.mark.parametrize("kind", ["clustered", "tied"])
def test_tiles_of_any_size_give_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = drawn(6, kind)
    whole = verify(query, gallery)
    for rows, elements in ((7, 14), (399, 10_000), (64, 64)):
        monkeypatch.setattr(tiles_module, "_GALLERY_ROWS", rows)
        monkeypatch.setattr(tiles_module, "_TILE_ELEMENTS", elements)
        found = verify(query, gallery)
        for name in ("distances", "accepted", "nearer", "as_near"):
            assert np.array_equal(getattr(found, name), getattr(whole, name)), (rows, name)


def test_distances_that_differ_in_the_last_bit_are_distinguished() -> None:
    # Far from the origin, so that products lose what the difference still shows.
    far = 1e6
    query = Features(np.array([[far, 0.0]]), np.array([1]), np.array([1]))
    near = np.nextafter(1.0, 0)
    gallery = Features(
        np.array([[far, 1.0], [far, near], [far, np.nextafter(1.0, 2)], [far, 1.0]]),
        np.array([1, 2, 3, 4]),
        np.array([2] * 4),
    )
    found = verify(query, gallery)
    assert (found.nearer.tolist(), found.as_near.tolist()) == ([1], [2])


def test_the_bound_of_a_tile_holds() -> None:
    random = np.random.default_rng(2)
    query = random.normal(size=(20, 300)) * random.uniform(1e-3, 1e4, (20, 1))
    gallery = np.concatenate([random.normal(size=(50, 300)), query + 1e-9]) + 100
    for tile in distance_tiles(query, gallery):
        rows, columns = np.indices(tile.distances.shape)
        exact = tile.exact(rows.ravel(), columns.ravel()).reshape(tile.distances.shape)
        assert (np.abs(tile.distances - exact) <= tile.bound[:, None]).all()


def test_the_gallery_may_lie_on_disk(tmp_path) -> None:
    query, gallery = drawn(1, "clustered")
    np.save(tmp_path / "g.npy", gallery.values)
    mapped = Features(np.load(tmp_path / "g.npy", mmap_mode="r"), gallery.identities, gallery.cameras)
    assert verify(query, mapped).area == verify(query, gallery).area


def test_what_cannot_be_verified() -> None:
    query, gallery = drawn(0, "clustered")
    same = gallery.identities == query.identities[0]
    one = Features(query.values[:1], query.identities[:1], np.array([9]))
    with pytest.raises(InputError, match="every pair is a true match or junk"):
        verify(one, Features(gallery.values[same], gallery.identities[same], gallery.cameras[same]))
    with pytest.raises(InputError, match="no query identity"):
        verify(query, Features(gallery.values, np.full(400, 99), gallery.cameras))
    with pytest.raises(InputError, match="unknown metric"):
        verify(query, gallery, metric="euclid")
    with pytest.raises(InputError, match="two matrices of the same width"):
        verify(query, Features(gallery.values[:, :3], gallery.identities, gallery.cameras))


def test_memory_does_not_grow_with_the_pairs() -> None:
    random = np.random.default_rng(0)
    query = Features(random.normal(size=(3000, 4)), random.integers(1, 900, 3000), np.ones(3000, dtype=np.int64))
    gallery = Features(random.normal(size=(9000, 4)), random.integers(1, 900, 9000), np.full(9000, 2))
    _, peak = traced(lambda: verify(query, gallery))
    assert peak < 3000 * 9000 * 8 / 2  # bytes


def test_memory_where_all_distances_are_equal() -> None:
    random = np.random.default_rng(3)
    labels = [random.integers(1, 5, count) for count in (64, 2000)]
    sides = [Features(np.ones((len(mine), 256), np.float32), mine, np.full(len(mine), len(mine))) for mine in labels]
    found, peak = traced(lambda: verify(*sides))
    assert found.as_near.tolist() == [found.others] and found.nearer.tolist() == [0]
    assert peak < 64 * 2000 * 256 * 4 / 2, "the rows of all pairs were held"
