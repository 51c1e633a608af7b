"""The fields that a result adds to an element, as NamedTuples with a schema."""

# Beam reads the annotations, so they must not be postponed: no `from __future__ import annotations` here. In a
# schema, Beam turns `str | None` into pickled Python, which no other language can read: hence `Optional`.

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
from apache_beam import coders

from beamlabel.transforms.records import Failure
from beamlabel.transforms.secrets.text import public_text
from beamlabel.transforms.storage.uris import encodable


class LabeledImage(NamedTuple):
    """A labeled image, for elements that are a bare URI or bare bytes; has a Beam schema.

    In a schema, numbers have the types named here; in Python they are ``float``, ``int`` and lists of them.

    Attributes:
      uri: as given; None for bytes. Bytes of a file name that are not UTF-8 are escaped, as ``\\udcff``.
      image_id: identity of the image, see ``docs/output.md``.
      label: name of the best class; None if the classes have no names.
      score: float32, of the best class; None if the module gives no logits.
      labels: names of the k best classes, best first; None as for ``label``.
      class_ids: int32[k], indices into the logits, best first; None as for ``score``.
      scores: float32[k]; None as for ``score``.
      embedding: float32[D]; None if the module gives no features, or ``embeddings=False``.
      width, height: int32, pixels of the source image after EXIF rotation.
      format: of the source image in lower case, as ``jpeg``.
      source_bytes: int64, size of the encoded image.
      source_version: generation, ETag or modification time, if known.
      content_hash: of the encoded image, see ``docs/output.md``.
      module_handle: of the module, without credentials.
      module_fingerprint: SHA-256 over the module's files.
      preprocessing_id: SHA-256 over all else that decides the numbers.
    """

    uri: Optional[str]
    image_id: str
    label: Optional[str]
    score: Optional[np.float32]
    labels: Optional[Sequence[str]]
    class_ids: Optional[Sequence[np.int32]]
    scores: Optional[Sequence[np.float32]]
    embedding: Optional[Sequence[np.float32]]
    width: np.int32
    height: np.int32
    format: str
    source_bytes: np.int64
    source_version: Optional[str]
    content_hash: str
    module_handle: str
    module_fingerprint: str
    preprocessing_id: str


class FailedImage(NamedTuple):
    """An image that got no label, for elements that are a bare URI or bare bytes; has a Beam schema.

    Attributes:
      uri: as given; None for bytes. Bytes of a file name that are not UTF-8 are escaped, as ``\\udcff``.
      stage: step that failed: ``open``, ``fetch``, ``decode`` or ``inference``.
      reason: one of a closed list, see the README.
      detail: one line for people.
      image_id: identity of the image; None if the element names none.
      source_bytes: int64, size of the encoded image; None if it was not fetched.
      source_version: generation, ETag or modification time, if known.
      content_hash: of the encoded image; None if it was not fetched.
    """

    uri: Optional[str]
    stage: str
    reason: str
    detail: str
    image_id: Optional[str]
    source_bytes: Optional[np.int64]
    source_version: Optional[str]
    content_hash: Optional[str]


LABEL_FIELDS = tuple(name for name in LabeledImage._fields if name != "uri")
"""The fields that a prediction adds to a dict or a row; fields that the module cannot fill are absent."""

FAILURE_FIELDS = tuple(name for name in FailedImage._fields if name != "uri")
"""The fields that a failure adds to a dict or a row."""


# In a Python pipeline, the command's options are arguments of the same names.
_COMMAND_OPTION = re.compile(
    r"--(?=(?:allow_http|allowed_schemes|allow_private_hosts|ignore_robots_tag|max_bytes|max_pixels|fetch_deadline|decode_deadline|billing_project)\b)"
)


def _encodable(text: str | None) -> str | None:
    return None if text is None else encodable(text)


def failure_values(failure: Failure) -> dict[str, Any]:
    """The fields of a failed image except for its URI; text that is not UTF-8, as in file names, is escaped."""
    return {
        "stage": failure.stage.value,
        "reason": failure.reason.value,
        "detail": encodable(public_text(_COMMAND_OPTION.sub("", failure.detail))),
        "image_id": failure.image_id,
        "source_bytes": failure.source_bytes,
        "source_version": _encodable(failure.source_version),
        "content_hash": failure.content_hash,
    }


for _row in (LabeledImage, FailedImage):
    coders.registry.register_coder(_row, coders.RowCoder)
