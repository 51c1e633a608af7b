"""``_report.html``: one self-contained page, made of ``report_data``.

The page holds its data as JSON in a script element that does not run. Its script puts the data into the page as text
or as attributes, never as HTML. The Content-Security-Policy names that script by its hash, so no other script runs and
the page loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping
from importlib import resources
from string import Template
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.options.fetch_rights import FetchRights
from beamlabel.pipeline.report.before import night_before
from beamlabel.pipeline.report.data import embedded_json, kept_thumbnails, report_data
from beamlabel.pipeline.report.failed_pictures import add_failed_pictures
from beamlabel.transforms import storage
from beamlabel.transforms.loading.web.allowed_schemes import LOCAL
from beamlabel.transforms.secrets.text import public_text
from beamlabel.transforms.storage.uris import encodable
from beamlabel.transforms.writing.unit_summary import UnitSummary


def write_report(output: str, manifest: Mapping[str, Any], summaries: Iterable[UnitSummary]) -> str:
    """Writes the page; returns its path."""
    path = storage.join(output, layout.REPORT)
    data = report_data(manifest, summaries)
    data["before"] = night_before(output, manifest, data)
    if storage.is_local(output):
        # The workers of such a run read this machine's files. Files elsewhere are not fetched again.
        add_failed_pictures(data, manifest, None, FetchRights(allowed_schemes=(LOCAL,)))
    if any(row["thumbnail"] is None for row in data["sample"]):
        # If an earlier attempt at this plan published units, only its page has their pictures.
        kept = kept_thumbnails(path, plan_id=manifest.get("plan_id"))
        for row in data["sample"]:
            row["thumbnail"] = row["thumbnail"] or kept.get(row["ref_id"])
    storage.write_bytes(path, page(data).encode())
    return path


def page(data: Mapping[str, Any]) -> str:
    """Makes the whole page; equal data give equal pages."""
    scripts = ("common.js", "corrections.js", "verdicts.js", "report.js")
    style = own_file("report.css") + own_file("verdicts.css")
    script = "".join(own_file(name) for name in scripts)
    return fill(own_file("report.html"), style, script, f"{data['run']['output']} · beamlabel", data)


def fill(template: str, style: str, script: str, title: str, data: Mapping[str, Any]) -> str:
    """Makes a self-contained page: style and script, which its policy names by their hashes, and data."""
    return Template(template).substitute(
        title=encodable(html.escape(public_text(title))),
        style=style,
        style_hash=_csp_hash(style),
        script=script,
        script_hash=_csp_hash(script),
        data=embedded_json(data),
    )


def own_file(name: str) -> str:
    """The text of a file in this directory."""
    return resources.files("beamlabel.pipeline.report").joinpath(name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    """The name of an inline element in a Content-Security-Policy: the SHA-256 of its text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
