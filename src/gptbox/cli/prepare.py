"""`gptbox prepare`: a text to token ids."""

from gptbox.cli.common import check_tokenizer, run_folder
from gptbox.cli.options import Dataset, RunName, Tokenizer, read_settings


def prepare(dataset: Dataset = None, run: RunName = None, tokenizer: Tokenizer = None) -> None:
    """Turn a text into token ids, split into training and validation."""
    from gptbox.datasets.prepared import prepare as prepare_dataset
    from gptbox.datasets.progress import show_progress

    settings = read_settings(TOKENIZER=tokenizer)
    check_tokenizer(settings, tokenizer)
    folder = run_folder(settings, dataset, run)
    with show_progress() as on_progress:
        prepared = prepare_dataset(
            dataset or settings.dataset, folder, settings.data, on_progress, settings.tokenizer, settings.dataset_url
        )
    for line in prepared.describe():
        print(line)
    print(f"Prepared in {prepared.folder}.")
