/** The page's wiring: the server's states go to the writing and the training side. */

import { watchStatus } from "./api.js";
import { $, announce, say } from "./dom.js";
import * as results from "./results.js";
import * as samples from "./samples.js";
import * as training from "./training.js";
import { count, duration, modelName, progress } from "./words.js";
import * as writer from "./writer.js";

function connection(state, text) {
  $("connection").dataset.state = state;
  say($("connection"), text);
}

function onStatus(status) {
  const { server } = status;
  if ($("connection").dataset.state === "lost") announce("Connected again.");
  const now = progress(status.training);
  const none = server.problem ? "No model can be loaded" : "No model yet";
  const model = server.ready ? `Model: ${modelName(server.model)}` : none;
  connection(server.ready ? "ready" : "waiting", [model, now].filter(Boolean).join(" · "));
  const others = server.active > 0 ? `${count(server.active, "text")} being written` : "";
  const queued = server.queued > 0 ? `${server.queued} waiting` : "";
  const parts = [`gptbox ${server.version ?? ""}`.trim(), `up ${duration(server.uptime_s)}`, others, queued];
  say($("server"), parts.filter(Boolean).join(" · "));
  writer.update(status);
  training.update(status);
}

function onLost() {
  if ($("connection").dataset.state === "lost") return;
  connection("lost", "Connection lost, trying again…");
  announce("Connection lost, trying again.");
}

say($("api-address"), new URL("v1", document.baseURI).href);
results.start();
samples.start();
training.start();
writer.start();
watchStatus(onStatus, onLost);
