
"use strict";
// All that comes from outside is put into the page as text or as an attribute's value, never as HTML.
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
const percent = (part, all) => {
  const share = all ? (100 * part) / all : 0;
  return `${share > 0 && share < 0.1 ? "< 0.1" : share.toFixed(share < 10 && share % 1 ? 1 : 0)} %`;
};
const fileName = (uri) => uri.replace(/\/+$/, "").split("/").pop() || uri;

function fact(name, value, attributes) {
  return element("div", {}, element("dt", {}, name), element("dd", attributes, ...[value].flat()));
}

function bar(share) {
  const inner = element("span");
  inner.style.width = `${100 * share}%`;
  return element("span", { class: "track" }, inner);
}

function picture(row, alt) {
  if (row.thumbnail === null) return element("span", { class: "picture" }, "no thumbnail");
  return element("img", { class: "picture", alt, loading: "lazy", decoding: "async", src: `data:image/jpeg;base64,${row.thumbnail}` });
}

const share = (part, all) => (all ? `${((100 * part) / all).toFixed(1)} %` : "–");
const signed = (number, digits) => `${number > 0 ? "+" : number < 0 ? "−" : ""}${Math.abs(number).toFixed(digits)}`;

// A table whose first column is text and whose others are numbers; cells may be nodes.
function table(caption, head, rows) {
  const cell = (name, attributes, content) => element(name, attributes, ...[content].flat());
  return element("div", { class: "scroll" }, element("table", { "aria-label": caption },
    element("thead", {}, element("tr", {}, ...head.map((text) => cell("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map(([name, ...cells]) =>
      element("tr", {}, cell("th", { scope: "row" }, name), ...cells.map((content) => cell("td", {}, content)))))));
}

// How far two distributions of labels are from each other: two sentences, and the labels that changed most.
function labelDrift(drift, before, now) {
  if (drift === null) return [element("p", { class: "note" }, "One side has no labels.")];
  const about = element("p", { class: "note" }, `Total variation ${precise(drift.total_variation)} (the share of images that would need another label to make both alike), Jensen–Shannon divergence ${precise(drift.jensen_shannon)} bits.`);
  if (!drift.labels.length) return [about, element("p", { class: "note" }, "No label’s share has changed.")];
  const most = Math.max(...drift.labels.map((one) => Math.max(one.share_a, one.share_b)));
  const rows = drift.labels.map((one) => [one.label, whole(one.a), whole(one.b), signed(100 * one.change, 1),
    element("span", { class: "two" }, bar(one.share_a / most), bar(one.share_b / most))]);
  return [about, table("Labels whose share changed most", ["Label", before, now, "% points", element("span", { class: "hidden" }, "Shares")], rows)];
}

function embeddingDrift(drift) {
  if (drift === null) return "";
  if (!drift.comparable) return `The mean embeddings are not compared: ${drift.why_not}.`;
  const cosine = drift.cosine_distance === null ? "none, one has no length" : precise(drift.cosine_distance);
  return `Mean embeddings: cosine distance ${cosine}, L2 distance ${precise(drift.l2_distance)}; their lengths are ${precise(drift.length_a)} and ${precise(drift.length_b)}.`;
}
