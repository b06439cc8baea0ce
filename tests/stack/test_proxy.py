"""Apache: headers, hidden paths, limits and logs."""

import re
import socket
import time
from typing import Any

import httpx
import pytest

POLICY = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"


def raw(stack: Any, request: bytes, patience: float = 5) -> bytes:
    """The bytes received in response to these bytes, until the end or the timeout."""
    response = b""
    with socket.create_connection(("localhost", stack.port), timeout=patience) as connection:
        connection.sendall(request)
        while True:
            try:
                piece = connection.recv(65536)
            except (TimeoutError, ConnectionResetError):
                return response
            if not piece:
                return response
            response += piece


@pytest.mark.parametrize(
    "path", ["/", "the page's script", "/healthz", "/api/status", "/v1/models", "/cgi-bin/test", "/nothing-here"]
)
def test_every_response_has_each_security_header_once(serving: Any, path: str) -> None:
    if path == "the page's script":
        (path,) = re.findall(r'"(static/[0-9a-f]+/main\.js)"', serving.http.get("/").text)
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
    response = raw(serving, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert response.startswith(b"HTTP/1.1 404 ")
    assert b"gptbox_" not in response


def test_the_error_pages_cannot_be_requested(serving: Any) -> None:
    assert serving.http.get("/-/starting").status_code == 403
    assert serving.http.get("/-/busy-api").status_code == 403


def test_a_body_above_one_mib_is_rejected(serving: Any) -> None:
    for path in ("/v1/completions", "/tokenize", "/detokenize"):
        reply = serving.http.post(path, content=b"x" * (2**20 + 1))
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "request_too_large"
    assert serving.http.post("/v1/completions", content=b"x" * 2**20).status_code == 400, "web's response"


def test_a_body_without_content_length_is_rejected(serving: Any) -> None:
    assert serving.http.post("/v1/completions", content=iter([b"{}"])).status_code == 411


@pytest.mark.parametrize(
    ("request_line", "headers"),
    [
        (b"GET /?" + b"a" * 9000 + b" HTTP/1.1", b""),
        (b"GET / HTTP/1.1", b"X: " + b"a" * 9000 + b"\r\n"),
        (b"GET / HTTP/1.1", b"".join(b"X-%d: 1\r\n" % i for i in range(60))),
    ],
)
def test_oversized_request_heads_are_rejected(serving: Any, request_line: bytes, headers: bytes) -> None:
    response = raw(serving, request_line + b"\r\nHost: localhost\r\n" + headers + b"Connection: close\r\n\r\n")
    assert response.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 414 ", b"HTTP/1.1 431 "))


def test_the_trace_method_is_disabled(serving: Any) -> None:
    assert serving.http.request("TRACE", "/").status_code == 405


def test_slow_request_heads_time_out(serving: Any) -> None:
    started = time.monotonic()
    response = raw(serving, b"GET / HTTP/1.1\r\nHost: lo", patience=25)
    assert 5 < time.monotonic() - started < 20
    assert response == b"" or response.startswith(b"HTTP/1.1 408 ")


def test_errors_of_web_are_passed_on_unchanged(serving: Any) -> None:
    reply = serving.http.post("/v1/completions", json={"model": "little", "prompt": "the", "max_tokens": -1})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "max_tokens"
    unknown = serving.http.post("/v1/completions", json={"model": "no-such-run", "prompt": "the"})
    assert unknown.status_code == 404
    assert "no-such-run" in unknown.json()["error"]["message"]


def test_cross_site_requests_are_refused_and_same_site_requests_served(serving: Any) -> None:
    """Apache passes on the Host header, with which web compares the origin."""
    body = {"prompt": "the", "max_tokens": 3}
    for origin, status in ((serving.url, 200), ("http://evil.test", 403), ("http://localhost", 403), ("null", 403)):
        reply = serving.http.post("/v1/completions", json=body, headers={"Origin": origin})
        assert reply.status_code == status
    assert reply.json()["error"]["code"] == "cross_site_request"
    named = {"Host": "gptbox.test", "Origin": "https://gptbox.test"}  # as behind a proxy that terminates TLS
    assert serving.http.post("/v1/completions", json=body, headers=named).status_code == 200


def test_tokenize_and_detokenize_are_passed_on(serving: Any) -> None:
    tokens = serving.http.post("/tokenize", json={"model": "little", "prompt": "The"}).json()["tokens"]
    assert len(tokens) == 3
    assert serving.http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": "The"}
    assert serving.http.post("/tokenize", json={}).json()["error"]["param"] == "prompt"


def test_whole_responses_are_compressed_and_revalidated(serving: Any) -> None:
    file = serving.http.get("/static/app.css", headers={"Accept-Encoding": "gzip"})  # web's: it has no fingerprint
    assert file.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in file.headers["vary"].lower()
    etag = {"If-None-Match": file.headers["etag"]}
    assert serving.http.get("/static/app.css", headers={"Accept-Encoding": "gzip", **etag}).status_code == 304
    assert serving.http.get("/api/status", headers={"Accept-Encoding": "gzip"}).headers["content-encoding"] == "gzip"


def test_forwarding_headers_of_clients_are_dropped(serving: Any) -> None:
    code = (
        "import socket; s = socket.create_server(('', 8001)); s.settimeout(20); c, _ = s.accept(); "
        "f = c.makefile('rb'); print(b''.join(iter(f.readline, b'\\r\\n')).decode(), flush=True); "
        "c.sendall(b'HTTP/1.1 204 No Content\\r\\n\\r\\n')"
    )
    # A fake web that prints the request headers passed on by Apache.
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
        listener.wait(timeout=20)  # it exits after its response; then its log is complete
        seen = listener.logs().decode().lower()
    finally:
        listener.remove(force=True)
        serving.compose("up", "--detach", "--no-build", "web")
    assert "x-forwarded-for: " in seen
    for trace in ("6.6.6.6", "gopher", "evil.example"):
        assert trace not in seen


def test_neither_prompts_nor_referrers_are_logged(serving: Any, until: Any) -> None:
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
    assert "/cgi-bin/test" in serving.logs("web"), "the visit itself is logged"
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
    """The remote addresses of the connections to web's port 8000."""
    code, output = stack.inside("web", "python", "-c", LIST_CONNECTIONS)
    assert code == 0, output
    return set(output.split())


def test_apache_reuses_its_connections_to_web(serving: Any) -> None:
    used: list[set[str]] = []
    for _ in range(3):
        for _ in range(5):
            assert serving.http.get("/healthz").status_code == 200
        used.append(connections_to_web(serving))
    assert used[0] & used[1] & used[2]


@pytest.mark.acceptance
def test_apache_never_reuses_a_connection_that_web_is_about_to_close(serving: Any, until: Any) -> None:
    """Web closes connections idle for 75 s; Apache reuses none idle for 30 s.

    After a restart its pools hold no spare connections: those stay open unused until web closes them.
    """
    serving.compose("restart", "apache")
    until(lambda: serving.http.get("/healthz").status_code == 200, within=20, what="Apache's restart")
    for pause in (29, 31, 74.8, 75, 75.2):
        assert serving.http.get("/healthz").status_code == 200
        before = connections_to_web(serving)
        time.sleep(pause)
        body = {"model": "little", "prompt": "the", "max_tokens": 1}
        assert serving.http.post("/v1/completions", json=body).status_code == 200
        assert serving.http.get("/healthz").status_code == 200
        if pause > 30:
            assert not before & connections_to_web(serving)


def test_one_connection_serves_many_requests(serving: Any) -> None:
    with httpx.Client(base_url=serving.url, timeout=10, limits=httpx.Limits(max_connections=1)) as client:
        assert {client.get("/healthz").status_code for _ in range(50)} == {200}
