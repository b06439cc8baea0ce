/** The server's feed of states: one for all tabs where the browser has shared workers, else one a tab. */

const RETRY_MS = 3000;
/** How long a feed goes on after a tab was last seen: small servers have few connections. */
export const LEASE_MS = 60_000;
/** How long a worker may take to answer. */
const PATIENCE_MS = 10_000;

/** A connection of its own. `onStatus` gets every new state; `onLost` is called whenever the connection breaks. */
export class Feed {
  constructor(address, onStatus, onLost) {
    Object.assign(this, { address, onStatus, onLost, source: null, retry: 0, lease: 0 });
  }

  /** Open the feed, or keep it open, for another minute. It is taken up again whenever it breaks. */
  watch() {
    clearTimeout(this.lease);
    this.lease = setTimeout(() => this.close(), LEASE_MS);
    if (!this.source || this.source.readyState === EventSource.CLOSED) this.open();
  }

  open() {
    clearTimeout(this.retry);
    const source = new EventSource(this.address);
    this.source = source;
    source.addEventListener("status", (event) => this.onStatus(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      this.onLost();
      // The browser tries again by itself, but not after an answer such as 502 from a proxy.
      if (source.readyState === EventSource.CLOSED) this.retry = setTimeout(() => this.open(), RETRY_MS);
    });
  }

  close() {
    clearTimeout(this.lease);
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
  }
}

/** The same by way of feed-worker.js, which all tabs share. `onFailure` is called where it does not answer. */
export class SharedFeed {
  constructor(onStatus, onLost, onFailure) {
    Object.assign(this, { onStatus, onLost, onFailure, port: null, patience: 0 });
  }

  watch() {
    if (!this.port) this.connect();
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.onFailure(), PATIENCE_MS);
    this.port.postMessage("watch");
  }

  connect() {
    const worker = new SharedWorker("static/feed-worker.js", { type: "module", name: "gptbox" });
    worker.addEventListener("error", () => this.port && this.onFailure());
    this.port = worker.port;
    this.port.addEventListener("message", ({ data }) => {
      clearTimeout(this.patience);
      if (data.lost) this.onLost();
      else if (data.status) this.onStatus(data.status);
    });
    this.port.start();
  }

  close() {
    clearTimeout(this.patience);
    this.port?.postMessage("leave");
    this.port?.close();
    this.port = null;
  }
}
