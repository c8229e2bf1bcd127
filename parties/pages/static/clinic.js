// One photograph at a time: handed to `tessera clinic` on this computer, and shown as it goes.

import { api, element, fail, gone, introduce, lines, say } from "/page.js";

const BINS = 32;
const MOST_CLASSES = 20; // that are shown, the likeliest
let current = 0; // which photograph the page is about; answers to former ones are dropped
let abort = null;
let limit = { max_bytes: Infinity, too_large: "" };
let size = { width: 1, height: 1 }; // of what the network sees, in pixels
const GONE = gone("tessera clinic");

// -- what is shown ------------------------------------------------------------------------------------------------

function warn(sentences) {
  const items = sentences.map((text) => {
    const item = document.createElement("li");
    item.textContent = `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
    return item;
  });
  element("warnings").replaceChildren(...items);
  element("warnings").hidden = !items.length;
}

function draw(id, encoded) {
  const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
  const panel = element(id);
  const [picture, histogram] = panel.querySelectorAll("canvas");
  const context = picture.getContext("2d");
  picture.width = size.width;
  picture.height = size.height;
  const pixels = context.createImageData(size.width, size.height);
  for (let i = 0; i < size.width * size.height; i++) {
    pixels.data.set([bytes[3 * i], bytes[3 * i + 1], bytes[3 * i + 2], 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  drawHistogram(histogram, bytes);
  panel.classList.add("done");
}

function drawHistogram(canvas, bytes) {
  const counts = new Array(BINS).fill(0);
  for (const byte of bytes) counts[Math.floor((byte * BINS) / 256)]++;
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  // One scale for all three: an even spread reaches a sixth of the height.
  const unit = (height * BINS) / (6 * bytes.length);
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
  counts.forEach((count, i) => {
    const tall = Math.min(height, count * unit);
    context.fillRect((i * width) / BINS, height - tall, width / BINS - 1, tall);
  });
}

function percent(p) {
  return p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`;
}

// What nothing has made a probability of is a number.
function showClasses(classes, activation) {
  const rows = [...classes].sort((a, b) => b.probability - a.probability).slice(0, MOST_CLASSES).map((found) => {
    const row = document.createElement("li");
    row.dataset.code = found.code;
    row.dataset.probability = found.probability;
    const name = document.createElement("span");
    name.textContent = found.name;
    const bar = document.createElement(activation === "none" ? "span" : "progress");
    if (activation !== "none") {
      bar.max = 1;
      bar.value = found.probability;
      bar.setAttribute("aria-label", found.name);
    }
    const figure = document.createElement("span");
    figure.className = "figure";
    figure.textContent = activation === "none" ? found.probability.toPrecision(4) : percent(found.probability);
    row.append(name, bar, figure);
    return row;
  });
  element("classes").replaceChildren(...rows);
  element("answer").hidden = false;
}

function seconds(s) {
  return s < 1 ? `${(1000 * s).toFixed(s < 0.1 ? 1 : 0)} ms` : `${s.toFixed(2)} s`;
}

function amount(bytes) {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;
}

function exchanged({ sent, received }) {
  return `${amount(sent)} sent, ${amount(received)} received`;
}

function showBill(run) {
  const rows = [
    ["Offline", "before the photograph is needed", seconds(run.offline.seconds), "–",
      `${amount(run.offline.bytes)} by the dealer${run.offline.from_stock ? ", ahead of time" : ""}`, exchanged(run.here.offline)],
    ["Online", "from the masked photograph to the answer", seconds(run.online.seconds), run.online.rounds,
      `${amount(run.online.bytes_per_party)} by each party`, exchanged(run.here.online)],
  ].map(([phase, meaning, ...cells]) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    const small = document.createElement("small");
    small.textContent = meaning;
    head.append(phase, small);
    row.append(head, ...cells.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  });
  const security = run.security === "malicious"
    ? "malicious security: a party that cheats is noticed before anything is revealed"
    : "semi-honest security: parties follow the protocol";
  element("bill-caption").textContent = `${run.parties} parties, ${security}.`;
  element("bill-rows").replaceChildren(...rows);
  element("bill").hidden = false;
}

// -- a photograph ---------------------------------------------------------------------------------------------------

const steps = {
  seen(step) {
    size = step;
    const balanced = step.balanced ? ", colours balanced" : "";
    element("size").textContent = `${step.width} × ${step.height} pixels${balanced}. `;
    warn(step.warnings);
    element("sharing").hidden = false;
    draw("seen", step.image);
    say("The dealer and the parties prepare…");
  },
  prepared() {
    say("Masking…");
  },
  masked(step) {
    draw("mask", step.mask);
    draw("masked", step.masked);
    say("The parties compute on what they cannot read…");
  },
  answered(step) {
    showClasses(step.classes, step.activation);
    element("notice").textContent = step.notice;
    showBill(step.run);
    say("Done. Drop another photograph when you like.");
  },
  failed: fail,
};

function clear() {
  element("failure").hidden = true;
  for (const id of ["sharing", "answer", "bill"]) element(id).hidden = true;
  for (const panel of document.querySelectorAll(".panels li")) panel.classList.remove("done");
}

async function predict(file) {
  const mine = ++current;
  abort?.abort();
  abort = new AbortController();
  clear();
  const photograph = element("photograph");
  if (photograph.src) URL.revokeObjectURL(photograph.src);
  photograph.src = URL.createObjectURL(file);
  photograph.hidden = false;
  element("invitation").hidden = true;
  // The server refuses it too; but a browser hands all of it over before it listens to the answer.
  if (file.size > limit.max_bytes) {
    fail({ message: limit.too_large });
    return;
  }
  say("Reading the photograph…");
  let last = "";
  try {
    const response = await api("/api/predict", { method: "POST", body: file, signal: abort.signal });
    for await (const line of lines(response)) {
      if (mine !== current) return;
      const step = JSON.parse(line);
      last = step.step;
      steps[last](step);
    }
    if (mine === current && last !== "answered" && last !== "failed") fail(GONE);
  } catch (error) {
    if (mine === current) {
      console.debug(error);
      fail(GONE);
    }
  }
}

function chosen(files) {
  if (files.length) predict(files[0]);
}

const drop = element("drop");
element("file").addEventListener("change", (event) => {
  chosen(event.target.files);
});
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  chosen(event.dataTransfer.files);
});
// Beside the zone, a dropped file would replace the page.
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
element("photograph").addEventListener("error", () => {
  element("photograph").hidden = true;
  element("invitation").hidden = false;
});

introduce(GONE, (about) => {
  limit = about;
  if (about.subject) element("choose-title").textContent = `A photograph of ${about.subject}`;
  return `model “${about.model}”`;
});
