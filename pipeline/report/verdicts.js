
// A person's verdicts on the sampled rows: a form in the dialog, a mark on each picture, and a bar to save them.
const MAX_LABEL = 100;
const isCut = (text) => [...text].length === MAX_LABEL && [...text].slice(MAX_LABEL / 2, MAX_LABEL / 2 + 3).join("") === " … ";
// Classes without names are "class 7" on the page and numbers in corrections.csv.
const exported = (label) => (data.has_names ? label : label.replace(/^class (\d+)$/, "$1"));
const displayed = (label) => (!data.has_names && /^\d+$/.test(label) ? `class ${label}` : label);
// A row's classes as in the output; null for a class that is too long for the page.
const wholeLabels = (row) => (row.whole_labels ?? row.labels).map((label) => (label === null ? null : exported(label)));

// One entry per image, as the input may name it twice. Rows of schema version 1 have no image_id.
const correctable = [...new Map(data.sample.filter((row) => row.image_id).map((row) => {
  const label = wholeLabels(row)[0] ?? null;
  const uri = row.whole_uri === undefined ? row.uri : row.whole_uri ?? "";
  return [row.image_id, { image_id: row.image_id, uri, predicted_labels: label === null ? null : [label] }];
})).values()];
const ofImage = new Map(correctable.map((row) => [row.image_id, row]));

function knownClasses() {
  const names = [...Object.keys(data.distribution ?? {}), ...data.labels.shown.map(([label]) => label)].filter((name) => !isCut(name));
  return [...new Set([...names.map(exported), ...data.sample.flatMap(wholeLabels).filter((name) => name !== null)])].sort();
}

// The mark on a picture: [CSS class, text]; null if there is no verdict.
function verdictOf(row) {
  const labels = corrections.get(row.image_id);
  if (labels === undefined) return null;
  if (!labels.length) return ["wrong", "wrong"];
  return sameLabels(labels, ofImage.get(row.image_id).predicted_labels) ? ["right", "right"] : ["wrong", displayed(labels[0])];
}

const marks = [];

// A picture with room for a mark.
function marked(row, shown) {
  const mark = element("span", { class: "mark" });
  marks.push([row, mark]);
  return element("span", { class: "marked" }, shown, mark);
}

function showMarks() {
  for (const [row, mark] of marks) {
    const verdict = verdictOf(row);
    mark.hidden = verdict === null;
    if (verdict === null) continue;
    const [kind, text] = verdict;
    mark.className = `mark ${kind}`;
    const sign = element("span", { "aria-hidden": "true" }, kind === "right" ? "✓ " : "✗ ");
    const said = kind === "right" || text === "wrong" ? "marked as " : "marked as wrong, should be ";
    mark.replaceChildren(sign, element("span", { class: "hidden" }, said), text);
    mark.title = text;
  }
  const rows = correctable.filter((row) => corrections.has(row.image_id)).length;
  $("saving").hidden = !rows;
  $("saving-count").textContent = rows ? `${count(rows, "correction")}${isSaved ? ", saved" : ""}` : "";
}

// Records a person's classes for a row: [] if the class is unknown, null to take the verdict back.
function say(row, labels) {
  if (labels === null) corrections.delete(row.image_id);
  else corrections.set(row.image_id, labels);
  keepCorrections();
  showMarks();
}

// The likely classes if the predicted one is wrong.
function suggestions(row) {
  const neighbors = row.neighbors && !isCut(row.neighbors.label) ? [exported(row.neighbors.label)] : [];
  const own = wholeLabels(row);
  return [...new Set([...neighbors, ...own.slice(1)])].filter((label) => label !== null && label !== own[0]).slice(0, 4);
}

// The form for a person's verdict on a row; calls done afterwards.
function verdictForm(row, done) {
  if (!row.image_id) return element("p", { class: "note" }, "The rows of this output have no image_id, so they cannot be corrected here.");
  const now = corrections.get(row.image_id);
  const predicted = ofImage.get(row.image_id).predicted_labels;
  const choice = (kind, text, labels, attributes = {}) => {
    const isNow = now !== undefined && labels !== null && (labels.length ? sameLabels(labels, now) : !now.length);
    const button = element("button", { type: "button", class: kind, ...(labels === null ? {} : { "aria-pressed": String(isNow) }), ...attributes }, text);
    button.addEventListener("click", () => { say(row, labels); done(); });
    return button;
  };
  const right = predicted === null ? [] : [choice("right", `✓ Right: ${displayed(predicted[0])}`, predicted, { autofocus: "" })];
  const others = suggestions(row).map((label) => choice("wrong", displayed(label), [label]));
  const input = element("input", { id: "truth", type: "text", list: "known-classes", maxlength: "2000", autocomplete: "off", placeholder: "a known or a new class" });
  if (now?.length && !sameLabels(now, predicted)) input.value = displayed(now[0]);
  const form = element("form", { class: "verdict", "aria-label": "Correction" },
    element("div", { class: "choices" }, ...right),
    element("fieldset", {}, element("legend", {}, predicted === null ? "It is" : "✗ Wrong: it is"),
      element("div", { class: "choices" }, ...others),
      element("div", { class: "typed" }, element("label", { for: "truth", class: "hidden" }, "Class"), input, element("button", { type: "submit" }, "Set"))),
    element("div", { class: "choices" }, ...(predicted === null ? [] : [choice("wrong", "✗ Wrong, class unknown", [])]), ...(now === undefined ? [] : [choice("undo", "Undo", null)])));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const label = exported(input.value.trim());
    if (!label) return input.focus();
    say(row, [label]);
    done();
  });
  return form;
}

// Keys on a focused picture: r marks right, w opens the form at the class, u takes the verdict back.
function verdictKeys(button, row, open) {
  if (!row.image_id) return;
  button.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const predicted = ofImage.get(row.image_id).predicted_labels;
    if (event.key === "r" && predicted !== null) say(row, predicted);
    else if (event.key === "u") say(row, null);
    else if (event.key === "w") { open(); $("truth").focus(); }
    else return;
    event.preventDefault();
  });
}

function showVerdicts() {
  $("known-classes").append(...knownClasses().map((name) => element("option", { value: displayed(name) })));
  $("how").hidden = !correctable.length;
  const lacking = data.sample.filter((row) => row.thumbnail === null).length;
  if (lacking) $("how").append(` ${whole(lacking)} of ${count(data.sample.length, "picture")} ${lacking === 1 ? "is" : "are"} missing because this run did not fetch the ${lacking === 1 ? "image" : "images"}. To add pictures, run `, element("span", { class: "mono" }, "beamlabel report OUTPUT --fetch"), ".");
  if (!$("helpful").hidden) $("helpful-title").after($("how"));
  $("saving-save").addEventListener("click", () => { saveCorrections(correctable, false); showMarks(); });
  addEventListener("storage", (event) => { if (event.key === KEPT) { restoreCorrections(correctable); showMarks(); } });
  restoreCorrections(correctable);
  showMarks();
}
