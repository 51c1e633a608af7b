"""Resolves a module's handle to a complete local directory and its fingerprint; runs no code of the module."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from beamlabel.transforms import storage
from beamlabel.transforms.hub.download import download_module, hub_directory
from beamlabel.transforms.hub.files import (
    HDF5,
    HDF5_SUFFIXES,
    KERAS_SUFFIX,
    TAR_SUFFIXES,
    FileEntry,
    Receipt,
    fingerprint,
    is_beside,
    missing_shards,
    module_root,
    scan,
)
from beamlabel.transforms.hub.locks import remove_dead_locks
from beamlabel.transforms.hub.partial import fill_directory, remove_left_over
from beamlabel.transforms.hub.provenance import read_provenance
from beamlabel.transforms.hub.shared_cache import fetch_to_shared, inode, take_away
from beamlabel.transforms.hub.tarball import MAX_BYTES, MAX_DEPTH, MAX_MEMBERS, extract_tar
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.storage.uris import public_uri

__all__ = ["ModuleError", "NotAtHandError", "ResolvedModule", "hub_root", "resolve_module"]

_CACHE_FORMAT = 1
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class NotAtHandError(Exception):
    """The module has to be fetched or unpacked first."""


@dataclass(frozen=True)
class ResolvedModule:
    """A module on this machine.

    Attributes:
      handle: the user's name for it, without the query of a signed URL.
      path: the directory that holds ``saved_model.pb``, or a ``.keras`` file.
      fingerprint: see ``module_files.fingerprint``.
      origin: the handle that it was fetched from, if a record beside its directory names one (see
        ``provenance``), else ``handle``; a hub's conventions apply by it.
      allows_unsafe_ops: whether the user allows operations that do more than compute, see ``allowed_ops``. Check it
        before TensorFlow loads the module.
    """

    handle: str
    path: Path
    fingerprint: str
    origin: str = ""
    allows_unsafe_ops: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", self.origin or self.handle)


def resolve_module(
    handle: str,
    cache_dir: str | os.PathLike[str],
    *,
    fetches: bool = True,
    expected_fingerprint: str | None = None,
    allow_unsafe_ops: bool = False,
) -> ResolvedModule:
    """Finds a module, fetches it if needed, and checks that it is complete.

    Args:
      handle: a directory, a ``.tar.gz``, ``.tgz`` or ``.tar``, or a ``.keras`` file, each local or on a
        storage that ``beamlabel.transforms.storage`` reads (``gs://``); or an ``http(s)://`` handle of a hub.
      cache_dir: keeps fetched and extracted modules. Hub modules go to ``TFHUB_CACHE_DIR`` if that names a local
        directory, else to ``cache_dir/hub``. A module in either is checked against the receipt written when it was
        fetched, and fetched again if it is not complete.
      fetches: whether to fetch and unpack a module that is not in the cache.
      expected_fingerprint: the fingerprint that the module must have, in hex; None: any.
      allow_unsafe_ops: see ``ResolvedModule``.

    Raises:
      NotAtHandError: the module is not in the cache, and ``fetches`` is false.
      ModuleError: the module does not exist, is incomplete, or has another fingerprint than expected. The message names
        the handle and the places that were tried.
    """
    cache = Path(cache_dir).expanduser()
    for directory in (cache, cache / "modules", hub_root(cache)):
        remove_left_over(directory)
    remove_dead_locks(hub_root(cache))
    try:
        place: str | None = handle
        if handle.startswith(("http://", "https://")):
            path, place = _from_hub(handle, hub_root(cache), fetches), None
        elif not storage.is_local(handle):
            path = _from_storage(handle, cache / "modules", fetches)
        elif "://" in handle:
            path = _from_disk(Path(storage.absolute(handle)), cache / "modules", fetches)
        else:
            place = str(Path(handle).expanduser())
            path = _from_disk(Path(place), cache / "modules", fetches)
        found = fingerprint(_whole(path))
        check_fingerprint(found, expected_fingerprint)
        fetched = None if place is None else read_provenance(place, found)
        origin = fetched.handle if fetched else ""
        return ResolvedModule(public_uri(handle), path, found, origin, allow_unsafe_ops)
    except (
        OSError,
        ValueError,
    ) as error:  # ModuleError and the error for a malformed gs:// URI are ValueErrors
        raise ModuleError(
            f"module {public_uri(handle)}: {str(error).replace(handle, public_uri(handle))}"
        ) from error


def check_fingerprint(found: str, expected: str | None) -> None:
    """Raises ``ModuleError`` if a module's fingerprint is not the expected one."""
    if expected is not None and found != expected.lower():
        raise ModuleError(
            f"its fingerprint is {found}, but --module_fingerprint is {expected}: this is another module"
        )


def _whole(path: Path) -> tuple[FileEntry, ...]:
    if path.is_dir() and (missing := missing_shards(path)):
        raise ModuleError(f"it is not complete: {', '.join(missing)} is missing from {path}")
    return scan(path)


def _from_disk(path: Path, root: Path, fetches: bool) -> Path:
    if path.is_dir():
        return module_root(path.absolute())
    if not path.is_file():
        raise ModuleError("no such file or directory")
    if path.suffix == KERAS_SUFFIX:
        return path.absolute()
    if path.suffix in HDF5_SUFFIXES:
        raise ModuleError(HDF5)
    if not path.name.endswith(TAR_SUFFIXES):
        raise ModuleError(f"expected a directory, a {KERAS_SUFFIX} file, or one of {', '.join(TAR_SUFFIXES)}")

    def extract(directory: Path) -> None:
        with path.open("rb") as stream:
            extract_tar(stream, directory)

    return module_root(_cached(root, ["tar", scan(path)[0].sha256], extract, fetches))


def _from_storage(handle: str, root: Path, fetches: bool) -> Path:
    """Copies a remote directory or file; the listing (names, sizes, versions) is the cache's key."""
    name = handle.rpartition("/")[2]
    if name.endswith(HDF5_SUFFIXES):
        raise ModuleError(HDF5)
    if name.endswith((*TAR_SUFFIXES, KERAS_SUFFIX)):
        listing = [(name, file) for file in storage.match(handle) if file.path == handle]
    else:
        prefix = handle.rstrip("/") + "/"
        listing = [(file.path[len(prefix) :], file) for file in storage.match(prefix)]
        listing = [
            (below, file)
            for below, file in listing
            if below and not below.endswith("/") and not is_beside(below)
        ]
    if not listing:
        raise ModuleError("nothing is there")
    if len(listing) > MAX_MEMBERS or sum(file.size or 0 for _, file in listing) > MAX_BYTES:
        raise ModuleError(
            f"it has more than {MAX_MEMBERS} files or {MAX_BYTES >> 30} GiB; name the module's own directory"
        )

    def download(directory: Path) -> None:
        for below, file in listing:
            with storage.open_input(file.path) as stream:
                if below.endswith(TAR_SUFFIXES) and len(listing) == 1:
                    extract_tar(stream, directory)
                else:
                    _save(stream, directory, below)

    key = [handle, sorted([below, file.size, file.version] for below, file in listing)]
    return module_root(_cached(root, key, download, fetches))


def _save(stream: IO[bytes], directory: Path, below: str) -> None:
    parts = PurePosixPath(below).parts
    target = directory.joinpath(*parts)
    if ".." in parts or PurePosixPath(below).is_absolute() or len(parts) > MAX_DEPTH:
        raise ModuleError(f"unsafe name {below!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)


def _cached(root: Path, key: object, fill: Callable[[Path], None], fetches: bool) -> Path:
    """The cached directory of a key, filled again unless its receipt proves it complete."""
    name = hashlib.sha256(json.dumps([_CACHE_FORMAT, key]).encode()).hexdigest()[:32]
    directory, receipt_path = root / name, root / f"{name}.json"

    def fill_and_sign(partial: Path) -> None:
        fill(partial)
        # Written before the rename, so that a process that finds the directory also finds its receipt.
        Receipt(name, scan(partial)).write(receipt_path)

    found = inode(directory)
    receipt = Receipt.read(receipt_path)
    if receipt is None or not receipt.holds(directory):
        if not fetches:
            raise NotAtHandError
        take_away(directory, found)
        fill_directory(directory, fill_and_sign)
    return directory


def _from_hub(handle: str, root: Path, fetches: bool) -> Path:
    name = hashlib.sha256(public_uri(handle).encode()).hexdigest()[:32]
    directory, receipt_path = hub_directory(handle, root), root / f"beamlabel-{name}.json"

    def download(partial: Path) -> None:
        download_module(handle, partial)
        _whole(module_root(partial))
        Receipt(directory.name, scan(partial)).write(receipt_path)

    found = inode(directory)
    receipt = Receipt.read(receipt_path)
    if receipt is not None and receipt.holds(directory):
        return module_root(directory)
    # A module that another program fetched has no receipt.
    if receipt is not None or not _plausible(directory):
        if not fetches:
            raise NotAtHandError
        take_away(directory, found)
        fetch_to_shared(public_uri(handle), directory, download)
    module = module_root(directory)
    _whole(module)
    try:
        Receipt(directory.name, scan(directory)).write(receipt_path)
    except OSError as error:
        # A read-only cache, such as one in a container image, is used unchanged.
        if error.errno not in _READ_ONLY:
            raise
    return module


def hub_root(cache: Path) -> Path:
    """The directory of hub modules; ignores a ``TFHUB_CACHE_DIR`` that is not local."""
    theirs = os.environ.get("TFHUB_CACHE_DIR", "")
    return (Path(theirs).expanduser() if theirs and "://" not in theirs else cache / "hub").absolute()


def _plausible(directory: Path) -> bool:
    """Whether a directory without a receipt has a graph and all shards of its variables."""
    try:
        module = module_root(directory)
    except (ModuleError, OSError):
        return False
    has_variables = (module / "variables" / "variables.index").is_file()
    # In a read-only cache, which cannot fetch it again, a module without variables is accepted, too.
    return not missing_shards(module) and (has_variables or not os.access(directory.parent, os.W_OK))
