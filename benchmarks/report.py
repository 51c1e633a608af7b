"""Writes ``benchmarks.md`` and its plot from the recorded results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contenders import HANDWRITTEN, OURS, STOCK_BEAM
from summary import Record, Runs, Spread, fact_at, of_kind, rate, ratios, spread

NONE = "–"
# The rest of the page after it is written by hand, and stays.
BY_HAND = "<!-- From here on by hand: measured by other programs of benchmarks/. -->\n"


def write_report(records: Sequence[Record], directory: Path) -> list[Path]:
    """Writes the page and the plot of one comparison; returns the two files."""
    (setup,) = of_kind(records, "setup")
    contenders = of_kind(records, "contender")
    counts = (setup["counts"][0], setup["counts"][1])
    runs = {
        one["name"]: Runs((r for r in of_kind(records, "run") if r["name"] == one["name"]), counts)
        for one in contenders
    }
    sections = [
        _head(setup),
        _main_table(contenders, runs, counts),
        "![The long-run rate, the whole run and the memory of each](benchmarks.png)",
        _ratio_table(contenders, runs, counts),
        _own_figures(records, runs, counts),
        _method(setup, runs),
        _machine(setup, contenders),
    ]
    directory.mkdir(parents=True, exist_ok=True)
    page, plot = directory / "benchmarks.md", directory / "benchmarks.png"
    _, marker, by_hand = page.read_text().partition(BY_HAND) if page.exists() else ("", "", "")
    page.write_text(
        "\n\n".join(section for section in sections if section) + f"\n\n{marker}{by_hand}".rstrip() + "\n"
    )
    _plot(plot, contenders, runs, counts)
    return [page, plot]


def _head(setup: Record) -> str:
    module, photographs = setup["module"], setup["photographs"]
    made = "made from the sample" if photographs["made"] else "from a directory"
    return (
        "# Compared with others\n\n"
        f"All contenders do the same work: JPEG photographs ({made}, {photographs['mean_bytes'] / 1000:.0f} KB in the "
        f"mean) through `{module['name']}` at {module['height']} × {module['width']}, the top 5 and the "
        f"{module['dimensions']}-float embedding of each to Parquet. Medians of {setup['rounds']} rounds, with the "
        f"lowest and the highest; measured on {setup['date']} with\n\n"
        f"```bash\n{setup['command']}\n```"
    )


def _main_table(contenders: Sequence[Record], runs: dict[str, Runs], counts: tuple[int, int]) -> str:
    few, many = counts
    header = ["who", f"{few:,} images, s", f"{many:,} images, s", "images/s in the long run"]
    header += ["peak memory, MB", "RSS, MB", "CPU, s", "top-1 as hand-written"]
    rows = []
    for one in contenders:
        mine = runs[one["name"]]
        if not mine.rounds:
            rows.append([one["title"], f"not run: {_reason(one, mine)}", *[""] * 6])
            continue
        rates = spread(mine.rate(number) for number in mine.rounds)
        rows.append(
            [
                one["title"],
                _range(mine.fact("seconds", few), "{:.1f}"),
                _range(mine.fact("seconds", many), "{:.1f}"),
                _range(rates, "{:.0f}"),
                _range(mine.fact("pss_mb", many), "{:.0f}"),
                _median(mine.fact("rss_mb", many)),
                _median(mine.fact("cpu_seconds", many)),
                _percent(mine.worst("top_1")),
            ]
        )
    return _table(header, rows) + f"\n\nMemory and CPU are from the runs with {many:,} images."


def _reason(contender: Record, runs: Runs) -> str:
    problems = [run["problem"] for run in runs.all if run["problem"]]
    # A vertical bar would end the table's cell.
    reason: str = contender["missing"] or (problems or ["no run"])[0]
    return reason.replace("|", "/")


def _ratio_table(contenders: Sequence[Record], runs: dict[str, Runs], counts: tuple[int, int]) -> str:
    """Ratios to the hand-written script and to stock Beam; empty if the first was not run."""
    reference, stock = runs.get(HANDWRITTEN), runs.get(STOCK_BEAM)
    if reference is None or not reference.rounds:
        return ""
    few, many = counts

    figures: list[tuple[str, Runs | None, Callable[[Runs, int], float | None]]] = [
        ("long-run rate", reference, rate),
        (f"time of {few:,}", reference, fact_at("seconds", few)),
        (f"time of {many:,}", reference, fact_at("seconds", many)),
        ("peak memory", reference, fact_at("pss_mb", many)),
        ("long-run rate / stock Beam's", stock, rate),
    ]
    rows = []
    for one in contenders:
        mine = runs[one["name"]]
        if mine.rounds:
            cells = [_range(ratios(mine, to, f) if to else None, "{:.2f}") for _, to, f in figures]
            rows.append([one["title"], *cells])
    header = ["relative to the hand-written script", *(name for name, _, _ in figures)]
    return "Ratios are computed within each round; the table shows their medians:\n\n" + _table(header, rows)


def _own_figures(records: Sequence[Record], runs: dict[str, Runs], counts: tuple[int, int]) -> str:
    """Figures that only this project's command has."""
    lines = []
    mine = runs.get(OURS)
    warm = mine.fact("seconds", counts[0]) if mine else None
    cold = spread(record["seconds"] for record in of_kind(records, "cold_start") if record["problem"] is None)
    if cold and warm:
        lines.append(
            f"- First run, with an empty cache: {_range(cold, '{:.1f}')} s for {counts[0]:,} images, "
            f"{cold.median - warm.median:.1f} s more than with a warm cache (medians)."
        )
    if mine and (first := mine.fact("seconds_to_first_label", counts[0])):
        lines.append(f"- Seconds to the first labeled image: {_range(first, '{:.1f}')}.")
    for record in of_kind(records, "help"):
        lines.append(f"- `--help`: {statistics.median(record['seconds']):.2f} s.")
    for name, one in runs.items():
        good = [run for run in one.all if run["problem"] is None]
        ran = sorted({name for run in good for name in run.get("computed_by") or []})
        if ran:
            cosine = f"; median cosine with the hand-written script's embeddings: {one.worst('cosine'):.4f}"
            known = one.worst("cosine") is not None
            lines.append(f"- Engine of `{name}`: {', '.join(ran)}{cosine if known else ''}.")
    return "Figures of the job alone:\n\n" + "\n".join(lines) if lines else ""


def _method(setup: Record, runs: dict[str, Runs]) -> str:
    every = [run for one in runs.values() for run in one.all]
    lines = [
        "- Contenders run one at a time on an otherwise idle machine. In each round each of them runs both counts, in "
        "every second round in the opposite order. Before the first round each ran once over a few images, so bytecode "
        "and caches are warm; the photographs are in the page cache.",
        "- Time runs from the start of the process to its end. The rate in the long run is the slope between the two "
        "counts of a round, which excludes start-up.",
        "- Memory is the highest sum over all processes of the run (PSS: a page that n processes share counts as "
        "1/n in each), sampled up to four times a second. RSS counts it in full in each.",
        "- Pixels are equal: libjpeg's accurate full decode, bilinear without antialiasing. Top-1 is compared image by "
        "image; the table shows the worst run.",
    ]
    classes = (
        next((r["classes"] for r in runs[HANDWRITTEN].all if r.get("classes")), 0)
        if HANDWRITTEN in runs
        else 0
    )
    if classes:
        lines.append(f"- The hand-written script finds {classes} different classes.")
    if classes == 1:
        lines.append("- **With one class for all images, the agreement of top-1 means nothing.**")
    if every:
        cores = setup["machine"]["cores"]
        shares = [run["steal_seconds"] / (run["seconds"] * cores) for run in every]
        failed = sum(run["problem"] is not None for run in every)
        without = sum(one.rate(number) is None for one in runs.values() for number in one.rounds)
        lines.append(
            f"- Time taken by the hypervisor (steal): {statistics.median(shares):.1%} of the cores' time in the "
            f"median run, {max(shares):.1%} in the worst. Failed runs that are left out: {failed} of {len(every)}. "
            f"Rounds without a slope, because a run is missing or the long run was not longer: {without}."
        )
    return "## Method\n\n" + "\n".join(lines)


def _machine(setup: Record, contenders: Sequence[Record]) -> str:
    machine = setup["machine"]
    units = ", ".join(machine["units"]) or "none of those that matter"
    facts = (
        f"{machine['cpu']} ({units}), {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, "
        f"Python {machine['python']}."
    )
    lines = []
    for one in contenders:
        if one["versions"]:
            listed = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
            lines.append((one["name"], listed))
    grouped: dict[str, list[str]] = {}
    for name, listed in lines:
        grouped.setdefault(listed, []).append(name)
    rows = [[", ".join(f"`{name}`" for name in names), listed] for listed, names in grouped.items()]
    return f"## Machine and versions\n\n{facts}\n\n{_table(['environment of', 'versions'], rows)}"


def _plot(path: Path, contenders: Sequence[Record], runs: dict[str, Runs], counts: tuple[int, int]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    shown = [one for one in contenders if runs[one["name"]].rounds][::-1]
    figure, axes = pyplot.subplots(
        1, 4, figsize=(15, 1.4 + 0.4 * len(shown)), sharey=True, layout="constrained"
    )
    names = [one["name"].replace("_", " ") for one in shown]
    mine = [runs[one["name"]] for one in shown]
    colours = [_colour(one["name"]) for one in shown]
    many = counts[1]
    rates = [spread(one.rate(number) for number in one.rounds) for one in mine]
    _bars(axes[0], names, rates, colours, "images/s in the long run (more is better)")
    for axis, count in zip(axes[1:3], counts, strict=True):
        _bars(
            axis,
            names,
            [one.fact("seconds", count) for one in mine],
            colours,
            f"seconds for {count:,} images",
        )
    memory = [one.fact("pss_mb", many) for one in mine]
    _bars(axes[3], names, memory, colours, f"peak memory in MB, {many:,} images")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(
    axis: Any,
    names: Sequence[str],
    values: Sequence[Spread | None],
    colours: Sequence[str],
    title: str,
) -> None:
    """Draws horizontal bars of medians, with a line from the lowest to the highest."""
    medians = [value.median if value else 0.0 for value in values]
    below = [value.median - value.low if value else 0.0 for value in values]
    above = [value.high - value.median if value else 0.0 for value in values]
    axis.barh(names, medians, color=colours)
    axis.errorbar(medians, names, xerr=[below, above], fmt="none", ecolor="black", elinewidth=1, capsize=2)
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    for name, value in zip(names, values, strict=True):
        if value:
            axis.annotate(
                f"{value.median:.3g}" if value.median < 100 else f"{value.median:.0f}",
                (value.high, name),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axis.margins(x=0.12)


def _colour(name: str) -> str:
    if name == HANDWRITTEN:
        return "dimgray"
    return "tab:blue" if name.startswith(OURS) else "tab:orange"


def _range(value: Spread | None, form: str) -> str:
    if value is None:
        return NONE
    if value.count == 1:
        return form.format(value.median)
    return f"{form} ({form}–{form})".format(value.median, value.low, value.high)


def _median(value: Spread | None) -> str:
    return NONE if value is None else f"{value.median:.0f}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.2%}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
