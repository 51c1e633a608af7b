"""The report's page in a browser: it shows its data, filters, fits the screen, and runs only its own script."""

import io
import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from beamlabel.pipeline.report.data import data_of_page
from beamlabel.pipeline.report.page import page
from support.browser import NARROW, WIDE, Browser, browser, contrast, texts_on_colours
from support.jobs import TINY_FEATURES, label, photos, uri_list

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>"
WIDTHS = pytest.mark.parametrize("width", [WIDE, NARROW], ids=["wide", "narrow"])


@pytest.fixture(scope="module")
def shown() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The page of a run over 200 photographs with four failures and some long and hostile names."""
    directory = tmp_path_factory.mktemp("report")
    names = [
        "tabby",
        "W" * 150,
        "two words",
        HOSTILE,
        "<b>bold</b>",
        "quote\" onload='window.pwned=3'",
        *"ghijk",
    ]
    labels = directory / "labels.txt"
    labels.write_text("".join(f"{name}\n" for name in names))
    cut_off = directory / "photos" / f"cut {HOSTILE.replace('/', '∕')}.jpg"
    uris = [
        *photos(directory / "photos", 200),
        f"{HOSTILE}.jpg",
        "long/" * 60,
        "javascript:window.pwned=4",
        cut_off,
    ]
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).save(encoded, "JPEG")
    cut_off.write_bytes(encoded.getvalue()[:2000])
    inputs = uri_list(directory / "list.txt", uris)
    job = label(directory / "out", "--input", inputs, "--labels", labels, "--report")
    assert job.code == 0
    return job.output / "_report.html"


def data_of(report: Path) -> dict:
    data = data_of_page(report.read_text())
    assert data is not None
    return data


def visible(shown: Browser) -> list[dict]:
    """The texts below the visible thumbnails of the contact sheet."""
    return shown.run("""
        return [...document.querySelectorAll('#sheet li')].filter((item) => item.offsetParent !== null).map((item) => {
          const [label, score] = item.querySelectorAll('.caption > *');
          return {label: label.textContent, score: score && score.textContent};
        })""")


def set_value(shown: Browser, selector: str, value: str) -> None:
    """Sets a value like a user: the value changes, and the form gets an event."""
    shown.run(
        """
        const field = document.querySelector(arguments[0]);
        if (field.type === 'radio') field.checked = true; else field.value = arguments[1];
        field.dispatchEvent(new Event('input', {bubbles: true}));""",
        selector,
        value,
    )


@WIDTHS
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_loads_in_silence_and_from_nowhere(shown, report, width, scheme):
    shown.open(report, width=width, scheme=scheme)
    shown.screenshot(10_000)
    assert shown.logged() == []
    assert shown.requests() == [report.resolve().as_uri()]


def test_what_it_says_is_what_it_holds(shown, report):
    shown.open(report)
    data = data_of(report)
    counts = shown.run(
        "return [...document.querySelectorAll('#counts div')].map((div) => [...div.children].map((d) => d.textContent))"
    )
    assert counts[:2] == [["inputs", "204"], ["predicted", "200", "98 % of 204 inputs"]]
    assert counts[2] == ["failed", "4", "2.0 % of 204 tried images"]
    bars = shown.run("return [...document.querySelectorAll('#labels .name')].map((bar) => bar.textContent)")
    assert bars == [name for name, _ in data["labels"]["shown"]]
    assert len(visible(shown)) == len(data["sample"])
    failures = shown.run("return document.querySelector('#failures').textContent")
    assert HOSTILE in failures and "javascript:window.pwned=4" in failures
    shown.screenshot(10_000)
    loaded = shown.run(
        "return [...document.querySelectorAll('#sheet img')].filter((image) => image.naturalWidth === 32).length"
    )
    assert loaded == len(data["sample"])


def test_nothing_from_outside_runs(shown, report):
    shown.open(report)
    assert shown.run("return window.pwned") is None
    assert shown.run("return document.scripts.length") == 2
    assert shown.run("return document.querySelectorAll('b b, img[src=x], iframe').length") == 0
    assert shown.run("return [...document.links].every((link) => link.protocol === 'file:')")
    injected = "const script = document.createElement('script'); script.textContent = 'window.pwned = 5';"
    shown.run(f"{injected} document.body.append(script)")
    shown.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,x\" onerror=\"window.pwned=6\">')"
    )
    shown.run("return fetch('https://example.org/').catch(() => null)")
    assert shown.run("return window.pwned") is None, "the policy lets only the page's own script run"
    assert len(shown.logged()) >= 3, "and the console reports the blocked content"


def before_of(data: dict) -> dict:
    """A made-up previous night."""
    rows = {"input": 150, "predicted": 140, "failed": 10, "skipped": 0}
    names = [name for name, _ in data["labels"]["shown"]][:8]
    labels = [
        {"label": name, "a": 14, "b": 10, "share_a": 0.1, "share_b": 0.05, "change": -0.05} for name in names
    ]
    return {
        "output": f"/labels/{HOSTILE}", "started_at": "2026-01-01T00:00:00+00:00", "rows": rows, "error_rate": 1 / 15,
        "failed_by_reason": {"not_found": 9, "empty_file": 1}, "has_report": True, "same_module": True,
        "failures": {"came": 2, "again": 1, "went": 1}, "labeled": [140, 200], "embedding_drift": None,
        "label_drift": {"total_variation": 0.25, "jensen_shannon": 0.1, "labels": labels},
    }  # fmt: skip


@pytest.fixture(scope="module")
def second_night(report, tmp_path_factory) -> Path:
    """The same page with a previous night."""
    data = data_of(report)
    path = tmp_path_factory.mktemp("second") / "_report.html"
    path.write_text(page({**data, "before": before_of(data)}))
    return path


@WIDTHS
def test_it_opens_with_the_night_before_then_failures_labels_throughput(shown, second_night, report, width):
    titles = """return [...document.querySelectorAll('main h2')].filter((one) => one.offsetParent)
        .map((one) => one.firstChild.data.trim())"""
    shown.open(second_night, width=width)
    assert shown.logged() == []
    wanted = ["Counts", "Since the night before", "Failures", "Labels", "Scores", "Throughput"]
    assert shown.run(titles)[:6] == wanted
    tops = shown.run(
        "return [...document.querySelectorAll('main h2')].map((h) => h.getBoundingClientRect().top)"
    )
    assert tops[:4] == sorted(tops[:4]) and shown.run("return document.documentElement.scrollWidth") == width
    text = shown.run("return document.querySelector('#before').innerText")
    assert "Failed now: 2.0 % of 204 tried images. The night before: 6.7 % of 150 tried images." in text
    assert "2 images failed now and not the night before" in text and "1 image failed in both nights" in text
    assert "25 % of 200 predicted images would need another label" in text
    assert "The night before: 9 images." in shown.run("return document.querySelector('#failures').innerText")
    shown.open(report, width=width)
    assert "Since the night before" not in shown.run(titles)


def test_every_percentage_names_its_base(shown, second_night):
    shown.open(second_night)
    shown.run("for (const one of document.querySelectorAll('details')) one.open = true")
    # A table names the base of its percentages in its column heads.
    tables = """return [...document.querySelectorAll('table')]
        .map((one) => [one.tHead.innerText, one.tBodies[0].innerText])"""
    for head, body in shown.run(tables):
        assert "%" not in body or re.search(r"of [\d,]+ images", head), (head, body)
    outside = """
        const copy = document.body.cloneNode(true);
        for (const one of copy.querySelectorAll('script, table')) one.remove();
        return copy.textContent;"""
    found = re.findall(r"\d %.{0,12}", shown.run(outside))
    assert len(found) > 6
    assert [text for text in found if not re.match(r"\d % of [\d,]+ \w", text)] == []


def test_pictures_link_to_files_that_a_browser_can_open(shown, report):
    shown.open(report)
    links = shown.run(
        "return [...document.querySelectorAll('#failures a')].map((a) => [a.href, a.rel, a.textContent])"
    )
    places = [Path(unquote(urlsplit(href).path)) for href, _, _ in links]
    assert len(places) == 2 and len(set(places)) == 1 and places[0].is_file(), (
        "the thumbnail and the reference"
    )
    assert {rel for _, rel, _ in links} == {"noopener noreferrer"}
    assert shown.run("return document.querySelector('#failures a img').alt").startswith("Failed image cut ")
    shown.run("document.querySelector('#sheet button').click()")
    opened = shown.run("return [...document.querySelectorAll('#detail a')].map((a) => a.href)")
    assert len(opened) == 2 and Path(unquote(urlsplit(opened[0]).path)).is_file()
    assert shown.logged() == []


@pytest.mark.parametrize(
    "link",
    ["javascript:window.pwned=7", "data:text/html,x", "file:///etc/passwd", "//example.org/a.jpg", "/etc/passwd",
     "blob:x", "\tjavascript:window.pwned=8", "https://", 7, None],
)  # fmt: skip
def test_no_link_to_anything_else(shown, report, tmp_path, link):
    data = data_of(report)
    example = {"uri": "a", "ref_id": "a", "detail": "d", "link": link, "thumbnail": None}
    row = {**data["sample"][0], "link": link}
    failures = [{"reason": "truncated", "count": 1, "examples": [example]}]
    path = tmp_path / "_report.html"
    path.write_text(page({**data, "failures": failures, "sample": [row]}))
    shown.open(path)
    shown.run("document.querySelector('#sheet button').click()")
    assert shown.run("return document.links.length") == 0
    assert shown.run("return reachable('https://example.org/a.jpg')") == "https://example.org/a.jpg"
    assert shown.run("return reachable('https://user:word@example.org/a.jpg')") is None
    assert shown.logged() == []


def test_the_filter_filters_by_label(shown, report):
    shown.open(report)
    everything = visible(shown)
    for name in {shot["label"] for shot in everything}:
        set_value(shown, "#label", name)
        assert visible(shown) == [shot for shot in everything if shot["label"] == name]
        status = shown.run("return document.querySelector('#shown').textContent")
        assert f"{len(visible(shown))} of {len(everything)}" in status or len(visible(shown)) == len(
            everything
        )
    shown.run("document.querySelector('#filter button[type=reset]').click()")
    shown.run("return new Promise((done) => setTimeout(done, 50))")
    assert visible(shown) == everything


def test_the_filter_filters_by_score_and_kind(shown, report):
    shown.open(report)
    sample = data_of(report)["sample"]
    scores = sorted(row["scores"][0] for row in sample)
    low, high = float(np.quantile(scores, 0.3)), float(np.quantile(scores, 0.8))
    set_value(shown, "#low", str(low))
    assert len(visible(shown)) == sum(row["scores"][0] >= low for row in sample)
    set_value(shown, "#high", str(high))
    fitting = [row for row in sample if low <= row["scores"][0] <= high]
    assert 0 < len(visible(shown)) == len(fitting) < len(sample)
    set_value(shown, "input[name=kind][value=random]", "")
    assert len(visible(shown)) == sum("random" in row["kinds"] for row in fitting)


def test_a_bar_of_the_histogram_filters_and_lets_go(shown, report):
    shown.open(report)
    everything = visible(shown)
    bar = "const bar = document.querySelector('#labels button'); "
    name = shown.run(f"{bar} bar.click(); return bar.querySelector('.name').textContent")
    assert {shot["label"] for shot in visible(shown)} == {name}
    assert shown.run(f"{bar} return bar.getAttribute('aria-pressed')") == "true"
    shown.run(f"{bar} bar.click()")
    assert visible(shown) == everything


def test_a_picture_opens_by_the_keyboard_and_closes_by_escape(shown, report):
    from selenium.webdriver.common.keys import Keys

    shown.open(report)
    first = shown.driver.find_element("css selector", "#sheet button")
    first.send_keys(Keys.ENTER)
    detail = shown.driver.find_element("css selector", "#detail")
    assert detail.is_displayed()
    assert detail.find_element("css selector", "dd").text.endswith(".png")
    assert len(detail.find_elements("css selector", ".bars li")) == 5
    shown.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not detail.is_displayed()


def test_saved_corrections_are_truth_for_evaluate(shown, report, tmp_path, capsys):
    from beamlabel.pipeline.commands.evaluate import main as evaluate

    shown.open(report)
    for picture in shown.driver.find_elements("css selector", "#sheet button")[:7]:
        picture.send_keys("r")
    shown.run("""
        const [one, two] = correctable.filter((row) => corrections.has(row.image_id));
        say(one, [one.predicted_labels[0] === 'tabby' ? 'two words' : 'tabby']); say(two, [])""")
    directory = {"behavior": "allow", "downloadPath": str(tmp_path)}
    shown.driver.execute_cdp_cmd("Page.setDownloadBehavior", directory)
    shown.run("document.querySelector('#saving-save').click()")
    file, deadline = tmp_path / "corrections.csv", time.monotonic() + 60
    while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    with file.open(encoding="utf-8", newline="") as lines:
        assert lines.read() == shown.run("return correctionsCsv(correctable, false)")
    assert shown.run("return document.querySelector('#saving-count').textContent") == "7 corrections, saved"
    assert shown.run("return window.dispatchEvent(new Event('beforeunload', {cancelable: true}))")
    assert evaluate(["--truth", str(file), "--json", str(report.parent)]) == 0
    found = json.loads(capsys.readouterr().out)
    # One of seven was wrong, and another has an unknown class, which is not a truth.
    assert (found["evaluated"], found["top_1"]) == (6, 5 / 6)
    shown.run("corrections.clear(); keepCorrections()")


@WIDTHS
def test_it_never_scrolls_sideways(shown, report, width):
    shown.open(report, width=width)
    assert shown.run("return document.documentElement.scrollWidth <= window.innerWidth")
    too_wide = shown.run("""
        return [...document.querySelectorAll('main, main *')].filter((element) => {
          const box = element.getBoundingClientRect();
          return box.width && (box.right > window.innerWidth + 0.5 || box.left < -0.5);
        }).map((element) => element.outerHTML.slice(0, 80))""")
    assert too_wide == []


def test_light_and_dark_differ_and_can_be_read(shown, report):
    backgrounds = []
    for scheme in ("light", "dark"):
        shown.open(report, scheme=scheme)
        backgrounds.append(np.asarray(shown.screenshot(400))[2, 2].mean())
        colours = texts_on_colours(shown)
        assert len(colours) > 60
        for text, behind, words in colours:
            assert contrast(text, behind) >= 4.5, (scheme, words, text, behind)
    assert backgrounds[0] > 200 and backgrounds[1] < 50


def test_inputs_have_labels_and_pictures_have_texts(shown, report):
    shown.open(report)
    assert shown.run(
        "return [...document.querySelectorAll('input, select')].every((i) => i.labels.length === 1)"
    )
    assert shown.run("return [...document.images].every((image) => image.alt !== '')")
    assert shown.run("return document.documentElement.lang") == "en"
    headings = shown.run(
        "return [...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))"
    )
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))


@pytest.mark.parametrize("case", ["no row", "all fail", "no logits", "no thumbnails", "logits"])
@WIDTHS
def test_odd_runs_have_a_page_without_an_error(shown, tmp_path, case, width):
    uris = {"no row": [], "all fail": ["a.jpg", "b.jpg"]}.get(case, photos(tmp_path / "photos", 8))
    module = {"module": TINY_FEATURES} if case == "no logits" else {}
    arguments = ["--scores", "none"] if case == "logits" else []
    inputs = uri_list(tmp_path / "list.txt", uris)
    job = label(tmp_path / "out", "--input", inputs, "--report", *arguments, **module)
    report = job.output / "_report.html"
    if case == "no thumbnails":
        data = data_of(report)
        for row in data["sample"]:
            row["thumbnail"] = None
        report.write_text(page({**data, "timeline": None}))
    shown.open(report, width=width)
    assert shown.logged() == []
    assert len(visible(shown)) == len(data_of(report)["sample"])
    has_labels = case in ("no thumbnails", "logits")
    assert shown.driver.find_element("css selector", "#filter").is_displayed() is has_labels
    assert shown.run("return document.documentElement.scrollWidth <= window.innerWidth")
