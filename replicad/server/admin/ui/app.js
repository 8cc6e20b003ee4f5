// The page: asks /api/v1/status and /api/v1/matrix every two seconds while it is visible. Everything from the network is set as text, never as markup.
const EVERY_MS = 2000;
const ROWS_MAX = 1000;
const KEY = "replicad-token";
const at = (id) => document.getElementById(id);

const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("token")) {
  sessionStorage.setItem(KEY, fragment.get("token"));
  history.replaceState(null, "", location.pathname);
}

class Unauthorized extends Error {}

async function ask(path) {
  const token = sessionStorage.getItem(KEY);
  const response = await fetch(`/api/v1/${path}`, { headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: "no-store" });
  if (response.status === 401) throw new Unauthorized();
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? response.statusText);
  return answer;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function row(...cells) {
  const made = element("tr");
  made.append(...cells);
  return made;
}

function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  let unit = -1;
  do { bytes /= 1024; unit += 1; } while (bytes >= 1000 && unit < 3);
  return `${bytes.toFixed(1)} ${["KiB", "MiB", "GiB", "TiB"][unit]}`;
}

function files(count) {
  return `${count.toLocaleString()} ${count === 1 ? "file" : "files"}`;
}

function duration(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function showStatus({ node, store, stages, peers, problems }) {
  document.title = `${node.name} - replicad`;
  at("name").textContent = node.name;
  at("id").textContent = node.id;
  at("state").hidden = false;
  at("state").textContent = node.state;
  at("state").className = `pill ${node.state === "ok" ? "good" : "bad"}`;
  at("files").textContent = store.files.toLocaleString();
  at("wanted").textContent = store.wanted ? `fetching ${files(store.wanted)}, ${size(store.wanted_bytes)}` : "nothing to fetch";
  at("used").textContent = size(store.used_bytes);
  at("disk").value = store.total_bytes ? 1 - store.free_bytes / store.total_bytes : 0;
  at("free").textContent = `${size(store.free_bytes)} free of ${size(store.total_bytes)}`;
  at("stages").textContent = Object.entries(stages).map(([stage, count]) => `${stage} ${count}`).join(" \u00b7 ") || "none";
  at("linked").textContent = `${peers.filter((peer) => peer.linked).length} of ${peers.length} linked`;
  at("uptime").textContent = `version ${node.version}, up ${duration(node.uptime_s)}`;
  at("problems").replaceChildren(...problems.map((problem) => {
    const item = element("li", problem.message);
    if (problem.hint) item.append(element("code", problem.hint));
    return item;
  }));
  at("peers").replaceChildren(...peers.map((peer) => {
    const state = element("td");
    state.append(element("span", peer.linked ? "linked" : "offline", `pill ${peer.linked ? "good" : "bad"}`));
    const holds = element("td");
    if (peer.percent !== null) {
      const bar = element("progress");
      bar.max = 100;
      bar.value = peer.percent;
      holds.append(bar, `${peer.percent} %`);
    }
    const behind = peer.lag === null ? "not known" : peer.lag.files ? `${files(peer.lag.files)}, ${size(peer.lag.bytes)}` : "";
    const delay = element("td", peer.rtt_ms === null ? "" : `${peer.rtt_ms.toFixed(peer.rtt_ms < 10 ? 1 : 0)} ms`, "right");
    return row(element("td", peer.name), element("td", peer.site), element("td", peer.role), state, delay, holds, element("td", behind));
  }));
}

function cell(percent, wanted) {
  const made = element("td", undefined, "cell");
  const [text, kind] = !wanted ? ["", "none"] : percent === null ? ["--", "none"] : percent === 100 ? ["ok", "good"] : [`${percent} %`, "warn"];
  made.append(element("span", text, kind));
  return made;
}

function showMatrix({ nodes, rows, next }) {
  const filter = at("filter").value.toLowerCase();
  const shown = rows.filter((one) => `${one.share}/${one.path}`.toLowerCase().includes(filter));
  const [head, body] = [at("matrix").tHead, at("matrix").tBodies[0]];
  const columns = nodes.map((node) => {
    const made = element("th", node.name, node.linked ? "node" : "node away");
    made.title = node.id;
    return made;
  });
  head.replaceChildren(row(element("th", "File"), element("th", "Stage"), element("th", "Size", "right"), ...columns, element("th", "Copies", "right")));
  body.replaceChildren(...shown.map((one) => {
    const name = element("td", `${one.share}/${one.path}`, "file");
    name.title = one.sha256;
    const cells = one.percent.map((percent, index) => cell(percent, one.wanted[index]));
    return row(name, element("td", one.stage), element("td", size(one.size), "right"), ...cells, element("td", `${one.copies}/${one.copies_wanted}`, "right"));
  }));
  at("more").textContent = next ? `The first ${rows.length} names; replicad matrix shows all.` : shown.length ? "" : "No files.";
}

let matrix = null;
let busy = false;

async function refresh() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    const incomplete = at("incomplete").checked;
    const [status, found] = await Promise.all([ask("status"), ask(`matrix?limit=${ROWS_MAX}&incomplete=${incomplete}`)]);
    matrix = found;
    showStatus(status);
    showMatrix(matrix);
    at("content").hidden = false;
    at("login").hidden = at("trouble").hidden = true;
    at("pulse").className = "pulse on";
  } catch (error) {
    at("pulse").className = "pulse off";
    const login = error instanceof Unauthorized;
    at("login").hidden = !login;
    at("content").hidden = login || at("content").hidden;
    at("trouble").hidden = login && !sessionStorage.getItem(KEY);
    at("trouble").textContent = login ? "That token is not this node's." : `The daemon does not answer: ${error.message}`;
  } finally {
    busy = false;
  }
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("token").value.trim());
  at("token").value = "";
  refresh();
});
at("filter").addEventListener("input", () => matrix && showMatrix(matrix));
at("incomplete").addEventListener("change", refresh);
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, EVERY_MS);
refresh();
