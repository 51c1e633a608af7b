
const titles = {
  relabeled: ["Relabeled", "highest scores on both sides first"],
  added: ["Added", "only in B"],
  removed: ["Removed", "only in A"],
  failed: ["Failed", "labeled in A, failed in B"],
  recovered: ["Recovered", "failed in A, labeled in B"],
  other_reason: ["Failed for another reason", "in both A and B"],
  replaced: ["Replaced", "other content with the same label"],
};
const counts = {
  relabeled: data.labels.relabeled, added: data.images.added, removed: data.images.removed,
  failed: data.failures.came_of_known_images, recovered: data.failures.went_and_labeled, other_reason: data.failures.other_reason,
  replaced: data.images.replaced_same_label,
};
const score = (number) => (number === null ? "" : Math.abs(number) <= 1 ? number.toFixed(2) : precise(number));

function showSides() {
  for (const name of ["a", "b"]) {
    const { outputs, modules, labeled, failed, unidentified } = data[name];
    const where = outputs.length === 1 ? outputs[0] : `${count(outputs.length, "output")}, the last one ${outputs[outputs.length - 1]}`;
    const lost = unidentified ? ` ${count(unidentified, "row")} without an image ID ${unidentified === 1 ? "is" : "are"} not compared.` : "";
    $("sides").append(element("div", {},
      element("p", { class: "mono" }, element("h2", {}, name.toUpperCase()), where),
      element("p", {}, `${whole(labeled)} labeled, ${whole(failed)} failed.${lost}`),
      element("p", { class: "mono" }, modules.map((module) => module.handle).join(", "))));
  }
}

function showCounts() {
  const { images, labels, failures } = data;
  const small = (text) => [" ", element("small", {}, text)];
  $("counts").append(
    fact("images in both", [whole(images.in_both)]),
    fact("added", [whole(images.added)]),
    fact("removed", [whole(images.removed)]),
    fact("relabeled", [whole(labels.relabeled), ...(labels.compared ? small(percentOf(labels.relabeled, labels.compared, "image")) : [])]),
    fact("new failures", [whole(failures.came)], failures.came ? { class: "bad" } : {}),
    fact("failures gone", [whole(failures.went)]),
  );
}

function showDrift() {
  const scores = data.scores && `Score change of ${count(data.scores.compared, "image")} with the same label: mean ${signed(data.scores.mean_change, 4)}, mean absolute ${data.scores.mean_absolute_change.toFixed(4)}, largest ${data.scores.largest_absolute_change.toFixed(4)}.`;
  const texts = [embeddingDrift(data.embedding_drift), scores].filter(Boolean);
  $("drift").append(...labelDrift(data.label_drift, "A", "B"), ...texts.map((text) => element("p", { class: "note after" }, text)));
}

function showTables() {
  const { transitions, relabeled } = data.labels;
  const rows = transitions.map((one) => [[`${one.from} → ${one.to}`], whole(one.images)]);
  $("transitions").append(rows.length ? table("Relabeled images", ["From → to", "Images"], rows) : element("p", { class: "note" }, "No image was relabeled."));
  const shown = transitions.reduce((sum, one) => sum + one.images, 0);
  if (shown < relabeled) $("transitions").append(element("p", { class: "note after" }, `And ${count(relabeled - shown, "image")} more.`));
  const reasons = data.failures.by_reason.map((one) => [element("span", { class: "mono" }, one.reason), whole(one.a), whole(one.b)]);
  $("failures").append(reasons.length ? table("Failures by reason", ["Reason", "A", "B"], reasons) : element("p", { class: "note" }, "No image failed in A or B."));
}

function named(row, side) {
  return row[`${side}_reason`] ?? row[`${side}_label`] ?? "–";
}

function scored(row, side) {
  const isLabeled = row[`${side}_reason`] === null && row[`${side}_label`] !== null;
  return isLabeled ? score(row[`${side}_score`]) : "";
}

function was(row, side) {
  return `${named(row, side)} ${scored(row, side)}`.trim();
}

// The score gets its own line, since a long name is cut off at its end.
function captionLines(row, kind) {
  const sides = kind === "added" ? ["b"] : kind === "removed" ? ["a"] : ["a", "b"];
  return sides.flatMap((side, place) => {
    const isLast = place === sides.length - 1;
    const name = `${place ? "→ " : ""}${named(row, side)}`;
    const lines = [element(isLast ? "b" : "span", { title: name }, name)];
    if (scored(row, side)) lines.push(element("span", {}, scored(row, side)));
    return lines;
  });
}

function showDetail(row) {
  const name = fileName(row.uri ?? row.ref_id);
  const facts = [["A", was(row, "a")], ["B", was(row, "b")], ["URI", row.uri], ["Row", row.ref_id], ["Detail", row.detail],
    ["Content", row.replaced === null ? null : row.replaced ? "different in B" : "the same in both"]];
  $("detail-body").replaceChildren(
    element("h2", { id: "detail-title" }, name),
    picture(row, `Module input for ${name}`),
    element("dl", {}, ...facts.filter(([, text]) => text !== null).flatMap(([term, text]) =>
      [element("dt", {}, term), element("dd", { class: ["URI", "Row"].includes(term) ? "mono" : "" }, text)])),
  );
  $("detail").showModal();
}

function showPictures() {
  for (const [kind, rows] of Object.entries(data.examples)) {
    if (!rows.length) continue;
    const [title, about] = titles[kind];
    const items = rows.map((row) => {
      const caption = element("span", { class: "caption" }, ...captionLines(row, kind));
      const button = element("button", { type: "button", title: row.uri ?? row.ref_id }, picture(row, fileName(row.uri ?? row.ref_id)), caption);
      button.addEventListener("click", () => showDetail(row));
      return element("li", {}, button);
    });
    const number = counts[kind];
    const shown = rows.length < number ? `${whole(rows.length)} of ` : number === 1 ? "" : "All ";
    $("pictures").append(element("section", { class: "card", "aria-label": title },
      element("h2", {}, title, " ", element("small", {}, whole(number))),
      element("p", { class: "note" }, `${shown}${count(number, "image")}, ${about}.`),
      element("ul", { class: "sheet" }, ...items)));
  }
  $("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
}

showSides();
showCounts();
showDrift();
showTables();
showPictures();
$("made").textContent = `Written by beamlabel ${data.version} from the rows and failures of both sides.`;
