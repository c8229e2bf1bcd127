// All trainings of one client, and of one of them what is revealed, as `tessera jobs --page` on this computer hears it.

import { answer, api, element, fail, gone, introduce, lines, say } from "/page.js";
import { chart } from "/chart.js";

const EVERY = 2000; // ms from one look at all trainings to the next
const RECENT = 20; // checkpoints, by which the time that is left is told
const SHOWN = 200; // of the newest checkpoints, in numbers
const GONE = gone("tessera jobs --page");
const STATES = { going: "goes on", done: "done", stopped: "stopped", failed: "failed" };
const percent = (value, unit = 0.001) => `${(100 * value).toFixed(unit < 0.01 ? 1 : 0)} %`;
const plain = (value, unit = 0.0001) => value.toFixed(Math.max(0, Math.min(6, Math.ceil(-Math.log10(unit)))));
const CURVES = [
  ["Loss", "loss", plain],
  ["Balanced accuracy", "balanced_accuracy", percent],
  ["Accuracy", "accuracy", percent],
];
let jobs = [];
let chosen = ""; // which of them is shown below
let made = []; // its checkpoints
let following = null;

function text(kind, content, name = "") {
  const found = document.createElement(kind);
  found.textContent = content;
  if (name) found.className = name;
  return found;
}

function duration(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

function sentences(problem) {
  return [problem.message, problem.advice].filter(Boolean).map((said) => text("p", said.charAt(0).toUpperCase() + said.slice(1)));
}

const steps = (job) => `${job.step.toLocaleString("en")} of ${job.steps.toLocaleString("en")}`;
const current = () => jobs.find((job) => job.id === chosen);

// -- what is shown ------------------------------------------------------------------------------------------------

// Buttons stay where they are, so that who has one in focus keeps it.
function showJobs() {
  const list = element("jobs");
  const former = new Map([...list.children].map((item) => [item.dataset.id, item]));
  const items = jobs.map((job) => {
    const item = former.get(job.id) ?? document.createElement("li");
    if (!item.dataset.id) {
      item.dataset.id = job.id;
      const button = document.createElement("button");
      button.type = "button";
      button.addEventListener("click", () => choose(job.id));
      item.append(button);
    }
    const bar = document.createElement("progress");
    bar.max = job.steps;
    bar.value = job.step;
    bar.setAttribute("aria-label", `Steps of ${job.name}`);
    const button = item.firstChild;
    button.setAttribute("aria-pressed", String(job.id === chosen));
    button.replaceChildren(
      text("span", job.name, "name"), text("span", STATES[job.state], `state ${job.state}`), bar, text("span", steps(job), "figure"),
    );
    return item;
  });
  if (items.length !== list.children.length || items.some((item, i) => item !== list.children[i])) list.replaceChildren(...items);
  element("none").hidden = jobs.length > 0;
}

function left(job) {
  const recent = made.filter((each) => each.step > job.first).slice(-RECENT);
  if (job.state !== "going" || recent.length < 2) return "";
  const [from, to] = [recent[0], recent.at(-1)];
  return duration(((to.seconds - from.seconds) / (to.step - from.step)) * (job.steps - to.step));
}

function showJob() {
  const job = current();
  element("job").hidden = !job;
  if (!job) return;
  element("job-title").textContent = job.name;
  element("stop").hidden = !job.own || job.state !== "going";
  element("resume").hidden = !job.own || job.state === "going" || job.state === "done";
  const facts = [
    ["State", STATES[job.state]],
    ["Step", steps(job)],
    ["Epoch", job.epoch.toFixed(2)],
    ["Begun", new Date(1000 * job.since).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })],
    ["Time left", left(job)],
    ["Waits for", job.waits_for.join(", ")],
  ].filter(([, value]) => value);
  element("facts").replaceChildren(...facts.map(([name, value]) => {
    const fact = document.createElement("div");
    fact.append(text("dt", name), text("dd", value));
    return fact;
  }));
  element("why").hidden = !job.error;
  element("why").replaceChildren(...(job.error ? sentences(job.error) : []));
  const shown = CURVES.filter(([, key]) => made.some((each) => key in each));
  element("charts").replaceChildren(...shown.map(([name, key, written]) => {
    const points = made.filter((each) => key in each).map((each) => ({ step: each.step, value: each[key] }));
    return chart(name, points, Math.min(job.first, points[0].step - 1), job.steps, written);
  }));
  element("revealed").textContent = !job.own
    ? "It reads data of yours. What it reveals, it reveals to its client alone."
    : job.reveals.length ? "" : "It reveals nothing while it runs: its owners were asked for no more than that.";
  showNumbers(shown);
}

function showNumbers(shown) {
  element("all").hidden = !made.length;
  const columns = ["Step", "Epoch", "After", ...shown.map(([name]) => name)];
  element("columns").replaceChildren(...columns.map((name) => Object.assign(text("th", name), { scope: "col" })));
  element("checkpoints").replaceChildren(...made.slice(-SHOWN).reverse().map((each) => {
    const row = document.createElement("tr");
    row.append(Object.assign(text("th", each.step.toLocaleString("en")), { scope: "row" }));
    const cells = [each.epoch.toFixed(2), duration(each.seconds)];
    for (const [, key, written] of shown) cells.push(key in each ? written(each[key]) : "–");
    row.append(...cells.map((cell) => text("td", cell)));
    return row;
  }));
}

// Once a frame, however many checkpoints come at a time.
let waiting = false;
function show() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    showJobs();
    showJob();
  });
}

// -- what is asked ------------------------------------------------------------------------------------------------

function choose(id) {
  if (id === chosen) return;
  chosen = id;
  made = [];
  following?.abort();
  following = null;
  if (current()?.own) follow(id);
  show();
}

async function follow(id) {
  const mine = new AbortController();
  const heard = [];
  following = mine;
  try {
    const response = await api(`/api/jobs/${id}/follow`, { signal: mine.signal });
    for await (const line of lines(response)) {
      if (following !== mine) return;
      const step = JSON.parse(line);
      // Why a training has failed is said with its state.
      if (step.step === "made") heard.push(step.made);
      if (heard.length >= made.length) made = heard;
      show();
    }
  } catch (error) {
    if (!mine.signal.aborted) console.debug(error);
  }
  if (following === mine) following = null;
}

let lost = false;
async function look() {
  try {
    jobs = (await answer("/api/jobs")).jobs;
    if (lost) element("failure").hidden = true;
    lost = false;
    if (!current() && jobs.length) choose(jobs[0].id);
    else if (current()?.own && current().state === "going" && !following) follow(chosen);
    show();
  } catch (error) {
    console.debug(error);
    lost = true;
    fail(error.step ? error : GONE);
  }
}

async function act(kind, doing, done) {
  for (const id of ["stop", "resume"]) element(id).disabled = true;
  element("failure").hidden = true;
  say(doing);
  try {
    const job = await answer(`/api/jobs/${chosen}/${kind}`, { method: "POST" });
    await look();
    choose(job.id);
    say(done);
  } catch (error) {
    console.debug(error);
    fail(error.step ? error : GONE);
  }
  for (const id of ["stop", "resume"]) element(id).disabled = false;
}

element("stop").addEventListener("click", () => act("stop", "Stopping…", "Stopped: what it has come to stays."));
element("resume").addEventListener("click", () => act("resume", "Resuming…", "It goes on from the last checkpoint."));

async function main() {
  await introduce(GONE);
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((next) => setTimeout(next, EVERY));
  }
}

main();
