"""Corrections in the report's page in a browser: a user's verdicts are marked, kept, undone and exported."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from beamlabel.pipeline.report.data import data_of_page, report_data
from beamlabel.pipeline.report.page import page
from beamlabel.transforms.writing.unit_summary import Summarizer
from support.browser import NARROW, WIDE, Browser, browser, contrast, texts_on_colours

HOSTILE = [
    "</script><script>window.pwned=1</script>",
    'quote" and, comma',
    "=HYPERLINK(1)",
    " spaces around ",
    "Weißer Hai 🦈",
    "__proto__",
    "long " * 40,
    "<img src=x onerror=window.pwned=2>",
]
OF_SHEET = "document.querySelectorAll('#sheet button')[arguments[0]]"


@pytest.fixture(scope="module")
def shown() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def a_page(path: Path, names, *, count: int = 24, has_ids: bool = True, scores: bool = True) -> dict:
    """Writes the page of a made-up run and returns its data; empty ``names`` mean classes without names."""
    metadata = {"beamlabel.embedding_dim": "4"}
    metadata |= {"beamlabel.num_classes": "8", "beamlabel.scores": "softmax"} if scores else {}
    metadata |= {"beamlabel.labels_sha256": "0"} if names else {}
    rng, summarizer = np.random.default_rng(0), Summarizer(metadata)
    for number in range(count):
        ids = [number % 8, (number + 1) % 8, (number + 2) % 8]
        row = {
            "uri": f"gs://b/{HOSTILE[number % 8]}/{'x' * 350 if number == 5 else ''}{number}.jpg",
            "ref_id": f"list#{number}",
            "image_id": f"{number:032x}" if has_ids else None,
        }
        if scores:
            row |= {"class_ids": ids, "scores": sorted(rng.random(3).tolist(), reverse=True)}
            row |= {"labels": [names[one] for one in ids]} if names else {}
        summarizer.add_rows([row], rng.standard_normal((1, 4)).astype(np.float32))
    rows = {"input": count, "predicted": count, "failed": 0, "skipped": 0}
    manifest = {
        "run_id": path.stem, "output": "/out", "rows": rows, "metadata": metadata, "files": [], "seconds": 1.0,
        "started_at": "2026-01-01T00:00:00+00:00", "committed_at": "2026-01-01T00:00:01+00:00", "error_rate": 0.0,
        "within_error_rate": True, "complete": True, "failed_by_reason": {}, "options": {"max_error_rate": 0.05},
    }  # fmt: skip
    data = {**report_data(manifest, [summarizer.finish([])]), "before": None}
    path.write_text(page(data))
    return data


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("named") / "named.html"
    a_page(path, HOSTILE)
    return path


def opened(shown: Browser, path: Path, **size) -> list[dict]:
    """Opens a page without stored state; returns the rows in the order of the contact sheet."""
    shown.open(path, **size)
    # No correction is unsaved then, so no dialog asks whether to leave the page.
    shown.run("localStorage.clear(); restoreCorrections(correctable); showMarks();")
    return rows_shown(shown)


def rows_shown(shown: Browser) -> list[dict]:
    titles = shown.run("return [...document.querySelectorAll('#sheet button')].map((button) => button.title)")
    rows = {row["uri"]: row for row in shown.run("return data.sample")}
    return [rows[title] for title in titles]


def exported(shown: Browser) -> list[list[str]]:
    text = shown.run("return correctionsCsv(correctable, false)")
    header, *lines = csv.reader(io.StringIO(text), strict=True)
    assert header == ["image_id", "uri", "verdict", "label"]
    return lines


def press(shown: Browser, place: int, button: str) -> None:
    """Opens an image of the sheet and presses the form's button whose text begins with ``text``."""
    shown.run(f"{OF_SHEET}.click()", place)
    texts = "[...document.querySelectorAll('#detail .verdict button')]"
    shown.run(f"{texts}.find((one) => one.textContent.startsWith(arguments[0])).click()", button)
    assert shown.run("return document.querySelector('#detail').open") is False


def type_class(shown: Browser, place: int, name: str) -> None:
    shown.run(f"{OF_SHEET}.click()", place)
    field = shown.driver.find_element("css selector", "#truth")
    field.clear()
    shown.run("arguments[0].value = arguments[1]", field, name)
    field.send_keys("\n")


def marks(shown: Browser, uri: str) -> set[str]:
    """The texts on all visible thumbnails of an image."""
    return set(
        shown.run(
            """return [...document.querySelectorAll('.sheet button')].filter((one) => one.title === arguments[0])
          .map((one) => one.querySelector('.mark')).filter((mark) => !mark.hidden).map((mark) => mark.innerText)""",
            uri,
        )
    )


def test_right_wrong_unknown_and_undone(shown, named):
    rows = opened(shown, named)
    assert shown.run("return document.querySelector('#saving').hidden") is True
    press(shown, 0, "✓ Right")
    press(shown, 1, "✗ Wrong, class unknown")
    type_class(shown, 2, "  a new class, mine ")
    press(shown, 3, "✓ Right")
    press(shown, 3, "Undo")
    other = rows[4]["labels"][1]
    press(shown, 4, other)
    expected = [
        [rows[0]["image_id"], rows[0]["uri"], "right", rows[0]["labels"][0]],
        [rows[1]["image_id"], rows[1]["uri"], "wrong", ""],
        [rows[2]["image_id"], rows[2]["uri"], "wrong", "a new class, mine"],
        [rows[4]["image_id"], rows[4]["uri"], "wrong", other],
    ]
    assert sorted(exported(shown)) == sorted(expected)
    assert shown.run("return document.querySelector('#saving-count').textContent") == "4 corrections"
    for place, word in ((0, "right"), (1, "wrong"), (2, "a new class, mine")):
        (text,) = marks(shown, rows[place]["uri"])
        assert word in text
    assert marks(shown, rows[3]["uri"]) == set()
    assert shown.logged() == []


def test_every_name_and_uri_arrives_as_it_is(shown, named):
    rows = opened(shown, named)
    for place in range(len(rows)):
        press(shown, place, "✓ Right")
    whole = {f"{number:032x}": HOSTILE[number % 8] for number in range(24)}
    found = {line[0]: line for line in exported(shown)}
    assert found.keys() == whole.keys()
    for number, (image, name) in enumerate(whole.items()):
        uri = f"gs://b/{HOSTILE[number % 8]}/{'x' * 350 if number == 5 else ''}{number}.jpg"
        assert found[image][1:] == [uri, "right", name]
    assert shown.run("return window.pwned") is None
    assert shown.run("return document.querySelectorAll('img[src=x]').length") == 0
    known = shown.run(
        "return [...document.querySelectorAll('#known-classes option')].map((one) => one.value)"
    )
    assert sorted(known) == sorted(HOSTILE)


def test_they_are_there_when_the_page_is_opened_again(shown, named):
    rows = opened(shown, named)
    press(shown, 0, "✓ Right")
    asked = "return !window.dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    assert shown.run(asked) is True, "the page asks before unsaved corrections are lost"
    shown.run("isSaved = true; storeCorrections()")
    assert shown.run(asked) is False
    shown.open(named)
    assert len(exported(shown)) == 1
    assert len(marks(shown, rows[0]["uri"])) == 1
    shown.run(
        "localStorage.setItem(KEPT, JSON.stringify({labels: [['x', 1], 5, [data.sample[0].image_id, {}]]}))"
    )
    shown.open(named)
    assert exported(shown) == [] and shown.logged() == []


def test_a_browser_that_keeps_nothing(shown, named):
    opened(shown, named)
    shown.run("Storage.prototype.setItem = () => { throw new Error('no'); }; localStorage.clear();")
    press(shown, 0, "✓ Right")
    assert len(exported(shown)) == 1
    shown.run("isSaved = true")


def test_keys_on_a_picture(shown, named):
    rows = opened(shown, named)
    first, second = shown.driver.find_elements("css selector", "#sheet button")[:2]
    first.send_keys("r")
    assert [line[2:] for line in exported(shown)] == [["right", rows[0]["labels"][0]]]
    second.send_keys("w")
    field = shown.driver.switch_to.active_element
    assert field.get_attribute("id") == "truth" and field.get_attribute("value") == ""
    field.send_keys("seal\n")
    assert shown.run("return document.querySelector('#detail').open") is False
    assert shown.driver.switch_to.active_element == second, "the focus has not moved"
    assert {line[3] for line in exported(shown)} == {rows[0]["labels"][0], "seal"}
    first.send_keys("u")
    assert [line[3] for line in exported(shown)] == ["seal"]
    assert shown.run("return document.querySelectorAll('#detail input').length") == shown.run(
        "return [...document.querySelectorAll('#detail input')].filter((one) => one.labels.length === 1).length"
    )


def test_classes_without_names_are_numbers(shown, tmp_path):
    path = tmp_path / "unnamed.html"
    a_page(path, None)
    rows = opened(shown, path)
    press(shown, 0, "✓ Right: class")
    type_class(shown, 1, "class 7")
    type_class(shown, 2, "3")
    type_class(shown, 3, "my own class 5")
    by_image = {line[0]: line[3] for line in exported(shown)}
    number = rows[0]["labels"][0].removeprefix("class ")
    assert [by_image[row["image_id"]] for row in rows[:4]] == [number, "7", "3", "my own class 5"]
    assert "class 3" in next(iter(marks(shown, rows[2]["uri"]))) or number == "3"


def test_rows_without_a_prediction_can_get_a_class(shown, tmp_path):
    path = tmp_path / "features.html"
    a_page(path, None, scores=False)
    rows = opened(shown, path)
    assert shown.run("return document.querySelector('#helpful').hidden") is True
    type_class(shown, 0, "owl")
    assert exported(shown) == [[rows[0]["image_id"], rows[0]["uri"], "wrong", "owl"]]


def test_rows_without_an_image_id_cannot_be_corrected(shown, tmp_path):
    path = tmp_path / "old.html"
    a_page(path, HOSTILE, has_ids=False)
    opened(shown, path)
    shown.run(f"{OF_SHEET}.click()", 0)
    assert shown.run("return document.querySelectorAll('#detail .verdict').length") == 0
    assert "image_id" in shown.run("return document.querySelector('#detail').textContent")
    assert shown.run("return document.querySelector('#how').hidden") is True


@pytest.mark.parametrize("width", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_and_form_can_be_read_and_fit(shown, named, width, scheme):
    opened(shown, named, width=width, scheme=scheme)
    press(shown, 0, "✓ Right")
    press(shown, 1, "✗ Wrong, class unknown")
    type_class(shown, 2, "w" * 80)
    shown.run(f"{OF_SHEET}.click()", 2)
    for text, behind, words in texts_on_colours(shown):
        assert contrast(text, behind) >= 4.5, (scheme, words, text, behind)
    assert shown.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert shown.run("""
        const dialog = document.querySelector('#detail').getBoundingClientRect();
        return [...document.querySelectorAll('#detail .verdict *')].every((one) => {
          const box = one.getBoundingClientRect();
          return !box.width || (box.left >= dialog.left && box.right <= dialog.right);
        })""")
    shown.run("isSaved = true")


def test_pictures_that_would_help_are_shown(shown, named):
    opened(shown, named)
    data = data_of_page(named.read_text())
    assert data is not None
    close = [row["uri"] for row in data["sample"] if "close" in row["kinds"]]
    odd = [row["uri"] for row in data["sample"] if "at_odds" in row["kinds"]]
    titles = shown.run("return [...document.querySelectorAll('#helpful button')].map((one) => one.title)")
    assert titles == odd + [uri for uri in close if uri not in odd]
    shown.run(
        """const radio = document.querySelector('input[name=kind][value=helpful]'); radio.checked = true;
        radio.dispatchEvent(new Event('input', {bubbles: true}))"""
    )
    visible = (
        "[...document.querySelectorAll('#sheet li')].filter((item) => item.offsetParent !== null).length"
    )
    assert shown.run(f"return {visible}") == len(set(close) | set(odd))
