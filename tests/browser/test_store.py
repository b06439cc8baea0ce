"""The page's store, and the text as a list of tokens."""

from collections.abc import Callable
from math import log
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.browser.modules import run_module
from tests.browser.paper import finished, generate

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


def tokens_of(page: Page, choice: dict[str, Any], offset: int) -> list[dict[str, Any]]:
    tokens: list[dict[str, Any]] = run_module(
        page, "text.js", "({ tokensOf }, [choice, offset]) => tokensOf(choice, offset)", [choice, offset]
    )
    return tokens


def test_listeners_are_called_when_their_part_of_the_state_changes(box, open_page: Open) -> None:
    calls = run_module(
        open_page(box.url),
        "store.js",
        """({ createStore }) => {
          const store = createStore({ one: 1, two: 2 });
          const calls = [];
          store.subscribe(({ one }) => one, (value, before) => calls.push(["one", value, before]));
          store.subscribe(({ two }) => two, (value, before) => calls.push(["two", value, before]));
          store.update({ one: 10 });
          store.update({ one: 10 });
          store.update({ one: 11, two: 20 });
          return [...calls, store.state];
        }""",
    )
    assert calls == [["one", 10, 1], ["one", 11, 10], ["two", 20, 2], {"one": 11, "two": 20}]


def test_a_listener_may_update_the_state(box, open_page: Open) -> None:
    calls = run_module(
        open_page(box.url),
        "store.js",
        """({ createStore }) => {
          const store = createStore({ status: 0, history: 0 });
          const calls = [];
          store.subscribe(({ history }) => history, (value) => calls.push(["history", value]));
          store.subscribe(({ status }) => status, (status) => store.update({ history: status * 10 }));
          store.subscribe(({ status, history }) => status + history, (value) => calls.push(["sum", value]));
          store.update({ status: 1 });
          return calls;
        }""",
    )
    assert calls == [["history", 10], ["sum", 11]]


def test_store_holds_the_status_the_history_and_the_manuscript(ready, open_page: Open) -> None:
    ready.learn(500)
    page = open_page(ready.url)
    expect(page.locator("#sample")).to_be_visible()
    generate(page, "TO BE", Length="40")
    text = finished(page)
    status, history, manuscript = run_module(
        page, "store.js", "({ store: { state } }) => [state.status, state.history, state.manuscript]"
    )
    assert status["server"]["model"] == "shakespeare@step-000250"
    assert history["run"] == "shakespeare"
    assert not history["isOther"]
    assert len(history["samples"]) == 3
    version = manuscript["versions"][str(manuscript["current"])]
    writing = version["writing"]
    assert (writing["state"], writing["length"], writing["start"]) == ("finished", 40, 1)
    assert writing["request"]["prompt"] == "TO BE"
    assert isinstance(writing["request"]["seed"], int)
    assert writing["model"] == "shakespeare@step-000250"
    assert all(piece.keys() == {"text", "by"} for piece in version["pieces"])
    assert [piece["by"] for piece in version["pieces"]][:2] == ["reader", "model"]
    assert "".join(piece["text"] for piece in version["pieces"]) == "TO BE" + text


def test_tokens_keep_their_writers(box, open_page: Open) -> None:
    """A token of several letters may reach from the reader's text into the model's."""
    pieces, start = run_module(
        open_page(box.url),
        "manuscript.js",
        """({ newManuscript, edit, beginWriting, continuation, append, withTokens, current }) => {
          let manuscript = edit(newManuscript(), "to b");
          manuscript = beginWriting(manuscript, [{}], continuation(manuscript), 0);
          const { current: id } = manuscript;
          for (const text of ["e o", "r not"]) {
            manuscript = append(manuscript, id, { tokens: [{ text }], warnings: [] }, 1);
          }
          const tokens = ["to", " be", " ", "", "or", " not"].map((text) => ({ text, logprob: -1 }));
          const { pieces, writing } = current(withTokens(manuscript, id, tokens));
          return [pieces.map(({ text, by }) => [text, by]), writing.start];
        }""",
    )
    assert pieces == [
        ["to", "reader"], [" be", "reader"], [" ", "model"], ["", "model"], ["or", "model"], [" not", "model"],
    ]  # fmt: skip
    assert start == 2


def test_a_delta_without_probabilities_is_one_token(box, open_page: Open) -> None:
    page = open_page(box.url)
    assert tokens_of(page, {"text": "To be", "logprobs": None}, 0) == [{"text": "To be"}]
    assert tokens_of(page, {"text": "", "logprobs": None}, 5) == []


def test_alternatives_are_sorted_by_probability(box, open_page: Open) -> None:
    """JavaScript puts keys that look like integers first."""
    logprobs = {
        "tokens": ["1"],
        "token_logprobs": [log(0.2)],
        "top_logprobs": [{"e": log(0.5), "0": log(0.3), "1": log(0.2)}],
        "text_offset": [3],
    }
    [token] = tokens_of(open_page(box.url), {"text": "1", "logprobs": logprobs}, 3)
    assert (token["text"], token["key"], token["logprob"]) == ("1", "1", log(0.2))
    assert token["top"] == [["e", log(0.5)], ["0", log(0.3)], ["1", log(0.2)]]


def test_tokens_add_up_to_the_text(box, open_page: Open) -> None:
    """With characters of several tokens, characters that JavaScript counts twice, and text of an earlier token."""
    keys = ["\U0001f600", "bytes:\\xc3", "bytes:\\xa9", "s"]
    logprobs = {
        "tokens": keys,
        "token_logprobs": [-1.0] * 4,
        "top_logprobs": [{key: -1.0} for key in keys],
        "text_offset": [12, 13, 13, 14],
    }
    tokens = tokens_of(open_page(box.url), {"text": "..\U0001f600\u00e9s", "logprobs": logprobs}, 10)
    assert [token["text"] for token in tokens] == ["..", "\U0001f600", "", "\u00e9", "s"]
    assert "logprob" not in tokens[0]
    assert [token["key"] for token in tokens[1:]] == keys
