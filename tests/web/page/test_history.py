"""/api/history: the metrics and samples of a run."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from gptbox.models.runs import RunFolder
from gptbox.web.page.history import downsample


def rows(count: int, every: int = 0, loss: str = "val_loss") -> list[dict[str, Any]]:
    return [
        {"step": i, "train_loss": 3.0, "val_loss": None} | ({loss: 2.0} if every and i % every == 0 else {})
        for i in range(count)
    ]


def test_metrics_and_samples_of_a_run(tiny_run: Path, client: TestClient) -> None:
    run = RunFolder(tiny_run, "tiny")
    for row in rows(5):
        run.append("metrics", row)
    run.append("samples", {"step": 4, "text": "caf\u00e9"})
    expected = {"run": "tiny", "has_index": False, "metrics": rows(5), "samples": [{"step": 4, "text": "caf\u00e9"}]}
    assert client.get("/api/history?run=tiny").json() == expected
    assert client.get("/api/history").json() == expected


def test_what_was_learned_arrives_with_null_for_nan(tiny_run: Path, client: TestClient) -> None:
    confusion = {"expected": "\\xe9", "predicted": "\n", "share": 0.25}
    learned = {"real_words": 0.5, "accuracy": 0.25, "confusion": confusion, "line": "\u2028 caf\u00e9"}
    damaged = {"real_words": float("nan"), "accuracy": 1.0, "confusion": {"share": float("inf")}, "line": None}
    rows = [{"step": 1}, {"step": 2, "learned": learned}, {"step": 3, "learned": damaged}]
    (tiny_run / "tiny" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    repaired = damaged | {"real_words": None, "confusion": {"share": None}}
    assert client.get("/api/history").json()["samples"] == [*rows[:2], {"step": 3, "learned": repaired}]


def test_appended_and_removed_rows_are_seen_at_once(tiny_run: Path, client: TestClient) -> None:
    run = RunFolder(tiny_run, "tiny")
    for count in range(1, 4):
        run.append("metrics", rows(count)[-1])
        assert client.get("/api/history").json()["metrics"] == rows(count)
    run.truncate_rows(0)
    assert client.get("/api/history").json()["metrics"] == rows(1)
    (run.path / "metrics.jsonl").unlink()
    assert client.get("/api/history").json()["metrics"] == []


def test_the_newest_run_is_the_default(tiny_run: Path, client: TestClient, publish: Callable[..., Path]) -> None:
    publish(1, run="another")
    assert client.get("/api/history").json()["run"] == "another"


def test_without_a_run_the_history_is_empty(models: Path, client_for: Callable[..., TestClient]) -> None:
    assert client_for(models).get("/api/history").json() == {
        "run": None, "has_index": False, "metrics": [], "samples": [],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["nobody", "", "../tiny", "tiny/../tiny", "%00", "x" * 1000, "%ff"])
def test_an_unknown_run_is_404_with_a_json_error(client: TestClient, name: str) -> None:
    response = client.get(f"/api/history?run={name}")
    assert response.status_code == 404
    assert response.json()["error"]["message"]


def test_damaged_lines_are_skipped_and_nan_becomes_null(tiny_run: Path, client: TestClient) -> None:
    file = tiny_run / "tiny" / "metrics.jsonl"
    file.write_text('{"step": 1, "train_loss": NaN}\nnonsense\n[1]\n{"step": 2, "lr": Infin')
    assert client.get("/api/history").json()["metrics"] == [{"step": 1, "train_loss": None}]


@pytest.mark.parametrize("loss", ["val_loss", "val_loss_estimate"])
def test_long_runs_are_downsampled_evenly(tiny_run: Path, client: TestClient, loss: str) -> None:
    lines = [json.dumps(row) for row in rows(20_000, every=777, loss=loss)]
    (tiny_run / "tiny" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    metrics = client.get("/api/history?run=tiny").json()["metrics"]
    steps = [row["step"] for row in metrics]
    assert len(metrics) == 1000
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, 19_999)
    assert {i for i in range(20_000) if i % 777 == 0} <= set(steps)
    assert max(b - a for a, b in pairwise(steps)) < 45


def test_downsampling_keeps_its_limit_even_if_every_row_has_a_validation_loss() -> None:
    for count in (999, 1000, 1001, 5000):
        thinned = downsample(rows(count, every=1), 1000)
        assert len(thinned) == min(count, 1000)
        assert thinned[0]["step"] == 0
        assert thinned[-1]["step"] == count - 1
