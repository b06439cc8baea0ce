"""What visitors get over HTTP: tokens a second, time to the first text, page views, a crowd, and a long run's memory.

    python benchmarks/serve_http.py [--models models] [--streams 32] [--rounds 3] [--clients 500] [--soak 100000]
    python benchmarks/serve_http.py --url http://localhost [--pid PID] ...          a running server, as through Apache

Without --url it starts `gptbox serve` on a free port of the loopback, over the newest run in --models, or over random
weights of the default preset's shape; settings such as THREADS and MAX_QUEUE are passed on. In turn, round by round:

  load      --streams texts of 500 tokens at once, streamed: tokens (as `usage` counts them) over the wall time
  idle      requests one after the other: time to the first text
  busy      the same while the streams run, each beginning anew as it ends
  page      /cgi-bin/test, one visit after the other: time to the last byte
  short     on kept connections, 8 at a time, two seconds each: requests for /healthz, and for one token, a second; then
            for one token on one connection, one after the other: time to the last byte

Then, where asked for: --clients sends so many requests for 500 tokens at once and counts what they get; --soak sends so
many requests for 1 to 8 tokens, 16 at a time, and tells the server's resident memory (--pid says of which process where
the server is not its own). The client is one process on the same cores; how much of a core it takes is told. Every
request has a connection of its own, but for the short ones and the soak's, which are kept.
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

from gptbox.run_folder import RunFolder
from politeness import running, wait_for
from serve_engine import SHAPES, publish

TOKENS = 500
PROBE_TOKENS = 16
SHORT_S = 2.0
SHORT_AT_ONCE = 8
SOAK_TOKENS = 8
"""At most; the first request asks for 1, the next for 2, and so on, round and round."""
LONGEST_S = 600.0
"""A reply that takes longer counts as lost."""
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"
_CHUNK_SIZES = re.compile(rb"\r\n(?:[0-9a-fA-F]+\r\n)?")
_FIRST_TEXT = re.compile(rb'"text": ?"[^"]')


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    """As it came: the sizes of chunks are still in it."""
    first_s: float | None
    """From the request to the first text, with connecting where that was needed; None where there was none."""
    last_s: float

    def complete(self, tokens: int) -> bool:
        """Whether it is a whole stream of so many tokens, by the server's own count. Only its end is parsed."""
        if self.status != 200 or self.first_s is None:
            return False
        lines = _CHUNK_SIZES.sub(b"", self.body[-16384:]).split(b"\n\n")
        events = [line[6:] for line in lines if line.startswith(b"data: ")]
        if len(events) < 2 or events[-1] != b"[DONE]":
            return False
        try:
            usage = json.loads(events[-2])["usage"]
        except (ValueError, KeyError):
            return False
        whole = any(b'"finish_reason":"length"' in event for event in events[-4:-2])
        return whole and bool(usage["completion_tokens"] == tokens)


class Connection(asyncio.Protocol):
    """One request at a time. Of what comes in, only the beginning and the end are looked at."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[Reply] | None = None
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.open = transport, True

    def request(self, content: bytes, began: float) -> asyncio.Future[Reply]:
        assert self._transport is not None
        self._began, self._body, self._head = began, bytearray(), b""
        self._first: float | None = None
        self._length: int | None = None
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(content)
        return self._done

    def data_received(self, data: bytes) -> None:
        body = self._body
        body += data
        if not self._head:
            end = body.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(body[:end]).lower()
            del body[: end + 2]  # the line break before the first chunk's size stays
            if found := re.search(rb"\r\ncontent-length: *(\d+)", self._head):
                self._length = int(found[1]) + 2
        if self._first is None and _FIRST_TEXT.search(body):
            self._first = time.perf_counter() - self._began
        if len(body) == self._length or (self._length is None and body.endswith(_END_OF_CHUNKS)):
            if b"\r\nconnection: close" in self._head:
                self.close()
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._done is not None and not self._done.done():
            self._done.set_exception(error or ConnectionError("the connection was closed before the reply's end"))

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            last = time.perf_counter() - self._began
            self._done.set_result(Reply(int(self._head[9:12]), bytes(self._body), self._first, last))

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()


class Client:
    """Requests to one server on the loopback."""

    def __init__(self, url: str) -> None:
        """Raises ValueError where the address is another machine's."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url} is not an address that begins with http://")
        self.port, self.base = parts.port or 80, parts.path.rstrip("/")
        found = socket.getaddrinfo(parts.hostname, self.port, type=socket.SOCK_STREAM)
        # IPv4 first: where only one of localhost's addresses is listened on, it is this one.
        self.address = str(sorted(found)[0][4][0])
        if not ipaddress.ip_address(self.address).is_loopback:
            raise ValueError(f"{url} is not on this machine; this would be a load on somebody else's.")
        self.host = parts.netloc.encode()

    def page(self, address: str, keep: bool = False) -> bytes:
        kept = b"keep-alive" if keep else b"close"
        return b"GET %s%s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n\r\n" % (
            self.base.encode(), address.encode(), self.host, kept,
        )  # fmt: skip

    def completion(self, tokens: int, seed: int, keep: bool = False, stream: bool = True) -> bytes:
        wanted = {"prompt": "\n", "max_tokens": tokens, "temperature": 0.8, "top_k": 200, "seed": seed}
        if stream:
            wanted |= {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps(wanted).encode()
        head = [
            b"POST %s/v1/completions HTTP/1.1" % self.base.encode(), b"Host: %s" % self.host,
            b"Connection: %s" % (b"keep-alive" if keep else b"close"), b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
        ]  # fmt: skip
        return b"\r\n".join([*head, b"", body])

    async def connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self.address, self.port)
        return connection

    async def ask(self, content: bytes) -> Reply:
        """One request on a connection of its own.

        Raises OSError or TimeoutError.
        """
        began = time.perf_counter()
        connection = await self.connect()
        try:
            return await asyncio.wait_for(connection.request(content, began), LONGEST_S)
        finally:
            connection.close()

    async def text(self, tokens: int, seed: int) -> Reply:
        """A whole streamed completion.

        Raises RuntimeError where the reply is anything else.
        """
        reply = await self.ask(self.completion(tokens, seed))
        if not reply.complete(tokens):
            raise RuntimeError(f"the server answers {reply.status}: {reply.body[-500:]!r}")
        return reply


@dataclass
class Figures:
    tokens_per_s: list[float] = field(default_factory=list)
    client_cores: list[float] = field(default_factory=list)
    """What the client took while it counted those."""
    idle: list[list[float]] = field(default_factory=list)
    busy: list[list[float]] = field(default_factory=list)
    pages: list[list[float]] = field(default_factory=list)
    short: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Requests a second, and what the client took of a core meanwhile, by what was asked for."""
    alone: list[list[float]] = field(default_factory=list)


async def load(client: Client, streams: int, seed: int, figures: Figures) -> None:
    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client.text(TOKENS, seed + i) for i in range(streams)))
    seconds = time.perf_counter() - began
    figures.tokens_per_s.append(streams * TOKENS / seconds)
    figures.client_cores.append((time.process_time() - used) / seconds)


async def probe(client: Client, count: int, seed: int) -> list[float]:
    """Seconds to the first text, request by request, with short pauses so that they meet the load anywhere."""
    times = []
    chance = random.Random(seed)
    for i in range(count):
        await asyncio.sleep(chance.uniform(0, 0.02))
        reply = await client.text(PROBE_TOKENS, seed + i)
        assert reply.first_s is not None
        times.append(reply.first_s)
    return times


@asynccontextmanager
async def under_load(client: Client, streams: int, seed: int) -> AsyncIterator[None]:
    """So many texts being written all the time."""

    async def again(i: int) -> None:
        while True:
            await client.text(TOKENS, seed + i)
            i += streams

    tasks = [asyncio.create_task(again(i)) for i in range(streams)]
    await asyncio.sleep(1)
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()  # raises what ended it: there was less load than said
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.5)  # the server sees that they are gone


async def visits(client: Client, count: int) -> list[float]:
    times = []
    for _ in range(count):
        reply = await client.ask(client.page("/cgi-bin/test"))
        if reply.status != 200:
            raise RuntimeError(f"/cgi-bin/test answers {reply.status}")
        times.append(reply.last_s)
    return times


async def kept(client: Client, content: bytes, seconds: float) -> list[float]:
    """One request again and again on one connection, or on the next where the server ends it; seconds each took.

    Raises RuntimeError where a reply is not 200.
    """
    times: list[float] = []
    connection: Connection | None = None
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        if connection is None or not connection.open:
            connection = await client.connect()
        reply = await connection.request(content, began)
        if reply.status != 200:
            raise RuntimeError(f"the server answers {reply.status}: {reply.body[-500:]!r}")
        times.append(reply.last_s)
    if connection is not None:
        connection.close()
    return times


async def short(client: Client, figures: Figures) -> None:
    one_token = client.completion(1, 1, keep=True, stream=False)
    for what, content in (("/healthz", client.page("/healthz", keep=True)), ("one token", one_token)):
        began, used = time.perf_counter(), time.process_time()
        replies = await asyncio.gather(*(kept(client, content, SHORT_S) for _ in range(SHORT_AT_ONCE)))
        seconds = time.perf_counter() - began
        rate, cores = sum(map(len, replies)) / seconds, (time.process_time() - used) / seconds
        figures.short.setdefault(what, []).append((rate, cores))
    figures.alone.append(await kept(client, one_token, SHORT_S))


async def crowd(client: Client, clients: int) -> None:
    """All at once; each complete reply is checked for its end and its number of tokens."""
    print(f"\n{clients} clients at once, {TOKENS} tokens each:", flush=True)
    began = time.perf_counter()
    replies = await asyncio.gather(
        *(client.ask(client.completion(TOKENS, i)) for i in range(clients)), return_exceptions=True
    )
    seconds = time.perf_counter() - began
    kinds: Counter[str] = Counter()
    first: list[float] = []
    for reply in replies:
        if isinstance(reply, BaseException):
            kinds[f"{type(reply).__name__}: {reply}"] += 1
        elif reply.complete(TOKENS):
            kinds["complete"] += 1
            assert reply.first_s is not None
            first.append(reply.first_s)
        elif reply.status == 200:
            kinds["200, but not complete"] += 1
        else:
            kinds[str(reply.status)] += 1
    print(f"  {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}; all done after {seconds:.1f} s")
    if first:
        print(
            f"  {kinds['complete'] * TOKENS / seconds:,.0f} tokens/s; first text of the complete ones: {spread(first)}"
        )


def resident_mib(pid: int | None) -> float | None:
    """Of the process and its children: in a container an init stands before the server."""
    if pid is None:
        return None
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return (int(found[1]) / 1024 if found else 0.0) + sum(resident_mib(int(child)) or 0.0 for child in children)


async def soak(client: Client, requests: int, at_once: int, minutes: float, pid: int | None) -> None:
    """Short requests, one after the other on each of a few connections."""
    print(f"\n{requests:,} requests for 1 to {SOAK_TOKENS} tokens, {at_once} at a time:", flush=True)
    began, numbers = time.perf_counter(), iter(range(requests))
    kinds: Counter[str] = Counter()
    tenth = max(1, requests // 10)

    def tell() -> None:
        memory = resident_mib(pid)
        said = "unknown: which process is it? (--pid)" if memory is None else f"{memory:.1f} MiB"
        done, seconds = sum(kinds.values()), time.perf_counter() - began
        print(f"  after {done:>7,} requests, {seconds:>6.1f} s: resident memory {said}", flush=True)

    async def worker() -> None:
        connection: Connection | None = None
        for i in numbers:
            if time.perf_counter() - began > 60 * minutes:
                break
            tokens = 1 + i % SOAK_TOKENS
            try:
                if connection is None or not connection.open:
                    connection = await client.connect()
                asked = connection.request(client.completion(tokens, i, keep=True), time.perf_counter())
                reply = await asyncio.wait_for(asked, LONGEST_S)
                kinds["complete" if reply.complete(tokens) else f"{reply.status}, not complete"] += 1
            except (OSError, TimeoutError) as error:
                kinds[type(error).__name__] += 1
                if connection is not None:
                    connection.close()
            if sum(kinds.values()) % tenth == 0:
                tell()
        if connection is not None:
            connection.close()

    tell()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    seconds = time.perf_counter() - began
    print(f"  {', '.join(f'{count:,} {kind}' for kind, count in sorted(kinds.items()))}", end="")
    print(f"; {sum(kinds.values()) / seconds:,.0f} requests/s", end="")
    print(f"; stopped after {minutes:g} minutes (--soak-minutes)" if sum(kinds.values()) < requests else "")


def spread(seconds: Sequence[float]) -> str:
    return f"median {1000 * np.median(seconds):.1f} ms, p95 {1000 * np.percentile(seconds, 95):.1f} ms"


def median_and_range(values: Sequence[float], form: str) -> str:
    middle = format(float(np.median(values)), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}} to {max(values):{form}})"


def report(figures: Figures, streams: int) -> None:
    if figures.tokens_per_s:
        print(
            f"\n{streams} streams of {TOKENS} tokens: {median_and_range(figures.tokens_per_s, ',.0f')} tokens/s", end=""
        )
        print(f"; the client took {median_and_range(figures.client_cores, '.2f')} of a core")
    for name, rounds in (("idle", figures.idle), (f"beside {streams} streams", figures.busy)):
        if rounds:
            times = [each for one in rounds for each in one]
            print(f"First text, {name}, {len(times)} requests: {spread(times)}")
    if figures.idle and figures.busy:
        for what, share in (("median", 50), ("p95", 95)):
            pairs = zip(figures.busy, figures.idle, strict=True)
            values = [float(np.percentile(busy, share) / np.percentile(idle, share)) for busy, idle in pairs]
            print(f"First text, {what}, beside the streams / idle: {median_and_range(values, '.2f')}")
    if figures.pages:
        times = [each for one in figures.pages for each in one]
        print(f"/cgi-bin/test, {len(times)} visits, to the last byte: {spread(times)}")
    for what, rounds in figures.short.items():
        rates, cores = zip(*rounds, strict=True)
        print(f"{what}, {SHORT_AT_ONCE} kept connections: {median_and_range(rates, ',.0f')} requests/s", end="")
        print(f"; the client took {median_and_range(cores, '.2f')} of a core")
    if figures.alone:
        times = [each for one in figures.alone for each in one]
        print(f"one token, one kept connection, {len(times)} requests: {spread(times)}")


@contextmanager
def server(models: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """`gptbox serve` with a model loaded; its address and its process."""
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
    """A run with one snapshot, of random weights."""
    run = RunFolder(models, "random")
    publish(run.snapshot(1), SHAPES["default"])
    run.point("best", run.snapshot(1))
    run.point("latest", run.snapshot(1))


async def measure(options: argparse.Namespace, client: Client, pid: int | None) -> None:
    streams, figures = options.streams, Figures()
    await client.text(TOKENS, 0)  # to warm up
    for i in range(options.rounds):
        seed = 1_000_000 * (i + 1)
        if "load" in options.only:
            await load(client, streams, seed, figures)
        if "first-text" in options.only:
            figures.idle.append(await probe(client, options.probes, seed))
            async with under_load(client, streams, seed):
                figures.busy.append(await probe(client, options.probes, seed))
        if "page" in options.only:
            figures.pages.append(await visits(client, options.views))
        if "short" in options.only:
            await short(client, figures)
    report(figures, streams)
    if options.clients:
        await crowd(client, options.clients)
    if options.soak:
        await soak(client, options.soak, options.at_once, options.soak_minutes, pid)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server on this machine, such as http://localhost")
    parser.add_argument("--models", type=Path, help="a models folder to serve (default: random weights)")
    parser.add_argument("--pid", type=int, help="of the server that --url names, for its memory")
    parts = ("load", "first-text", "page", "short")
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=32, metavar="N", help="at once (default: 32)")
    parser.add_argument("--probes", type=int, default=40, metavar="N", help="for the first text, a round (default: 40)")
    parser.add_argument("--views", type=int, default=20, metavar="N", help="of the page, a round (default: 20)")
    parser.add_argument("--clients", type=int, default=0, metavar="N", help="at once; 500 is a crowd (default: none)")
    parser.add_argument(
        "--soak", type=int, default=0, metavar="N", help="short requests; 100000 is long (default: none)"
    )
    parser.add_argument("--at-once", type=int, default=16, metavar="N", help="of the short requests (default: 16)")
    parser.add_argument("--soak-minutes", type=float, default=30, metavar="M", help="at most (default: 30)")
    options = parser.parse_args()
    if options.url and options.models:
        parser.error("--models is for a server that is started here; leave out --url or --models")
    most = max(options.streams, options.clients, options.at_once) + 64
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < most:
        parser.error(f"this needs {most} open files: ulimit -n {most}")
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
