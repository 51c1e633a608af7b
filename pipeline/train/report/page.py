"""``_report.html`` of a training, made from its findings: self-contained, like the report of a labeling job."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources

from beamlabel.pipeline import layout
from beamlabel.pipeline.report.page import fill, own_file
from beamlabel.pipeline.train.findings.findings import Findings
from beamlabel.pipeline.train.report.data import page_data
from beamlabel.pipeline.train.report.pictures import SECONDS, pictures_of
from beamlabel.transforms import storage
from beamlabel.transforms.loading.load_options import LoadOptions


def write_report(
    findings: Findings,
    directory: str | os.PathLike[str],
    load: LoadOptions | None = None,
    *,
    seconds: float = SECONDS,
) -> str:
    """Writes the page into the module's directory; returns its path.

    Args:
      findings: findings of the training.
      directory: local directory, or one in a bucket.
      load: options for fetching the images on the page, see ``load_options_of``; None: the page has no pictures.
      seconds: time limit for fetching them.

    Raises:
      OSError: the page cannot be written.
    """
    pictures = {} if load is None else pictures_of(findings, load, seconds=seconds)
    path = storage.join(os.fspath(directory), layout.REPORT)
    storage.write_bytes(path, training_page(findings, pictures).encode())
    return path


def training_page(findings: Findings, pictures: Mapping[str, bytes]) -> str:
    """The whole page; the same findings and pictures give the same page.

    Args:
      findings: findings of the training.
      pictures: ``image_id`` → JPEG, see ``pictures_of``; other images are shown without a picture.
    """
    style = own_file("report.css") + own_file("verdicts.css") + _own_file("training.css")
    shared = own_file("common.js") + own_file("corrections.js")
    script = shared + _own_file("plots.js") + _own_file("training.js")
    data = page_data(findings, pictures)
    title = f"Training on {data['base']} · beamlabel" if data["base"] else "Training · beamlabel"
    return fill(_own_file("training.html"), style, script, title, data)


def _own_file(name: str) -> str:
    return resources.files("beamlabel.pipeline.train.report").joinpath(name).read_text(encoding="utf-8")
