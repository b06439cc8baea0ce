"""Serving over HTTP: throughput, time to first text, page views, a crowd of clients, and memory over a long run.

    python benchmarks/serve_http.py [--models models] [--streams 32] [--rounds 3] [--clients 500] [--soak 100000]
    python benchmarks/serve_http.py --url http://localhost [--pid PID] ...     a running server, for example Apache

Without --url it starts `gptbox serve` on a free loopback port, serving the newest run in --models, or random weights of
the default preset's shape. Settings such as THREADS and MAX_QUEUE are passed on. Each round measures:

  load      --streams concurrent streams of 500 tokens: tokens (as counted by `usage`) per second of wall time
  idle      sequential requests: time to the first text
  busy      the same while the streams run, each restarted as it ends
  page      sequential visits of /cgi-bin/test: time to the last byte
  short     on 8 keep-alive connections for two seconds each: requests per second for /healthz and for one token; then
            on one connection, sequential requests for one token: time to the last byte
  files     on 8 keep-alive connections for two seconds each, as browsers ask for them: requests per second for the
            page and for one of its scripts

On request, --clients N sends N concurrent requests for 500 tokens and counts the outcomes; --soak N sends N requests
for 1 to 8 tokens, 16 at a time, and reports the server's resident memory (--pid names the process if the server was not
started here). The client is one process on the same cores, and its CPU time is reported. Each request has a connection
of its own, except for the short and the soak requests, which keep theirs.
"""

import argparse
import asyncio
import ipaddress
import json
import os
import random
import re
import resource
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np

from gptbox.models.runs import RunFolder
from politeness import running, wait_for
from serve_engine import SHAPES, publish

TOKENS = 500
PROBE_TOKENS = 16
SHORT_S = 2.0
SHORT_CONNECTIONS = 8
SOAK_TOKENS = 8
"""Requests ask for 1, 2, ... tokens up to this number, in turn."""
TIMEOUT_S = 600.0
"""A response that takes longer counts as lost."""
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_CHUNK_SIZE_LINES = re.compile(rb"\r\n(?:[0-9a-fA-F]+\r\n)?")
_FIRST_TEXT = re.compile(rb'"text": ?"[^"]')


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    """As received, including the chunk sizes."""
    first_text_s: float | None
    """From the request, including the connection if new, to the first text; None if there was no text."""
    total_s: float
    """From the request to the last byte."""

    def is_complete(self, tokens: int) -> bool:
        """Whether this is a whole stream with this number of tokens in its `usage`. Only the end is parsed."""
        if self.status != 200 or self.first_text_s is None:
            return False
        lines = _CHUNK_SIZE_LINES.sub(b"", self.body[-16384:]).split(b"\n\n")
        events = [line[6:] for line in lines if line.startswith(b"data: ")]
        if len(events) < 2 or events[-1] != b"[DONE]":
            return False
        try:
            usage = json.loads(events[-2])["usage"]
        except (ValueError, KeyError):
            return False
        has_finished = any(b'"finish_reason":"length"' in event for event in events[-4:-2])
        return has_finished and bool(usage["completion_tokens"] == tokens)


class Connection(asyncio.Protocol):
    """A minimal HTTP client: one request at a time, looking only at the start and the end of the response."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._response: asyncio.Future[Response] | None = None
        self._start = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def request(self, content: bytes, start: float) -> asyncio.Future[Response]:
        assert self._transport is not None
        self._start, self._body, self._head = start, bytearray(), b""
        self._first_text_s: float | None = None
        self._body_length: int | None = None
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(content)
        return self._response

    def data_received(self, data: bytes) -> None:
        body = self._body
        body += data
        if not self._head:
            end = body.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(body[:end]).lower()
            del body[: end + 2]  # keeps the line break before the first chunk's size
            if found := re.search(rb"\r\ncontent-length: *(\d+)", self._head):
                self._body_length = int(found[1]) + 2
        if self._first_text_s is None and _FIRST_TEXT.search(body):
            self._first_text_s = time.perf_counter() - self._start
        if len(body) == self._body_length or (self._body_length is None and body.endswith(_LAST_CHUNK)):
            if b"\r\nconnection: close" in self._head:
                self.close()
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._response is not None and not self._response.done():
            self._response.set_exception(
                error or ConnectionError("the connection was closed before the end of the response")
            )

    def _finish(self) -> None:
        if self._response is not None and not self._response.done():
            total_s = time.perf_counter() - self._start
            self._response.set_result(Response(int(self._head[9:12]), bytes(self._body), self._first_text_s, total_s))

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.close()


class Client:
    """Builds and sends requests to one server on the loopback."""

    def __init__(self, url: str) -> None:
        """Raises ValueError if the URL is not on this machine."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url} is not a URL that begins with http://")
        self.port, self.base = parts.port or 80, parts.path.rstrip("/")
        found = socket.getaddrinfo(parts.hostname, self.port, type=socket.SOCK_STREAM)
        # IPv4 first: a server that listens on only one of localhost's addresses listens on this one.
        self.address = str(sorted(found)[0][4][0])
        if not ipaddress.ip_address(self.address).is_loopback:
            raise ValueError(f"{url} is not on this machine; this would be a load on somebody else's.")
        self.host = parts.netloc.encode()

    def get(self, path: str, keep_alive: bool = False, encoding: str = "identity") -> bytes:
        connection = b"keep-alive" if keep_alive else b"close"
        return b"GET %s%s HTTP/1.1\r\nHost: %s\r\nAccept-Encoding: %s\r\nConnection: %s\r\n\r\n" % (
            self.base.encode(), path.encode(), self.host, encoding.encode(), connection,
        )  # fmt: skip

    def completion(self, tokens: int, seed: int, keep_alive: bool = False, stream: bool = True) -> bytes:
        fields = {"prompt": "\n", "max_tokens": tokens, "temperature": 0.8, "top_k": 200, "seed": seed}
        if stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps(fields).encode()
        head = [
            b"POST %s/v1/completions HTTP/1.1" % self.base.encode(), b"Host: %s" % self.host,
            b"Connection: %s" % (b"keep-alive" if keep_alive else b"close"), b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
        ]  # fmt: skip
        return b"\r\n".join([*head, b"", body])

    async def connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self.address, self.port)
        return connection

    async def send(self, content: bytes) -> Response:
        """The response to one request, on a new connection.

        Raises OSError or TimeoutError.
        """
        start = time.perf_counter()
        connection = await self.connect()
        try:
            return await asyncio.wait_for(connection.request(content, start), TIMEOUT_S)
        finally:
            connection.close()

    async def stream_text(self, tokens: int, seed: int) -> Response:
        """A complete streamed completion.

        Raises RuntimeError for any other response.
        """
        response = await self.send(self.completion(tokens, seed))
        if not response.is_complete(tokens):
            raise RuntimeError(f"the server answers {response.status}: {response.body[-500:]!r}")
        return response


@dataclass
class Measurements:
    """One entry per round in each list."""

    tokens_per_s: list[float] = field(default_factory=list)
    client_cores: list[float] = field(default_factory=list)
    """CPU cores used by the client meanwhile."""
    idle: list[list[float]] = field(default_factory=list)
    busy: list[list[float]] = field(default_factory=list)
    pages: list[list[float]] = field(default_factory=list)
    short: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By kind of request: requests per second, and CPU cores used by the client meanwhile."""
    sequential: list[list[float]] = field(default_factory=list)


async def load(client: Client, streams: int, seed: int, measurements: Measurements) -> None:
    start, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client.stream_text(TOKENS, seed + i) for i in range(streams)))
    seconds = time.perf_counter() - start
    measurements.tokens_per_s.append(streams * TOKENS / seconds)
    measurements.client_cores.append((time.process_time() - used) / seconds)


async def probe(client: Client, count: int, seed: int) -> list[float]:
    """Seconds to the first text of sequential requests, with random pauses so that they hit the load at any phase."""
    times = []
    rng = random.Random(seed)
    for i in range(count):
        await asyncio.sleep(rng.uniform(0, 0.02))
        response = await client.stream_text(PROBE_TOKENS, seed + i)
        assert response.first_text_s is not None
        times.append(response.first_text_s)
    return times


@asynccontextmanager
async def under_load(client: Client, streams: int, seed: int) -> AsyncIterator[None]:
    """Keep `streams` texts running; each is restarted as it ends."""

    async def stream_forever(i: int) -> None:
        while True:
            await client.stream_text(TOKENS, seed + i)
            i += streams

    tasks = [asyncio.create_task(stream_forever(i)) for i in range(streams)]
    await asyncio.sleep(1)
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()  # raises its error: there was less load than reported
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.5)  # until the server notices the disconnects


async def visits(client: Client, count: int) -> list[float]:
    times = []
    for _ in range(count):
        response = await client.send(client.get("/cgi-bin/test"))
        if response.status != 200:
            raise RuntimeError(f"/cgi-bin/test answers {response.status}")
        times.append(response.total_s)
    return times


async def keep_requesting(client: Client, content: bytes, seconds: float) -> list[float]:
    """Repeat one request on one connection, or a new one if the server closes it; returns the seconds of each.

    Raises RuntimeError if a status is not 200.
    """
    times: list[float] = []
    connection: Connection | None = None
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        if connection is None or not connection.is_open:
            connection = await client.connect()
        response = await connection.request(content, start)
        if response.status != 200:
            raise RuntimeError(f"the server answers {response.status}: {response.body[-500:]!r}")
        times.append(response.total_s)
    if connection is not None:
        connection.close()
    return times


async def request_rate(client: Client, what: str, content: bytes, measurements: Measurements) -> None:
    start, used = time.perf_counter(), time.process_time()
    responses = await asyncio.gather(*(keep_requesting(client, content, SHORT_S) for _ in range(SHORT_CONNECTIONS)))
    seconds = time.perf_counter() - start
    rate, cores = sum(map(len, responses)) / seconds, (time.process_time() - used) / seconds
    measurements.short.setdefault(what, []).append((rate, cores))


async def short(client: Client, measurements: Measurements) -> None:
    one_token = client.completion(1, 1, keep_alive=True, stream=False)
    await request_rate(client, "/healthz", client.get("/healthz", keep_alive=True), measurements)
    await request_rate(client, "one token", one_token, measurements)
    measurements.sequential.append(await keep_requesting(client, one_token, SHORT_S))


async def files(client: Client, measurements: Measurements) -> None:
    page = await client.send(client.get("/"))
    script = re.search(rb'<script type="module" src="([^"]+)"', page.body)
    if script is None:
        raise RuntimeError(f"the page names no script; the server answers {page.status}")
    for what, path in (("the page", "/"), ("a script", f"/{script[1].decode()}")):
        await request_rate(client, what, client.get(path, keep_alive=True, encoding="gzip"), measurements)


async def crowd(client: Client, clients: int) -> None:
    """Send all requests at once, and count complete responses and errors."""
    print(f"\n{clients} clients at once, {TOKENS} tokens each:", flush=True)
    start = time.perf_counter()
    responses = await asyncio.gather(
        *(client.send(client.completion(TOKENS, i)) for i in range(clients)), return_exceptions=True
    )
    seconds = time.perf_counter() - start
    outcomes: Counter[str] = Counter()
    first: list[float] = []
    for response in responses:
        if isinstance(response, BaseException):
            outcomes[f"{type(response).__name__}: {response}"] += 1
        elif response.is_complete(TOKENS):
            outcomes["complete"] += 1
            assert response.first_text_s is not None
            first.append(response.first_text_s)
        elif response.status == 200:
            outcomes["200, but not complete"] += 1
        else:
            outcomes[str(response.status)] += 1
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"  {counts}; all done after {seconds:.1f} s")
    if first:
        rate = outcomes["complete"] * TOKENS / seconds
        print(f"  {rate:,.0f} tokens/s; first text of the complete ones: {summarize(first)}")


def resident_mib(pid: int | None) -> float | None:
    """Resident memory of the process and its children: in a container the server is the child of an init."""
    if pid is None:
        return None
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return (int(found[1]) / 1024 if found else 0.0) + sum(resident_mib(int(child)) or 0.0 for child in children)


async def soak(client: Client, requests: int, at_once: int, minutes: float, pid: int | None) -> None:
    """Sequential short requests on each of `at_once` connections."""
    print(f"\n{requests:,} requests for 1 to {SOAK_TOKENS} tokens, {at_once} at a time:", flush=True)
    start, numbers = time.perf_counter(), iter(range(requests))
    outcomes: Counter[str] = Counter()
    tenth = max(1, requests // 10)

    def report_memory() -> None:
        memory = resident_mib(pid)
        text = "unknown; name the process with --pid" if memory is None else f"{memory:.1f} MiB"
        done, seconds = sum(outcomes.values()), time.perf_counter() - start
        print(f"  after {done:>7,} requests, {seconds:>6.1f} s: resident memory {text}", flush=True)

    async def worker() -> None:
        connection: Connection | None = None
        for i in numbers:
            if time.perf_counter() - start > 60 * minutes:
                break
            tokens = 1 + i % SOAK_TOKENS
            try:
                if connection is None or not connection.is_open:
                    connection = await client.connect()
                pending = connection.request(client.completion(tokens, i, keep_alive=True), time.perf_counter())
                response = await asyncio.wait_for(pending, TIMEOUT_S)
                outcomes["complete" if response.is_complete(tokens) else f"{response.status}, not complete"] += 1
            except (OSError, TimeoutError) as error:
                outcomes[type(error).__name__] += 1
                if connection is not None:
                    connection.close()
            if sum(outcomes.values()) % tenth == 0:
                report_memory()
        if connection is not None:
            connection.close()

    report_memory()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    seconds = time.perf_counter() - start
    print(f"  {', '.join(f'{count:,} {outcome}' for outcome, count in sorted(outcomes.items()))}", end="")
    print(f"; {sum(outcomes.values()) / seconds:,.0f} requests/s", end="")
    print(f"; stopped after {minutes:g} minutes (--soak-minutes)" if sum(outcomes.values()) < requests else "")


def summarize(seconds: Sequence[float]) -> str:
    return f"median {1000 * np.median(seconds):.1f} ms, p95 {1000 * np.percentile(seconds, 95):.1f} ms"


def median_and_range(values: Sequence[float], form: str) -> str:
    middle = format(float(np.median(values)), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}} to {max(values):{form}})"


def report(measurements: Measurements, streams: int) -> None:
    if measurements.tokens_per_s:
        print(
            f"\n{streams} streams of {TOKENS} tokens: {median_and_range(measurements.tokens_per_s, ',.0f')} tokens/s",
            end="",
        )
        print(f"; the client took {median_and_range(measurements.client_cores, '.2f')} of a core")
    for name, rounds in (("idle", measurements.idle), (f"beside {streams} streams", measurements.busy)):
        if rounds:
            times = [seconds for round_times in rounds for seconds in round_times]
            print(f"First text, {name}, {len(times)} requests: {summarize(times)}")
    if measurements.idle and measurements.busy:
        for what, share in (("median", 50), ("p95", 95)):
            pairs = zip(measurements.busy, measurements.idle, strict=True)
            values = [float(np.percentile(busy, share) / np.percentile(idle, share)) for busy, idle in pairs]
            print(f"First text, {what}, beside the streams / idle: {median_and_range(values, '.2f')}")
    if measurements.pages:
        times = [seconds for round_times in measurements.pages for seconds in round_times]
        print(f"/cgi-bin/test, {len(times)} visits, to the last byte: {summarize(times)}")
    for what, rounds in measurements.short.items():
        rates, cores = zip(*rounds, strict=True)
        print(
            f"{what}, {SHORT_CONNECTIONS} keep-alive connections: {median_and_range(rates, ',.0f')} requests/s", end=""
        )
        print(f"; the client took {median_and_range(cores, '.2f')} of a core")
    if measurements.sequential:
        times = [seconds for round_times in measurements.sequential for seconds in round_times]
        print(f"one token, one keep-alive connection, {len(times)} requests: {summarize(times)}")


@contextmanager
def server(models: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """`gptbox serve` with a model loaded; yields its URL and process id."""
    log = folder / "server.log"

    def port() -> int | None:
        found = re.search(r"the page is at http://\S+:(\d+)/", log.read_text(errors="replace"))
        return int(found[1]) if found else None

    def ready() -> int | None:
        try:
            with urlopen(f"{url}/readyz", timeout=10) as response:
                return int(response.status)
        except OSError:
            return None

    environment = os.environ | {"GPTBOX_MODELS": str(models)}
    environment.pop("API_KEY", None)
    with running(["serve", "--port", "0"], environment, log) as process:
        url = f"http://127.0.0.1:{wait_for('the server port', port, process, log)}"
        wait_for("the server's model", ready, process, log)
        yield url, process.pid


def random_run(models: Path) -> None:
    """Publish a run with one snapshot with random weights."""
    run = RunFolder(models, "random")
    publish(run.snapshot(1), SHAPES["default"])
    run.update_link("best", run.snapshot(1))
    run.update_link("latest", run.snapshot(1))


async def measure(options: argparse.Namespace, client: Client, pid: int | None) -> None:
    streams, measurements = options.streams, Measurements()
    await client.stream_text(TOKENS, 0)  # warm-up
    for i in range(options.rounds):
        seed = 1_000_000 * (i + 1)
        if "load" in options.only:
            await load(client, streams, seed, measurements)
        if "first-text" in options.only:
            measurements.idle.append(await probe(client, options.probes, seed))
            async with under_load(client, streams, seed):
                measurements.busy.append(await probe(client, options.probes, seed))
        if "page" in options.only:
            measurements.pages.append(await visits(client, options.views))
        if "short" in options.only:
            await short(client, measurements)
        if "files" in options.only:
            await files(client, measurements)
    report(measurements, streams)
    if options.clients:
        await crowd(client, options.clients)
    if options.soak:
        await soak(client, options.soak, options.at_once, options.soak_minutes, pid)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server on this machine, such as http://localhost")
    parser.add_argument("--models", type=Path, help="a models folder to serve (default: random weights)")
    parser.add_argument("--pid", type=int, help="process id of the server at --url, to report its memory")
    parts = ("load", "first-text", "page", "short", "files")
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=32, metavar="N", help="concurrent streams (default: 32)")
    parser.add_argument(
        "--probes", type=int, default=40, metavar="N", help="requests for the first text per round (default: 40)"
    )
    parser.add_argument("--views", type=int, default=20, metavar="N", help="page views per round (default: 20)")
    parser.add_argument(
        "--clients",
        type=int,
        default=0,
        metavar="N",
        help="concurrent requests of a crowd, such as 500 (default: none)",
    )
    parser.add_argument(
        "--soak", type=int, default=0, metavar="N", help="short requests of a soak test, such as 100000 (default: none)"
    )
    parser.add_argument(
        "--at-once", type=int, default=16, metavar="N", help="connections of the soak test (default: 16)"
    )
    parser.add_argument(
        "--soak-minutes", type=float, default=30, metavar="M", help="maximum duration of the soak test (default: 30)"
    )
    options = parser.parse_args()
    if options.url and options.models:
        parser.error("--models is for a server that is started here; leave out --url or --models")
    open_files = max(options.streams, options.clients, options.at_once) + 64
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < open_files:
        parser.error(f"this needs {open_files} open files: ulimit -n {open_files}")
    if not 0 <= options.clients <= 5000 or not 0 <= options.soak <= 1_000_000:
        parser.error("at most 5,000 clients and 1,000,000 short requests")
    return options


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            if options.url:
                asyncio.run(measure(options, Client(options.url), options.pid))
                return
            models = options.models
            if models is None:
                models = folder / "models"
                random_run(models)
            with server(models, folder) as (url, pid):
                print(f"{url}, {'random weights' if options.models is None else models}", flush=True)
                asyncio.run(measure(options, Client(url), pid))
        except (ValueError, RuntimeError, OSError) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
