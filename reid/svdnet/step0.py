"""Step 0: train the whole network, Eigenlayer included, until it has converged; or take one that has been trained."""

from __future__ import annotations

from collections.abc import Callable

from reid.data.loading.loaders import TrainLoader
from reid.decorrelation import correlation_metric
from reid.distributed import run_on_main
from reid.model.network import ReidNetwork
from reid.records import StageLog
from reid.svdnet.plan import Plan
from reid.svdnet.sample_loss import loss_on_sample
from reid.training.callbacks import Callbacks
from reid.training.pooling_init import initialize_pooling
from reid.training.schedule import StagePlan
from reid.training.stage import finish_stage, train_stage
from reid.training.state import TrainState
from reid.training.threads import RecordedThreads


def run(state: TrainState, loader: TrainLoader, plan: Plan, callbacks: Callbacks) -> StageLog:
    """Run Step 0 of Sun et al. 2017, Section 3.2.

    Args:
        state: The state of the run, updated in place.
        loader: The training data.
        plan: The settings of the run. With `skip_step0` the network is evaluated as it is.
        callbacks: Called after every step, epoch and stage.

    Returns:
        The record of the stage. Of a network that comes trained, `epochs` and `seconds` are 0 and `train_loss` is that
        of `loss_on_sample`.
    """
    if not plan.skip_step0:
        return train_stage(state, loader, StagePlan("step0", 0, plan.step0), plan.solver, callbacks)
    finished = state.done("step0", 0)
    if finished:
        return finished
    state.begin("step0", 0)
    row = StageLog(
        run=state.run,
        stage="step0",
        round=0,
        epochs=0,
        seconds=0.0,
        train_loss=run_on_main(lambda: loss_on_sample(state, loader, plan)),
        correlation=correlation_metric(state.model.eigenlayer.vectors),
        scores=callbacks.evaluate(state.model),
    )
    return finish_stage(state, row, callbacks)


def prepare(model: ReidNetwork, loader: TrainLoader, plan: Plan, descriptors: int) -> None:
    """Do what precedes Step 0: initialize the pooling from the training set. A network that comes trained has it.

    Args:
        model: Changed in place.
        loader: The training data.
        plan: The settings of the run.
        descriptors: Largest number of local descriptors that the pooling is initialized from.
    """
    if not plan.skip_step0:
        initialize_pooling(
            model,
            loader,
            seed=plan.solver.seed,
            norm_statistics=plan.solver.norm_statistics,
            descriptors=descriptors,
        )


def repeat(
    state: TrainState,
    start: Callable[[ReidNetwork], object],
    loader: TrainLoader,
    plan: Plan,
    threads: RecordedThreads,
) -> TrainState:
    """Train Step 0 once more from its start, without logging or saving.

    Args:
        state: A fresh state, updated in place.
        start: Prepares the network, see `prepare`.
        loader: The training data.
        plan: The settings of the run.
        threads: The numbers of threads that it was trained with.

    Returns:
        The state after Step 0.
    """
    threads.begin()
    start(state.model)
    run(state, loader, plan, threads)
    return state
