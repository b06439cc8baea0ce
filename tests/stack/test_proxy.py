"""What Apache adds, hides, refuses and writes down."""

import socket
import time
from typing import Any

import httpx
import pytest

POLICY = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"


def raw(stack: Any, request: bytes, patience: float = 5) -> bytes:
    """What comes back for these very bytes, as far as it comes in time."""
    answer = b""
    with socket.create_connection(("localhost", stack.port), timeout=patience) as connection:
        connection.sendall(request)
        while True:
            try:
                piece = connection.recv(65536)
            except (TimeoutError, ConnectionResetError):
                return answer
            if not piece:
                return answer
            answer += piece


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/status", "/v1/models", "/cgi-bin/test", "/nothing-here"])
def test_every_answer_has_the_security_headers_once(serving: Any, path: str) -> None:
    headers = serving.http.get(path).headers
    assert headers.get_list("content-security-policy") == [POLICY]
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers.get_list("referrer-policy") == ["no-referrer"]
    assert len(headers.get_list("permissions-policy")) == 1
    assert headers.get_list("server") == ["Apache"]
    assert "x-powered-by" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/metrics/",
        "//metrics",
        "/%6detrics",
        "/v1/../metrics",
        "/v1/%2e%2e/metrics",
        "/metrics?x=1",
        "/./metrics",
    ],
)
def test_the_metrics_are_not_public(serving: Any, path: str) -> None:
    answer = raw(serving, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"gptbox_" not in answer


def test_the_pages_for_hard_times_have_no_address_of_their_own(serving: Any) -> None:
    assert serving.http.get("/-/starting").status_code == 403
    assert serving.http.get("/-/busy-api").status_code == 403


def test_a_body_of_more_than_one_mib_is_refused(serving: Any) -> None:
    for path in ("/v1/completions", "/tokenize", "/detokenize"):
        reply = serving.http.post(path, content=b"x" * (2**20 + 1))
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "request_too_large"
    assert serving.http.post("/v1/completions", content=b"x" * 2**20).status_code == 400, "web's answer"


def test_a_body_of_unsaid_length_is_refused(serving: Any) -> None:
    assert serving.http.post("/v1/completions", content=iter([b"{}"])).status_code == 411


@pytest.mark.parametrize(
    ("request_line", "headers"),
    [
        (b"GET /?" + b"a" * 9000 + b" HTTP/1.1", b""),
        (b"GET / HTTP/1.1", b"X: " + b"a" * 9000 + b"\r\n"),
        (b"GET / HTTP/1.1", b"".join(b"X-%d: 1\r\n" % i for i in range(60))),
    ],
)
def test_monstrous_requests_are_refused(serving: Any, request_line: bytes, headers: bytes) -> None:
    answer = raw(serving, request_line + b"\r\nHost: localhost\r\n" + headers + b"Connection: close\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 414 ", b"HTTP/1.1 431 "))


def test_trace_is_off(serving: Any) -> None:
    assert serving.http.request("TRACE", "/").status_code == 405


def test_a_sender_who_dawdles_is_shown_out(serving: Any) -> None:
    started = time.monotonic()
    answer = raw(serving, b"GET / HTTP/1.1\r\nHost: lo", patience=25)
    assert 5 < time.monotonic() - started < 20
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")


def test_webs_own_errors_come_through_untouched(serving: Any) -> None:
    reply = serving.http.post("/v1/completions", json={"model": "little", "prompt": "the", "max_tokens": -1})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "max_tokens"
    unknown = serving.http.post("/v1/completions", json={"model": "no-such-run", "prompt": "the"})
    assert unknown.status_code == 404
    assert "no-such-run" in unknown.json()["error"]["message"]


def test_pages_of_other_sites_are_refused_and_the_own_one_is_not(serving: Any) -> None:
    """The host that web compares with is the one that the browser asked for."""
    body = {"prompt": "the", "max_tokens": 3}
    for origin, status in ((serving.url, 200), ("http://evil.test", 403), ("http://localhost", 403), ("null", 403)):
        reply = serving.http.post("/v1/completions", json=body, headers={"Origin": origin})
        assert reply.status_code == status
    assert reply.json()["error"]["code"] == "cross_site_request"
    named = {"Host": "gptbox.test", "Origin": "https://gptbox.test"}  # as behind a proxy that ends TLS
    assert serving.http.post("/v1/completions", json=body, headers=named).status_code == 200


def test_tokens_there_and_back(serving: Any) -> None:
    tokens = serving.http.post("/tokenize", json={"model": "little", "prompt": "The"}).json()["tokens"]
    assert len(tokens) == 3
    assert serving.http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": "The"}
    assert serving.http.post("/tokenize", json={}).json()["error"]["param"] == "prompt"


def test_what_is_sent_whole_is_compressed_and_can_be_asked_for_again(serving: Any) -> None:
    page = serving.http.get("/", headers={"Accept-Encoding": "gzip"})
    assert page.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in page.headers["vary"].lower()
    again = serving.http.get("/", headers={"Accept-Encoding": "gzip", "If-None-Match": page.headers["etag"]})
    assert again.status_code == 304
    assert serving.http.get("/api/status", headers={"Accept-Encoding": "gzip"}).headers["content-encoding"] == "gzip"


def test_nobody_else_can_be_named_as_the_sender(serving: Any) -> None:
    code = (
        "import socket; s = socket.create_server(('', 8001)); s.settimeout(20); c, _ = s.accept(); "
        "f = c.makefile('rb'); print(b''.join(iter(f.readline, b'\\r\\n')).decode(), flush=True); "
        "c.sendall(b'HTTP/1.1 204 No Content\\r\\n\\r\\n')"
    )
    # In web's place: it shows what Apache passes on.
    forged = {
        "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6", "Proxy": "http://evil.example",
    }  # fmt: skip
    serving.compose("rm", "--stop", "--force", "web")
    (network,) = serving.docker.networks.list(names=[f"{serving.project}_inside"])
    listener = serving.docker.containers.create(
        f"{serving.project}-web", ["python", "-c", code.replace("8001", "8000")],
        labels={"com.docker.compose.project": serving.project}, network=network.name,
    )  # fmt: skip
    try:
        network.disconnect(listener)
        network.connect(listener, aliases=["web"])
        listener.start()
        end = time.monotonic() + 20
        while serving.http.get("/x", headers=forged).status_code != 204:
            assert time.monotonic() < end
            time.sleep(0.2)
        listener.wait(timeout=20)  # it ends after its answer; then its log is whole
        seen = listener.logs().decode().lower()
    finally:
        listener.remove(force=True)
        serving.compose("up", "--detach", "--no-build", "web")
    assert "x-forwarded-for: " in seen
    for trace in ("6.6.6.6", "gopher", "evil.example"):
        assert trace not in seen


def test_no_prompt_and_no_referring_page_is_written_down(serving: Any, until: Any) -> None:
    until(lambda: serving.http.get("/readyz").status_code == 200, within=30, what="web after the test before")
    secret = "MySecretPrompt"
    serving.http.get("/cgi-bin/test", params={"start": secret}, headers={"Referer": f"http://{secret}.example/"})
    serving.http.post("/v1/completions", json={"model": "little", "prompt": secret, "max_tokens": 3})
    serving.http.post("/v1/completions", json={"model": "little", "prompt": secret, "max_tokens": -1})
    serving.http.post("/v1/completions", content=b'{"prompt": "' + secret.encode())
    raw(serving, f"GET /../..?start={secret} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    raw(serving, f"GET /%00?start={secret} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    raw(serving, f"GET /?start={secret} and more HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    raw(serving, f"POST /cgi-bin/test?start={secret} HTTP/1.1\r\nHost: a b\r\nContent-Length: x\r\n\r\n".encode())
    time.sleep(0.5)
    assert "/cgi-bin/test" in serving.logs("web"), "the visit itself is written down"
    for service in ("apache", "web"):
        assert secret not in serving.logs(service)


LIST_CONNECTIONS = """
for name in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in list(open(name))[1:]:
        _, local, remote, state, *_ = line.split()
        if local.endswith(":1F40") and state == "01":
            print(remote)
"""


def connections_to_web(stack: Any) -> set[str]:
    """The far ends of what is connected to web's port 8000."""
    code, output = stack.inside("web", "python", "-c", LIST_CONNECTIONS)
    assert code == 0, output
    return set(output.split())


def test_apache_keeps_its_connections_to_web(serving: Any) -> None:
    used: list[set[str]] = []
    for _ in range(3):
        for _ in range(5):
            assert serving.http.get("/healthz").status_code == 200
        used.append(connections_to_web(serving))
    assert used[0] & used[1] & used[2]


@pytest.mark.acceptance
def test_apache_uses_no_connection_that_web_is_about_to_close(serving: Any) -> None:
    """Web closes what is idle for 75 s, Apache uses nothing that was for 30."""
    for pause in (29, 31, 74.8, 75, 75.2):
        assert serving.http.get("/healthz").status_code == 200
        before = connections_to_web(serving)
        time.sleep(pause)
        body = {"model": "little", "prompt": "the", "max_tokens": 1}
        assert serving.http.post("/v1/completions", json=body).status_code == 200
        assert serving.http.get("/healthz").status_code == 200
        if pause > 30:
            assert not before & connections_to_web(serving)


def test_keep_alive_serves_many_requests_on_one_connection(serving: Any) -> None:
    with httpx.Client(base_url=serving.url, timeout=10, limits=httpx.Limits(max_connections=1)) as client:
        assert {client.get("/healthz").status_code for _ in range(50)} == {200}
