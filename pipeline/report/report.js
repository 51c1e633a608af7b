
const probabilities = data.scores !== null && data.scores.low === 0 && data.scores.counts.length === 32 && data.scores.width === 1 / 32;
const score = (number) => (probabilities ? number.toFixed(2) : precise(number));

function duration(seconds) {
  if (seconds < 9.95) return `${Number(seconds.toFixed(1))} s`;
  const rounded = Math.round(seconds);
  if (rounded < 60) return `${rounded} s`;
  const minutes = Math.floor(rounded / 60);
  if (minutes < 10) return `${minutes} min ${rounded % 60} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function instant(iso) {
  return iso.slice(0, 19).replace("T", " ") + " UTC";
}

// Bars of equal width, with ticks at equal distances below.
function chart(values, { about, titles, top, ticks, caption }) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${values.length} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", about);
  const rect = (kind, place, height, width) => {
    const made = document.createElementNS(svg.namespaceURI, "rect");
    const box = { class: kind, x: place + (1 - width) / 2, y: 100 - height, width, height };
    for (const [key, value] of Object.entries(box)) made.setAttribute(key, value);
    svg.append(made);
    return made;
  };
  values.forEach((value, place) => {
    if (value > 0) rect("", place, Math.max((100 * value) / top, 0.7), 0.86);
    const title = document.createElementNS(svg.namespaceURI, "title");
    title.textContent = titles(value, place);
    rect("over", place, 100, 1).append(title);
  });
  const line = (kind, text) => element("div", { class: `grid ${kind}`, "aria-hidden": "true" }, element("span", {}, text));
  return element(
    "figure",
    { class: "chart" },
    element("div", { class: "plot" }, line("top", whole(top)), line("middle", precise(top / 2)), svg),
    element("div", { class: "ticks", "aria-hidden": "true" }, ...ticks.map((tick) => element("span", {}, tick))),
    element("figcaption", {}, caption),
  );
}

// The smallest of 2, 4, 6 or 10 times a power of ten that is not below a number: its half is round, too.
function roundTop(number) {
  const power = 10 ** Math.floor(Math.log10(Math.max(number, 1)));
  return Math.max(2, [1, 2, 4, 6, 10].map((step) => step * power).find((step) => step >= number));
}

// Images with a prediction or a failure: the base of the error rate.
const tried = (rows) => rows.predicted + rows.failed;

function showHead() {
  const { run, rows } = data;
  $("output").textContent = run.output;
  const problem = !run.complete ? "Time limit reached" : !run.within_error_rate ? "Too many failures"
    : run.within_deleted_rate === false ? "Too many images deleted" : null;
  $("status").textContent = problem ?? "Succeeded";
  $("status").classList.add(problem ? "bad" : "good");
  const facts = { Module: run.module, "Computed by": run.computed_by, Run: run.id, Started: instant(run.started_at), Committed: instant(run.committed_at) };
  $("facts").append(...Object.entries(facts).filter(([, value]) => value).map(([name, value]) => fact(name, value)));
  const done = tried(rows);
  // A count with its share of a base.
  const part = (name, number, all, noun, attributes = {}) => {
    const made = fact(name, whole(number), attributes);
    if (number && all) made.append(element("dd", { class: "base" }, percentOf(number, all, noun)));
    return made;
  };
  $("counts").append(
    fact("inputs", whole(rows.input)),
    part("predicted", rows.predicted, rows.input, "input"),
    part("failed", rows.failed, done, "tried image", rows.failed ? { class: "bad" } : {}),
    part("skipped", rows.skipped, rows.input, "input"),
    fact("start to end", duration(run.seconds)),
    fact("tried images/s, start to end", precise(done / Math.max(run.seconds, 0.001))),
  );
  const known = { labeled: "labeled by earlier runs", known_failure: "that failed permanently in earlier runs and are unchanged", unchanged: "with a new version and the same content", time_limit: "left at the time limit" };
  const skipped = Object.entries(data.skipped).map(([reason, number]) => `${whole(number)} ${known[reason] ?? reason}`);
  const notes = ["Tried images are those that were predicted or failed.", data.relabeled && `Labeled from the features of earlier rows, without a fetch: ${count(data.relabeled, "image")}.`, skipped.length && `Skipped: ${skipped.join(", ")}.`, data.deleted && `Gone from the input: ${count(data.deleted, "image")} of earlier runs.`];
  $("notes").textContent = notes.filter(Boolean).join(" ");
  $("notes").hidden = !$("notes").textContent;
  $("made").textContent = `Written by beamlabel ${run.version} from the run’s manifest and rows. Times are in UTC, by the workers’ clocks.`;
}

function showThroughput() {
  const line = data.timeline;
  if (!line) {
    $("throughput").append(element("p", { class: "note" }, "The run’s manifest has no times of its shards."));
    return;
  }
  const rates = line.counts.map((images) => images / line.bin_seconds);
  const peak = Math.max(...rates);
  const at = (place) => duration(place * line.bin_seconds);
  const before = line.before ? ` An earlier attempt did ${count(line.before, "image")}.` : "";
  const about = `Tried images per second from the start of the run to its end, in spans of ${duration(line.bin_seconds)}. The highest rate is ${precise(peak)}.`;
  $("throughput").append(
    chart(rates, {
      about,
      titles: (value, place) => `${at(place)} – ${at(place + 1)}: ${precise(value)} images/s`,
      top: roundTop(peak),
      ticks: ["0 s", at(rates.length / 2), at(rates.length)],
      caption: `${about}${before} The images of a work unit are spread evenly over its time.`,
    }),
  );
}

function showLabels() {
  const { shown, others, rows_of_others } = data.labels;
  if (!shown.length) {
    $("labels").append(element("p", { class: "note" }, data.rows.predicted ? "The module gives no logits, so there are no labels." : "No image was predicted."));
    return;
  }
  const most = shown[0][1];
  $("labels-count").textContent = `${count(shown.length + others, "label")} of ${count(data.rows.predicted, "predicted image")}`;
  const items = shown.map(([label, images]) => {
    const button = element("button", { type: "button", "aria-pressed": "false", title: "Show this label in the contact sheet" },
      element("span", { class: "name" }, label), element("span", { class: "number" }, whole(images)), bar(images / most));
    button.dataset.label = label;
    button.addEventListener("click", () => {
      $("label").value = $("label").value === label ? "" : label;
      filter();
      $("sheet-title").scrollIntoView({ block: "start" });
    });
    return element("li", {}, button);
  });
  $("labels").append(element("ol", { class: "bars", "aria-label": "Predicted images by best label" }, ...items));
  if (others) $("labels").append(element("p", { class: "note" }, `And ${count(others, "label")} more, with ${count(rows_of_others, "predicted image")}.`));
}

function showScores() {
  if (!data.scores) {
    $("scores").append(element("p", { class: "note" }, data.rows.predicted ? "The module gives no logits, so there are no scores." : "No image was predicted."));
    return;
  }
  const { low, width, counts } = data.scores;
  const at = (place) => precise(low + place * width);
  const most = Math.max(...counts);
  const about = `${count(data.rows.predicted, "predicted image")} by the score of the best label, in ${counts.length} steps from ${at(0)} to ${at(counts.length)}. The largest step has ${count(most, "image")}.`;
  $("scores").append(
    chart(counts, {
      about,
      titles: (value, place) => `${at(place)} – ${at(place + 1)}: ${count(value, "image")}`,
      top: roundTop(most),
      ticks: counts.length % 4 ? [at(0), at(counts.length)] : [0, 1, 2, 3, 4].map((quarter) => at((quarter * counts.length) / 4)),
      caption: about,
    }),
  );
}

// A failed image: its picture if there is one, its reference as a link if a browser can open it, and the detail.
function failedExample(example) {
  const name = example.uri ?? example.ref_id;
  const shown = example.thumbnail ? [linked(example, { class: "shot" }, picture(example, `Failed image ${fileName(name)}`))] : [];
  return element("li", shown.length ? { class: "pictured" } : {}, ...shown,
    element("div", {}, element("div", { class: "mono" }, linked(example, {}, name)), element("div", { class: "note" }, example.detail)));
}

function showFailures() {
  const { rows } = data;
  if (!data.failures.length) {
    $("failures").append(element("p", { class: "note" }, tried(rows) ? `None of ${count(tried(rows), "tried image")} failed.` : "No image was tried."));
    return;
  }
  $("failures-count").textContent = `${whole(rows.failed)}, ${percentOf(rows.failed, tried(rows), "tried image")}`;
  const before = data.before?.failed_by_reason;
  $("failures").append(...data.failures.map(({ reason, count: images, examples }) => {
    const of = data.failures.length > 1 ? `, ${percentOf(images, rows.failed, "failure")}` : "";
    const was = before ? `The night before: ${count(before[reason] ?? 0, "image")}.` : "";
    return element("div", { class: "failure" },
      element("div", {}, element("h3", {}, element("span", { class: "mono" }, reason)), element("p", {}, `${count(images, "image")}${of}. ${was}`)),
      element("ul", { "aria-label": `Examples of ${reason}` }, ...examples.map(failedExample)));
  }));
}

// Describes the changes: each line has a number, its noun, and whether the change is bad.
function changes(before) {
  const lines = [];
  if (before.failures) {
    const { came, again, went } = before.failures;
    lines.push([came, "image", "failed now and not the night before", came > 0], [again, "image", "failed in both nights", false],
      [went, "image", "failed the night before and got a prediction now", false]);
  }
  const items = lines.map(([number, noun, text, isBad]) =>
    element("li", {}, element("b", isBad ? { class: "bad" } : {}, whole(number)), ` ${noun}${number === 1 ? "" : "s"} ${text}`));
  return element("ul", { class: "changes", "aria-label": "Changes of failures" }, ...items);
}

function countsOfNights(before) {
  const change = (was, is) => (was === is ? "0" : `${is > was ? "+" : "−"}${whole(Math.abs(is - was))}`);
  const failed = new Map(data.failures.map((one) => [one.reason, one.count]));
  const line = (name, was, is) => [name, whole(was), whole(is), change(was, is)];
  const rows = [["inputs", "input"], ["predicted", "predicted"], ["skipped", "skipped"], ["failed", "failed"]]
    .map(([name, key]) => line(name, before.rows[key], data.rows[key]));
  const reasons = [...new Set([...Object.keys(before.failed_by_reason), ...failed.keys()])].sort();
  rows.push(...reasons.map((reason) => line(element("span", { class: "mono reason" }, reason), before.failed_by_reason[reason] ?? 0, failed.get(reason) ?? 0)));
  return table("Counts of both nights", ["Images", "Before", "Now", "Change"], rows);
}

function showBefore() {
  const before = data.before;
  if (!before) return;
  const note = (text) => element("p", { class: "note after" }, text);
  const rate = (rows) => percentOf(rows.failed, tried(rows), "tried image");
  const drift = before.label_drift !== null ? labelDrift(before.label_drift, "Before", "Now", before.labeled ?? null, 6)
    : before.has_report ? [element("p", { class: "note" }, "The labels are not compared: one night has no labels, or too many.")]
      : [element("p", { class: "note" }, "Labels and embeddings are not compared: that night has no report. To write it, run ", element("span", { class: "mono" }, `beamlabel report ${before.output}`), ".")];
  $("before").hidden = false;
  $("before-body").append(
    element("p", { class: "note" }, "Compared with ", element("span", { class: "mono" }, before.output), `, started ${instant(before.started_at)}.${before.same_module ? "" : " It used another module or other preprocessing."}`),
    element("p", { class: "lead" }, `Failed now: ${rate(data.rows)}. The night before: ${rate(before.rows)}.`),
    before.failures ? changes(before) : note("There are too many failures to compare them image by image."),
    element("div", { class: "halves" },
      element("div", {}, element("h3", {}, "Counts"), countsOfNights(before)),
      element("div", {}, element("h3", {}, "Labels"), ...drift, ...[embeddingDrift(before.embedding_drift, "before", "now")].filter(Boolean).map(note))),
  );
}

const kinds = { top: "Top of label", uncertain: "Least certain", close: "Close call", at_odds: "At odds with its neighbors", random: "Random" };

function showDetail(row) {
  const name = fileName(row.uri);
  const classes = row.labels.map((label, place) =>
    element("li", {}, element("span", { class: "name" }, label), element("span", { class: "number" }, score(row.scores[place])), ...(probabilities ? [bar(Math.min(row.scores[place], 1))] : [])));
  $("detail-body").replaceChildren(
    element("h2", { id: "detail-title" }, name),
    linked(row, { class: "whole" }, picture(row, `${name} as the module sees it`)),
    verdictForm(row, () => $("detail").close()),
    element("ol", { class: "bars", "aria-label": "Best classes" }, ...classes),
    element("dl", {}, ...[["URI", row.uri], ["Row", row.ref_id], ["Sample", row.kinds.map((kind) => kinds[kind]).join(", ")], ...(row.neighbors ? [["Neighbors", `${row.neighbors.count} of ${row.neighbors.of} are ${row.neighbors.label}`]] : [])]
      .flatMap(([term, text]) => [element("dt", {}, term), element("dd", { class: term === "URI" || term === "Row" ? "mono" : "" }, term === "URI" ? linked(row, {}, text) : text)])),
  );
  $("detail").showModal();
}

// A picture in a sheet, with lines of text below it.
function shotItem(row, ...lines) {
  const caption = element("span", { class: "caption" }, ...lines);
  const button = element("button", { type: "button", title: row.uri }, marked(row, picture(row, fileName(row.uri))), caption);
  const open = () => showDetail(row);
  button.addEventListener("click", open);
  verdictKeys(button, row, open);
  return element("li", {}, button);
}

const best = (row) => element("b", { title: row.labels[0] }, row.labels[0]);

const shots = data.sample.map((row) => {
  const label = row.labels.length ? row.labels[0] : null;
  const item = label === null ? shotItem(row, element("span", {}, fileName(row.uri))) : shotItem(row, best(row), element("span", {}, score(row.scores[0])));
  return { label, score: row.scores[0], kinds: row.kinds, item };
});

// The rows whose corrections teach most, in order, for two reasons; no row appears twice.
function showHelpful() {
  const line = (text) => element("span", { title: text }, text);
  const odd = data.sample.filter((row) => row.kinds.includes("at_odds"));
  const calls = data.sample.filter((row) => row.kinds.includes("close"));
  const close = (calls.length ? calls : data.sample.filter((row) => row.kinds.includes("uncertain")).slice(0, 12)).filter((row) => !odd.includes(row));
  const oddItems = odd.map((row) => shotItem(row, best(row), line(`${row.neighbors.count} of ${row.neighbors.of}: ${row.neighbors.label}`)));
  const closeItems = close.map((row) => shotItem(row, best(row), line(row.labels.length > 1 ? `or ${row.labels[1]}` : score(row.scores[0]))));
  const group = (title, about, items) => [element("h3", {}, title), element("p", { class: "note" }, about), ...(items.length ? [element("ul", { class: "sheet", "aria-label": title }, ...items)] : [])];
  $("helpful").hidden = !(odd.length || close.length);
  if (data.compared) {
    const about = `Most of the ${count(data.compared.neighbors, "nearest image")} by embedding, among ${count(data.compared.rows, "sampled image")} of the run, have another class.`;
    $("helpful-body").append(...group("At odds with their neighbors", odd.length ? about : "No sampled image is at odds with its neighbors.", oddItems));
  }
  const why = !calls.length ? "their best scores are the lowest" : data.several ? "they have a score near 0.5" : "their best two scores are close";
  if (close.length) $("helpful-body").append(...group("Close calls", `The module is least certain about these images: ${why}.`, closeItems));
}

function filter() {
  const kind = document.querySelector("input[name=kind]:checked").value;
  const label = $("label").value;
  const low = $("low").value === "" ? -Infinity : Number($("low").value);
  const high = $("high").value === "" ? Infinity : Number($("high").value);
  const anyScore = low === -Infinity && high === Infinity;
  let shown = 0;
  for (const shot of shots) {
    const fits = (!kind || shot.kinds.includes(kind) || (kind === "helpful" && (shot.kinds.includes("close") || shot.kinds.includes("at_odds")))) && (!label || shot.label === label)
      && (anyScore || (shot.score >= low && shot.score <= high));
    shot.item.hidden = !fits;
    shown += fits;
  }
  $("shown").textContent = shots.length
    ? `${shown === shots.length ? "All" : `${whole(shown)} of`} ${count(shots.length, "sampled image")}, from ${count(data.rows.predicted, "predicted image")}.`
    : "No image was predicted.";
  for (const button of document.querySelectorAll("#labels button")) button.setAttribute("aria-pressed", String(label !== "" && button.dataset.label === label));
}

function showSheet() {
  const order = ({ label, score }) => [label ?? "", -(score ?? 0)];
  const ranks = new Map(data.labels.shown.map(([label], place) => [label, place]));
  const rank = (shot) => ranks.get(shot.label) ?? ranks.size;
  shots.sort((a, b) => rank(a) - rank(b) || (order(a)[0] < order(b)[0] ? -1 : order(a)[0] > order(b)[0] ? 1 : order(a)[1] - order(b)[1]));
  $("sheet").append(...shots.map((shot) => shot.item));
  const labels = [...new Set(shots.map((shot) => shot.label).filter((label) => label !== null))];
  $("label").append(...labels.sort().map((label) => element("option", { value: label }, label)));
  $("filter").hidden = !labels.length;
  $("filter").addEventListener("input", filter);
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("filter").addEventListener("reset", () => setTimeout(filter));
  $("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
  filter();
}

showHead();
showBefore();
showFailures();
showLabels();
showScores();
showThroughput();
showHelpful();
showSheet();
showVerdicts();
