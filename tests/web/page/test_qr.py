"""/api/qr: a code that says the text, drawn plainly."""

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
import segno
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from gptbox.web.page.qr import QUIET_ZONE, qr_svg

LINK = "http://localhost/#m=tiny@step-000250&p=To%20be%2C%20or%20not&s=42"
SVG = "{http://www.w3.org/2000/svg}"


def modules(image: bytes) -> list[list[bool]]:
    """The dark modules of a code, as the image's path draws them, without the quiet zone."""
    root = ElementTree.fromstring(image)
    size = int(root.attrib["viewBox"].split()[2])
    rows = [[False] * size for _ in range(size)]
    background, drawn = root.findall(f"{SVG}path")
    assert background.attrib == {"fill": "#fff", "d": f"M0 0h{size}v{size}h-{size}z"}
    assert set(drawn.attrib) == {"stroke", "d"}
    assert drawn.attrib["stroke"] == "#000"
    x, y = 0, 0.0
    for command, arguments in re.findall(r"([Mmh])([-\d. ]+)", drawn.attrib["d"]):
        numbers = [float(number) for number in re.findall(r"-?\d*\.?\d+", arguments)]
        if command == "h":
            rows[int(y)][x : x + int(numbers[0])] = [True] * int(numbers[0])
            x += int(numbers[0])
        elif command == "M":
            x, y = int(numbers[0]), numbers[1]
        else:
            x, y = x + int(numbers[0]), y + numbers[1]
    border = slice(QUIET_ZONE, size - QUIET_ZONE)
    outside = [row for i, row in enumerate(rows) if not QUIET_ZONE <= i < size - QUIET_ZONE]
    assert not any(map(any, outside))
    assert not any(any(row[:QUIET_ZONE]) or any(row[size - QUIET_ZONE :]) for row in rows)
    return [row[border] for row in rows[border]]


def test_it_draws_the_code_of_the_text(client: TestClient) -> None:
    response = client.post("/api/qr", json={"text": LINK})
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/svg+xml"
    assert response.headers["cache-control"] == "no-store"
    expected = segno.make(LINK, error="l", micro=False, encoding="utf-8")
    assert modules(response.content) == [[bool(value) for value in row] for row in expected.matrix]


@pytest.mark.parametrize("text", ["7", LINK, "é" * 1000, "http://localhost/#p=" + "%20" * 660])
def test_the_image_has_nothing_but_two_paths(text: str) -> None:
    """No style, script, class or size, which a page's policy may forbid or its style sheet should decide."""
    root = ElementTree.fromstring(qr_svg(text))
    assert root.tag == f"{SVG}svg"
    assert set(root.attrib) == {"viewBox"}
    assert [child.tag for child in root] == [f"{SVG}path"] * 2
    assert len(modules(qr_svg(text))) % 4 == 1  # 21, 25, 29 ...


def test_a_short_text_gets_better_error_correction_where_that_costs_no_room() -> None:
    text = LINK[:60]
    smallest = segno.make(text, error="l", micro=False, boost_error=False)
    better = segno.make(text, error="m", micro=False, boost_error=False)
    assert smallest.symbol_size() == better.symbol_size()
    assert modules(qr_svg(text)) == [[bool(value) for value in row] for row in better.matrix]


@pytest.mark.parametrize(
    "body",
    [{}, {"text": ""}, {"text": None}, {"text": 7}, {"text": [LINK]}, {"text": "x" * 2001}, {"text": "é" * 1001}],
)
def test_other_texts_are_refused(client: TestClient, body: dict[str, Any]) -> None:
    response = client.post("/api/qr", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "text"


@pytest.mark.parametrize("content", [b"", b"[]", b'"x"', b"\xff", b'{"text": "\\ud800"}', b"<svg>"])
def test_what_is_no_json_object_or_no_text_is_refused(client: TestClient, content: bytes) -> None:
    assert client.post("/api/qr", content=content).status_code == 400


def test_a_text_of_the_greatest_length_fits(client: TestClient) -> None:
    response = client.post("/api/qr", json={"text": "é" * 1000})
    assert response.status_code == 200
    assert len(modules(response.content)) <= 177


@settings(max_examples=60)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_any_text_has_a_code(text: str) -> None:
    expected = segno.make(text, error="l", micro=False, encoding="utf-8")
    assert modules(qr_svg(text)) == [[bool(value) for value in row] for row in expected.matrix]


def test_the_text_is_not_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    client.post("/api/qr", content=json.dumps({"text": "SECRET"}))
    client.post("/api/qr", content=json.dumps({"text": "SECRET" * 500}))
    assert not any("SECRET" in f"{record.getMessage()} {vars(record)}" for record in caplog.records)
