"""Bits per byte with each tokenizer: `gptbox train` on the same texts for the same time.

    python benchmarks/bits_per_byte.py input.txt plays.txt [--minutes 1 5] [--tokenizers char byte bpe gpt2]
                                       [--threads 2] [--seed 1337]

The minutes count processor time, so that other work on the machine lengthens a run instead of spoiling it. Losses are
exact, over the whole validation text (see `gptbox eval`). `auto` is compared with the best of the tokenizers.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from commands import CommandFailed, run
from gptbox.datasets.prepared import PreparedDataset
from gptbox.models import folder
from gptbox.models.runs import RunFolder
from gptbox.tokenizers import TOKENIZERS, choose_tokenizer


def train(models: Path, data: Path, text: str, tokenizer: str, minutes: float, threads: int, seed: int) -> RunFolder:
    """Train one model. Raises CommandFailed."""
    trained = RunFolder(models, f"{text}-{tokenizer}-{minutes:g}")
    settings = {"GPTBOX_MODELS": str(models), "GPTBOX_DATA": str(data), "TRAIN_CLOCK": "cpu", "THREADS": str(threads)}
    options = ["--run", trained.name, "--tokenizer", tokenizer, "--minutes", f"{minutes:g}", "--seed", str(seed)]
    run(
        [sys.executable, "-m", "gptbox", "train", text, *options],
        timeout_s=60 * (10 * minutes + 5), environment=os.environ | settings,
    )  # fmt: skip
    return trained


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("texts", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--minutes", nargs="+", type=float, default=[1.0, 5.0])
    parser.add_argument("--tokenizers", nargs="+", default=list(TOKENIZERS), choices=list(TOKENIZERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1337)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        models, data = Path(temporary) / "models", Path(temporary) / "data"
        for path in options.texts:
            (data / path.stem).mkdir(parents=True)
            (data / path.stem / path.name).symlink_to(path.resolve())
            for minutes in options.minutes:
                losses: dict[str, float] = {}
                chosen = ""
                for tokenizer in options.tokenizers:
                    title = f"{path.stem}, {minutes:g} min, {tokenizer}"
                    try:
                        trained = train(models, data, path.stem, tokenizer, minutes, options.threads, options.seed)
                    except CommandFailed as error:
                        print(f"{title}: {error}", flush=True)
                        continue
                    best = folder.load(trained.path / "best")
                    prepared = PreparedDataset.load(trained.dataset)
                    assert best.info is not None
                    assert best.info.val_bpb is not None
                    losses[tokenizer] = best.info.val_bpb
                    distinct = prepared.health.distinct_characters if prepared.health else 0
                    chosen, _ = choose_tokenizer(distinct, prepared.text_bytes)
                    tokens = prepared.train_tokens + prepared.val_tokens
                    print(
                        f"{title}: {best.info.val_bpb:.4f} bits per byte, loss {best.info.val_loss:.4f}, "
                        f"{best.config.parameters / 1e6:.2f}M parameters, vocabulary {prepared.vocab_size:,}, "
                        f"{prepared.text_bytes / tokens:.2f} bytes per token",
                        flush=True,
                    )
                if chosen in losses:
                    excess = losses[chosen] / min(losses.values()) - 1
                    print(f"{path.stem}, {minutes:g} min: auto is {chosen}, {excess:.1%} above the best", flush=True)


if __name__ == "__main__":
    main()
