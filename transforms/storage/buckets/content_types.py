"""Content types of stored files, by which browsers display pages and tools recognize tables."""

from __future__ import annotations

UNKNOWN = "application/octet-stream"

# All but JSON lines are registered with IANA, see https://www.iana.org/assignments/media-types; for JSON lines see
# https://jsonlines.org.
_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "gif": "image/gif",
    "gz": "application/gzip",
    "htm": "text/html; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "md": "text/markdown; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "pbtxt": "text/plain; charset=utf-8",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tgz": "application/gzip",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "webp": "image/webp",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
    "zst": "application/zstd",
}


def content_type(path: str) -> str:
    """The content type of a file, by the last suffix of its name; text is UTF-8.

    A name without a suffix, or with one of no registered type (``.tfrecord``, ``.pb``), has type ``UNKNOWN``. A
    compressed file has the type of its compression, so that nothing decompresses it in transit.
    """
    name = path.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return _TYPES.get(suffix.lower(), UNKNOWN) if dot and stem else UNKNOWN
