"""`gptbox eval`: the exact validation loss of a model."""

from typing import Annotated

import typer

from gptbox.cli.common import find_model, load_engine
from gptbox.cli.options import Quantize, read_settings


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="RUN[@SNAPSHOT]", help="The model; RUN alone means its best snapshot.")
    ],
    window: Annotated[
        int | None, typer.Option(min=1, help="Tokens per window. Default and maximum: the model's context length.")
    ] = None,
    quantize: Quantize = None,
) -> None:
    """Measure the exact validation loss of a model on the text of its run."""
    from gptbox.datasets.prepared import PreparedDataset
    from gptbox.engine.evaluate import evaluate as engine_evaluate
    from gptbox.engine.gpt import GPT
    from gptbox.models.folder import load
    from gptbox.models.runs import find_run

    settings = read_settings(QUANTIZE=quantize)
    path = find_model(settings, model)
    dataset = PreparedDataset.load(find_run(settings.models, model.partition("@")[0]).dataset)
    folder = load(path)
    window = min(window or folder.config.context_length, folder.config.context_length)
    load_engine()
    loss = engine_evaluate(GPT(folder.config, folder.weights, settings.quantize == "int8"), dataset.val, window)
    bits = dataset.bits_per_byte(loss)
    print(f"{path.name}: val_loss {loss:.4f} nats per token, val_bpb {bits:.4f} (windows of {window} tokens)")
