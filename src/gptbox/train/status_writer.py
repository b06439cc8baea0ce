"""What status.json says of a run while it trains, in figures and in words."""

import math
from dataclasses import replace

import torch

from gptbox.run_folder import Phase, RunFolder, Status
from gptbox.train import cpu_share, overfitting
from gptbox.train.budget import Budget
from gptbox.train.cpu_share import CpuShare
from gptbox.train.disk import Disk
from gptbox.train.progress import Reporter
from gptbox.train.world import World


class StatusWriter:
    """Keeps status.json up to date for one process at work on a run."""

    def __init__(self, run: RunFolder, status: Status, reporter: Reporter, disk: Disk, share: CpuShare) -> None:
        self._run, self._reporter, self._disk, self._share = run, reporter, disk, share
        self.status = status
        """The last one written."""
        self.message = ""
        """The sentence on the run itself; what there is to say of the machine comes after it."""

    def write(self, phase: Phase, budget: Budget, message: str | None = None) -> Status:
        """Bring the status up to the budget's progress, and write it; None keeps the message."""
        p, steps, eta = budget.progress, budget.steps, budget.eta_s
        self.message = message or self.message
        text = self.message
        if phase == "training" and self._share.is_low:
            text = f"{text} {cpu_share.slowed(self._share.recent, budget.config.clock)}"
        if phase == "finished":
            steps, eta = p.step, 0.0
        self.status = replace(
            self.status,
            phase=phase,
            message=text,
            step=p.step,
            steps=None if math.isinf(steps) else max(p.step, round(steps)),
            tokens=p.tokens,
            elapsed_s=round(budget.elapsed_s, 3),
            eta_s=None if eta is None else round(eta, 1),
            train_loss=p.train_loss,
            val_loss=p.val_loss,
            val_loss_estimate=p.val_loss_estimate,
            best_val_loss=p.best_estimate if p.best_val_loss is None else p.best_val_loss,
            tokens_per_s=round(budget.tokens_per_s) or None,
            latest_snapshot=p.latest_snapshot,
            best_snapshot=p.best_snapshot,
        )
        with self._disk.writing():
            self.status = self._run.write_status(self.status)
        return self.status

    def tick(self, budget: Budget) -> None:
        """About once a second while training: the figures, and whether other work slows the run down."""
        was_low = self._share.is_low
        self._share.sample()
        if self._share.is_low and not was_low:
            self._reporter.say(cpu_share.slowed(self._share.recent, budget.config.clock))
        elif was_low and not self._share.is_low:
            self._reporter.say("Training has its processor time back.")
        self._reporter.step(self.write("training", budget))

    def evaluated(self, budget: Budget, written: bool) -> None:
        """An evaluation was made; `written` is whether its snapshot is on the disk."""
        p = budget.progress
        if self._disk.is_full:
            message = (
                f"Training goes on at step {p.step:,}, but the disk is full: nothing can be saved or published until "
                "there is space."
            )
        elif overfitting.has_begun(p) and p.best_snapshot is not None:
            message = f"Training: {overfitting.remark(p)}"
        else:
            message = f"Training: validation loss about {p.val_loss_estimate:.3f} at step {p.step:,}."
        self.write("training", budget, message)
        if written:
            self._reporter.evaluated(self.status)

    def summary(self, budget: Budget) -> str:
        """How a run ended, for its last message."""
        p, share = budget.progress, self._share
        loss = f"{p.best_val_loss:.4f}" if p.best_val_loss is not None else f"about {p.best_estimate or 0:.3f}"
        if p.best_snapshot is None:
            best = "."
        elif p.best_snapshot == p.latest_snapshot:
            best = f", loss {loss} at best."
        else:
            best = f", loss {loss} at best, at step {int(p.best_snapshot[5:]):,}."
        text = f"Finished after {p.step:,} step{'' if p.step == 1 else 's'}{best}"
        if budget.config.minutes is not None and share.is_low_over(*budget.measured):
            text += f" {cpu_share.was_slowed(share.of(*budget.measured), budget.config.clock)}"
        return text


def device_name(world: World, threads: int) -> str:
    """What a run computes on, in words."""
    if world.device.type == "cuda":
        return f"{world.size} x {torch.cuda.get_device_name()}"
    processes = f"{world.size} processes of " if world.size > 1 else ""
    return f"cpu, {processes}{threads} thread{'s' if threads > 1 else ''}"
