"use strict";
// A chat with the server that this page came from. Everything that a model wrote goes into the page as text, never as HTML.

const $ = (id) => document.getElementById(id);
const store = {
  get: (name, other) => { try { return JSON.parse(sessionStorage.getItem(name)) ?? other; } catch { return other; } },
  set: (name, value) => { try { sessionStorage.setItem(name, JSON.stringify(value)); } catch { /* full, or forbidden */ } },
};
let messages = store.get("messages", []);
let reply = null; // an AbortController while one is written

function headers() {
  const key = store.get("key", "");
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

function askForKey(wanted) {
  $("keyrow").hidden = !wanted;
  if (wanted) $("key").focus();
}

async function problem(answer) {
  if (answer.status === 401) askForKey(true);
  const told = await answer.json().catch(() => null);
  return told?.error?.message ?? told?.error ?? `the server answered ${answer.status}`;
}

// The conversation. ---------------------------------------------------------------------------------

function addTurn(role, text) {
  const turn = document.createElement("article");
  turn.className = `turn ${role}`;
  const who = document.createElement("h2");
  who.textContent = role === "user" ? "You" : "Model";
  const body = document.createElement("div");
  body.textContent = text;
  turn.append(who, body);
  $("log").append(turn);
  return body;
}

function showWords(body, text, rounds) {
  // Words of whole rounds in the colour of who wrote them, and the rest of the text behind them.
  const parts = [];
  let at = 0;
  for (const [word, origin] of rounds.flatMap((round) => round.words)) {
    const found = text.indexOf(word, at); // behind letters of several tokens, of which none is a word by itself
    if (!word || found < 0 || found > at + 8) continue;
    const span = document.createElement("span");
    span.className = { draft: "draft", "n-gram": "ngram" }[origin] ?? "own";
    span.textContent = word;
    parts.push(text.slice(at, found), span);
    at = found + word.length;
  }
  body.replaceChildren(...parts, text.slice(at));
}

function atEnd() {
  const main = document.querySelector("main");
  return main.scrollHeight - main.scrollTop - main.clientHeight < 80;
}

function toEnd() { const main = document.querySelector("main"); main.scrollTop = main.scrollHeight; }

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
    }
  }
}

async function ask(text) {
  messages.push({ role: "user", content: text });
  store.set("messages", messages);
  addTurn("user", text);
  const body = addTurn("assistant", "");
  body.setAttribute("aria-busy", "true");
  toEnd();
  reply = new AbortController();
  writing(true);
  const rounds = [];
  let said = "", failed = "";
  const begun = performance.now();
  try {
    const answer = await fetch("v1/chat/completions", {
      method: "POST", headers: headers(), signal: reply.signal,
      body: JSON.stringify({ messages, stream: true, rounds: true, stream_options: { include_usage: true } }),
    });
    if (!answer.ok) throw new Error(await problem(answer));
    for await (const chunk of events(answer)) {
      if (chunk.error) throw new Error(chunk.error.message);
      said += chunk.choices?.[0]?.delta?.content ?? "";
      if (chunk.rounds) { rounds.push(...chunk.rounds); drawAll(rounds); }
      const follow = atEnd();
      showWords(body, said, rounds);
      if (follow) toEnd();
      tellSpeed(rounds, begun);
    }
  } catch (error) {
    if (error.name !== "AbortError") failed = error.message;
  }
  body.removeAttribute("aria-busy");
  reply = null;
  writing(false);
  if (said) messages.push({ role: "assistant", content: said });
  else messages.pop();
  store.set("messages", messages);
  if (failed) {
    const note = document.createElement("p");
    note.className = "failed";
    note.setAttribute("role", "alert");
    note.textContent = `${failed}${said ? "" : ". The message was not kept."}`;
    body.after(note);
  }
}

function writing(now) {
  $("send").hidden = now;
  $("stop").hidden = !now;
  if (now) $("stop").focus(); else $("text").focus();
}

function tellSpeed(rounds, begun) {
  const n = rounds.reduce((sum, round) => sum + round.words.length, 0);
  if (!n) return;
  const seconds = (performance.now() - begun) / 1000;
  const read = rounds.reduce((sum, round) => sum + round.read_bytes, 0);
  const disk = read > 1e6 ? `, ${(read / n / 1e6).toFixed(0)} MB read a token` : "";
  $("speed").textContent = `${n} tokens, ${(n / seconds).toFixed(1)} a second, ${(n / rounds.length).toFixed(2)} a pass${disk}`;
}

// The pictures. -------------------------------------------------------------------------------------

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function drawAll(rounds) {
  if (!$("inside").open) return;
  drawLanes(rounds.slice(-12));
  const grown = rounds.filter((round) => round.tree.word.length > 1);
  if (grown.length) drawTree(grown[grown.length - 1].tree);
}

function drawLanes(rounds) {
  const total = rounds.reduce((sum, r) => sum + r.draft_seconds + r.verify_seconds, 0) || 1;
  const left = 64, width = 640 - left, parts = [];
  ["disk", "draft", "verifier"].forEach((name, i) => parts.push(shape("text", { x: 0, y: 18 + 26 * i }, name)));
  let at = 0;
  const bar = (lane, kind, start, seconds) => parts.push(shape("rect", {
    class: kind, x: left + (width * start) / total, y: 6 + 26 * lane, height: 18,
    width: Math.max((width * seconds) / total - 1, 0.5) }));
  for (const round of rounds) {
    if (round.draft_seconds > 0) bar(1, "drafting", at, round.draft_seconds);
    at += round.draft_seconds;
    if (round.stall_seconds > 0) bar(0, "disk", at, round.stall_seconds);
    bar(2, "verifying", at, round.verify_seconds);
    at += round.verify_seconds;
  }
  const sum = (name) => rounds.reduce((all, round) => all + round[name], 0);
  $("lanes").setAttribute("viewBox", "0 0 640 84");
  $("lanes").setAttribute("aria-label", `Of the last ${rounds.length} passes: ${sum("draft_seconds").toFixed(2)} seconds of ` +
    `drafting, ${sum("verify_seconds").toFixed(2)} of verifying, ${sum("stall_seconds").toFixed(2)} of them waiting for the disk`);
  $("lanes").replaceChildren(...parts);
}

function drawTree(tree) {
  const depth = [], place = [], widths = [];
  const below = tree.parent.map(() => []);
  tree.parent.forEach((parent, row) => { if (parent >= 0) below[parent].push(row); });
  let leaf = 0;
  const settle = (row, level) => {
    depth[row] = level;
    below[row].forEach((child) => settle(child, level + 1));
    place[row] = below[row].length ? place[below[row][0]] : leaf++;
    widths[level] = Math.max(widths[level] ?? 0, Math.min(tree.word[row].length, 12));
  };
  settle(0, 0);
  const starts = widths.reduce((all, n) => [...all, all[all.length - 1] + 24 + 7 * n], [10]);
  const x = (row) => starts[depth[row]], y = (row) => 14 + 20 * place[row];
  const taken = new Set(tree.accepted), parts = [];
  tree.parent.forEach((parent, row) => {
    if (parent < 0) return;
    parts.push(shape("line", { x1: x(parent), y1: y(parent), x2: x(row), y2: y(row), class: taken.has(row) ? "taken" : "" }));
  });
  tree.word.forEach((word, row) => {
    parts.push(shape("circle", { cx: x(row), cy: y(row), r: 4, class: taken.has(row) ? "taken" : "" }));
    parts.push(shape("text", { x: x(row) + 7, y: y(row) + 4 }, word.replace(/\n/g, "⏎").slice(0, 12)));
  });
  const width = Math.max(starts[starts.length - 1] + 20, 320);
  $("tree").setAttribute("viewBox", `0 0 ${width} ${20 * leaf + 14}`);
  $("tree").setAttribute("width", width);
  $("tree").setAttribute("aria-label", `${tree.word.length - 1} drafted words, of which ${tree.accepted.length - 1} ` +
    `were accepted: ${tree.accepted.slice(1).map((row) => tree.word[row]).join("") || "none"}`);
  $("tree").replaceChildren(...parts);
}

// The start. ----------------------------------------------------------------------------------------

async function showPlan() {
  const answer = await fetch("plan", { headers: headers() }).catch(() => null);
  if (!answer?.ok) {
    $("plan").textContent = answer ? await problem(answer) : "the server does not answer";
    return;
  }
  const { model, n_ctx: context, plan } = await answer.json();
  askForKey(false);
  const size = (n) => (n > 1e9 ? `${(n / 1e9).toFixed(2)} GB` : `${(n / 1e6).toFixed(0)} MB`);
  $("model").textContent = model;
  document.title = `${model} – cadcpp`;
  const memory = plan && `${size(plan.peak)} of ${size(plan.ram)} planned, ` +
    (plan.streams ? `every pass reads ${size(plan.read_bytes)}` : "everything fits");
  $("plan").textContent = `${context} tokens of context; ${memory ?? "llama.cpp alone, without drafts"}`;
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!$("keyrow").hidden) { store.set("key", $("key").value.trim()); askForKey(false); showPlan(); }
  const text = $("text").value.trim();
  if (!text || reply) return;
  $("text").value = "";
  ask(text);
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask").requestSubmit(); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") reply?.abort(); });
$("stop").addEventListener("click", () => reply?.abort());
$("new").addEventListener("click", () => {
  reply?.abort();
  messages = [];
  store.set("messages", messages);
  $("log").replaceChildren();
  $("speed").textContent = "";
  $("text").focus();
});
for (const { role, content } of messages) addTurn(role, content);
toEnd();
showPlan();
