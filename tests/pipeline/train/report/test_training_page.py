"""The data of a training's report: bounded, exact where corrections need it, and without locations."""

import dataclasses
import io
import json
import math
import re
from pathlib import Path

import pytest
from PIL import Image

from beamlabel.pipeline.options.fetch_rights import FetchRights
from beamlabel.pipeline.report.data import data_of_page
from beamlabel.pipeline.report.thumbnails import load_options_of
from beamlabel.pipeline.train.findings.findings import ClassScore, Problem
from beamlabel.pipeline.train.report.advice import curve_advice, gain_by_doubling
from beamlabel.pipeline.train.report.data import PAGE_BYTES, exact_labels
from beamlabel.pipeline.train.report.page import training_page, write_report
from beamlabel.pipeline.train.report.pictures import pictures_of, shown_notes
from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.decoding.thumbnail import MAX_BYTES
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_options import LoadOptions
from support.jobs import photos
from support.trained import class_scores, curve, findings, note

LOAD = LoadOptions(FetchOptions(), DecodeOptions(32, 32))


def data_of(page: str) -> dict:
    data = data_of_page(page)
    assert data is not None
    data["classes"] = [dict(zip(data["class_fields"], row, strict=True)) for row in data["classes"]]
    return data


def test_the_page_has_the_findings():
    of = findings()
    data = data_of(training_page(of, {}))
    assert data["accuracy"]["test"]["images"] == 400
    assert data["accuracy"]["test"]["value"] == pytest.approx(0.73)
    assert [row["name"] for row in data["classes"]] == ["tabby", "tiger cat", "beagle", "otter", "red fox"]
    assert {row["name"]: row["f1"] for row in data["classes"]} == {s.name: s.f1 for s in of.class_scores}
    assert [row["image_id"] for row in data["suspects"]] == [suspect.image_id for suspect in of.suspects]
    assert data["pairs"][0] == {"truth": "tabby", "predicted": "tiger cat", "count": 24, "of": 80}
    assert dict(data["facts"])["options split"] == "0.8, 0.1, 0.1"
    assert training_page(of, {}) == training_page(of, {})


def test_classes_are_the_worst_first_and_those_without_a_number_last():
    scores = (
        ClassScore("good", 9, 9, 0.9, 0.9, 0.9),
        ClassScore("untested", 9, 0, None, None, None),
        ClassScore("bad, few", 9, 2, 0.1, 0.1, 0.1),
        ClassScore("bad, many", 9, 20, 0.1, 0.1, 0.1),
        ClassScore("not a number", 9, 1, math.nan, math.nan, math.nan),
    )
    data = data_of(training_page(findings(class_scores=scores), {}))
    assert [row["name"] for row in data["classes"]] == [
        "bad, many",
        "bad, few",
        "good",
        "not a number",
        "untested",
    ]


def test_the_script_element_is_strict_json_with_any_texts():
    names = ('</script><!-- "', "\u202eright to left", "\u2028line", "\udcff odd bytes", "&amp;")
    of = findings(names, suspects=(note(1, names[0], names[3], score=math.nan, quality=math.inf),))
    page = training_page(of, {})
    page.encode()
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    data = json.loads(found[1], parse_constant=refuse)
    assert data["suspects"][0]["score"] is None
    assert data["suspects"][0]["truth_labels"] == [names[0]]
    assert data["suspects"][0]["predicted_labels"] is None, "a name that had to be changed is not offered"


def test_the_addresses_of_images_are_not_revealed():
    hidden = "https://host/a.jpg?sig=secret"
    of = findings(suspects=(note(1, "tabby", "otter", uri="https://host/a.jpg", location=hidden),))
    assert "secret" not in training_page(of, {})


@pytest.mark.parametrize("name", ["class {}", "<{}&" + "<" * 290, "猫 {} " * 40, "{} long " * 500])
def test_ten_thousand_classes_and_large_pictures_fit(name):
    names = tuple(name.format(*[number] * name.count("{}")) for number in range(10_000))
    truth, predicted = names[7], names[8]
    suspects = tuple(note(n, truth, predicted, uri="gs://bucket/" + "<" * 3000 + str(n)) for n in range(5000))
    problems = tuple(Problem(names[n], n, tuple(names[:20])) for n in range(300))
    of = findings(
        names, class_scores=class_scores(names, test=3), suspects=suspects, problems=problems,
        facts={"deep": {"facts": [{"name": one} for one in names]}, "classes": list(names)},
    )  # fmt: skip
    large = b"\xff" * (2 * MAX_BYTES)
    page = training_page(of, {one.image_id: large for one in shown_notes(of)})
    assert len(page.encode()) < PAGE_BYTES
    data = data_of(page)
    assert (
        (10_000 if name == "class {}" else 400)
        <= len(data["classes"])
        <= data["scored_count"]
        == data["class_count"]
        == 10_000
    )
    f1 = [row["f1"] for row in data["classes"] if row["f1"] is not None]
    assert f1 == sorted(f1) and f1[0] == min(score.f1 for score in of.class_scores if score.f1 is not None)
    assert len(data["suspects"]) >= 30 and len(data["pictures"]) >= 20
    exact = [row["name"] for row in data["classes"] if row["is_exact"]]
    assert set(exact) <= set(names)


def test_a_class_with_a_long_name_is_never_offered_by_another_name():
    long = "x" * 1000
    data = data_of(training_page(findings(("tabby", long), suspects=(note(1, "tabby", long),)), {}))
    assert data["suspects"][0]["predicted_labels"] is None
    assert [row["is_exact"] for row in data["classes"] if row["name"].startswith("x")] == [False]


@pytest.mark.parametrize(
    ("joined", "labels"),
    [
        ("cat", ["cat"]),
        ("cat, dog", ["cat", "dog"]),
        ("", []),
        ("spider, web, cat", ["spider, web", "cat"]),
        ("cat, bird", None),
        ("a, b", None),
        ("a, b, cat", None),
    ],
)
def test_joined_classes_are_told_apart_or_not_offered(joined, labels):
    names = ("cat", "dog", "spider, web", "a", "b", "a, b")
    assert exact_labels(joined, findings(names, multi_label=True)) == labels


def test_one_class_is_never_split():
    assert exact_labels("cat, dog", findings(("cat", "dog", "cat, dog"))) == ["cat, dog"]


@pytest.mark.parametrize(
    ("values", "test", "beginning"),
    [
        ((0.5, 0.6, 0.7, 0.8), 1000, "The curve still rises"),
        ((0.5, 0.6, 0.65, 0.66), 100, "The curve seems to rise"),
        ((0.5, 0.7, 0.73, 0.731, 0.73), 1000, "The curve is flat"),
        ((0.8, 0.7, 0.6), 1000, "The curve falls"),
        ((0.8, 0.78, 0.76), 100, "The curve seems to fall"),
        ((0.8, 0.9, 0.99), 1000, "Nearly all of 1,000 test images"),
        ((0.99, 0.99, 0.99), 1000, "Nearly all of 1,000 test images"),
        ((0.5,), 1000, None),
        ((), 1000, None),
    ],
)
def test_the_advice_follows_the_end_of_the_curve(values, test, beginning):
    advice = curve_advice(curve(*values, test=test))
    assert advice is None if beginning is None else advice is not None and advice.startswith(beginning)


@pytest.mark.parametrize(
    ("values", "is_named"),
    [
        ((0.7, 0.7, 0.7), True),
        ((0.5, 0.6, 0.7), False),
        ((0.8, 0.7, 0.6), False),
        ((0.99, 0.99, 0.99), False),
    ],
)
def test_fine_tuning_is_proposed_for_a_flat_curve_alone(values, is_named):
    advice = curve_advice(curve(*values, test=1000))
    assert advice is not None
    assert ("--fine_tune" in advice) == is_named


def test_the_gain_is_the_slope_by_doubling():
    assert gain_by_doubling(curve(0.1, 0.5, 0.55, 0.6, test=1000)) == pytest.approx(0.05)
    once = curve(0.5, 0.5)
    assert gain_by_doubling((once[0], once[0])) is None, "twice the same amount is no curve"
    assert gain_by_doubling(tuple(reversed(curve(0.5, 0.6, test=1000)))) == pytest.approx(0.1)


def test_pictures_are_the_networks_view_of_what_can_be_had(tmp_path):
    there = photos(tmp_path, 3)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    locations = [*map(str, there), str(tmp_path / "broken.jpg"), str(tmp_path / "none.jpg"), None]
    suspects = tuple(
        note(number, "tabby", "otter", uri=location or "table.parquet#1", location=location)
        for number, location in enumerate(locations)
    )
    of = findings(suspects=suspects, confusions=())
    pictures = pictures_of(of, LOAD)
    assert set(pictures) == {suspect.image_id for suspect in suspects[:3]}
    assert {Image.open(io.BytesIO(picture)).size for picture in pictures.values()} == {(32, 32)}
    assert pictures_of(of, LOAD, seconds=0.0) == {}
    ran = {"max_bytes": 1 << 20, "max_pixels": 1 << 20, "fetch_deadline": 9.0}
    load = load_options_of(ran, {"height": 32, "width": 32, "crop": None}, FetchRights())
    path = write_report(of, tmp_path, load)
    data = data_of(Path(path).read_text())
    assert set(data["pictures"]) == set(pictures)
    assert [row["can_be_fetched"] for row in data["suspects"]] == [True] * 5 + [False]
    assert data_of(Path(write_report(of, tmp_path)).read_text())["pictures"] == {}


def test_a_history_of_many_epochs_is_thinned_evenly():
    (epoch, *_) = findings().history
    history = tuple(dataclasses.replace(epoch, number=number) for number in range(1, 10_001))
    data = data_of(training_page(findings(history=history), {}))
    numbers = [one["number"] for one in data["history"]]
    assert (numbers[0], numbers[-1], data["epoch_count"]) == (1, 10_000, 10_000)
    assert len(numbers) == len(set(numbers)) <= 300
