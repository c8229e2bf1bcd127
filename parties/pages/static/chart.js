// A curve over steps, as SVG: an axis of round numbers, a line, and a point at its end.

const WIDTH = 440;
const HEIGHT = 190;
const LEFT = 44;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 24;
const MOST_POINTS = 400; // of a line: means of neighbours, where there are more

function shape(kind, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// Round numbers from below the least to above the largest, about four of them.
export function ticks(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const first = Math.floor(low / unit + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / unit - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * unit);
}

export function thinned(points, most = MOST_POINTS) {
  if (points.length <= most) return points;
  return Array.from({ length: most }, (_, i) => {
    const some = points.slice(Math.floor((i * points.length) / most), Math.floor(((i + 1) * points.length) / most));
    return { step: some.at(-1).step, value: some.reduce((sum, point) => sum + point.value, 0) / some.length };
  });
}

// `points`: of {step, value}, in order; `first` to `steps`: what the axis spans; `written`: how a value is.
export function chart(name, points, first, steps, written) {
  const values = points.map((point) => point.value);
  const axis = ticks(Math.min(...values), Math.max(...values));
  const [low, high] = [axis[0], axis.at(-1)];
  const x = (step) => LEFT + ((step - first) / Math.max(1, steps - first)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - BOTTOM - TOP);
  const last = points.at(-1);
  const label = `${name}: ${written(points[0].value)} at step ${points[0].step}, ${written(last.value)} at step ${last.step}`;
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const value of axis) {
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
    svg.append(shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, written(value, axis[1] - axis[0])));
  }
  svg.append(shape("text", { x: LEFT, y: HEIGHT - 6 }, `step ${first.toLocaleString("en")}`));
  svg.append(shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, steps.toLocaleString("en")));
  const corners = thinned(points).map((point) => `${x(point.step).toFixed(1)},${y(point.value).toFixed(1)}`);
  svg.append(shape("polyline", { class: "line", points: corners.join(" ") }));
  svg.append(shape("circle", { class: "last", cx: x(last.step).toFixed(1), cy: y(last.value).toFixed(1), r: 3.5 }));
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const now = document.createElement("span");
  now.className = "figure";
  now.textContent = written(last.value);
  caption.append(name, now);
  figure.append(caption, svg);
  return figure;
}
