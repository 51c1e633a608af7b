"""Chooses the rows that a report shows from the summaries of all units, with the reason for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beamlabel.pipeline.report.links import Links
from beamlabel.pipeline.report.neighbors import AtOdds, Neighborhood
from beamlabel.transforms.writing.embedding_sample import EmbeddingSample
from beamlabel.transforms.writing.sample_rows import AT_ODDS, MAX_COMPARED, RowSampler
from beamlabel.transforms.writing.unit_summary import (
    MAX_LABEL,
    MAX_WHOLE,
    SampledRow,
    UnitSummary,
    cut,
)


class RunSample:
    """Gathers summaries; holds a bounded number of rows.

    Args:
      metadata: file metadata of the output.
      links: makes the rows' links.
    """

    def __init__(self, metadata: Mapping[str, str], links: Links) -> None:
        self._metadata = metadata
        self._links = links
        self._sampler: RowSampler[SampledRow] = RowSampler(MAX_COMPARED)
        self._embeddings: EmbeddingSample | None = None

    def add(self, summary: UnitSummary) -> None:
        """Adds a unit's summary."""
        if summary.embeddings is not None:
            sample = EmbeddingSample.from_json(summary.embeddings)
            self._embeddings = sample if self._embeddings is None else self._embeddings.merged(sample)
        for row in summary.rows:
            self._sampler.offer(row.candidate(self._metadata, row), row.kinds)

    def rows(self, counts: Mapping[str, int]) -> tuple[list[dict[str, Any]], dict[str, int] | None]:
        """Chooses the rows.

        Args:
          counts: rows of each label in the run.

        Returns:
          The rows as the page holds them, and the numbers of ``rows`` and ``neighbors`` that were compared. The latter
          is None without labels, without embeddings, or with too few rows.
        """
        if self._embeddings is None:
            return [self._shown(row, kinds, None) for row, kinds in self._sampler.chosen(counts)], None
        randomly = {candidate.number: candidate for candidate in self._sampler.random()}
        near = Neighborhood(self._embeddings)
        odd = {one.number: one for one in near.at_odds(randomly)}
        chosen = self._sampler.chosen(counts, [randomly[number] for number in odd])
        of_row = {id(randomly[number].value): one for number, one in odd.items()}
        shown = [
            self._shown(row, kinds, of_row.get(id(row)) if AT_ODDS in kinds else None)
            for row, kinds in chosen
        ]
        return shown, {"rows": near.rows, "neighbors": near.neighbors} if near.neighbors else None

    def _shown(self, row: SampledRow, kinds: Sequence[str], odd: AtOdds | None) -> dict[str, Any]:
        whole = _whole(row.uri)
        return {**_shown(row, kinds, odd), "link": self._links.of(whole)}


def _shown(row: SampledRow, kinds: Sequence[str], odd: AtOdds | None) -> dict[str, Any]:
    """A row as plain values, with ``whole_uri`` and ``whole_labels`` if the shown texts are cut."""
    labels = [cut(label, MAX_LABEL) for label in row.labels]
    shown: dict[str, Any] = {
        "image_id": row.image_id,
        "uri": cut(row.uri),
        "ref_id": cut(row.ref_id),
        "labels": labels,
        "scores": [float(f"{score:.4g}") for score in row.scores],
        "kinds": kinds,
        "thumbnail": row.thumbnail,
    }
    if shown["uri"] != row.uri:
        shown["whole_uri"] = _whole(row.uri)
    if labels != list(row.labels):
        shown["whole_labels"] = [_whole(label) for label in row.labels]
    if odd is not None:
        shown["neighbors"] = {"label": odd.label, "count": odd.count, "of": odd.neighbors}
    return shown


def _whole(text: str) -> str | None:
    """The text; None if it may have been cut and the whole text is lost."""
    return text if len(text) < MAX_WHOLE else None
