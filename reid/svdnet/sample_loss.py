"""The training loss where nothing is trained: before and after a replacement, and of a network that comes trained."""

from __future__ import annotations

from reid.data.loading.loaders import TrainLoader
from reid.svdnet.plan import Plan
from reid.training.epoch import measure_loss
from reid.training.seeding import seed_from
from reid.training.state import TrainState


def loss_on_sample(state: TrainState, loader: TrainLoader, plan: Plan) -> float:
    """Measure the loss in evaluation mode on the same training images each time, without augmentation.

    Args:
        state: The network and what is minimized.
        loader: The training data.
        plan: The settings of the run, with the number of images.

    Returns:
        The mean loss per image.
    """
    seed = seed_from(plan.solver.seed, "loss before and after a replacement")
    batches = loader.sample(plan.loss_images, seed)
    return measure_loss(state.model, batches, objective=state.objective, dtype=plan.solver.dtype)
