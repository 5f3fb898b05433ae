"""Policies equal those of torchvision, depend on one number per image and do not change global random states."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from reid.data.augmentation.policy import POLICIES, apply_policy
from reid.errors import InputError


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (24, 3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", POLICIES)
def test_an_image_equals_that_of_torchvision_with_the_same_seed(images, name):
    numbers = np.random.default_rng(0).random(24)
    result = apply_policy(images, name, numbers)
    assert result.dtype == torch.uint8 and result.shape == images.shape
    with torch.random.fork_rng():
        for image, mine, number in zip(images, result, numbers, strict=True):
            torch.manual_seed(int(number * 2**53))
            assert torch.equal(mine, getattr(v2, POLICIES[name])()(image))
    assert not torch.equal(result, images)


@pytest.mark.parametrize("name", POLICIES)
def test_global_random_states_are_neither_used_nor_changed(images, name):
    numbers = np.random.default_rng(0).random(24)
    torch.manual_seed(1)
    first = apply_policy(images, name, numbers)
    torch.manual_seed(2)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    assert torch.equal(apply_policy(images, name, numbers), first)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    np.testing.assert_array_equal(np.random.get_state()[1], states[2])


def test_another_thread_keeps_its_random_numbers(images):
    torch.manual_seed(5)
    expected = [torch.rand(1) for _ in range(2000)]
    torch.manual_seed(5)
    worker = threading.Thread(target=apply_policy, args=(images, "autoaugment", np.linspace(0, 0.9, 24)))
    worker.start()
    found = [torch.rand(1) for _ in range(2000)]
    worker.join()
    assert found == expected


def test_an_unknown_policy_is_an_error():
    with pytest.raises(InputError, match="randaugment"):
        apply_policy(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "rand", np.zeros(1))
