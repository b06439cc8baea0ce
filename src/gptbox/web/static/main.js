/** The server's status: passed to the store, and summarised in the header and the footer. */

import { watchStatus } from "./api.js";
import { $, announce, setText } from "./dom.js";
import * as format from "./format.js";
import { store } from "./store.js";

function showConnection(state, text) {
  $("connection").dataset.state = state;
  setText($("connection"), text);
}

function onStatus(status) {
  const { server } = status;
  if ($("connection").dataset.state === "lost") announce("Reconnected.");
  const progress = format.progressLabel(status.training);
  const noModel = server.problem ? "No model can be loaded" : "No model yet";
  const model = server.ready ? `Model: ${format.modelName(server.model)}` : noModel;
  showConnection(server.ready ? "ready" : "waiting", [model, progress].filter(Boolean).join(" · "));
  const active = server.active > 0 ? `${format.count(server.active, "text")} being written` : "";
  const queued = server.queued > 0 ? `${server.queued} waiting` : "";
  const parts = [`gptbox ${server.version ?? ""}`.trim(), `up ${format.duration(server.uptime_s)}`, active, queued];
  setText($("server"), parts.filter(Boolean).join(" · "));
  store.update({ status });
}

function onLost() {
  if ($("connection").dataset.state === "lost") return;
  showConnection("lost", "Connection lost. Reconnecting…");
  announce("Connection lost. Reconnecting.");
}

setText($("api-url"), new URL("v1", document.baseURI).href);
watchStatus(onStatus, onLost);
