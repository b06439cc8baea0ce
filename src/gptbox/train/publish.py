"""Publishing snapshots of the model, and pruning old ones."""

import shutil
from dataclasses import replace
from pathlib import Path

from gptbox import __version__
from gptbox.datasets.prepared import PreparedDataset
from gptbox.models import folder as model_folder
from gptbox.models.config import ModelConfig
from gptbox.models.folder import SnapshotInfo
from gptbox.models.runs import RunFolder, utc_now
from gptbox.system.atomic import temporary_beside
from gptbox.train.gpt import GPT
from gptbox.train.train_state import TrainState

MAX_SNAPSHOT_BYTES = 2**30
"""Total size of a run's snapshots; the best and the latest are kept even if larger."""

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
---

# {run}, step {step:,}

A small GPT ({architecture}, {parameters:,} parameters, context {context_length}) trained with gptbox {version} on
{source}.

| | |
|---|---|
| training | {step:,} steps, {tokens:,} tokens, {seconds:.0f} s |
| training loss | {train_loss} |
| validation loss | {loss} |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
ids = tokenizer("wherefore art thou", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, do_sample=True, temperature=0.8, max_new_tokens=200)[0]))
```

It learned from one text alone and says what that text might say. It knows nothing, and must not be relied on.
"""


class Publisher:
    """Writes the snapshots of one run, and limits their number and size."""

    def __init__(self, run: RunFolder, dataset: PreparedDataset, max_snapshots: int) -> None:
        """Keeps at most `max_snapshots` snapshots and MAX_SNAPSHOT_BYTES, but always the best and the latest."""
        self._run, self._dataset, self._max_snapshots = run, dataset, max_snapshots

    def publish(self, model: GPT, state: TrainState) -> None:
        """Write this step's snapshot unless it exists, link `latest` to it, and `best` if it is the best; then prune.

        Raises OSError if the disk is full.
        """
        data = self._dataset
        path = self._run.snapshot(state.step)
        if not path.exists():
            info = SnapshotInfo(
                run=self._run.name,
                dataset=data.dataset,
                dataset_source=data.source,
                step=state.step,
                tokens=state.tokens,
                train_loss=state.train_loss,
                val_loss=state.val_loss,
                val_loss_estimate=state.val_loss_estimate,
                val_bpb=None if state.val_loss is None else data.bits_per_byte(state.val_loss),
                training_s=round(state.elapsed_s, 3),
                parameters=model.config.parameters,
                gptbox_version=__version__,
                created_at=utc_now(),
            )
            weights = {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}
            model_folder.write(path, model.config, weights, data.tokenizer, info, model_card(info, model.config))
        self._run.update_link("latest", path)
        if state.best_snapshot == path.name:
            self._run.update_link("best", path)
        count = snapshots_that_fit(self._max_snapshots, 4 * model.config.parameters)
        needed = dict.fromkeys((state.latest_snapshot, state.best_snapshot, *state.candidates))
        protected = [name for name in needed if name is not None]
        prune_snapshots(self._run, count, set(protected[: max(2, count)]))

    def set_val_loss(self, path: Path, info: SnapshotInfo, config: ModelConfig, val_loss: float) -> None:
        """Write the exact loss into a published snapshot that had only an estimate."""
        info = replace(info, val_loss=val_loss, val_bpb=self._dataset.bits_per_byte(val_loss))
        model_folder.replace_info(path, info, model_card(info, config))


def model_card(info: SnapshotInfo, config: ModelConfig) -> str:
    """The README.md of a model folder."""
    loss = "not measured"
    if info.val_loss is not None:
        loss = f"{info.val_loss:.4f} nats per token, {info.val_bpb:.4f} bits per byte, over the whole validation split"
    elif info.val_loss_estimate is not None:
        loss = f"about {info.val_loss_estimate:.3f} nats per token, estimated on a part of the validation split"
    return _CARD.format(
        run=info.run,
        step=info.step,
        architecture=config.architecture,
        parameters=info.parameters,
        context_length=config.context_length,
        version=info.gptbox_version,
        source=info.dataset_source,
        tokens=info.tokens,
        seconds=info.training_s,
        train_loss="not measured" if info.train_loss is None else f"{info.train_loss:.4f}",
        loss=loss,
    )


def snapshots_that_fit(max_snapshots: int, snapshot_bytes: int) -> int:
    """Number of snapshots that fit into MAX_SNAPSHOT_BYTES, at least two; never more than `max_snapshots`."""
    return max(min(max_snapshots, 2), min(max_snapshots, MAX_SNAPSHOT_BYTES // snapshot_bytes))


def prune_snapshots(run: RunFolder, count: int, protected: set[str]) -> None:
    """Delete snapshots that are not protected until `count` are left.

    The snapshot whose neighbours are closest together, relative to its step, is deleted first: early snapshots, which
    show how the model learned, stay denser than late ones.
    """
    snapshots = run.snapshots()
    while len(snapshots) > count:
        steps = [int(path.name[5:]) for path in snapshots]
        gaps = {
            i: (after - before) / steps[i]
            for i, (before, after) in enumerate(zip(steps, steps[2:], strict=False), 1)
            if snapshots[i].name not in protected
        }
        gaps = gaps or {i: 0.0 for i, path in enumerate(snapshots) if path.name not in protected}
        if not gaps:
            return
        path = snapshots.pop(min(gaps, key=lambda i: gaps[i]))
        # Renamed before it is deleted: under its own name, a snapshot is always complete.
        temporary = temporary_beside(path)
        path.rename(temporary)
        shutil.rmtree(temporary)
