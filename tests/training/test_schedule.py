from __future__ import annotations

import math

import pytest

from reid.training.schedule import Schedule


def test_lr_of_a_round_is_taken_from_the_list_and_the_last_one_repeats() -> None:
    schedule = Schedule(epochs=2, lr=(1e-3, 1e-3, 1e-4))
    assert [schedule.base_lr(r) for r in range(6)] == [1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4]


def test_step_falls_at_the_milestones() -> None:
    schedule = Schedule(epochs=10, lr=(1.0,), schedule="step", milestones=(0.4, 0.8), gamma=0.1)
    factors = [schedule.factor(epoch) for epoch in (0, 3.99, 4, 7.9, 8, 9.99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_by_hand() -> None:
    schedule = Schedule(epochs=4, lr=(1.0,), schedule="cosine")
    expected = [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]
    assert [schedule.factor(e) for e in range(5)] == pytest.approx(expected)


def test_warmup_rises_linearly_from_a_hundredth() -> None:
    schedule = Schedule(epochs=10, lr=(1.0,), warmup_epochs=2)
    assert [schedule.factor(e) for e in (0, 1, 2, 5)] == pytest.approx([0.01, 0.505, 1, 1])


@pytest.mark.parametrize(
    ("losses", "settled"),
    [
        ([], False),
        ([3.0, 2.0], False),  # no more epochs than settle_epochs
        ([3.0, 2.0, 1.0], False),
        ([3.0, 2.0, 1.99, 1.985], True),  # the fall from 2.0 is below 1 %
        ([3.0, 2.0, 1.99, 1.97], False),  # 1.5 %
        ([3.0, 2.0, 2.5, 2.4], True),  # it rose
    ],
)
def test_settled(losses: list[float], settled: bool) -> None:
    assert Schedule(epochs=9, lr=(1.0,), settle_epochs=2, settle_tolerance=0.01).settled(losses) is settled


def test_zero_settle_epochs_never_ends_early() -> None:
    assert not Schedule(epochs=9, lr=(1.0,)).settled([1.0] * 8)
