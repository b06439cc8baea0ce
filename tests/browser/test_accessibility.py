"""axe-core finds nothing in any state of sharing, the box and shortcuts, in light and dark."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from tests.browser.accessibility import violations
from tests.browser.test_sharing import write

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_share_dialog_with_a_playbill(ready, open_page: Open, scheme: str) -> None:
    ready.learn(500)
    page = open_page(ready.url, color_scheme=scheme)
    write(page, "HELLO", seed=7)
    page.get_by_role("button", name="Share").click()
    expect(page.locator("#playbill-preview .playbill-qr")).to_be_visible()
    assert violations(page) == []


def test_shortcuts_dialog(ready, open_page: Open, scheme: str) -> None:
    page = open_page(ready.url, color_scheme=scheme)
    page.get_by_role("button", name="Keyboard shortcuts").click()
    assert violations(page) == []


@pytest.mark.acceptance
def test_notice_about_a_link(ready, open_page: Open, scheme: str) -> None:
    page = open_page(f"{ready.url}#m=shakespeare%40step-000260&p=HELLO&s=3&n=30", color_scheme=scheme)
    expect(page.locator("#notice")).to_contain_text("thinned out")
    assert violations(page) == []


@pytest.mark.acceptance
def test_box_idle_busy_and_lost(make_box, open_page: Open, scheme: str) -> None:
    box = make_box(model=True, api_key="open sesame")
    box.status(
        "training", step=1000, elapsed_s=300.0, train_loss=1.48, val_loss_estimate=1.55, tokens=12_345_678,
        parameters=803_000, device="cpu, 2 threads", architecture="qwen3", dataset_source="A text",
    )  # fmt: skip
    page = open_page(box.url, allowed="ERR_|Failed to load", color_scheme=scheme)
    expect(page.locator("#activity")).to_have_text("Idle: a text begins at once.")
    assert violations(page) == []
    page.evaluate(
        """async () => {
          const { store } = await import(new URL("store.js", document.styleSheets[0].href));
          const { server } = store.state.status;
          store.update({ status: { ...store.state.status, server: { ...server, active: 64, queued: 3 } } });
        }"""
    )
    expect(page.locator("#activity")).to_contain_text("Busy: 3 wait.")
    assert violations(page) == []
    box.stop()
    expect(page.locator("#activity")).to_have_text("The connection to the box is lost.")
    assert violations(page) == []


@pytest.mark.acceptance
def test_box_without_a_model(box, open_page: Open, scheme: str) -> None:
    page = open_page(box.url, color_scheme=scheme)
    expect(page.locator("#activity")).to_have_text("There is no model to write with yet.")
    assert violations(page) == []
