
"use strict";
// All outside data enter the page as text or attribute values, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const whole = (number) => Math.round(number).toLocaleString("en");
const count = (number, noun) => `${whole(number)} ${noun}${number === 1 ? "" : "s"}`;
const precise = (number) => Number(number.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
// Does not round a part to 0 % or to 100 %.
const percent = (part, all) => {
  const share = all ? (100 * part) / all : 0;
  if (share > 0 && share < 0.1) return "< 0.1 %";
  if (share > 99.9 && share < 100) return "> 99.9 %";
  return `${share.toFixed((share < 10 || share > 99) && share % 1 ? 1 : 0)} %`;
};
const percentOf = (part, all, noun) => `${percent(part, all)} of ${count(all, noun)}`;
const fileName = (uri) => uri.replace(/\/+$/, "").split("/").pop() || uri;

function fact(name, value, attributes) {
  return element("div", {}, element("dt", {}, name), element("dd", attributes, ...[value].flat()));
}

function bar(share) {
  const inner = element("span");
  inner.style.width = `${100 * share}%`;
  return element("span", { class: "track" }, inner);
}

// The address of an image if a browser may open it: on the web, or a file if the page is a file. The browser loads
// nothing until somebody follows the link.
function reachable(link) {
  if (typeof link !== "string") return null;
  const isLocal = /^\.\.?\//.test(link);
  try {
    const url = new URL(link, isLocal ? location.href : undefined);
    if (url.username || url.password) return null;
    const allowed = isLocal ? location.protocol === "file:" && url.protocol === "file:" : ["http:", "https:"].includes(url.protocol);
    return allowed ? url.href : null;
  } catch {
    return null;
  }
}

// A link to an image around some nodes; the nodes alone if the image cannot be reached.
function linked(row, attributes, ...children) {
  const href = reachable(row.link);
  if (href === null) return element("span", attributes, ...children);
  return element("a", { ...attributes, href, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

function picture(row, alt) {
  if (row.thumbnail === null) return element("span", { class: "picture" }, "no thumbnail");
  return element("img", { class: "picture", alt, loading: "lazy", decoding: "async", src: `data:image/jpeg;base64,${row.thumbnail}` });
}

// One decimal, for columns of numbers.
const share = (part, all) => (all ? `${((100 * part) / all).toFixed(1)} %` : "–");
const signed = (number, digits) => `${number > 0 ? "+" : number < 0 ? "−" : ""}${Math.abs(number).toFixed(digits)}`;

// The first column is text, the others are numbers. Cells may be nodes.
function table(caption, head, rows) {
  const cell = (name, attributes, content) => element(name, attributes, ...[content].flat());
  return element("div", { class: "scroll" }, element("table", { "aria-label": caption },
    element("thead", {}, element("tr", {}, ...head.map((text) => cell("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map(([name, ...cells]) =>
      element("tr", {}, cell("th", { scope: "row" }, name), ...cells.map((content) => cell("td", {}, content)))))));
}

// The distance of two label distributions in words, and the labels that changed most. Totals are the predicted images of
// two nights; without them the table has no shares. Labels after the first `first` are folded away.
function labelDrift(drift, before, now, totals = null, first = Infinity) {
  if (drift === null) return [element("p", { class: "note" }, "One side has no labels.")];
  const distance = totals === null
    ? `Total variation ${precise(drift.total_variation)}: the share of images that need another label to make both sides alike.`
    : `${percentOf(drift.total_variation * totals[1], totals[1], "predicted image")} would need another label to match the shares of the night before (total variation ${precise(drift.total_variation)}).`;
  const about = element("p", { class: "note" }, `${distance} Jensen–Shannon divergence: ${precise(drift.jensen_shannon)} bits.`);
  if (!drift.labels.length) return [about, element("p", { class: "note" }, "No label’s share changed.")];
  const most = Math.max(...drift.labels.map((one) => Math.max(one.share_a, one.share_b)));
  const cell = (number, side) => (totals === null ? whole(number) : [whole(number), " ", element("small", {}, share(number, totals[side]))]);
  const head = (name, side) => (totals === null ? name : [name, " ", element("small", {}, `of ${count(totals[side], "image")}`)]);
  const rows = drift.labels.map((one) => [one.label, cell(one.a, 0), cell(one.b, 1), signed(100 * one.change, 1),
    element("span", { class: "two" }, bar(one.share_a / most), bar(one.share_b / most))]);
  const made = (some, caption) => table(caption, ["Label", head(before, 0), head(now, 1), "% points", element("span", { class: "hidden" }, "Shares")], some);
  const shown = [about, made(rows.slice(0, first), "Labels with the largest change of their share")];
  const others = rows.slice(first);
  if (others.length) shown.push(element("details", {}, element("summary", {}, `${count(others.length, "more label")}`), made(others, "More labels whose share changed")));
  return shown;
}

function embeddingDrift(drift, a = "A", b = "B") {
  if (drift === null) return "";
  if (!drift.comparable) return `The mean embeddings are not compared: ${drift.why_not}.`;
  const cosine = drift.cosine_distance === null ? "undefined, as one of them is zero" : precise(drift.cosine_distance);
  return `Mean embeddings: cosine distance ${cosine}, L2 distance ${precise(drift.l2_distance)}, lengths ${precise(drift.length_a)} (${a}) and ${precise(drift.length_b)} (${b}).`;
}
