
// A person's corrections, image by image, and the corrections.csv made of them. The verdict is about the prediction:
// "right" if it equals the person's classes, else "wrong". The label is the truth; several classes are a JSON list.
// No class means "wrong" without a label: the person does not know the class.
const corrections = new Map();
// The key in the browser's storage: the run, or the page's address if there is no run.
const KEPT = `beamlabel corrections ${data.run?.id ?? location.pathname}`;
let isSaved = true;

function csvCell(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const sameLabels = (one, other) => one !== null && other !== null && [...one].sort().join("\n") === [...other].sort().join("\n");

// Takes rows in order, each with image_id, uri and predicted_labels (null if unknown).
function correctionsCsv(rows, isMulti) {
  const lines = rows.filter((row) => corrections.has(row.image_id)).map((row) => {
    const labels = corrections.get(row.image_id);
    const label = !labels.length ? "" : isMulti ? JSON.stringify(labels) : labels[0];
    const verdict = labels.length && sameLabels(labels, row.predicted_labels) ? "right" : "wrong";
    return [row.image_id, row.uri, verdict, label].map(csvCell).join(",");
  });
  return ["image_id,uri,verdict,label", ...lines, ""].join("\n");
}

// Corrections survive closing the page, unless the browser forbids it.
function storeCorrections() {
  try {
    if (corrections.size) localStorage.setItem(KEPT, JSON.stringify({ isSaved, labels: [...corrections] }));
    else localStorage.removeItem(KEPT);
  } catch { /* the page keeps them until it is closed */ }
}

// Runs after each change.
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
  } catch { /* none are stored */ }
}

function saveCorrections(rows, isMulti) {
  const url = URL.createObjectURL(new Blob([correctionsCsv(rows, isMulti)], { type: "text/csv" }));
  element("a", { href: url, download: "corrections.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  isSaved = true;
  storeCorrections();
}

addEventListener("beforeunload", (event) => { if (!isSaved) event.preventDefault(); });
