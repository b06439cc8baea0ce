"""Writes status.json while a run trains: its figures and a message."""

import math
from dataclasses import replace

import torch

from gptbox.models.runs import Phase, RunFolder, Status
from gptbox.train import early_stopping
from gptbox.train.budget import Budget
from gptbox.train.cpu_share import CpuShare, slowdown_summary, slowdown_warning
from gptbox.train.disk import DiskFullGuard
from gptbox.train.distributed import Distributed
from gptbox.train.reporter import Reporter


class StatusWriter:
    """Keeps status.json up to date for the process that trains a run."""

    def __init__(
        self, run: RunFolder, status: Status, reporter: Reporter, disk: DiskFullGuard, cpu_share: CpuShare
    ) -> None:
        self._run, self._reporter, self._disk, self._cpu_share = run, reporter, disk, cpu_share
        self.status = status
        """The last status written."""
        self.message = ""
        """The message about the run, without the warning that `write` appends while training is slowed down."""

    def write(self, phase: Phase, budget: Budget, message: str | None = None) -> Status:
        """Update the status from the budget, and write it; None keeps the message."""
        state, steps, eta = budget.state, budget.total_steps, budget.eta_s
        self.message = message or self.message
        text = self.message
        if phase == "training" and self._cpu_share.is_low:
            text = f"{text} {slowdown_warning(self._cpu_share.recent, budget.config.clock)}"
        if phase == "finished":
            steps, eta = state.step, 0.0
        self.status = replace(
            self.status,
            phase=phase,
            message=text,
            step=state.step,
            steps=None if math.isinf(steps) else max(state.step, round(steps)),
            tokens=state.tokens,
            elapsed_s=round(budget.elapsed_s, 3),
            eta_s=None if eta is None else round(eta, 1),
            train_loss=state.train_loss,
            val_loss=state.val_loss,
            val_loss_estimate=state.val_loss_estimate,
            best_val_loss=state.best_estimate if state.best_val_loss is None else state.best_val_loss,
            tokens_per_s=round(budget.tokens_per_s) or None,
            latest_snapshot=state.latest_snapshot,
            best_snapshot=state.best_snapshot,
        )
        with self._disk.suppress_full():
            self.status = self._run.write_status(self.status)
        return self.status

    def tick(self, budget: Budget) -> None:
        """Call about once per second while training: updates the figures and the warning of a slowdown."""
        was_low = self._cpu_share.is_low
        self._cpu_share.sample()
        if self._cpu_share.is_low and not was_low:
            self._reporter.say(slowdown_warning(self._cpu_share.recent, budget.config.clock))
        elif was_low and not self._cpu_share.is_low:
            self._reporter.say("Training has its processor time back.")
        self._reporter.step(self.write("training", budget))

    def evaluated(self, budget: Budget, written: bool) -> None:
        """Call after an evaluation; `written` is whether its snapshot is on the disk."""
        state = budget.state
        if self._disk.is_full:
            message = (
                f"Training goes on at step {state.step:,}, but the disk is full: nothing can be saved or published "
                "until there is space."
            )
        elif early_stopping.is_overfitting(state) and state.best_snapshot is not None:
            message = f"Training: {early_stopping.overfitting_message(state)}"
        else:
            message = f"Training: validation loss about {state.val_loss_estimate:.3f} at step {state.step:,}."
        self.write("training", budget, message)
        if written:
            self._reporter.evaluated(self.status)

    def summary(self, budget: Budget) -> str:
        """The final message of a run that finished."""
        state, cpu_share = budget.state, self._cpu_share
        exact, estimate = state.best_val_loss, state.best_estimate
        loss = f"{exact:.4f}" if exact is not None else f"about {estimate or 0:.3f}"
        if state.best_snapshot is None:
            best = "."
        elif state.best_snapshot == state.latest_snapshot:
            best = f", loss {loss} at best."
        else:
            best = f", loss {loss} at best, at step {int(state.best_snapshot[5:]):,}."
        text = f"Finished after {state.step:,} step{'' if state.step == 1 else 's'}{best}"
        if budget.config.minutes is not None and cpu_share.is_low_over(*budget.cpu_and_wall_s):
            text += f" {slowdown_summary(cpu_share.over(*budget.cpu_and_wall_s), budget.config.clock)}"
        return text


def device_name(distributed: Distributed, threads: int) -> str:
    """Readable name of the hardware that a run computes on."""
    if distributed.device.type == "cuda":
        return f"{distributed.size} x {torch.cuda.get_device_name()}"
    processes = f"{distributed.size} processes of " if distributed.size > 1 else ""
    return f"cpu, {processes}{threads} thread{'s' if threads > 1 else ''}"
