"""The page of a comparison in a browser: it shows its data, fits the screen, and runs only its own script."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beamlabel.pipeline.diff.compare import KINDS
from beamlabel.pipeline.diff.page import diff_page
from beamlabel.pipeline.options.fetch_rights import FetchRights
from support.browser import NARROW, WIDE, Browser, browser

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>"


@pytest.fixture(scope="module")
def shown() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def row(kind: str, number: int) -> dict[str, Any]:
    return {
        "change": kind,
        "image_id": f"{number:032x}",
        "uri": f"gs://bucket/{HOSTILE}/{number}.jpg",
        "ref_id": f"list#{number}",
        "a_label": None if kind == "added" else f"a label {HOSTILE}",
        "b_label": None if kind == "removed" else "another",
        "a_score": 0.5,
        "b_score": 0.25,
        "a_reason": None,
        "b_reason": "truncated" if kind == "failed" else None,
        "detail": HOSTILE if kind == "failed" else None,
        "replaced": None,
        "outputs": ["/none/a", "/none/b"],
    }


def found(*, empty: bool = False) -> dict[str, Any]:
    """A made-up result of ``compare``."""
    side = {
        "outputs": [f"gs://a-bucket/{'with a long name/' * 9}dt=2026-01-01"],
        "runs": ["run"],
        "labeled": 12_345,
        "failed": 6,
        "modules": [
            {
                "handle": "https://tfhub.dev/google/imagenet/mobilenet_v2_075_160/classification/1",
                "fingerprint": "f",
            }
        ],
        "unidentified": 3,
    }
    labels = [
        {
            "label": f"{n} {HOSTILE if n == 3 else 'name'}",
            "a": 1000 * n,
            "b": 500,
            "share_a": n / 50,
            "share_b": 0.01,
            "change": 0.01 - n / 50,
        }
        for n in range(20)
    ]
    transitions = [{"from": "tabby, tabby cat", "to": "tiger cat", "images": 1000 - n} for n in range(50)]
    return {
        "a": side,
        "b": side,
        "images": {"in_both": 12_345, "added": 60, "removed": 60, "replaced": 7, "replaced_same_label": 7},
        "labels": {
            "compared": 12_000,
            "same": 11_000,
            "relabeled": 0 if empty else 60_000,
            "transitions": [] if empty else transitions,
        },
        "scores": None
        if empty
        else {
            "compared": 9,
            "mean_change": -0.1,
            "mean_absolute_change": 0.2,
            "largest_absolute_change": 0.9,
        },
        "failures": {
            "came": 5,
            "came_of_known_images": 60,
            "went": 2,
            "went_and_labeled": 60,
            "same_reason": 1,
            "other_reason": 60,
            "by_reason": [] if empty else [{"reason": "truncated", "a": 3, "b": 40}],
        },
        "label_drift": None if empty else {"total_variation": 0.5, "jensen_shannon": 0.25, "labels": labels},
        "embedding_drift": {"comparable": False, "why_not": "one side has no embeddings"},
        "examples": {kind: [] if empty else [row(kind, n) for n in range(24)] for kind in KINDS},
    }


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[bool, Path]:
    made = {}
    for empty in (False, True):
        made[empty] = tmp_path_factory.mktemp("pages") / "page.html"
        made[empty].write_text(
            diff_page(found(empty=empty), fetch=False, base_dir=None, rights=FetchRights())
        )
    return made


@pytest.mark.parametrize("width", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("empty", [False, True])
def test_it_shows_and_fits(shown, pages, width, empty):
    shown.open(pages[empty], width=width)
    assert shown.logged() == [] and len(shown.requests()) == 1
    assert shown.run("return document.documentElement.scrollWidth") == width
    assert shown.run("return window.pwned === undefined && document.querySelectorAll('img').length === 0")
    sections = shown.run(
        "return [...document.querySelectorAll('#pictures h2')].map((title) => title.textContent)"
    )
    assert len(sections) == (0 if empty else len(KINDS))
    text = shown.run("return document.body.innerText")
    assert "12,345" in text and "NaN" not in text and "undefined" not in text
    if not empty:
        assert HOSTILE in shown.run("return document.querySelector('#drift').textContent")


def test_a_picture_opens_its_image(shown, pages):
    shown.open(pages[False])
    shown.run("document.querySelector('#pictures section:nth-of-type(4) button').click()")
    detail = shown.run("return document.querySelector('dialog[open]').innerText")
    assert "truncated" in detail and HOSTILE in detail
    assert shown.logged() == []
