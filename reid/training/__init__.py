"""The training engine: step, epoch, stage, optimizer, schedule, state, run folder."""
