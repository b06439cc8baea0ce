/**
 * A shared worker that holds one status feed for all tabs: browsers limit HTTP/1.1 to six connections per host, so with
 * one feed per tab the seventh tab would have none. A tab sends "watch" while it is visible and "leave" when it goes.
 * It gets {status} or {lost: true} at once and on every change, or {} while nothing is known.
 */

import { Feed, LEASE_MS } from "./feed.js";

/** Each tab, and when its lease ends unless it sends "watch" again. */
const tabs = new Map();
let latest = {};

function broadcast(message) {
  latest = message;
  for (const [tab, expiresAt] of tabs) {
    if (Date.now() < expiresAt) tab.postMessage(message);
    else tabs.delete(tab);
  }
}

// This file is static/FINGERPRINT/feed-worker.js.
const url = new URL("../../api/events", import.meta.url);
const feed = new Feed(url, (status) => broadcast({ status }), () => broadcast({ lost: true }));

addEventListener("connect", ({ ports: [tab] }) => {
  tab.addEventListener("message", ({ data }) => {
    if (data === "leave") return tabs.delete(tab);
    if (!feed.source) latest = {}; // stale since the feed was closed
    feed.watch();
    tabs.set(tab, Date.now() + LEASE_MS);
    tab.postMessage(latest);
  });
  tab.start();
});
