"""The part of the Hugging Face Hub's HTTP API that streaming a dataset uses, on this machine."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"
TOKEN = "hf_secret"
"""Whoever sends it may read private datasets."""


class HubServer:
    """Serves datasets, each a mapping of paths to contents, by their names; private ones to those who send TOKEN."""

    def __init__(self) -> None:
        self.datasets: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.aliases: dict[str, str] = {}
        self.requests: list[str] = []
        self.bytes_sent = 0
        self.fails_after = 1 << 60
        """Bytes after which connections are cut in the middle of a file."""
        self.info_status = 0
        """HTTP status of the answer to each question for a dataset; 0 answers it."""
        self.data_status = 0
        """HTTP status at the signed addresses to which requests for data are redirected; 0 redirects nothing."""
        self.hangs = threading.Event()
        self.released = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler) -> None:  # noqa: N805
                self._answer(handler)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def endpoint(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.requests.append(f"{handler.command} {path}")
        if self.hangs.is_set():
            self.released.wait()
            handler.close_connection = True
            return
        if path.startswith("/signed/"):
            self._send(handler, self.data_status, b"", {})
            return
        match = re.fullmatch(r"(?:/api)?/datasets/(.+?)(?:/(revision|tree|resolve)/([^/]+)(?:/(.+))?)?", path)
        name = match[1] if match else ""
        if name in self.aliases:
            self._send(handler, 307, b"", {"Location": path.replace(name, self.aliases[name])})
            return
        is_allowed = name not in self.private or handler.headers["Authorization"] == f"Bearer {TOKEN}"
        if match is None or name not in self.datasets or not is_allowed:
            # What the Hub answers to those who may not know whether there is such a dataset.
            self._send(handler, 401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return
        files = self.datasets[name]
        match match[2], match[4]:
            case None, _ if self.info_status:
                self._send(handler, self.info_status, b"", {})
            case "resolve", file if file in files and file != "README.md" and self.data_status:
                address = f"{self.endpoint}/signed/{file}?X-Amz-Signature=SECRET"
                self._send(handler, 302, b"", {"Location": address})
            case "resolve", file if file in files:
                self._send_file(handler, files[file])
            case "resolve", _:
                headers = {
                    "X-Error-Code": "EntryNotFound",
                    "X-Error-Message": "Entry not found",
                    "X-Repo-Commit": COMMIT,
                }
                self._send(handler, 404, b"", headers)
            case "tree", folder:
                self._send_json(handler, _tree(files, folder or ""))
            case _:
                siblings = [{"rfilename": file} for file in files]
                self._send_json(
                    handler, {"id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
                )

    def _send_file(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if handler.command == "HEAD" or not (asked := handler.headers["Range"]):
            self._send(handler, 200, content, headers)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last or len(content)) + 1]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        self.bytes_sent += len(part)
        if self.bytes_sent > self.fails_after:
            handler.close_connection = True
            handler.connection.close()
            return
        self._send(handler, 206, part, headers)

    def _send_json(self, handler: BaseHTTPRequestHandler, content: object) -> None:
        self._send(handler, 200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(content))}.items():
            handler.send_header(header, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)


def _tree(files: dict[str, bytes], folder: str) -> list[dict[str, object]]:
    """The files and folders in a folder, as the Hub lists them."""
    start = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, object]] = {}
    for path, content in files.items():
        if path.startswith(start):
            first, _, rest = path.removeprefix(start).partition("/")
            oid = hashlib.sha1(content).hexdigest()
            entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": oid}
            entries[first] = {"type": "directory", "path": start + first, "oid": oid, "size": 0} if rest else entry
    return list(entries.values())
