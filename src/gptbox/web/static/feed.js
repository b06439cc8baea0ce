/** The server's status feed: shared by all tabs where the browser has shared workers, else one per tab. */

const RETRY_MS = 3000;
/** How long a feed stays open after a tab was last visible: small servers have few connections. */
export const LEASE_MS = 60_000;
/** How long to wait for the shared worker's reply. */
const REPLY_TIMEOUT_MS = 10_000;

/** A feed with its own connection. `onStatus` gets every new status; `onLost` is called when the connection breaks. */
export class Feed {
  constructor(url, onStatus, onLost) {
    Object.assign(this, { url, onStatus, onLost, source: null, retryTimer: 0, leaseTimer: 0 });
  }

  /** Open the feed, or keep it open, for another LEASE_MS. It reconnects whenever it breaks. */
  watch() {
    clearTimeout(this.leaseTimer);
    this.leaseTimer = setTimeout(() => this.close(), LEASE_MS);
    if (!this.source || this.source.readyState === EventSource.CLOSED) this.open();
  }

  open() {
    clearTimeout(this.retryTimer);
    const source = new EventSource(this.url);
    this.source = source;
    source.addEventListener("status", (event) => this.onStatus(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      this.onLost();
      // The browser retries by itself, but not after an HTTP error such as a proxy's 502.
      if (source.readyState === EventSource.CLOSED) this.retryTimer = setTimeout(() => this.open(), RETRY_MS);
    });
  }

  close() {
    clearTimeout(this.leaseTimer);
    clearTimeout(this.retryTimer);
    this.source?.close();
    this.source = null;
  }
}

/** The same interface over feed-worker.js, which all tabs share. `onFailure` is called if the worker does not reply. */
export class SharedFeed {
  constructor(onStatus, onLost, onFailure) {
    Object.assign(this, { onStatus, onLost, onFailure, port: null, replyTimer: 0 });
  }

  watch() {
    if (!this.port) this.connect();
    clearTimeout(this.replyTimer);
    this.replyTimer = setTimeout(() => this.onFailure(), REPLY_TIMEOUT_MS);
    this.port.postMessage("watch");
  }

  connect() {
    const worker = new SharedWorker(new URL("feed-worker.js", import.meta.url), { type: "module", name: "gptbox" });
    worker.addEventListener("error", () => this.port && this.onFailure());
    this.port = worker.port;
    this.port.addEventListener("message", ({ data }) => {
      clearTimeout(this.replyTimer);
      if (data.lost) this.onLost();
      else if (data.status) this.onStatus(data.status);
    });
    this.port.start();
  }

  close() {
    clearTimeout(this.replyTimer);
    this.port?.postMessage("leave");
    this.port?.close();
    this.port = null;
  }
}
