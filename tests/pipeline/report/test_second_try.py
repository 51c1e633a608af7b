"""The page of a run that takes over the published units of an earlier run."""

from beamlabel.pipeline.report.data import data_of_page
from support.jobs import FinishedJob, label, photos


def shown(job: FinishedJob) -> dict:
    """The data in a run's page."""
    data = data_of_page((job.output / "_report.html").read_text())
    assert data is not None
    return data


def test_a_second_try_over_a_directory_keeps_its_pictures(tmp_path):
    """The units are taken over unchanged, and only the page has their thumbnails."""
    directory = tmp_path / "photos"
    photos(directory, 5)
    arguments = ("--input", directory, "--report", "--if_exists", "resume")
    first = label(tmp_path / "out", *arguments)
    pictures = {row["ref_id"]: row["thumbnail"] for row in shown(first)["sample"]}
    assert len(pictures) == 5 and all(pictures.values())
    again = label(tmp_path / "out", *arguments)
    assert {row["ref_id"]: row["thumbnail"] for row in shown(again)["sample"]} == pictures
    # A replaced photograph is another unit with its own thumbnail.
    photos(tmp_path / "other", 1, size=(30, 90))[0].replace(directory / "photo 002.png")
    replaced = {
        row["ref_id"]: row["thumbnail"] for row in shown(label(tmp_path / "out", *arguments))["sample"]
    }
    different = [ref_id for ref_id in pictures if replaced[ref_id] != pictures[ref_id]]
    assert all(replaced.values()) and [ref_id.rpartition("/")[2] for ref_id in different] == [
        "photo 002.png#0"
    ]
