// The page: a source, a session, a way, and what is shown of them.

import { ask, Session } from "/session.js";
import { Source } from "/source.js";
import { Controls } from "/controls.js";
import { WebRtc, WebSocketJpeg } from "/ways.js";

const find = (id) => document.getElementById(id);
const source = new Source(find("input"));
const controls = new Controls((message) => session?.send(message));
const NAMES = { webrtc: "WebRTC", websocket: "WebSocket and JPEG" };

let stream = null;
let session = null;
let way = null;
let state = "idle";

async function learn() {
  try {
    stream = await ask("/api/stream");
  } catch (error) {
    find("token-form").hidden = error.status !== 401;
    note(error.message, "error");
    return;
  }
  find("token-form").hidden = true;
  note("");
  document.documentElement.style.setProperty("--ratio", stream.width / stream.height);
  find("facts").textContent = `${stream.width}×${stream.height}, ${stream.step_list.length} denoising steps`;
  if (!stream.webrtc) find("way").querySelector("[value=webrtc]").remove();
  controls.begin(stream);
}

async function begin(use) {
  if (!stream) await learn();
  if (!stream) return;
  try {
    await use();
  } catch (error) {
    note(`There is no video: ${error.message}.`, "error");
    return;
  }
  source.stream?.getVideoTracks()[0].addEventListener("ended", stop);
  show("input", true);
  find("stop").hidden = false;
  note("");
  if (session) await chooseWay();
  else open();
}

function open() {
  const own = session = new Session();
  let seated = false;
  own.addEventListener("status", ({ detail }) => {
    if (own !== session) return;
    showStatus(detail);
    if (detail.place === 0 && detail.state !== "queued" && !seated) {
      seated = true;
      controls.repeat();
      chooseWay();
    }
  });
  own.addEventListener("refused", ({ detail }) => note(`${detail.problem}. ${detail.remedy}.`, "error"));
  own.addEventListener("done", () => find("note").dataset.kind === "error" && note(""));
  own.addEventListener("over", ({ detail }) => {
    if (own !== session) return;
    stop();
    setState("error", "over");
    note(detail ? `${detail.problem}. ${detail.remedy}.` : "The server does not answer any more.", "error");
  });
}

async function chooseWay() {
  const wanted = find("way").value;
  const own = session;
  if (wanted !== "websocket" && stream.webrtc) {
    const reason = await tryWebRtc();
    if (!reason || own !== session) return;
    if (wanted === "webrtc") return note(`WebRTC: ${reason}. Choose another connection, or automatic.`, "error");
    note(`WebRTC did not work here (${reason}); the pictures go by WebSocket.`);
  }
  await go(new WebSocketJpeg(session, source, stream, find("output-canvas")), "output-canvas");
}

async function tryWebRtc() {
  const own = new WebRtc(session, source, stream, find("output-video"));
  own.onlost = () => own === way && tellLost();
  try {
    await go(own, "output-video");
    return null;
  } catch (error) {
    return error.message;
  }
}

function tellLost() {
  note(`The WebRTC connection broke off; the pictures go by WebSocket.`);
  go(new WebSocketJpeg(session, source, stream, find("output-canvas")), "output-canvas");
}

async function go(next, element) {
  way?.stop();
  way = next;
  for (const id of ["output-video", "output-canvas"]) find(id).hidden = id !== element;
  find("output-empty").hidden = true;
  await next.start();
}

function stop() {
  const old = session;
  session = null;
  way?.stop();
  way = null;
  old?.close();
  source.stop();
  show("input", false);
  for (const id of ["output-video", "output-canvas", "stop"]) find(id).hidden = true;
  find("output-empty").hidden = false;
  for (const id of ["pause", "rewarm"]) find(id).disabled = true;
  for (const id of ["fps", "p50", "p99"]) find(id).textContent = "–";
  setState("idle", "ready");
}

function showStatus(status) {
  const queued = status.state === "queued";
  setState(status.state, queued ? `queued: ${status.place} of ${status.waiting}` : status.state);
  find("fps").textContent = status.fps.toFixed(1);
  for (const name of ["p50", "p99"]) {
    const latency = status[`latency_ms_${name}`];
    find(name).textContent = latency === null ? "–" : latency.toFixed(0);
  }
  find("rewarm").disabled = queued;
  find("pause").disabled = queued || status.frames_out === 0;
  find("pause").textContent = status.state === "paused" ? "Go on" : "Pause";
  find("output-empty").textContent = queued ? `You are number ${status.place} in the line` : "What the model makes of it";
  find("facts").textContent = `${stream.width}×${stream.height}, steps ${status.step_list.join(", ")}`
    + `${status.style === null ? "" : `, style ${status.style}`}`
    + `${status.way === "none" ? "" : `, by ${NAMES[status.way]}`}, ${status.frames_dropped} frames dropped`;
}

function setState(next, text) {
  state = next;
  find("state").dataset.state = next;
  if (find("state").textContent !== text) find("state").textContent = text;
}

function show(id, shown) {
  find(`${id}-empty`).hidden = shown;
}

function note(text, kind = "note") {
  Object.assign(find("note"), { textContent: text, hidden: !text });
  find("note").dataset.kind = kind;
}

function togglePause() {
  session?.send({ type: state === "paused" ? "resume" : "pause" });
}

find("camera").addEventListener("click", () => begin(() => source.useCamera()));
find("screen").addEventListener("click", () => begin(() => source.useScreen()));
find("file").addEventListener("change", ({ target }) => target.files[0] && begin(() => source.useFile(target.files[0])));
find("stop").addEventListener("click", stop);
find("pause").addEventListener("click", togglePause);
find("rewarm").addEventListener("click", () => session?.send({ type: "rewarm" }));
find("way").addEventListener("change", () => session && state !== "queued" && chooseWay());
find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", find("token").value);
  learn();
});
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea, button") || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = { " ": togglePause, r: () => find("rewarm").click(), p: () => find("prompts").querySelector(".text").focus(), s: () => find("style").focus() }[event.key];
  if (act) { event.preventDefault(); act(); }
});
window.addEventListener("pagehide", stop);
learn();
