"""From a torch model to a published snapshot, and which snapshots are kept."""

import shutil
from dataclasses import replace
from pathlib import Path

from gptbox import __version__, model_folder
from gptbox.atomic import temporary_beside
from gptbox.datasets.prepared import PreparedDataset
from gptbox.model_config import ModelConfig
from gptbox.model_folder import SnapshotInfo
from gptbox.run_folder import RunFolder, utc_now
from gptbox.train.checkpoint import Progress
from gptbox.train.gpt import GPT

MAX_BYTES = 2**30
"""Of one run's snapshots, except that the best and the latest always stay."""

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
    """Writes the snapshots of one run, and keeps their number and size within bounds."""

    def __init__(self, run: RunFolder, dataset: PreparedDataset, kept: int) -> None:
        """At most `kept` snapshots, and MAX_BYTES of them."""
        self._run, self._dataset, self._kept = run, dataset, kept

    def publish(self, model: GPT, progress: Progress) -> None:
        """Write the snapshot of this step, unless it is there, and point `latest`, and perhaps `best`, at it."""
        p, data = progress, self._dataset
        path = self._run.snapshot(p.step)
        if not path.exists():
            info = SnapshotInfo(
                run=self._run.name,
                dataset=data.dataset,
                dataset_source=data.source,
                step=p.step,
                tokens=p.tokens,
                train_loss=p.train_loss,
                val_loss=p.val_loss,
                val_loss_estimate=p.val_loss_estimate,
                val_bpb=None if p.val_loss is None else data.bits_per_byte(p.val_loss),
                training_s=round(p.elapsed_s, 3),
                parameters=model.config.parameters,
                gptbox_version=__version__,
                created_at=utc_now(),
            )
            weights = {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}
            model_folder.write(path, model.config, weights, data.tokenizer, info, model_card(info, model.config))
        self._run.point("latest", path)
        if p.best_snapshot == path.name:
            self._run.point("best", path)
        kept = kept_within(self._kept, 4 * model.config.parameters)
        wanted = dict.fromkeys((p.latest_snapshot, p.best_snapshot, *p.candidates))
        always = [name for name in wanted if name is not None]
        thin(self._run, kept, set(always[: max(2, kept)]))

    def tell_loss(self, path: Path, info: SnapshotInfo, config: ModelConfig, val_loss: float) -> None:
        """Add the exact loss to a published snapshot that had only an estimate."""
        info = replace(info, val_loss=val_loss, val_bpb=self._dataset.bits_per_byte(val_loss))
        model_folder.replace_info(path, info, model_card(info, config))


def model_card(info: SnapshotInfo, config: ModelConfig) -> str:
    """The README of a model folder."""
    loss = "not measured"
    if info.val_loss is not None:
        loss = f"{info.val_loss:.4f} nats a token, {info.val_bpb:.4f} bits a byte, over the whole validation split"
    elif info.val_loss_estimate is not None:
        loss = f"about {info.val_loss_estimate:.3f} nats a token, estimated on a part of the validation split"
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


def kept_within(kept: int, snapshot_bytes: int) -> int:
    """How many of `kept` snapshots of a size fit into MAX_BYTES; two, the best and the latest, always do."""
    return max(min(kept, 2), min(kept, MAX_BYTES // snapshot_bytes))


def thin(run: RunFolder, kept: int, always: set[str]) -> None:
    """Delete snapshots until `kept` are left, those named in `always` among them, spread over the run.

    The one goes first that is missed least: whose neighbours are closest, in relation to its step, so that the early
    ones, which show how the model learned, lie denser than the late ones.
    """
    snapshots = run.snapshots()
    while len(snapshots) > kept:
        steps = [int(path.name[5:]) for path in snapshots]
        gaps = {
            i: (after - before) / steps[i]
            for i, (before, after) in enumerate(zip(steps, steps[2:], strict=False), 1)
            if snapshots[i].name not in always
        }
        gaps = gaps or {i: 0.0 for i, path in enumerate(snapshots) if path.name not in always}
        if not gaps:
            return
        unwanted = snapshots.pop(min(gaps, key=lambda i: gaps[i]))
        # Renamed first: a folder of this name that can be seen is complete.
        hidden = temporary_beside(unwanted)
        unwanted.rename(hidden)
        shutil.rmtree(hidden)
