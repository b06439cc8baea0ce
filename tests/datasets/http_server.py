"""A web server on this machine, with real faults."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Gives its answers in turn and repeats the last one; records the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805
                self.requests.append(handler.headers["User-Agent"])
                answers[min(len(self.requests), len(answers)) - 1](handler)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def at(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{path}"

    @property
    def url(self) -> str:
        return self.at("input.txt")

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def sends(content: bytes, promised: int | None = None, content_type: str = "application/octet-stream") -> Answer:
    """Sends the content; `promised` is its length in the header, if another."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(content) if promised is None else promised))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def redirects(location: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def refuses(code: int) -> Answer:
    return lambda handler: handler.send_error(code)
