
const SPLITS = { test: "Test", validation: "Validation", train: "Train" };
const LABELS_STEP = 50;
// Pictures of suspects shown at first: narrow screens show three per line, wide ones eight.
const SUSPECTS_STEP = 24;
data.classes = data.classes.map((row) => Object.fromEntries(data.class_fields.map((field, place) => [field, row[place]])));
const tenth = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)}\u00a0%`);
const said = (name) => (name.trim() ? name : name ? JSON.stringify(name) : "(none)");
// Isolates a name in any script, so that it does not change the direction of the text around it.
const named = (name) => element("bdi", { title: name }, said(name));
const note = (text, kind = "") => element("p", { class: `note ${kind}` }, text);
const test = data.accuracy.test ?? { images: 0, value: null, low: null, high: null };

function intervalBar({ value, low, high }) {
  const track = element("span", { class: "interval-track", "aria-hidden": "true" });
  if (value === null) return track;
  const range = element("span", { class: "range" }), dot = element("span", { class: "dot" });
  range.style.left = `${100 * low}%`;
  range.style.width = `${100 * (high - low)}%`;
  dot.style.left = `${100 * value}%`;
  track.append(range, dot);
  return track;
}

function showAccuracy() {
  $("base").hidden = data.base === null;
  $("base").textContent = data.base === null ? "" : `Base: ${data.base}`;
  const right = data.multi_label ? "get exactly the classes of the truth" : "get the class of the truth";
  const lead = test.value === null ? [note("No image was left for the test, so the accuracy is unknown.")] : [
    element("p", { class: "lead" }, element("b", {}, tenth(test.value)), " ",
      element("span", {}, `of ${count(test.images, "test image")} ${right}; the 95 % interval is ${tenth(test.low)} to ${tenth(test.high)}`))];
  if (data.most_frequent && test.value !== null) {
    const { name, images, of } = data.most_frequent;
    lead.push(element("p", { class: "note" }, "Always predicting ", named(name), ` would be right for ${share(images, of)} of ${count(of, "test image")}.`));
  }
  if (data.head_alone !== null && test.value !== null) lead.push(note(`A head alone, on the original network, is right for ${tenth(data.head_alone)} of ${count(test.images, "test image")}.`));
  const rows = Object.keys(SPLITS).filter((split) => split in data.accuracy).map((split) => {
    const of = data.accuracy[split];
    const range = of.value === null ? "no images" : `${tenth(of.low)} – ${tenth(of.high)}`;
    return element("li", {}, element("span", { class: "split" }, SPLITS[split]), element("b", {}, tenth(of.value)), intervalBar(of),
      element("span", { class: "range-text" }, range), element("span", { class: "number" }, `of ${count(of.images, "image")}`));
  });
  $("accuracy").append(...lead, element("ul", { class: "splits", "aria-label": "Accuracy by split, with its 95 % interval" }, ...rows));
  const images = (split) => whole(data.accuracy[split]?.images ?? 0);
  $("counts").append(fact("training images", images("train")), fact("validation images", images("validation")), fact("test images", images("test")),
    fact("classes", whole(data.class_count)), fact(`mean F1 of classes, on ${count(test.images, "test image")}`, data.macro_f1 === null ? "–" : data.macro_f1.toFixed(3)),
    fact(data.problem_count === 1 ? "problem of truth and rows" : "problems of truth and rows", whole(data.problem_count)));
  $("made").textContent = `Written by beamlabel ${data.version}. _TRAINING.json has the complete findings.`;
}

// Sorted by one column; rows without a number come last in either direction.
const columns = [["Class", "name"], ["Training images", "train"], ["Test images", "test"], ["Precision", "precision"], ["Recall", "recall"], ["F1", "f1"]];
const order = { key: "f1", rising: true, limit: LABELS_STEP };

function sortedClasses() {
  const wanted = $("class-filter").value.trim().toLocaleLowerCase();
  const found = wanted ? data.classes.filter((row) => row.name.toLocaleLowerCase().includes(wanted)) : [...data.classes];
  const sign = order.rising ? 1 : -1;
  return found.sort((a, b) => {
    const [one, other] = [a[order.key], b[order.key]];
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * (typeof one === "string" ? one.localeCompare(other) : one - other);
  });
}

function showClassRows() {
  const found = sortedClasses();
  $("class-rows").replaceChildren(...found.slice(0, order.limit).map((row) => {
    const right = row.recall === null ? null : Math.round(row.recall * row.test);
    const told = row.precision ? Math.round(right / row.precision) : null;
    const titles = { precision: told === null ? "" : `${whole(right)} of ${count(told, "test image")} predicted as this class are right`, recall: right === null ? "" : `${whole(right)} of ${count(row.test, "test image")} of this class are found` };
    const cells = columns.slice(1).map(([, key]) => element("td", { ...(titles[key] ? { title: titles[key] } : {}), class: key === "f1" && row.f1 !== null && row.f1 < 0.5 ? "bad" : "" },
      key === "train" || key === "test" ? whole(row[key]) : key === "f1" ? (row.f1 === null ? "–" : row.f1.toFixed(2)) : row[key] === null ? "–" : `${(100 * row[key]).toFixed(0)} %`));
    return element("tr", {}, element("th", { scope: "row" }, named(row.name)), ...cells);
  }));
  for (const button of document.querySelectorAll("#classes thead button")) {
    const isThis = button.dataset.key === order.key;
    button.parentElement.setAttribute("aria-sort", isThis ? (order.rising ? "ascending" : "descending") : "none");
  }
  const shown = Math.min(order.limit, found.length);
  $("class-status").textContent = found.length ? `${whole(shown)} of ${whole(found.length)} ${found.length === 1 ? "class" : "classes"}${$("class-filter").value.trim() ? " with this text" : ""}.` : "No class contains this text.";
  $("class-more").hidden = shown === found.length;
}

function showClasses() {
  $("classes-count").textContent = whole(data.class_count);
  if (!data.classes.length) {
    $("classes").append(note("The training has no numbers for single classes."));
    return;
  }
  const head = columns.map(([text, key]) => {
    const button = element("button", { type: "button" }, text);
    button.dataset.key = key;
    button.addEventListener("click", () => {
      order.rising = order.key === key ? !order.rising : key !== "train" && key !== "test";
      order.key = key;
      showClassRows();
    });
    return element("th", { scope: "col" }, button);
  });
  const more = element("button", { type: "button", id: "class-more", class: "more" }, "Show more");
  more.addEventListener("click", () => { order.limit += 4 * LABELS_STEP; showClassRows(); });
  const field = element("div", { class: "field grow" }, element("label", { for: "class-filter" }, "Class contains"), element("input", { id: "class-filter", type: "search" }));
  field.addEventListener("input", () => { order.limit = LABELS_STEP; showClassRows(); });
  const left = data.scored_count - data.classes.length;
  $("classes").append(note(`Precision: the share of right predictions among test images predicted as the class. Recall: the share of the class’s test images that are predicted as the class. F1: their harmonic mean. All are measured on ${count(test.images, "test image")}; with few images they say little.`),
    element("div", { class: "filter", ...(data.classes.length <= LABELS_STEP ? { hidden: "" } : {}) }, field),
    element("div", { class: "scroll" }, element("table", { "aria-label": "Classes, the worst first", class: "sortable" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", { id: "class-rows" }))),
    element("div", { class: "below" }, element("p", { id: "class-status", class: "note", role: "status" }), more));
  if (left) $("classes").append(note(`${whole(left)} better classes do not fit here; see _TRAINING.json.`, "after"));
  showClassRows();
}

const withThumbnail = (row) => ({ ...row, thumbnail: data.pictures[row.image_id] ?? null });

// The true and the predicted class, one per line; a long name is cut off at its end.
function shot(row, lines) {
  const name = fileName(row.uri);
  const button = element("button", { type: "button", title: row.uri }, element("span", { class: "marked" }, picture(withThumbnail(row), name), element("span", { class: "mark", hidden: "" })),
    element("span", { class: "caption" }, ...lines));
  button.addEventListener("click", () => showDetail(row));
  verdictKeys(button, row);
  const item = element("li", {}, button);
  item.dataset.image = row.image_id;
  return item;
}

function showConfusions() {
  const all = data.pairs.reduce((sum, pair) => sum + pair.count, 0);
  if (!data.pairs.length) {
    $("confusions").append(note(data.multi_label ? "Pairs are not counted for images with several classes." : test.images ? "No two classes are confused." : "No image was left for the test."));
    return;
  }
  const about = (pair) => `${whole(pair.count)}${pair.of ? ` of ${count(pair.of, "test image")} of the class, ${percent(pair.count, pair.of)}` : ""}`;
  const withPictures = data.pairs.slice(0, data.examples.length).map((pair, place) => element("li", { class: "confusion" },
    element("div", {}, element("h3", {}, named(pair.truth), " → ", named(pair.predicted)), note(about(pair))),
    element("ul", { class: "sheet" }, ...data.examples[place].map((row) => shot(row, [element("span", {}, row.score === null ? "" : row.score.toFixed(2))])))));
  const rest = data.pairs.slice(data.examples.length).map((pair) => [element("span", {}, named(pair.truth), " → ", named(pair.predicted)), whole(pair.count), pair.of ? whole(pair.of) : "–"]);
  $("confusions").append(note("The most frequent pairs: test images of the first class that were predicted as the second, with the highest scores."), element("ul", { class: "confusions" }, ...withPictures));
  if (rest.length) $("confusions").append(table("Further pairs", ["Truth → predicted", "Images", "Test images of the class"], rest));
  const left = data.pair_count - data.pairs.length;
  if (left > 0) $("confusions").append(note(`The ${whole(data.pairs.length)} most frequent of ${whole(data.pair_count)} pairs, with ${count(all, "image")}.`, "after"));
}

const unit = { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1], text: (value) => `${Math.round(100 * value)} %` };

function showCalibration() {
  const found = data.calibration;
  if (!found) return;
  const points = (bins) => bins.filter((bin) => bin.images && bin.score !== null && bin.accuracy !== null).map((bin) => ({ x: bin.score, y: bin.accuracy,
    title: `Scores ${bin.low.toFixed(2)} – ${bin.high.toFixed(2)}: mean ${bin.score.toFixed(2)}, ${tenth(bin.accuracy)} of ${count(bin.images, "test image")} right` }));
  const lines = [{ kind: "before", name: "raw scores", points: points(found.bins_before), dots: true }, { kind: "now", name: "with temperature", points: points(found.bins), dots: true }]
    .filter((line) => line.points.length);
  const error = (value) => (value === null ? "unknown" : `${(100 * value).toFixed(1)} points`);
  const turned = found.temperature === null ? "" : ` Temperature ${precise(found.temperature)}, found on the validation images: raw scores were ${found.temperature > 1.02 ? "too high" : found.temperature < 0.98 ? "too low" : "about right"}.`;
  const caption = `On the dotted line, the score equals the share of right images. Mean distance from it (expected calibration error): ${error(found.error_before)} raw, ${error(found.error)} with temperature, on ${count(test.images, "test image")}.${turned}`;
  $("calibration").hidden = false;
  $("calibration-body").append(lines.length ? plot(`Reliability diagram: share of right images by score. ${caption}`, { ...unit, title: "score of the best class" }, unit, lines, { diagonal: true, caption }) : note(caption));
}

function spanned(values, least, ceiling = Infinity) {
  const low = Math.min(...values), high = Math.max(...values), room = Math.max((high - low) * 0.08, least);
  const span = { low: Math.max(low - room, 0), high: Math.min(high + room, ceiling) };
  return { ...span, ticks: roundTicks(span.low, span.high, 4) };
}

function showCurve() {
  const points = data.curve.filter((point) => point.value !== null && point.images > 0).map((point) => ({ x: point.images, y: point.value, low: point.low ?? point.value, high: point.high ?? point.value,
    title: `${count(point.images, "training image")}: ${tenth(point.value)}, ${tenth(point.low)} – ${tenth(point.high)}` }));
  if (!points.length) return;
  const amounts = points.map((point) => point.x);
  const x = { low: amounts[0], high: amounts[amounts.length - 1], isLog: true, ticks: amounts, text: whole, title: "training images (logarithmic)" };
  if (x.low === x.high) x.low = x.low / 2;
  const y = { ...spanned(points.flatMap((point) => [point.low, point.high]), 0.005, 1), text: (value) => `${precise(100 * value)} %` };
  $("curve").hidden = false;
  if (data.curve_advice) $("curve-body").append(element("p", { id: "advice", class: "advice" }, data.curve_advice));
  $("curve-body").append(plot("Accuracy by number of training images", x, y, [{ kind: "now", points, dots: true }],
    { caption: `Accuracy on the test images by number of training images; bars are 95 % intervals for ${count(data.curve[data.curve.length - 1].images_of ?? test.images, "test image")}.` }));
}

function showHistory() {
  const line = (kind, name, key, text) => ({ kind, name, points: data.history.filter((epoch) => epoch[key] !== null).map((epoch) => ({ x: epoch.number, y: epoch[key], title: `Epoch ${epoch.number}, ${name}: ${text(epoch[key])}` })) });
  const show = (id, about, lines, y, caption) => {
    const drawn = lines.filter((one) => one.points.length);
    if (!drawn.length) return;
    const numbers = drawn.flatMap((one) => one.points.map((point) => point.x));
    const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
    const x = { low, high: high > low ? high : low + 1, title: "epoch", text: (value) => String(value), ticks: roundTicks(low, high, 6).filter(Number.isInteger) };
    $(id).hidden = false;
    $(`${id}-body`).append(plot(about, x, y(drawn.flatMap((one) => one.points.map((point) => point.y))), drawn, { caption }));
  };
  const kept = data.epoch_kept === null ? "" : ` Epoch ${whole(data.epoch_kept)} was kept: its validation ${data.is_fine_tuned && !data.multi_label ? "accuracy was best (its loss decides ties)" : "loss was best, with temperature"}.`;
  const thinned = data.history.length < data.epoch_count ? ` The plot has ${whole(data.history.length)} of ${whole(data.epoch_count)} epochs.` : "";
  show("loss", "Loss by epoch", [line("before", "train", "loss", precise), line("now", "validation", "validation_loss", precise)],
    (values) => ({ ...spanned(values, 1e-6), text: precise }), `Mean cross entropy of training and validation images, without temperature.${data.is_fine_tuned ? "" : " It may rise while L2 shrinks the weights."}${kept}${thinned}`);
  show("validation", "Accuracy on the validation images by epoch", [line("now", "validation", "validation_accuracy", tenth)],
    (values) => ({ ...spanned(values, Math.max(0.002, 1 / (data.accuracy.validation?.images || 1)), 1), text: (value) => `${precise(100 * value)} %` }), `On ${count(data.accuracy.validation?.images ?? 0, "validation image")}.${kept}${thinned}`);
}

function showProblems() {
  if (!data.problem_count) return;
  $("problems").hidden = false;
  $("problems-body").append(...data.problems.map((problem) => element("div", { class: "failure" },
    element("div", {}, element("h3", {}, element("span", {}, whole(problem.count))), element("p", {}, problem.what)),
    element("ul", { "aria-label": `Examples: ${problem.what}` }, ...problem.examples.map((example) => element("li", { class: "mono" }, element("bdi", {}, example)))))));
  if (data.problems.length < data.problem_count) $("problems-body").append(note(`And ${count(data.problem_count - data.problems.length, "more problem")}; see _TRAINING.json.`, "after"));
}

function showRecord() {
  if (!data.facts.length) return;
  $("record").hidden = false;
  $("record-body").append(...data.facts.map(([name, value]) => fact(name, value, { class: "mono" })));
}

// An image may appear twice, but has one verdict.
const correctable = [...new Map([...data.suspects, ...data.examples.flat()].map((row) => [row.image_id, row])).values()];
const ofImage = new Map(correctable.map((row) => [row.image_id, row]));
const classNames = data.classes.filter((row) => row.is_exact).map((row) => row.name);
const isKnownClass = new Set(classNames);
const knowsAll = classNames.length === data.class_count;

function showVerdicts() {
  for (const item of document.querySelectorAll("[data-image]")) {
    const labels = corrections.get(item.dataset.image), mark = item.querySelector(".mark");
    mark.hidden = labels === undefined;
    if (labels === undefined) continue;
    const isUnknown = !labels.length, isRight = !isUnknown && sameLabels(labels, ofImage.get(item.dataset.image).predicted_labels);
    const text = isUnknown ? "unknown" : labels.map(said).join(", ");
    mark.className = `mark ${isRight ? "right" : "wrong"}`;
    mark.title = text;
    const sign = element("span", { "aria-hidden": "true" }, isRight ? "✓ " : "✗ ");
    mark.replaceChildren(sign, element("span", { class: "hidden" }, isRight ? "the prediction is right: " : "the prediction is wrong; the image is "), element("bdi", {}, text));
  }
  $("saving").hidden = !corrections.size;
  $("saving-count").textContent = `${count(corrections.size, "correction")}${isSaved ? ", saved" : ""}`;
}

function setVerdict(row, labels) {
  if (labels === null) corrections.delete(row.image_id);
  else corrections.set(row.image_id, labels);
  keepCorrections();
  showVerdicts();
}

// Buttons for the truth and the prediction, and a field for any other class; a verdict leads to the next image.
function verdictForm(row) {
  const decide = (labels) => {
    setVerdict(row, labels);
    const place = data.suspects.findIndex((other) => other.image_id === row.image_id);
    const next = place < 0 ? undefined : data.suspects.slice(place + 1).find((other) => !corrections.has(other.image_id));
    if (next && labels !== null) showDetail(next);
    else $("detail").close();
  };
  const now = corrections.get(row.image_id) ?? null;
  const choice = (kind, labels, ...text) => {
    const isNow = labels !== null && now !== null && labels.length === now.length && sameLabels(now, labels);
    const button = element("button", { type: "button", class: kind, ...(labels ? { "aria-pressed": String(isNow) } : {}) }, ...text);
    button.addEventListener("click", () => decide(labels));
    return button;
  };
  const choices = [];
  if (row.predicted_labels?.length) choices.push(choice("right", row.predicted_labels, "Prediction is right: ", named(row.predicted)));
  if (isTruthOffered(row)) choices.push(choice("wrong", row.truth_labels, "Truth is right: ", named(row.truth)));
  // No truth, so the next training leaves the image out.
  const unknown = choice("wrong", [], "Neither, class unknown");
  unknown.title = "Training leaves this image out";
  return element("div", { class: "verdict", role: "group", "aria-label": "Correction" }, element("div", { class: "choices" }, ...choices), otherForm(row, now, decide),
    element("div", { class: "choices" }, unknown, ...(now ? [choice("undo", null, "Undo")] : [])));
}

const isTruthOffered = (row) => Boolean(row.truth_labels?.length) && !sameLabels(row.truth_labels, row.predicted_labels);

// Keys on a focused picture: r accepts the prediction, t the truth, x marks the class as unknown, w opens the form at its
// field, u undoes.
function verdictKeys(button, row) {
  button.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "r" && row.predicted_labels?.length) setVerdict(row, row.predicted_labels);
    else if (event.key === "t" && isTruthOffered(row)) setVerdict(row, row.truth_labels);
    else if (event.key === "x") setVerdict(row, []);
    else if (event.key === "u") setVerdict(row, null);
    else if (event.key === "w") { showDetail(row); $("other").focus(); }
    else return;
    event.preventDefault();
  });
}

function otherForm(row, now, decide) {
  const field = data.multi_label ? element("textarea", { id: "other", rows: 3 }) : element("input", { id: "other", list: "class-names", autocomplete: "off" });
  if (now?.length && !sameLabels(now, row.predicted_labels) && !sameLabels(now, row.truth_labels)) field.value = now.join("\n");
  const set = element("button", { type: "submit" }, "Set");
  const chosen = () => [...new Set((data.multi_label ? field.value.split("\n") : [field.value]).filter((name) => name.trim()))];
  const look = () => {
    set.disabled = !chosen().length;
    set.textContent = knowsAll && chosen().some((name) => !isKnownClass.has(name)) ? "Set a new class" : "Set";
  };
  field.addEventListener("input", look);
  look();
  const form = element("form", {}, element("label", { for: "other" }, data.multi_label ? "Neither: its classes are (one per line)" : "Neither: it is"),
    element("div", { class: "typed" }, field, set));
  form.addEventListener("submit", (event) => { event.preventDefault(); decide(chosen()); });
  return form;
}

function showDetail(row) {
  const name = fileName(row.uri);
  if (!$("class-names")) document.body.append(element("datalist", { id: "class-names" }, ...classNames.map((one) => element("option", { value: one }))));
  const facts = [["Truth", named(row.truth)], ["Predicted", [named(row.predicted), row.score === null ? "" : `, score ${row.score.toFixed(3)}`]],
    ["Quality of the truth", row.quality === null ? null : `${row.quality.toFixed(3)} (0: surely wrong, 1: right)`], ["Split", row.split], ["URI", row.uri], ["Image", row.image_id]];
  $("detail-body").replaceChildren(
    element("h2", { id: "detail-title", tabindex: "-1" }, name), picture(withThumbnail(row), `Network input for ${name}`),
    verdictForm(row),
    element("dl", {}, ...facts.filter(([, text]) => text !== null).flatMap(([term, text]) =>
      [element("dt", {}, term), element("dd", { class: ["URI", "Image"].includes(term) ? "mono" : "" }, ...[text].flat())])));
  // Focus on the title makes screen readers read it, and lets Tab reach the buttons.
  if ($("detail").open) $("detail-title").focus();
  else $("detail").showModal();
}

// The first pictures and a button for more; after the button, the keyboard focus moves to the first new picture.
function showUpTo(items, limit) {
  items.forEach((item, place) => { item.hidden = place >= limit; });
  $("suspects-below").hidden = items.length <= SUSPECTS_STEP;
  $("suspects-status").textContent = `${whole(Math.min(limit, items.length))} of ${count(items.length, "picture")}.`;
  $("suspects-more").hidden = limit >= items.length;
  $("suspects-more").onclick = () => {
    showUpTo(items, limit + 2 * SUSPECTS_STEP);
    items[limit].querySelector("button").focus();
  };
}

// The options for the next training: the truth of this one, then the corrections.
function showHow() {
  const key = (name, text) => [element("kbd", {}, name), ` ${text}`];
  $("how").append("To correct the truth, open a picture here or under Confused classes. On a focused picture you can also press ", ...key("r", "if the prediction is right, "),
    ...key("t", "if the truth is right, "), ...key("w", "to name another class, "), ...key("x", "if it is neither and you do not know, "), ...key("u", "to undo. "),
    "Then save corrections.csv and give it to the next training after the truth: ", ...[...data.truth_from, "corrections.csv"].flatMap((from) => [element("span", { class: "mono option" }, `--truth ${from}`), " "]),
    "(images of unknown class are left out).");
}

function showSuspects() {
  showHow();
  $("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
  $("suspects").hidden = !correctable.length;
  const without = correctable.filter((row) => !data.pictures[row.image_id]);
  const lacking = without.length ? ` Of ${count(correctable.length, "image")} on this page ${whole(without.length)} ${without.length === 1 ? "has" : "have"} no picture: ${without.every((row) => !row.can_be_fetched) ? "these images are inside input files, from which the report does not fetch pictures" : "they could not be fetched when the page was written"}.` : "";
  $("suspects-count").textContent = whole(data.suspect_count);
  const likeliest = data.suspects.length < data.suspect_count ? `The ${whole(data.suspects.length)} likeliest of ${whole(data.suspect_count)} are shown.` : "The likeliest come first.";
  $("suspects-about").textContent = `${data.suspect_count ? `According to confident learning (cleanlab), the truth of these images is likely wrong. Each shows the truth → the prediction of ${data.is_fine_tuned ? "the network" : "a head that has not seen the image"}, and the quality of the truth from 0 (surely wrong) to 1. ${likeliest}` : "The truth of every image looks right."}${lacking}`;
  const quality = (row) => (row.quality === null ? "" : `quality ${row.quality.toFixed(2)}`);
  const items = data.suspects.map((row) => shot(row, [element("span", {}, named(row.truth)), element("b", {}, "→ ", named(row.predicted)), element("span", {}, quality(row))]));
  $("suspects-sheet").append(...items);
  showUpTo(items, SUSPECTS_STEP);
  $("saving-save").addEventListener("click", () => { saveCorrections(correctable, data.multi_label); showVerdicts(); });
  $("saving-clear").addEventListener("click", () => { corrections.clear(); keepCorrections(); showVerdicts(); });
  restoreCorrections(correctable);
  showVerdicts();
}

showAccuracy();
showProblems();
showClasses();
showConfusions();
showSuspects();
showCurve();
showCalibration();
showHistory();
showRecord();
