/** The run picker, and which snapshots of each run are kept: those that can still write and be asked. */

import { fetchModels } from "./api.js";
import { $, el } from "./dom.js";
import { stepOf } from "./format.js";
import { load, save } from "./storage.js";
import { store } from "./store.js";

const picker = $("run");

/** What the list was last fetched for. */
let fetchedFor = "";
let isFetching = false;

/** The kept snapshots, {best, steps} by run, of the list of models. */
function keptSnapshots(models) {
  const kept = new Map();
  for (const { id, root } of models) {
    const [run, snapshot] = id.split("@");
    if (!kept.has(run)) kept.set(run, { best: NaN, steps: [] });
    if (snapshot) kept.get(run).steps.push(stepOf(id));
    else kept.get(run).best = stepOf(root);
  }
  for (const { steps } of kept.values()) steps.sort((a, b) => a - b);
  return kept;
}

/** Fetch the list when there may be another snapshot or run, or a key. */
async function refresh() {
  const { status } = store.state;
  if (!status || document.hidden || isFetching) return;
  const { training, server } = status;
  const key = server.auth ? load("key", "") : "";
  const { run, phase, latest_snapshot: latest, best_snapshot: best } = training ?? {};
  const wanted = [run, phase, latest, best, server.model, key].join(" ");
  if (wanted === fetchedFor) return;
  if (server.auth && !key) return store.update({ kept: null });
  isFetching = true;
  try {
    store.update({ kept: keptSnapshots(await fetchModels()) });
    fetchedFor = wanted;
  } catch (error) {
    // Not permitted with this key: ask again with another. Otherwise the next status tries again.
    if (error.status === 401 || error.status === 403) {
      fetchedFor = wanted;
      store.update({ kept: null });
    }
  }
  isFetching = false;
}

function render() {
  const { kept, status, run } = store.state;
  const newest = status?.training?.run;
  // The newest run may have no model yet.
  const names = kept ? [...new Set([...(newest ? [newest] : []), ...kept.keys()])] : [];
  $("run-field").hidden = names.length < 2;
  const labels = [...picker.options].map((option) => option.value).join(" ");
  if (labels !== names.join(" ")) {
    picker.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  }
  picker.value = run && names.includes(run) ? run : newest ?? names[0] ?? "";
}

store.subscribe(({ status }) => status, refresh);
store.subscribe(({ status }) => status?.training?.run, render);
store.subscribe(({ kept }) => kept, render);
store.subscribe(({ run }) => run, (run) => {
  save("run", run);
  render();
});
document.addEventListener("visibilitychange", refresh);
picker.addEventListener("change", () => {
  const isNewest = picker.value === store.state.status?.training?.run;
  store.update({ run: isNewest ? null : picker.value, snapshot: null });
});
if (load("run", null)) store.update({ run: load("run", null) });
