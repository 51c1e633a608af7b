"""A training's report in a browser: it shows its data, sorts, and exports corrections as a file."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from beamlabel.pipeline.train.findings.findings import Findings
from beamlabel.pipeline.train.report.page import training_page
from beamlabel.pipeline.truth.open_truth import open_truth
from beamlabel.pipeline.truth.options import TruthOptions
from support.browser import NARROW, SCHEMES, WIDE, Browser, browser
from support.trained import class_scores, findings, note, proportion

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>"
NAMES = ("tabby", HOSTILE, "\u202eabc אבג", 'quote" , comma', "W" * 250, *(f"class {n}" for n in range(300)))


@pytest.fixture(scope="module")
def shown() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def hostile(**changed: Any) -> Findings:
    suspects = tuple(
        note(n, NAMES[n % 5], NAMES[(n + 1) % 5], uri=f"gs://bucket/{HOSTILE}/{n},{'long' * 60}.jpg")
        for n in range(12)
    )
    return findings(NAMES, **{"suspects": suspects, "facts": {"a": {HOSTILE: HOSTILE}}, **changed})


@pytest.fixture
def opened(shown: Browser, tmp_path: Path):
    """Opens the page of findings without stored state."""

    def opened(of: Findings, **how: Any) -> Browser:
        path = tmp_path / "_report.html"
        path.write_text(training_page(of, {}))
        shown.open(path, **how)
        return shown

    return opened


def column(shown: Browser, number: int) -> list[str]:
    return shown.run(
        """
        const rows = [...document.querySelectorAll('#class-rows tr')];
        return rows.map((row) => row.children[arguments[0]].textContent)""",
        number,
    )


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_fits_in_silence_and_from_nowhere(opened, tmp_path, width, scheme):
    shown = opened(hostile(), width=width, scheme=scheme)
    assert shown.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert shown.run("return window.pwned ?? null") is None
    assert shown.run("return document.querySelectorAll('img[src=x], iframe').length") == 0
    assert shown.run("return document.querySelectorAll('.curves svg polyline').length") >= 5
    shown.run("document.querySelector('#suspects-sheet button').click()")
    assert shown.run(
        "const box = document.querySelector('#detail'); return box.scrollWidth <= box.clientWidth"
    )
    assert shown.logged() == []
    assert shown.requests() == [(tmp_path / "_report.html").as_uri()]


def test_classes_sort_filter_and_page(opened):
    of = hostile()
    shown = opened(of)
    assert column(shown, 5)[:2] == ["0.40", "0.40"] and len(column(shown, 0)) == 50
    shown.run("document.querySelector('#class-more').click()")
    assert len(column(shown, 0)) == 250
    shown.run("document.querySelector('#classes [data-key=recall]').click()")
    shown.run("document.querySelector('#classes [data-key=recall]').click()")
    recalls = [int(text.split()[0]) for text in column(shown, 4)]
    assert recalls == sorted(recalls, reverse=True) and recalls[0] == 99
    assert (
        shown.run("return document.querySelector('#classes [data-key=recall]').parentElement.ariaSort")
        == "descending"
    )
    shown.run("""
        const field = document.querySelector('#class-filter');
        field.value = 'CLASS 29'; field.dispatchEvent(new Event('input', {bubbles: true}));""")
    assert sorted(column(shown, 0)) == ["class 29", *(f"class 29{n}" for n in range(10))]
    shown.run("document.querySelector('#classes [data-key=f1]').click()")
    assert column(shown, 5)[-1] == "–", "a class without test images comes last"


OPEN = """
    document.querySelector('#detail').close();
    document.querySelectorAll('#suspects-sheet button')[arguments[0]].click();"""


def say(shown: Browser, place: int, choice: str) -> None:
    """Opens the n-th image and presses a verdict button."""
    shown.run(OPEN, place)
    shown.run(
        """
        const buttons = [...document.querySelectorAll('.verdict .choices button')];
        buttons.find((button) => button.textContent.startsWith(arguments[0])).click();""",
        choice,
    )


def write(shown: Browser, place: int, text: str) -> None:
    """Opens the n-th image and types the class it shows."""
    shown.run(OPEN, place)
    shown.run(
        """
        const field = document.querySelector('#other');
        field.value = arguments[0]; field.dispatchEvent(new Event('input', {bubbles: true}));
        document.querySelector('.typed button').click();""",
        text,
    )


def saved_text(shown: Browser) -> str:
    """The text of the file that the page exports."""
    return shown.run("""
        const original = URL.createObjectURL; let blob;
        URL.createObjectURL = (made) => { blob = made; return original.call(URL, made); };
        document.querySelector('#saving-save').click();
        URL.createObjectURL = original;
        return blob.text()""")


def saved(shown: Browser) -> list[dict[str, str]]:
    """The rows of the exported file."""
    return list(csv.DictReader(io.StringIO(saved_text(shown), newline="")))


def truth_of(text: str, path: Path, images: list[str]) -> list[tuple[str, ...] | None]:
    """The truth that a training reads from the file, by ``image_id``."""
    path.write_bytes(text.encode())
    batch = pa.RecordBatch.from_pydict({"image_id": images})
    return open_truth(TruthOptions(truth=(str(path),)), batch.schema).of_batch(batch)


def test_corrections_are_saved_as_said_and_kept(opened, tmp_path):
    of = hostile()
    shown = opened(of)
    assert shown.run("return document.querySelector('#saving').hidden")
    say(shown, 0, "Prediction")
    say(shown, 1, "Truth")
    write(shown, 2, "class 7")
    write(shown, 4, f'new "class",{HOSTILE}')
    say(shown, 5, "Truth")
    say(shown, 5, "Undo")
    expected = [
        (0, "right", NAMES[1]),
        (1, "wrong", NAMES[1]),
        (2, "wrong", "class 7"),
        (4, "wrong", f'new "class",{HOSTILE}'),
    ]
    rows = [
        {"image_id": of.suspects[n].image_id, "uri": of.suspects[n].uri, "verdict": verdict, "label": label}
        for n, verdict, label in expected
    ]
    assert saved(shown) == rows
    images = [suspect.image_id for suspect in of.suspects[:6]]
    said = {n: (label,) for n, _, label in expected}
    assert truth_of(saved_text(shown), tmp_path / "corrections.csv", images) == [
        said.get(n) for n in range(6)
    ]
    marked = """
        const marks = [...document.querySelectorAll('#suspects-sheet .mark:not([hidden])')];
        return marks.map((mark) => mark.closest('li').dataset.image)"""
    assert shown.run(marked) == [row["image_id"] for row in rows]
    shown = opened(of)
    assert saved(shown) == rows, "also when the page was closed and opened again"
    shown.run("document.querySelector('#saving-clear').click()")
    assert shown.run("return document.querySelector('#saving').hidden")
    assert shown.run(marked) == []


def test_after_a_verdict_comes_the_next_image_without_one(opened):
    shown = opened(hostile())
    image = "return [...document.querySelectorAll('#detail dd')].pop().textContent"
    say(shown, 1, "Truth")
    say(shown, 0, "Truth")
    assert shown.run("return document.querySelector('#detail').open")
    assert shown.run(image) == f"{2:032x}"
    say(shown, 11, "Truth")
    assert not shown.run("return document.querySelector('#detail').open")
    shown.run("document.querySelector('#saving-clear').click()")


def test_several_classes_are_corrected_as_a_list(opened, tmp_path):
    names = ("cat", "dog", "spider, web")
    of = findings(
        names, multi_label=True, calibration=None, confusions=(),
        suspects=(note(1, "cat, dog", "spider, web, dog"), note(2, "cat", ""), note(3, "", "cat, dog")),
    )  # fmt: skip
    shown = opened(of)
    assert "exactly the classes" in shown.run("return document.querySelector('#accuracy').textContent")
    assert not shown.run("return document.querySelector('#calibration').checkVisibility()")
    say(shown, 0, "Prediction")
    say(shown, 1, "Truth")
    write(shown, 2, "dog\ncat\n\n")
    rows = saved(shown)
    images = [suspect.image_id for suspect in of.suspects]
    truth = truth_of(saved_text(shown), tmp_path / "corrections.csv", images)
    shown.run("document.querySelector('#saving-clear').click()")
    assert truth == [("dog", "spider, web"), ("cat",), ("cat", "dog")]
    assert [(row["verdict"], json.loads(row["label"])) for row in rows] == [
        ("right", ["spider, web", "dog"]),
        ("wrong", ["cat"]),
        ("right", ["dog", "cat"]),
    ]


@pytest.mark.parametrize("width", [WIDE, NARROW], ids=["wide", "narrow"])
def test_findings_with_nothing_in_them_have_a_page(opened, width):
    nothing = proportion(0, 0)
    of = Findings(
        ("a", "b"),
        False,
        {"train": proportion(1, 2), "test": nothing},
        class_scores(("a", "b"), test=0),
        None,
    )
    shown = opened(of, width=width)
    assert shown.logged() == []
    hidden = ("#problems", "#suspects", "#curve", "#calibration", "#loss", "#validation", "#record", "#plots")
    assert not shown.run(
        "return [...document.querySelectorAll(arguments[0])].some((e) => e.checkVisibility())",
        ", ".join(hidden),
    )
    assert "unknown" in shown.run("return document.querySelector('#accuracy').textContent")


def test_ten_thousand_classes_open(opened):
    names = tuple(f"class number {n}" for n in range(10_000))
    shown = opened(findings(names, class_scores=class_scores(names, test=1)))
    assert shown.logged() == []
    assert shown.run("return document.querySelectorAll('*').length") < 3000
    assert shown.run("return document.querySelector('#classes-count').textContent") == "10,000"


def test_keys_say_it_without_opening(opened):
    from selenium.webdriver.common.keys import Keys

    shown = opened(hostile())
    pictures = shown.driver.find_elements("css selector", "#suspects-sheet button")
    for place, key in enumerate(("r", "t", "r", "w")):
        pictures[place].send_keys(key)
    assert shown.run("return document.activeElement.id") == "other"
    shown.driver.switch_to.active_element.send_keys("class 7", Keys.ENTER)
    assert shown.run("return document.querySelector('#detail').open"), "the next image"
    shown.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    pictures[2].send_keys("u")
    rows = saved(shown)
    shown.run("document.querySelector('#saving-clear').click()")
    assert [(row["verdict"], row["label"]) for row in rows] == [
        ("right", NAMES[1]),
        ("wrong", NAMES[1]),
        ("wrong", "class 7"),
    ]


def test_what_is_neither_and_unknown_is_no_truth_any_more(opened, tmp_path):
    of = hostile()
    shown = opened(of)
    say(shown, 0, "Neither")
    shown.driver.execute_script("document.querySelector('#detail').close()")
    shown.driver.find_elements("css selector", "#suspects-sheet button")[1].send_keys("x")
    shown.run(OPEN, 0)
    pressed = (
        "return [...document.querySelectorAll('.verdict [aria-pressed=true]')].map((e) => e.textContent)"
    )
    assert shown.run(pressed) == ["Neither, class unknown"]
    text = saved_text(shown)
    shown.run("document.querySelector('#saving-clear').click()")
    assert [(row["verdict"], row["label"]) for row in csv.DictReader(io.StringIO(text, newline=""))] == [
        ("wrong", "")
    ] * 2
    images = [suspect.image_id for suspect in of.suspects[:3]]
    before, after = tmp_path / "truth.csv", tmp_path / "corrections.csv"
    before.write_text("image_id,class\n" + "".join(f"{image},cat\n" for image in images))
    after.write_bytes(text.encode())
    batch = pa.RecordBatch.from_pydict({"image_id": images})
    truth = open_truth(TruthOptions(truth=(str(before), str(after))), batch.schema)
    assert truth.of_batch(batch) == [None, None, ("cat",)]


def test_a_long_list_of_suspects_goes_on(opened):
    of = findings(suspects=tuple(note(number, "tabby", "otter") for number in range(60)))
    shown = opened(of)
    visible = """
        return [...document.querySelectorAll('#suspects-sheet button')].filter((e) => e.checkVisibility()).length"""
    assert shown.run(visible) == 24
    shown.run("document.querySelector('#suspects-more').click()")
    assert shown.run(visible) == 60
    place = "return [...document.querySelectorAll('#suspects-sheet button')].indexOf(document.activeElement)"
    assert shown.run(place) == 24
    assert not shown.run("return document.querySelector('#suspects-more').checkVisibility()")
