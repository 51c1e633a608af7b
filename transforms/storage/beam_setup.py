"""Options and libraries of Beam's file systems in this process, such as ``--s3_endpoint_url`` and boto3.

Beam passes the options to its ``FileSystems`` when a pipeline is created and when a worker starts. A launcher reads
files before that, and a command without a pipeline never creates one.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from beamlabel.transforms.extras.install import install_extra

_lock = threading.Lock()
# Words of the command line, until Beam has them.
_arguments: list[str] | None = None

OPTIONS = (
    "s3_access_key_id", "s3_secret_access_key", "s3_session_token", "s3_endpoint_url", "s3_region_name",
    "s3_api_version", "s3_verify", "s3_disable_ssl", "azure_connection_string", "blob_service_endpoint",
    "azure_managed_identity_client_id", "hdfs_host", "hdfs_port", "hdfs_user", "hdfs_full_urls",
)  # fmt: skip
"""Names of Beam's options for reaching a storage system: ``S3Options``, ``AzureOptions`` and
``HadoopFileSystemOptions`` of ``apache_beam.options.pipeline_options``."""

FLAGS = ("s3_disable_ssl", "hdfs_full_urls")
"""The options without a value."""

FILE_SYSTEMS = (
    "apache_beam.io.aws.s3filesystem",
    "apache_beam.io.azure.blobstoragefilesystem",
    "apache_beam.io.gcp.gcsfilesystem",
    "apache_beam.io.hadoopfilesystem",
)
"""Beam's modules of remote file systems; importing one registers it with ``FileSystems``."""

# By scheme: the library, the extra of apache-beam that installs it, and our extra.
_LIBRARIES = {
    "s3": ("boto3", "aws", "aws"),
    "azfs": ("azure.storage.blob", "azure", "azure"),
    "hdfs": ("hdfs", "hadoop", None),
}


def configure(arguments: Sequence[str]) -> None:
    """Sets the options of Beam's file systems for this process, until a pipeline sets its own.

    Does not import Beam.

    Args:
      arguments: words of a command line; all but the options of Beam's file systems are ignored.
    """
    global _arguments
    with _lock:
        _arguments = list(arguments)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into the options of Beam's file systems, with their values, and the other words."""
    ours: list[str] = []
    others: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, has_value, _ = word.partition("=")
        if not name.startswith("--") or name[2:] not in OPTIONS:
            others.append(word)
            continue
        ours.append(word)
        if not has_value and name[2:] not in FLAGS and words:
            ours.append(words.pop(0))
    return ours, others


def filesystems() -> Any:
    """Beam's ``FileSystems`` with options, and with the file systems that the command's import of Beam left out."""
    _import_file_systems()
    return _with_options()


@functools.cache  # else each image would look for a missing library again
def _import_file_systems() -> None:
    for name in FILE_SYSTEMS:
        with suppress(ImportError):  # as Beam does, if the library is missing or broken
            importlib.import_module(name)


def _with_options() -> Any:
    global _arguments
    from apache_beam.io.filesystems import FileSystems

    with _lock:
        # Beam has no public access to them.
        if _arguments is not None or FileSystems._pipeline_options is None:
            from apache_beam.options.pipeline_options import PipelineOptions

            FileSystems.set_options(PipelineOptions(_arguments or []))
            _arguments = None
    return FileSystems


def pipeline_options() -> Any:
    """The ``PipelineOptions`` in force; None if none are set, so that Beam need not be imported."""
    if not _arguments and "apache_beam.io.filesystems" not in sys.modules:
        return None
    return _with_options()._pipeline_options


def words() -> list[str]:
    """The options in force, in the form for ``configure`` in another process; they may hold secrets."""
    if _arguments is not None:
        return split(_arguments)[0]
    options = pipeline_options()
    values = {} if options is None else options.get_all_options(drop_default=True)
    told = [(name, values[name]) for name in OPTIONS if values.get(name) not in (None, False)]
    return [f"--{name}" if name in FLAGS else f"--{name}={value}" for name, value in told]


def is_lacking(scheme: str | None) -> bool:
    """Whether the library of this scheme is not installed; does not import it."""
    if scheme not in _LIBRARIES:
        return False
    try:
        return importlib.util.find_spec(_LIBRARIES[scheme][0]) is None
    except ImportError:  # a parent package is missing
        return True


def is_optional(scheme: str) -> bool:
    """Whether files of this scheme need the library of an extra."""
    return scheme in _LIBRARIES


def lacking(scheme: str) -> str:
    """The message that names the package to install for a scheme."""
    _, extra, ours = _LIBRARIES[scheme]
    install = f"pip install 'apache-beam[{extra}]'"
    if ours is not None:
        install = f"{install_extra(ours)} (it includes apache-beam[{extra}])"
    return f"the library that reads {scheme}:// is not installed: {install}"


def _forget_lock() -> None:
    # A thread that does not exist in a forked child may hold the lock.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)
