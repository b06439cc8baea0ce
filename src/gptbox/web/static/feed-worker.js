/**
 * A shared worker that holds one feed for all tabs of a browser: HTTP/1.1 allows six connections to a host, and a feed
 * a tab would leave the seventh none. A tab sends "watch" as long as somebody sees it, and "leave" when it goes. At once,
 * and whenever there is news, it gets {status}, {lost: true}, or {} where nothing is known yet.
 */

import { Feed, LEASE_MS } from "./feed.js";

/** Each tab, and how long it gets the news without being seen again. */
const tabs = new Map();
let last = {};

function tell(message) {
  last = message;
  for (const [tab, end] of tabs) {
    if (Date.now() < end) tab.postMessage(message);
    else tabs.delete(tab);
  }
}

const address = new URL("../api/events", import.meta.url);
const feed = new Feed(address, (status) => tell({ status }), () => tell({ lost: true }));

addEventListener("connect", ({ ports: [tab] }) => {
  tab.addEventListener("message", ({ data }) => {
    if (data === "leave") return tabs.delete(tab);
    if (!feed.source) last = {}; // what was known when everybody had left
    feed.watch();
    tabs.set(tab, Date.now() + LEASE_MS);
    tab.postMessage(last);
  });
  tab.start();
});
