"""One optimizer step, taken by all processes of a run together."""

import math

import torch

from gptbox.datasets.prepared import PreparedDataset
from gptbox.errors import DivergedError
from gptbox.train.config import Stage, TrainConfig
from gptbox.train.data_parallel import DataParallel, assign_gradient
from gptbox.train.dataloader import DataLoader
from gptbox.train.distributed import Distributed
from gptbox.train.gpt import GPT, trainable_parameters
from gptbox.train.ops import Dropout, dropout_sites
from gptbox.train.optim import Optimizer

_STEP, _END = 1.0, 0.0
"""Commands of the main process to the others: the first number of a broadcast of five."""


def require_finite(loss: float, kind: str, step: int, learning_rate: float, run: str) -> float:
    """Return a loss of the run; raises DivergedError if it is not finite. `kind` is "training" or "validation"."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"The {kind} loss became {loss} at step {step:,} (learning rate {learning_rate:.2g}); the diverged model "
            f"was not published. Delete the run (gptbox delete {run}) and train again with a lower --learning-rate."
        )
    return loss


class TrainingStep:
    """Computes gradients on this process's rows of each batch, and updates the weights identically in every process."""

    def __init__(
        self,
        run: str,
        model: GPT,
        optimizer: Optimizer,
        dataset: PreparedDataset,
        config: TrainConfig,
        data_parallel: DataParallel,
        distributed: Distributed,
    ) -> None:
        """`run` is the run's name, for errors."""
        self._run, self._model, self._optimizer, self._dataset = run, model, optimizer, dataset
        self._config, self._data_parallel, self._distributed = config, data_parallel, distributed
        self._loaders: dict[Stage, DataLoader] = {}
        self._diverged = False
        """Whether the loss was not finite. Every process has then raised DivergedError; none waits for a command."""

    def run(self, step: int, learning_rate: float, stage: Stage) -> float:
        """Take a step in all processes; returns the mean loss over the batch. Call in the main process.

        Raises DivergedError if the loss is not finite, before the weights change.
        """
        self._distributed.broadcast([_STEP, step, learning_rate, stage.batch_size, stage.context_length])
        return self._update(step, learning_rate, stage)

    def follow(self) -> None:
        """Take the steps that the main process commands, until it calls `end`. Call in the other processes."""
        while True:
            command, step, learning_rate, batch_size, context_length = self._distributed.broadcast([_END] * 5)
            if command == _END:
                return
            self._update(int(step), learning_rate, Stage(1.0, int(batch_size), int(context_length)))

    def end(self) -> None:
        """End `follow` in the other processes."""
        if not self._diverged:
            self._distributed.broadcast([_END] * 5)

    def _update(self, step: int, learning_rate: float, stage: Stage) -> float:
        config, distributed = self._config, self._distributed
        rows = distributed.rows(stage.batch_size)
        inputs, targets = (ids[rows].to(distributed.device) for ids in self._loader(stage).batch(step))
        dropout = Dropout.draw(config.dropout, config.seed, step, stage.batch_size, dropout_sites(config.model.n_layer))
        dropout = dropout.of_rows(rows.start, rows.stop)
        loss, gradient = self._data_parallel.gradients(self._model, inputs, targets, dropout, config.accumulate)
        fraction = len(inputs) / stage.batch_size
        loss, gradient = distributed.sum(loss * fraction, gradient * fraction if fraction < 1 else gradient)
        self._diverged = not math.isfinite(loss)
        require_finite(loss, "training", step, learning_rate, self._run)
        assign_gradient(self._model, gradient)
        if config.grad_clip:
            torch.nn.utils.clip_grad_norm_(trainable_parameters(self._model), config.grad_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]
        self._optimizer.step()
        return loss

    def _loader(self, stage: Stage) -> DataLoader:
        if stage not in self._loaders:
            self._loaders[stage] = DataLoader(
                self._dataset.train, stage.batch_size, stage.context_length, self._config.seed, self._config.sampling
            )
        return self._loaders[stage]
