"""``_report.html``: one page that needs nothing else, made of ``report_data``.

The page holds its data as JSON in a script element that is not run. Its own script puts all of it into the page as
text, never as HTML, and is the only one that the page's Content-Security-Policy lets run, by its hash; nothing is
ever loaded from anywhere.
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
from beamlabel.pipeline.report.before import night_before
from beamlabel.pipeline.report.data import embedded_json, kept_thumbnails, report_data
from beamlabel.transforms import storage
from beamlabel.transforms.secrets.text import public_text
from beamlabel.transforms.writing.unit_summary import UnitSummary


def write_report(output: str, manifest: Mapping[str, Any], summaries: Iterable[UnitSummary]) -> str:
    """Writes the page; returns its path."""
    path = storage.join(output, layout.REPORT)
    data = report_data(manifest, summaries)
    data["before"] = night_before(output, manifest, data)
    if any(row["thumbnail"] is None for row in data["sample"]):
        # Of units that an earlier try of this plan has published, only its page has the pictures.
        kept = kept_thumbnails(path, plan_id=manifest.get("plan_id"))
        for row in data["sample"]:
            row["thumbnail"] = row["thumbnail"] or kept.get(row["ref_id"])
    storage.write_bytes(path, page(data).encode())
    return path


def page(data: Mapping[str, Any]) -> str:
    """The whole page; the same data give the same page."""
    scripts = ("common.js", "corrections.js", "verdicts.js", "report.js")
    style = own_file("report.css") + own_file("verdicts.css")
    script = "".join(own_file(name) for name in scripts)
    return fill(own_file("report.html"), style, script, f"{data['run']['output']} · beamlabel", data)


def fill(template: str, style: str, script: str, title: str, data: Mapping[str, Any]) -> str:
    """A page that needs nothing else: its style, its script, which it names by their hashes, and its data."""
    return Template(template).substitute(
        title=html.escape(public_text(title)),
        style=style,
        style_hash=_csp_hash(style),
        script=script,
        script_hash=_csp_hash(script),
        data=embedded_json(data),
    )


def own_file(name: str) -> str:
    """A file of this folder, as text."""
    return resources.files("beamlabel.pipeline.report").joinpath(name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    """As Content-Security-Policy names an inline element: by the SHA-256 of what stands between its tags."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
