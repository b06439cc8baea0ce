"""A volume of a version before TrainConfig held a ModelConfig: tests/fixtures/volume-8923cef.tar.xz.

`finished` is a lesson run of 60 steps. `interrupted` was stopped at step 5,893 of 8,000, and has snapshots.
"""

import tarfile
from pathlib import Path

import pytest
import torch
from tests.train.commands import status_of, train

from gptbox.engine.generate import generate
from gptbox.engine.gpt import GPT
from gptbox.engine.sampling_params import SamplingParams
from gptbox.models import folder as model_folder
from gptbox.models.runs import RunFolder

FIXTURE = Path(__file__).parents[1] / "fixtures" / "volume-8923cef.tar.xz"
SHAPE = ("--n-layer", "1", "--n-embd", "16", "--n-head", "2", "--context-length", "16", "--batch-size", "4",
         "--seed", "7")  # fmt: skip


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        # The next start adds an index of the text.
        if path.is_file() and path.name not in (".lock", "meta.json", "train.ngrams")
    }


def test_a_finished_run_is_left_alone(volume: Path) -> None:
    before = contents(volume / "models" / "finished")
    done = train(volume, "bottles", "--run", "finished", "--preset", "lesson", "--steps", "60", *SHAPE)
    assert done.returncode == 0, done.stderr
    assert "is complete: Finished after 60 steps" in done.stdout
    assert contents(volume / "models" / "finished") == before


def test_an_interrupted_run_goes_on_from_its_step(volume: Path) -> None:
    run = RunFolder(volume / "models", "interrupted")
    before = torch.load(run.checkpoint / "state.pt", weights_only=True)["progress"]
    assert before["step"] == 5893
    done = train(volume, "bottles", "--run", "interrupted", "--steps", "8000", *SHAPE)
    assert done.returncode == 0, done.stderr
    assert "Going on from step 5,893." in done.stdout
    status = status_of(volume, "interrupted")
    assert (status.phase, status.step) == ("finished", 8000)
    rows = run.read_rows("samples")
    assert [row["step"] for row in rows if "learned" not in row] == [1000, 2000, 3000, 4000, 5000]
    later = [row["learned"] for row in rows if "learned" in row]
    assert len(later) == 3
    assert all(each["accuracy"] > 0.8 and each["real_words"] > 0.5 and each["line"] for each in later)
    # The version that began the run reached 0.2253 at step 8,000, and 0.2213 at step 7,000.
    assert status.val_loss == pytest.approx(0.2252, abs=0.005)
    assert status.best_snapshot == "step-007000"
    assert [path.name for path in run.snapshots()] == [f"step-00{step}000" for step in (4, 5, 6, 7, 8)]


def test_settings_that_differ_from_an_older_run_s_are_refused(volume: Path) -> None:
    options = [*SHAPE[:3], "32", *SHAPE[4:]]
    done = train(volume, "bottles", "--run", "interrupted", "--steps", "8000", *options)
    assert done.returncode == 1
    assert "n_embd was 16 and is now 32" in done.stderr


@pytest.mark.parametrize(
    ("run", "text"),
    [
        ("interrupted", " bottles hanging on the wall, and if 4 should fall\n233 green"),
        ("finished", ",ig 3g0seslld8gn7,1eoui2gs3,hsll2sb4biaa1dlr6es\na0iiffab1fga"),
    ],
)
def test_a_seed_gives_the_same_text_as_with_the_older_version(volume: Path, run: str, text: str) -> None:
    folder = model_folder.load(RunFolder(volume / "models", run).resolve("best"))
    params = SamplingParams(max_tokens=60, temperature=0.8, top_k=200, seed=3)
    pieces = generate(GPT(folder.config, folder.weights), [folder.tokenizer.encode("green")], [params])
    assert folder.tokenizer.decode([token for (tokens,) in pieces for token in tokens]) == text
