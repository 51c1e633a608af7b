
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

// Bars of equal width; ticks below stand at equal distances.
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

// The smallest of 2, 4, 6, 10 times a power of ten that is not below a number: half of it is round, too.
function roundTop(number) {
  const power = 10 ** Math.floor(Math.log10(Math.max(number, 1)));
  return Math.max(2, [1, 2, 4, 6, 10].map((step) => step * power).find((step) => step >= number));
}

function showHead() {
  const { run, rows } = data;
  $("output").textContent = run.output;
  const problem = !run.complete ? "Out of time" : !run.within_error_rate ? "Too many failures"
    : run.within_deleted_rate === false ? "Too many images gone" : null;
  $("status").textContent = problem ?? "Succeeded";
  $("status").classList.add(problem ? "bad" : "good");
  const facts = { Module: run.module, "Computed by": run.computed_by, Run: run.id, Started: instant(run.started_at), Committed: instant(run.committed_at) };
  $("facts").append(...Object.entries(facts).filter(([, value]) => value).map(([name, value]) => fact(name, value)));
  const done = rows.predicted + rows.failed;
  const failed = [whole(rows.failed)];
  if (rows.failed) failed.push(" ", element("small", {}, percent(rows.failed, done)));
  $("counts").append(
    fact("images in", whole(rows.input)),
    fact("predicted", whole(rows.predicted)),
    fact("failed", failed, rows.failed ? { class: "bad" } : {}),
    fact("skipped", whole(rows.skipped)),
    fact("time", duration(run.seconds)),
    fact("images/s, start to end", precise(done / Math.max(run.seconds, 0.001))),
  );
  const known = { labeled: "labeled by earlier runs", known_failure: "that failed for good in earlier runs and have not changed", unchanged: "touched, with the same content", time_limit: "for which the time was over" };
  const skipped = Object.entries(data.skipped).map(([reason, number]) => `${whole(number)} ${known[reason] ?? reason}`);
  const notes = [data.relabeled && `Labeled by features of earlier rows, and not fetched: ${count(data.relabeled, "image")}.`, skipped.length && `Skipped: ${skipped.join(", ")}.`, data.deleted && `Gone from the input since: ${count(data.deleted, "image")}.`];
  $("notes").textContent = notes.filter(Boolean).join(" ");
  $("notes").hidden = !$("notes").textContent;
  $("made").textContent = `Written by beamlabel ${run.version} from the run’s manifest and rows. Times are UTC, by the workers’ clocks.`;
}

function showThroughput() {
  const line = data.timeline;
  if (!line) {
    $("throughput").append(element("p", { class: "note" }, "The run’s manifest tells no times of its shards."));
    return;
  }
  const rates = line.counts.map((images) => images / line.bin_seconds);
  const peak = Math.max(...rates);
  const at = (place) => duration(place * line.bin_seconds);
  const before = line.before ? ` ${count(line.before, "image")} had been done by an earlier attempt.` : "";
  const about = `Images per second from the start of the run to its end, in spans of ${duration(line.bin_seconds)}; at most ${precise(peak)}.`;
  $("throughput").append(
    chart(rates, {
      about,
      titles: (value, place) => `${at(place)} – ${at(place + 1)}: ${precise(value)} images/s`,
      top: roundTop(peak),
      ticks: ["0 s", at(rates.length / 2), at(rates.length)],
      caption: `${about}${before} Each unit’s images are spread evenly between its first and its last.`,
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
  $("labels-count").textContent = whole(shown.length + others);
  const items = shown.map(([label, images]) => {
    const button = element("button", { type: "button", "aria-pressed": "false", title: "Show in the contact sheet" },
      element("span", { class: "name" }, label), element("span", { class: "number" }, whole(images)), bar(images / most));
    button.dataset.label = label;
    button.addEventListener("click", () => {
      $("label").value = $("label").value === label ? "" : label;
      filter();
      $("sheet-title").scrollIntoView({ block: "start" });
    });
    return element("li", {}, button);
  });
  $("labels").append(element("ol", { class: "bars", "aria-label": "Images by best label" }, ...items));
  if (others) $("labels").append(element("p", { class: "note" }, `And ${count(others, "label")} more, with ${count(rows_of_others, "image")}.`));
}

function showScores() {
  if (!data.scores) {
    $("scores").append(element("p", { class: "note" }, data.rows.predicted ? "The module gives no logits, so there are no scores." : "No image was predicted."));
    return;
  }
  const { low, width, counts } = data.scores;
  const at = (place) => precise(low + place * width);
  const most = Math.max(...counts);
  const about = `Images by the score of their best class, in ${counts.length} steps from ${at(0)} to ${at(counts.length)}; the fullest step has ${whole(most)}.`;
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

function showFailures() {
  if (!data.failures.length) {
    $("failures").append(element("p", { class: "note" }, "No image that was tried has failed."));
    return;
  }
  $("failures").append(...data.failures.map(({ reason, count: images, examples }) =>
    element("div", { class: "failure" },
      element("div", {}, element("h3", {}, element("span", { class: "mono" }, reason)), element("p", {}, `${count(images, "image")}, ${percent(images, data.rows.failed)}`)),
      element("ul", { "aria-label": `Examples of ${reason}` }, ...examples.map((example) =>
        element("li", {}, element("div", { class: "mono" }, example.uri ?? example.ref_id), element("div", { class: "note" }, example.detail)))))));
}

function showBefore() {
  const before = data.before;
  if (!before) return;
  const now = data.run, failed = new Map(data.failures.map((one) => [one.reason, one.count]));
  const note = (text) => element("p", { class: "note after" }, text);
  const rows = [["images in", "input"], ["predicted", "predicted"], ["failed", "failed"], ["skipped", "skipped"]]
    .map(([name, key]) => [name, whole(before.rows[key]), whole(data.rows[key])]);
  rows.push(["error rate", share(before.error_rate, 1), share(now.error_rate, 1)]);
  const reasons = [...new Set([...Object.keys(before.failed_by_reason), ...failed.keys()])].sort();
  rows.push(...reasons.map((reason) => [element("span", { class: "mono" }, reason), whole(before.failed_by_reason[reason] ?? 0), whole(failed.get(reason) ?? 0)]));
  const { came, again, went } = before.failures ?? {};
  const drift = before.label_drift !== null ? labelDrift(before.label_drift, "Before", "Now")
    : [element("p", { class: "note" }, before.has_report ? "The labels are not compared: one night has none, or too many." : "That night has no report, so labels and embeddings are not compared; beamlabel report makes one.")];
  $("before").hidden = false;
  $("before-body").append(
    element("p", { class: "note" }, "Compared with ", element("span", { class: "mono" }, before.output), `, which began ${instant(before.started_at)}.${before.same_module ? "" : " Its module or preprocessing was another."} Labels and embeddings are of the images that each night predicted.`),
    table("Counts of both nights", ["", "Before", "Now"], rows),
    note(before.failures ? `Images that failed only now: ${whole(came)}; in both nights: ${whole(again)}; that failed before and were predicted now: ${whole(went)}.` : "The failures are too many to be compared image by image."),
    element("h3", {}, "Labels"), ...drift,
  );
  const embeddings = embeddingDrift(before.embedding_drift);
  if (embeddings) $("before-body").append(note(embeddings));
}

const kinds = { top: "Top of label", uncertain: "Least certain", close: "Close call", at_odds: "At odds with its neighbours", random: "Random" };

function showDetail(row) {
  const name = fileName(row.uri);
  const classes = row.labels.map((label, place) =>
    element("li", {}, element("span", { class: "name" }, label), element("span", { class: "number" }, score(row.scores[place])), ...(probabilities ? [bar(Math.min(row.scores[place], 1))] : [])));
  $("detail-body").replaceChildren(
    element("h2", { id: "detail-title" }, name),
    picture(row, `The module’s view of ${name}`),
    verdictForm(row, () => $("detail").close()),
    element("ol", { class: "bars", "aria-label": "Best classes" }, ...classes),
    element("dl", {}, ...[["URI", row.uri], ["Row", row.ref_id], ["Sample", row.kinds.map((kind) => kinds[kind]).join(", ")], ...(row.neighbors ? [["Neighbours", `${row.neighbors.count} of ${row.neighbors.of} are ${row.neighbors.label}`]] : [])]
      .flatMap(([term, text]) => [element("dt", {}, term), element("dd", { class: term === "URI" || term === "Row" ? "mono" : "" }, text)])),
  );
  $("detail").showModal();
}

// A picture of a sheet, with lines of text below it.
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

// The rows whose classes would teach most, in their order, for the two reasons; none twice.
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
    const about = `Most of the ${whole(data.compared.neighbors)} images with the nearest embeddings, among ${whole(data.compared.rows)} of the run, have another class.`;
    $("helpful-body").append(...group("At odds with their neighbours", odd.length ? about : "No sampled image is at odds with its neighbours.", oddItems));
  }
  const why = !calls.length ? "the best score is the lowest" : data.several ? "a score is nearest to 0.5" : "the best two scores are nearest to each other";
  if (close.length) $("helpful-body").append(...group("Close calls", `The module is least certain of these: ${why}.`, closeItems));
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
    ? `${shown === shots.length ? "All" : `${whole(shown)} of`} ${count(shots.length, "sampled image")}, of ${whole(data.rows.predicted)} predicted.`
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
showThroughput();
showLabels();
showScores();
showFailures();
showBefore();
showHelpful();
showSheet();
showVerdicts();
