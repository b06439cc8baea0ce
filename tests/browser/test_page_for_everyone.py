"""The page on a phone, with a keyboard, with a screen reader, in dark mode and below a path."""

import gzip
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from tests.browser import paper

from gptbox import web

pytestmark = pytest.mark.browser

Open = Callable[..., Page]
STATIC = Path(web.__file__).parent / "static"


@pytest.fixture
def full(ready, open_page: Open) -> Callable[..., Page]:
    """full(**context): the page showing everything it can."""

    def open_full(**options) -> Page:
        ready.learn(1000)
        ready.status("training", step=1000, steps=4000, eta_s=190.0, elapsed_s=80.0, train_loss=1.5,
                     val_loss_estimate=1.55, best_val_loss=1.5, tokens=1000, tokens_per_s=61_440.0,
                     parameters=1_234_567, device="cpu", architecture="qwen3", dataset_source="A" * 80,
                     message="B" * 80)  # fmt: skip
        page = open_page(ready.url, **options)
        expect(page.get_by_role("button", name="Generate")).to_be_enabled()
        paper.ink(page)
        paper.generate(page, "CAFÉ" + "X" * 200)
        paper.finished(page)
        page.get_by_role("button", name="Regenerate").click()
        expect(page.locator("#version")).to_have_text("Version 2 of 2")
        paper.finished(page)
        expect(page.locator("#text .reader [data-surprise]").first).to_be_visible()
        page.get_by_label("A text to be read by the model").fill("TO BE" * 20)
        page.get_by_role("button", name="How strange?").click()
        expect(page.locator("#strange-text [data-surprise]").first).to_be_visible()
        page.get_by_text("The losses as a table").click()
        page.get_by_text("More about this run").click()
        expect(page.locator("#loss-rows tr")).to_have_count(6)
        expect(page.get_by_role("slider")).to_be_visible()
        paper.generate(page, Temperature="9")
        expect(page.get_by_role("alert")).not_to_be_empty()
        return page

    return open_full


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_page_fits_the_width_of_the_screen(full, width: int) -> None:
    page = full(viewport={"width": width, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_touch_targets_are_large_enough(full) -> None:
    page = full(viewport={"width": 360, "height": 740})
    sizes = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, summary")]
          .filter((element) => element.checkVisibility()).map((element) => {
          // A label around a field is part of its target.
          const { width, height } = (element.closest("label") ?? element).getBoundingClientRect();
          return [element.id || element.textContent, width, height];
        })"""
    )
    assert len(sizes) > 10
    assert [size for size in sizes if min(size[1:]) < 24] == []


def test_page_has_structure_for_screen_readers(full) -> None:
    page = full()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map((heading) => Number(heading.localName[1]))")
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for landmark in ("banner", "main", "contentinfo"):
        expect(page.get_by_role(landmark)).to_have_count(1)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, select")]
          .filter((field) => !field.labels.length).map((field) => field.id)"""
    )
    assert unnamed == []
    assert page.evaluate("[...document.querySelectorAll('button')].every((button) => button.textContent.trim())")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    dangling = page.evaluate(
        """() => ["aria-labelledby", "aria-describedby", "for"].flatMap((name) =>
          [...document.querySelectorAll(`[${name}]`)].map((element) => element.getAttribute(name)))
          .filter((id) => !document.getElementById(id))"""
    )
    assert dangling == []
    assert page.locator("[aria-live]").count() == 1


def test_page_works_with_the_keyboard_alone(ready, open_page: Open, wait_for) -> None:
    ready.learn(500)
    page = open_page(ready.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    expect(page.get_by_role("slider")).to_be_visible()
    order: list[str] = []
    page.keyboard.press("Tab")
    while (at := page.evaluate("document.activeElement.id || document.activeElement.localName")) != "body":
        order.append(at)
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style != "none", f"{at} shows no focus outline"
        page.keyboard.press("Tab")
    form = ["prompt", "ink-toggle", "generate", "preset-balanced", "length", "n", "summary"]
    timeline = ["log-time", "timeline-slider", "play", "sample-output", "rewrite", "pinned-line", "pin", "summary"]
    box = ["folder", "a", "copy-curl", "copy-python"]
    assert order == ["share-open", "help", *form, *timeline, "strange-input", "strange-button", *box]

    page.get_by_label("Length").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("100000")
    page.keyboard.press("Control+Enter")
    wait_for(page, paper.LONGER_THAN, 20)
    page.keyboard.press("Escape")
    expect(page.locator("#copy")).to_be_visible()


def test_focus_moves_between_generate_and_stop(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    page.get_by_label("Length").fill("100000")
    button, stop = page.locator("#generate"), page.get_by_role("button", name="Stop")
    expect(button).to_be_enabled()
    button.focus()
    page.keyboard.press("Enter")
    expect(stop).to_be_focused()
    page.keyboard.press("Enter")
    expect(button).to_be_focused()


# The contrast ratio of every text node with its background, as defined by WCAG 2.
CONTRASTS = """() => {
  const parse = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
  const luminance = (color) => {
    const [r, g, b] = color.map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color.slice(0, 3);
      if (color[3] > 0) throw new Error("a translucent background");
    }
    throw new Error("no background");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("noscript")) continue;
    const style = getComputedStyle(element);
    const color = parse(element.closest("svg") ? style.fill : style.color).slice(0, 3);
    const [a, b] = [luminance(color), luminance(behind(element))];
    found.push([walker.currentNode.data.trim().slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(full, scheme: str) -> None:
    page = full(color_scheme=scheme)
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 60
    assert [item for item in contrasts if item[1] < 4.5] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(channel) for channel in re.findall(r"\d+", background)]
    assert (max(channels) < 60) if scheme == "dark" else (min(channels) > 200)


def test_reduced_motion_stops_all_animations(box, open_page: Open) -> None:
    box.status("preparing")
    page = open_page(box.url, reduced_motion="reduce")
    expect(page.get_by_role("progressbar")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0


def test_page_works_below_a_path(make_box, open_page: Open) -> None:
    box = make_box(path="/some/box", model=True)
    box.learn(500)
    page = open_page(box.url)
    expect(page.get_by_role("img", name="Loss over")).to_be_visible()
    page.get_by_label("Length").fill("30")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#copy")).to_be_visible()
    expect(page.locator("#api-url")).to_have_text(f"{box.url}v1")


def test_page_sends_requests_only_to_its_own_server(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    hosts = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.reload()
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    assert hosts == {f"127.0.0.1:{ready.port}"}


def test_page_is_small(ready, open_page: Open) -> None:
    files = [file for file in STATIC.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 300_000
    sizes = [len(gzip.compress(file.read_bytes())) for file in files]
    assert sum(sizes) < 100_000
    page = open_page(ready.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    loaded = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    # The shared worker is not among the page's own resources.
    assert {Path(name).name for name in loaded if "/static/" in name} | {"feed-worker.js"} >= {
        file.name for file in files if file.suffix in (".js", ".css")
    }


def test_scripts_never_create_markup_from_data() -> None:
    for script in STATIC.glob("*.js"):
        source = script.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", source), script.name
