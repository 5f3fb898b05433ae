from __future__ import annotations

import numpy as np
import pytest
from exact_reference import features

from reid.errors import InputError
from reid.ranking import evaluate
from reid.ranking.protocols.multi_query import own_camera_images, pool_queries

QUERY = features([[0, 0], [9, 9], [5, 5]], [1, 1, 2], [1, 2, 1])
IMAGES = features([[1, 4], [3, 2], [9, 9], [2, 0], [7, 7]], [1, 1, 2, 1, 1], [1, 1, 2, 1, 3])


def test_by_hand() -> None:
    # Person 1 under camera 1 has the images 0, 1 and 3; the others are of another camera or person.
    pooled = pool_queries(QUERY, IMAGES, "mean")
    np.testing.assert_allclose(pooled.query.values, [[2, 2], [9, 9], [5, 5]])
    assert pooled.unpooled == 2
    assert pooled.query.values.dtype == np.float32
    np.testing.assert_array_equal(pool_queries(QUERY, IMAGES, "max").query.values, [[3, 4], [9, 9], [5, 5]])
    assert QUERY.values[0].tolist() == [0, 0]
    for name in ("identities", "cameras"):
        np.testing.assert_array_equal(getattr(pooled.query, name), getattr(QUERY, name))


def test_pooling_helps_where_one_image_misleads() -> None:
    gallery = features([[2, 2], [0, 0], [8, 8]], [1, 3, 2], [2, 2, 2])
    query = features([[0, 0]], [1], [1])
    assert evaluate(query, gallery).rank1 == 0
    assert evaluate(pool_queries(query, IMAGES).query, gallery).rank1 == 1


def test_own_camera_images_are_the_queries_and_their_junk() -> None:
    found = own_camera_images(QUERY, IMAGES)
    np.testing.assert_array_equal(found.values, [[0, 0], [9, 9], [5, 5], [1, 4], [3, 2], [2, 0]])
    assert found.identities.tolist() == [1, 1, 2, 1, 1, 1] and found.cameras.tolist() == [1, 2, 1, 1, 1, 1]
    pooled = pool_queries(QUERY, found, "mean")
    np.testing.assert_allclose(pooled.query.values[0], [6 / 4, 6 / 4])
    assert pooled.unpooled == 0


def test_without_companions_nothing_changes() -> None:
    nobody = features([[1, 1]], [8], [1])
    assert pool_queries(QUERY, nobody).unpooled == 3
    np.testing.assert_array_equal(pool_queries(QUERY, nobody).query.values, QUERY.values)
    assert len(own_camera_images(QUERY, nobody).values) == 3


def test_what_cannot_be_pooled() -> None:
    with pytest.raises(InputError, match="unknown pooling of queries 'media'; did you mean mean"):
        pool_queries(QUERY, IMAGES, "media")
    with pytest.raises(InputError, match="2 dimensions and the images to pool 3"):
        pool_queries(QUERY, features([[1, 1, 1]], [1], [1]))
