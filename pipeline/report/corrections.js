
// What a person says an image shows, image by image, and corrections.csv made of it. A verdict is about the prediction:
// "right" if it is what the person says, else "wrong"; the label is the truth, several classes are a list in JSON. No
// class at all is "wrong" without a label: the person does not know what it is.
const corrections = new Map();
// By the run where there is one, else by the page's place.
const KEPT = `beamlabel corrections ${data.run?.id ?? location.pathname}`;
let isSaved = true;

function csvCell(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const sameLabels = (one, other) => one !== null && other !== null && [...one].sort().join("\n") === [...other].sort().join("\n");

// Rows in the order given, each with image_id, uri and predicted_labels (null if they are not known).
function correctionsCsv(rows, isMulti) {
  const lines = rows.filter((row) => corrections.has(row.image_id)).map((row) => {
    const labels = corrections.get(row.image_id);
    const label = !labels.length ? "" : isMulti ? JSON.stringify(labels) : labels[0];
    const verdict = labels.length && sameLabels(labels, row.predicted_labels) ? "right" : "wrong";
    return [row.image_id, row.uri, verdict, label].map(csvCell).join(",");
  });
  return ["image_id,uri,verdict,label", ...lines, ""].join("\n");
}

// A page that is closed and opened again still has them; a browser may forbid that.
function storeCorrections() {
  try {
    if (corrections.size) localStorage.setItem(KEPT, JSON.stringify({ isSaved, labels: [...corrections] }));
    else localStorage.removeItem(KEPT);
  } catch { /* they are in the page until it is closed */ }
}

// After each change.
function keepCorrections() {
  isSaved = !corrections.size;
  storeCorrections();
}

function restoreCorrections(rows) {
  const known = new Set(rows.map((row) => row.image_id));
  const isLabels = (labels) => Array.isArray(labels) && labels.every((label) => typeof label === "string");
  corrections.clear();
  isSaved = true;
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    for (const [image, labels] of kept.labels ?? []) if (known.has(image) && isLabels(labels)) corrections.set(image, labels);
    isSaved = !corrections.size || kept.isSaved === true;
  } catch { /* there are none */ }
}

function saveCorrections(rows, isMulti) {
  const url = URL.createObjectURL(new Blob([correctionsCsv(rows, isMulti)], { type: "text/csv" }));
  element("a", { href: url, download: "corrections.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  isSaved = true;
  storeCorrections();
}

addEventListener("beforeunload", (event) => { if (!isSaved) event.preventDefault(); });
