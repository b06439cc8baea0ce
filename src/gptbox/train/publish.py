"""From a torch model to a published snapshot, and which snapshots are kept."""

import shutil
from pathlib import Path

from gptbox import __version__, model_folder
from gptbox.atomic import temporary_beside
from gptbox.model_folder import SnapshotInfo
from gptbox.run_folder import RunFolder, utc_now
from gptbox.tokenizers import Tokenizer
from gptbox.train.checkpoint import Progress
from gptbox.train.gpt import GPT

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
| validation loss | {val_loss} nats a token, {val_bpb} bits a byte, over the whole validation split |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
ids = tokenizer("wherefore art thou", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, do_sample=True, temperature=0.8, max_new_tokens=200)[0]))
```

It learned from one text alone and says what that text might say. It knows nothing, and must not be relied on.
"""


def publish(
    run: RunFolder,
    model: GPT,
    tokenizer: Tokenizer,
    progress: Progress,
    *,
    dataset: str,
    source: str,
    val_bpb: float | None,
) -> Path:
    """Write the snapshot of this step, unless it is there, and point `latest`, and perhaps `best`, at it."""
    path = run.snapshot(progress.step)
    if not path.exists():
        info = SnapshotInfo(
            run=run.name,
            dataset=dataset,
            dataset_source=source,
            step=progress.step,
            tokens=progress.tokens,
            train_loss=progress.train_loss,
            val_loss=progress.val_loss,
            val_bpb=val_bpb,
            training_s=round(progress.elapsed_s, 3),
            parameters=model.config.parameters,
            gptbox_version=__version__,
            created_at=utc_now(),
        )
        card = _CARD.format(
            run=run.name,
            step=info.step,
            architecture=model.config.architecture,
            parameters=info.parameters,
            context_length=model.config.context_length,
            version=__version__,
            source=source,
            tokens=progress.tokens,
            seconds=info.training_s,
            train_loss=_number(info.train_loss),
            val_loss=_number(info.val_loss),
            val_bpb=_number(info.val_bpb),
        )
        weights = {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}
        model_folder.write(path, model.config, weights, tokenizer, info, card)
    run.point("latest", path)
    if progress.best_snapshot == path.name:
        run.point("best", path)
    return path


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


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
