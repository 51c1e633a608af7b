
// What a person says an image shows, image by image, and corrections.csv made of it. A verdict is about the prediction:
// "right" if it is what the person says, else "wrong"; the label is the truth, several classes are a list in JSON.
const corrections = new Map();
const KEPT = `beamlabel corrections ${location.pathname}`;

function csvCell(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const sameLabels = (one, other) => one !== null && other !== null && [...one].sort().join("\n") === [...other].sort().join("\n");

function correctionsCsv(rows, isMulti) {
  const lines = rows.filter((row) => corrections.has(row.image_id)).map((row) => {
    const labels = corrections.get(row.image_id);
    const label = isMulti ? JSON.stringify(labels) : labels[0];
    return [row.image_id, row.uri, sameLabels(labels, row.predicted_labels) ? "right" : "wrong", label].map(csvCell).join(",");
  });
  return ["image_id,uri,verdict,label", ...lines, ""].join("\n");
}

// A page that is closed and opened again still has them; a browser may forbid that.
function keepCorrections() {
  try {
    localStorage.setItem(KEPT, JSON.stringify([...corrections]));
  } catch { /* they are in the page until it is closed */ }
}

function restoreCorrections(rows) {
  const known = new Set(rows.map((row) => row.image_id));
  const isLabels = (labels) => Array.isArray(labels) && labels.length > 0 && labels.every((label) => typeof label === "string");
  try {
    for (const [image, labels] of JSON.parse(localStorage.getItem(KEPT) ?? "[]")) if (known.has(image) && isLabels(labels)) corrections.set(image, labels);
  } catch { /* there are none */ }
}

function saveCorrections(rows, isMulti) {
  const url = URL.createObjectURL(new Blob([correctionsCsv(rows, isMulti)], { type: "text/csv" }));
  element("a", { href: url, download: "corrections.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
