"""The box: what the server is doing, the model card, the snippets and the model's folder."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from tests.browser.modules import run_module

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


@contextmanager
def streams(url: str, count: int) -> Iterator[None]:
    """`count` endless streams."""
    with ExitStack() as open_streams:
        client = open_streams.enter_context(httpx.Client())
        body = {"stream": True, "max_tokens": 10_000_000}
        for _ in range(count):
            open_streams.enter_context(client.stream("POST", f"{url}v1/completions", json=body))
        yield


def card(page: Page) -> dict[str, str]:
    rows = page.locator("#card > div").all()
    return {row.locator("dt").inner_text(): row.locator("dd").inner_text().replace("\n", " | ") for row in rows}


def test_model_card_says_what_is_known_of_the_model(ready, open_page: Open) -> None:
    ready.status(
        "training", step=1000, elapsed_s=300.0, train_loss=1.48, val_loss_estimate=1.55, best_val_loss=1.5,
        tokens=12_345_678, parameters=803_000, device="cpu, 2 threads", architecture="qwen3",
        dataset_source="Tiny Shakespeare <b>bold</b>",
    )  # fmt: skip
    page = open_page(ready.url)
    expect(page.locator("#card")).to_contain_text("Tiny Shakespeare")
    assert card(page) == {
        "Model": "shakespeare, step 250",
        "Text": "Tiny Shakespeare <b>bold</b>",
        "Size": "0.80 million parameters | qwen3",
        "Learning": "5 min | 12,345,678 tokens, on cpu, 2 threads",
        "Loss on unseen text": "about\u00a01.55 (best\u00a01.50)",
        "Loss on its own text": "1.48",
        "Energy": "about 0.83 Wh | not measured: assumes 5 W for each of 2 threads",
    }


def test_runs_of_older_versions_have_a_shorter_card(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.locator("#card")).to_contain_text("step 250")
    assert card(page) == {"Model": "shakespeare, step 250"}


def test_energy_is_estimated_from_the_hardware(box, open_page: Open) -> None:
    page = open_page(box.url)
    cases = [
        {"elapsed_s": 3600, "device": "cpu, 2 threads"},
        {"elapsed_s": 3600, "device": "cpu, 4 processes of 1 thread"},
        {"elapsed_s": 3600, "device": "2 x NVIDIA H200"},
        {"elapsed_s": 36000, "device": "8 x NVIDIA H200"},
        {"elapsed_s": 0, "device": "cpu, 2 threads"},
        {"elapsed_s": 60, "device": None},
    ]
    found = run_module(page, "box.js", "({ energy }, cases) => cases.map((each) => energy(each)?.value)", cases)
    assert found == ["about 10 Wh", "about 20 Wh", "about 600 Wh", "about 24 kWh", None, None]


@pytest.mark.acceptance
def test_waits_are_estimated_from_the_queue(box, open_page: Open) -> None:
    page = open_page(box.url)
    script = "({ activity }, cases) => cases.map(([server, position]) => activity(server, position, 500))"
    server = {"active": 64, "queued": 3, "tokens_per_s": 500.0, "token_unit": "character"}
    cases: list[list[Any]] = [
        [{**server, "active": 0, "queued": 0, "tokens_per_s": 0}, 0],
        [{**server, "active": 1, "queued": 0}, 0],
        [server, 0],
        [{**server, "queued": 1}, 1],
        [{**server, "tokens_per_s": 0}, 2],
    ]
    writing = "64 texts are being written, 500 characters per second."
    assert run_module(page, "box.js", script, cases) == [
        "Idle: a text begins at once.",
        "1 text is being written, 500 characters per second. The next begins at once.",
        f"{writing} Busy: 3 wait. A new one begins in about 4 s.",
        f"{writing} Busy: 1 waits. Yours is number 1 and begins in about 1 s.",
        "64 texts are being written. Busy: 3 wait. Yours is number 2 and begins once its turn comes.",
    ]


@pytest.mark.acceptance
def test_activity_follows_the_server(make_box, open_page: Open) -> None:
    box = make_box(model=True, max_tokens=10_000_000)
    box.service.scheduler.max_active = 2
    page = open_page(box.url)
    activity = page.locator("#activity")
    expect(activity).to_have_text("Idle: a text begins at once.")
    with streams(box.url, 1):
        expect(activity).to_contain_text("1 text is being written")
        expect(activity).to_contain_text("characters per second. The next begins at once.")
    with streams(box.url, 3):
        expect(activity).to_contain_text("2 texts are being written")
        expect(activity).to_contain_text("Busy: 1 waits. A new one begins in about")
        expect(page.locator("#connection")).to_contain_text("busy, 1 waiting")
    expect(activity).to_have_text("Idle: a text begins at once.")


@pytest.mark.acceptance
def test_lost_connection_is_said(ready, open_page: Open) -> None:
    page = open_page(ready.url, allowed="ERR_|Failed to load")
    expect(page.locator("#activity")).to_have_text("Idle: a text begins at once.")
    ready.stop()
    expect(page.locator("#activity")).to_have_text("The connection to the box is lost.")


@pytest.mark.acceptance
def test_box_waits_for_a_model(box, open_page: Open) -> None:
    page = open_page(box.url)
    expect(page.locator("#activity")).to_have_text("There is no model to write with yet.")
    for part in ("#programs", "#carry-home"):
        expect(page.locator(part)).to_be_hidden()
    box.publish()
    expect(page.locator("#programs")).to_be_visible()


@pytest.mark.acceptance
@pytest.mark.parametrize("path", ["", "/o'neil's box"])
def test_curl_snippet_runs_as_shown(make_box, open_page: Open, path: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    box = make_box(path=path, model=True)
    page = open_page(box.url)
    command = page.locator("#snippet-curl")
    expect(command).to_contain_text("curl")
    done = subprocess.run(["sh", "-c", f"{command.inner_text()} -sS -m 60"], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout)
    assert reply["model"] == "shakespeare@step-000250"
    assert len(reply["choices"][0]["text"]) == 200


@pytest.mark.acceptance
def test_python_snippet_runs_as_shown(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    program = page.locator("#snippet-python")
    expect(program).to_contain_text("openai")
    done = subprocess.run([sys.executable, "-c", program.inner_text()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 200 + len("\n")


@pytest.mark.acceptance
def test_snippets_of_a_server_with_a_key_have_its_place(make_box, open_page: Open) -> None:
    box = make_box(model=True, api_key="open sesame", max_tokens=50)
    page = open_page(box.url)
    expect(page.locator("#snippet-key")).to_be_visible()
    program = page.locator("#snippet-python").inner_text()
    assert "open sesame" not in page.content()
    for key, code in (("open sesame", 0), ("wrong", 1)):
        source = program.replace("YOUR_API_KEY", key)
        assert source != program
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120)
        assert done.returncode == code
    if shutil.which("curl"):
        command = page.locator("#snippet-curl").inner_text().replace("YOUR_API_KEY", "open sesame")
        reply = json.loads(subprocess.check_output(["sh", "-c", f"{command} -sS -m 60"], text=True, timeout=90))
        assert len(reply["choices"][0]["text"]) == 50


@pytest.mark.acceptance
def test_snippets_are_copied(ready, open_page: Open) -> None:
    page = open_page(ready.url, permissions=["clipboard-read", "clipboard-write"])
    button = page.locator("#copy-curl")
    button.click()
    expect(button).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#snippet-curl").inner_text()


@pytest.mark.acceptance
def test_description_of_the_api_is_linked(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    link = page.get_by_role("link", name="Its description")
    address = page.evaluate("(link) => link.href", link.element_handle())
    assert "/v1/completions" in httpx.get(address).json()["paths"]


@pytest.mark.acceptance
@pytest.mark.parametrize("key", [None, "open sesame"])
def test_models_folder_is_downloaded(make_box, open_page: Open, tmp_path: Path, key: str | None) -> None:
    """With a key, too, which a link cannot send."""
    box = make_box(model=True, api_key=key)
    page = open_page(box.url, allowed="401")
    link = page.get_by_role("link", name="Download the model")
    expect(link).to_be_visible()
    if key:
        link.click()
        expect(page.locator("#folder-state")).to_contain_text("Generate a text with the API key first")
        page.get_by_label("API key").fill(key)
        page.locator("#generate").click()
        expect(page.get_by_label("API key")).to_be_hidden()
    with page.expect_download() as started:
        link.click()
    started.value.save_as(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        names = {Path(name).name for name in archive.namelist()}
        [weights] = [name for name in archive.namelist() if name.endswith("model.safetensors")]
        assert archive.read(weights) == (box.run.snapshot(250) / "model.safetensors").read_bytes()
    assert {"config.json", "tokenizer.json", "gptbox.json"} <= names
    expect(page.locator("#folder-state")).to_be_empty()


@pytest.mark.acceptance
def test_download_is_hidden_where_it_is_off(make_box, open_page: Open) -> None:
    page = open_page(make_box(model=True, downloads="off").url)
    expect(page.locator("#programs")).to_be_visible()
    expect(page.locator("#carry-home")).to_be_hidden()
