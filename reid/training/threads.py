"""The number of threads of a training on a CPU, chosen by timing steps.

On an idle machine all cores are fastest. Where other programs run, the threads of one operation wait for the one whose
core is taken, and fewer are many times faster. The number decides the last bits of sums, so it changes only between two
epochs, and every change is part of the state of a training.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from reid.data.loading.loaders import TrainLoader
from reid.training.callbacks import Callbacks
from reid.training.optimizer import Solver, set_training_mode
from reid.training.seeding import random_states, restore_random_states
from reid.training.state import ThreadChange, TrainState
from reid.training.step import loss_terms

# Fewer steps than this in a training are not worth timing some.
_WORTH_STEPS = 200
# Timing is repeated only after the training has taken this many times as long, so that it costs at most 1 %.
_PAYBACK = 100
# Seconds before a training that was resumed, or is too short for timing, may be timed.
_PATIENCE = 30.0
# An epoch is slow if the best of its stage was this many times as fast.
_SLOW = 1.5
# The number changes only if steps take at least this many times as long as with another.
_GAIN = 1.1
# Fewer threads are tried until steps take this many times as long as with the best number so far.
_WORSE = 1.25
_MIN_STEPS, _MIN_SECONDS = 2, 0.2
_LONG_STEP = 3.0  # seconds

# Prepares what is timed, and returns a function that makes one step; the training is not affected.
Step = Callable[[], Callable[[], object]]


@dataclass
class ThreadChooser:
    """Sets the number of PyTorch's threads at the start of a training, and again between epochs.

    Attributes:
        limit: Largest number, and the one to begin with.
        fixed: Whether the number is always `limit`, as the user requests it or as there is no choice.
        clock: Returns seconds.
        timed: Whether the number in use has been chosen by timing.
    """

    limit: int
    fixed: bool = False
    clock: Callable[[], float] = time.perf_counter
    timed: bool = field(default=False, init=False)
    _next: float = field(default=0.0, init=False)

    def start(self, step: Step, steps: int) -> dict[str, Any] | None:
        """Choose the number for a new training.

        Args:
            step: Prepares a step like those of the training, see `timed_step`.
            steps: Steps that the training will make at least.

        Returns:
            What to log, None if nothing was timed.
        """
        torch.set_num_threads(self.limit)
        self._next = self.clock() + _PATIENCE
        if self.fixed or self.limit == 1 or steps < _WORTH_STEPS:
            return None
        return self._choose(step)

    def resume(self, recorded: int | None) -> None:
        """Take the number that the training had when it was interrupted, if that can be.

        Args:
            recorded: The number; None if it is unknown.
        """
        possible = recorded is not None and not self.fixed and recorded <= self.limit
        torch.set_num_threads(recorded if possible and recorded else self.limit)
        self._next = self.clock() + _PATIENCE

    def next_epoch(self, state: TrainState, step: Step) -> dict[str, Any] | None:
        """Choose again, if that is due before the next epoch, and record the number in the state.

        It is due at the start of a stage, after a slow epoch and while fewer threads than possible are used, but not
        before the training has taken a hundred times as long as the last choice.

        Args:
            state: Its `threads` are updated. Within an epoch nothing changes.
            step: As in `start`.

        Returns:
            What to log, None if the number stays the same.
        """
        before = torch.get_num_threads()
        entry = self._choose(step) if self._is_due(state, before) else None
        count = torch.get_num_threads()
        if not state.threads or state.threads[-1].count != count:
            state.threads.append(ThreadChange(state.stage, state.round, state.epoch, count))
        return entry if count != before else None

    def _is_due(self, state: TrainState, count: int) -> bool:
        if self.fixed or self.limit == 1 or state.progress is not None or self.clock() < self._next:
            return False
        slow = bool(state.rates) and _SLOW * state.rates[-1] < max(state.rates)
        return state.epoch == 0 or count < self.limit or slow

    def _choose(self, step: Step) -> dict[str, Any]:
        """Set the fastest number; the present one is kept unless another is clearly faster."""
        began, before = self.clock(), torch.get_num_threads()
        seconds: dict[int, float] = {}
        best = before
        with _same_random_states():
            make_step = step()
            for count in (before, *(number for number in _candidates(self.limit) if number != before)):
                torch.set_num_threads(count)
                seconds[count] = self._time(make_step, at_most=_WORSE * seconds.get(best, math.inf))
                if seconds[count] > _WORSE * seconds[best] and count < best:
                    break
                best = min(seconds, key=lambda number: seconds[number])
        best = before if seconds[before] <= _GAIN * seconds[best] else best
        torch.set_num_threads(best)
        now = self.clock()
        self._next, self.timed = now + _PAYBACK * (now - began), True
        return {"kind": "threads", "threads": best, "before": before, "seconds": {str(n): seconds[n] for n in seconds}}

    def _time(self, step: Callable[[], object], at_most: float) -> float:
        """Seconds of a step; of the first one, which is slower, only if it is long or even half of it is too much."""
        began = self.clock()
        step()
        first = self.clock() - began
        if first > min(2 * at_most, _LONG_STEP):
            return first
        began, steps = self.clock(), 0
        while steps < _MIN_STEPS or self.clock() < began + _MIN_SECONDS:
            step()
            steps += 1
        return (self.clock() - began) / steps


def _candidates(limit: int) -> list[int]:
    """Numbers of threads to try, from the largest: all cores, all but one, three quarters, and halves down to one."""
    halves = {limit >> shift for shift in range(limit.bit_length())}
    return sorted({limit, max(1, limit - 1), max(1, 3 * limit // 4), *halves}, reverse=True)


def timed_step(state: TrainState, loader: TrainLoader, solver: Solver) -> Callable[[], None]:
    """Prepare steps for timing: forward and backward on a batch of the training set, by a copy of the network.

    Args:
        state: The training, which is not affected.
        loader: The training data.
        solver: The settings of a step.

    Returns:
        A function that makes one step.
    """
    model, objective = copy.deepcopy((state.model, state.objective))
    set_training_mode(model, solver.norm_statistics)
    objective.eval()  # a batch that is not composed like those of the training
    ((images, labels),) = loader.sample(loader.shard_sizes(1)[0], solver.seed)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        terms = loss_terms(model, objective, images, labels, dtype=solver.dtype, tuples=False)
        torch.stack(list(terms.values())).sum().backward()

    return step


@contextmanager
def _same_random_states() -> Iterator[None]:
    states = random_states()
    try:
        yield
    finally:
        restore_random_states(states)


@contextmanager
def same_thread_count() -> Iterator[None]:
    """Restore PyTorch's number of threads after the context.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def recorded_count(content: Mapping[str, Any] | None) -> int | None:
    """Read the last number of threads from a checkpoint.

    Args:
        content: The checkpoint, None if there is none.

    Returns:
        The number; None in checkpoints of earlier versions.
    """
    changes = ((content or {}).get("threads") or {}).get("changes")
    return changes[-1]["count"] if changes else None


@dataclass
class RecordedThreads(Callbacks):
    """Repeats the numbers of threads of an earlier training.

    Attributes:
        changes: Those of the earlier training.
    """

    changes: tuple[ThreadChange, ...]

    def begin(self) -> None:
        """Set the first number."""
        if self.changes:
            torch.set_num_threads(self.changes[0].count)

    def on_epoch_begin(self, state: TrainState, loader: TrainLoader, solver: Solver) -> None:
        """Set the number of the same epoch.

        Args:
            state: The state of the training.
            loader: The training data.
            solver: The settings of the steps.
        """
        for change in self.changes:
            if (change.stage, change.round, change.epoch) == (state.stage, state.round, state.epoch):
                torch.set_num_threads(change.count)
                state.threads.append(change)
