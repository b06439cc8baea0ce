"""A small text, and runs that learn it within seconds."""

from gptbox.models.config import ModelConfig
from gptbox.train.config import TrainConfig
from gptbox.train.trainer import Trainer

TEXT = "".join(f"{n} green bottles hanging on the wall, and if {n % 7} should fall\n" for n in range(400))

CONFIG = TrainConfig(
    preset="test",
    model=ModelConfig(
        architecture="qwen3", vocab_size=len(set(TEXT)), context_length=32, n_layer=2, n_head=2, n_embd=32,
        activation="silu", norm_eps=1e-6,
    ),
    batch_size=4, steps=60, eval_every=20, learning_rate=3e-3, min_learning_rate=1e-4, warmup_steps=10,
)  # fmt: skip


def stop_at(trainer: Trainer, step: int) -> None:
    """Stop the trainer right after a step, as a signal would."""
    original = trainer._step

    def stepping() -> None:
        original()
        if trainer.state.step == step:
            trainer.stop()

    trainer._step = stepping  # type: ignore[method-assign]
