
// Curves with two axes, drawn at the width of their container, so that text keeps its size.
const PLOT_HEIGHT = 250;
const MARGIN = { top: 10, right: 12, bottom: 40, left: 48 };

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Roughly `about` round numbers from low to high.
function roundTicks(low, high, about) {
  const rough = Math.max(high - low, 1e-9) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-6);
  const ticks = [];
  for (let place = first; place * step <= high + step * 1e-6; place += 1) ticks.push(place * step);
  return ticks;
}

// axis: {low, high, title, ticks, text(value), isLog}. lines: {kind, name, points: [{x, y, low, high, title}], dots}.
function plot(about, x, y, lines, { diagonal = false, caption = "" } = {}) {
  const svg = shape("svg", { role: "img", "aria-label": about, height: PLOT_HEIGHT });
  const place = element("div", { class: "place" }, svg);
  const draw = () => {
    const width = Math.max(place.clientWidth, 160);
    svg.setAttribute("viewBox", `0 0 ${width} ${PLOT_HEIGHT}`);
    svg.setAttribute("width", width);
    svg.replaceChildren(...drawn(width, x, y, lines, diagonal));
  };
  new ResizeObserver(draw).observe(place);
  const named = lines.filter((line) => line.name);
  const key = named.length > 1 ? [element("ul", { class: "key" }, ...named.map((line) => element("li", { class: line.kind }, line.name)))] : [];
  return element("figure", { class: "curves" }, ...key, place, element("figcaption", {}, caption));
}

function drawn(width, x, y, lines, diagonal) {
  const scale = (axis, from, to) => {
    const mapped = axis.isLog ? Math.log : (value) => value;
    const [low, high] = [mapped(axis.low), mapped(axis.high)];
    return (value) => from + ((mapped(value) - low) / (high - low || 1)) * (to - from);
  };
  const bottom = PLOT_HEIGHT - MARGIN.bottom;
  const atX = scale(x, MARGIN.left, width - MARGIN.right), atY = scale(y, bottom, MARGIN.top);
  const shapes = y.ticks.flatMap((tick) => [
    shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: atY(tick), y2: atY(tick) }),
    shape("text", { class: "tick", x: MARGIN.left - 7, y: atY(tick) + 4, "text-anchor": "end" }, y.text(tick)),
  ]);
  let taken = -Infinity;
  for (const tick of x.ticks) {
    const text = x.text(tick), half = 4 * text.length;
    const at = Math.min(Math.max(atX(tick), MARGIN.left), width - MARGIN.right);
    if (at - half < taken + 8) continue;
    taken = at + half;
    const anchor = at + half > width ? "end" : "middle";
    shapes.push(shape("line", { class: "axis", x1: at, x2: at, y1: bottom, y2: bottom + 4 }), shape("text", { class: "tick", x: at, y: bottom + 17, "text-anchor": anchor }, text));
  }
  shapes.push(shape("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }));
  shapes.push(shape("text", { class: "tick", x: (MARGIN.left + width - MARGIN.right) / 2, y: PLOT_HEIGHT - 5, "text-anchor": "middle" }, x.title));
  if (diagonal) shapes.push(shape("line", { class: "diagonal", x1: atX(x.low), y1: atY(y.low), x2: atX(x.high), y2: atY(y.high) }));
  return [...shapes, ...lines.flatMap((line) => drawnLine(line, atX, atY))];
}

function drawnLine({ kind, points, dots }, atX, atY) {
  const shapes = points.filter((point) => point.low !== undefined).map((point) =>
    shape("line", { class: `${kind} interval`, x1: atX(point.x), x2: atX(point.x), y1: atY(point.low), y2: atY(point.high) }));
  const path = points.map((point) => `${atX(point.x)},${atY(point.y)}`).join(" ");
  shapes.push(shape("polyline", { class: `${kind} line`, points: path }));
  for (const point of points) {
    if (dots || points.length === 1) shapes.push(shape("circle", { class: `${kind} dot`, cx: atX(point.x), cy: atY(point.y), r: 3.5 }));
    const over = shape("circle", { class: "over", cx: atX(point.x), cy: atY(point.y), r: 9 });
    over.append(shape("title", {}, point.title));
    shapes.push(over);
  }
  return shapes;
}
