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
  const busy = server.queued > 0 ? `busy, ${server.queued} waiting` : "";
  const state = !server.ready ? "waiting" : server.queued > 0 ? "busy" : "ready";
  showConnection(state, [model, progress, busy].filter(Boolean).join(" · "));
  setText($("server"), `gptbox ${server.version ?? ""}, up ${format.duration(server.uptime_s)}`);
  store.update({ status, isLost: false });
}

function onLost() {
  if ($("connection").dataset.state === "lost") return;
  showConnection("lost", "Connection lost. Reconnecting…");
  announce("Connection lost. Reconnecting.");
  store.update({ isLost: true });
}

watchStatus(onStatus, onLost);
