"""A module's handle → a local folder that is whole, and its fingerprint.

TensorFlow is imported only to fetch what a hub serves, and not while the cache holds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from beamlabel.transforms import storage
from beamlabel.transforms.hub.files import (
    HDF5,
    HDF5_SUFFIXES,
    KERAS_SUFFIX,
    FileEntry,
    Receipt,
    extract_tar,
    fill_folder,
    fingerprint,
    is_beside,
    missing_shards,
    module_root,
    scan,
)
from beamlabel.transforms.hub.locks import remove_dead_locks
from beamlabel.transforms.hub.provenance import read_provenance
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.storage.uris import public_uri

__all__ = ["ModuleError", "NotAtHandError", "ResolvedModule", "resolve_module"]

_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_CACHE_FORMAT = 1


class NotAtHandError(Exception):
    """The module has to be fetched, or unpacked, before it can be had."""


@dataclass(frozen=True)
class ResolvedModule:
    """A module on this machine.

    Attributes:
      handle: what the user named it, without the query of a signed URL.
      path: the folder that holds ``saved_model.pb``, or a ``.keras`` file.
      fingerprint: see ``module_files.fingerprint``.
      origin: the handle that it was fetched from, where a record beside its folder says so (see
        ``provenance``), else ``handle``; what a hub's convention says of a module goes by it.
    """

    handle: str
    path: Path
    fingerprint: str
    origin: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", self.origin or self.handle)


def resolve_module(handle: str, cache_dir: str | os.PathLike[str], *, fetches: bool = True) -> ResolvedModule:
    """Finds a module, fetches it where that is needed, and checks that it is whole.

    Args:
      handle: a folder, a ``.tar.gz``, ``.tgz`` or ``.tar``, or a ``.keras`` file, each local or on a
        storage that ``beamlabel.transforms.storage`` reads (``gs://``); or an ``http(s)://`` handle, which
        tensorflow-hub resolves.
      cache_dir: where fetched and extracted modules are kept. Hub modules go to ``TFHUB_CACHE_DIR``
        where that is set to a local folder, else to ``cache_dir/hub``. What is found in either is
        checked against the receipt written when it was fetched, and fetched again if it is not whole.
      fetches: whether what is not in the cache is fetched and unpacked.

    Raises:
      NotAtHandError: it is not in the cache, and ``fetches`` is false.
      ModuleError: there is no such module, or it is not whole; with the handle and what was tried.
    """
    cache = Path(cache_dir).expanduser()
    try:
        place: str | None = handle
        if handle.startswith(("http://", "https://")):
            path, place = _from_hub(handle, cache, fetches), None
        elif not storage.is_local(handle):
            path = _from_storage(handle, cache / "modules", fetches)
        elif "://" in handle:
            path = _from_disk(Path(storage.absolute(handle)), cache / "modules", fetches)
        else:
            place = str(Path(handle).expanduser())
            path = _from_disk(Path(place), cache / "modules", fetches)
        found = fingerprint(_whole(path))
        fetched = None if place is None else read_provenance(place, found)
        return ResolvedModule(public_uri(handle), path, found, fetched.handle if fetched else "")
    except (OSError, ValueError) as error:  # ModuleError is one, a malformed gs:// URI another
        raise ModuleError(
            f"module {public_uri(handle)}: {str(error).replace(handle, public_uri(handle))}"
        ) from error


def _whole(path: Path) -> tuple[FileEntry, ...]:
    if path.is_dir() and (missing := missing_shards(path)):
        raise ModuleError(f"it is not whole, {', '.join(missing)} is missing from {path}")
    return scan(path)


def _from_disk(path: Path, root: Path, fetches: bool) -> Path:
    if path.is_dir():
        return module_root(path.absolute())
    if not path.is_file():
        raise ModuleError("no such file or folder")
    if path.suffix == KERAS_SUFFIX:
        return path.absolute()
    if path.suffix in HDF5_SUFFIXES:
        raise ModuleError(HDF5)
    if not path.name.endswith(_TAR_SUFFIXES):
        raise ModuleError(f"expected a folder, a {KERAS_SUFFIX} file, or one of {', '.join(_TAR_SUFFIXES)}")

    def extract(folder: Path) -> None:
        with path.open("rb") as stream:
            extract_tar(stream, folder)

    return module_root(_cached(root, ["tar", scan(path)[0].sha256], extract, fetches))


def _from_storage(handle: str, root: Path, fetches: bool) -> Path:
    """Mirrors a remote folder or file; the listing (names, sizes, versions) is the cache's key."""
    name = handle.rpartition("/")[2]
    if name.endswith(HDF5_SUFFIXES):
        raise ModuleError(HDF5)
    if name.endswith((*_TAR_SUFFIXES, KERAS_SUFFIX)):
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

    def download(folder: Path) -> None:
        for below, file in listing:
            with storage.open_input(file.path) as stream:
                if below.endswith(_TAR_SUFFIXES) and len(listing) == 1:
                    extract_tar(stream, folder)
                else:
                    _save(stream, folder, below)

    key = [handle, sorted([below, file.size, file.version] for below, file in listing)]
    return module_root(_cached(root, key, download, fetches))


def _save(stream: IO[bytes], folder: Path, below: str) -> None:
    target = folder.joinpath(*PurePosixPath(below).parts)
    if ".." in PurePosixPath(below).parts or PurePosixPath(below).is_absolute():
        raise ModuleError(f"unsafe name {below!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)


def _cached(root: Path, key: object, fill: Callable[[Path], None], fetches: bool) -> Path:
    """The folder of the cache for a key, filled anew unless its receipt says that it is whole."""
    name = hashlib.sha256(json.dumps([_CACHE_FORMAT, key]).encode()).hexdigest()[:32]
    folder, receipt_path = root / name, root / f"{name}.json"
    receipt = Receipt.read(receipt_path)
    if receipt is None or not receipt.holds(root):
        if not fetches:
            raise NotAtHandError
        shutil.rmtree(folder, ignore_errors=True)
        fill_folder(folder, fill)
        Receipt(name, scan(folder)).write(receipt_path)
    return folder


def _from_hub(handle: str, cache: Path, fetches: bool) -> Path:
    root = Path(os.environ.get("TFHUB_CACHE_DIR") or cache / "hub").expanduser().absolute()
    if "://" in os.environ.get("TFHUB_CACHE_DIR", ""):
        root = (cache / "hub").absolute()
    receipt_path = root / f"beamlabel-{hashlib.sha256(handle.encode()).hexdigest()[:32]}.json"
    receipt = Receipt.read(receipt_path)
    if receipt is not None:
        if receipt.holds(root):
            return module_root(root / receipt.folder)
        if fetches:
            shutil.rmtree(root / receipt.folder, ignore_errors=True)
    if not fetches:
        raise NotAtHandError
    folder, fetched = _hub_resolve(handle, root)
    if not fetched and not _plausible(folder):
        # Fetched by someone else, then half deleted: there is no receipt to tell it by.
        shutil.rmtree(folder)
        folder, _ = _hub_resolve(handle, root)
    module = module_root(folder)
    _whole(module)
    Receipt(folder.name, scan(folder)).write(receipt_path)
    return module


def _plausible(folder: Path) -> bool:
    """Whether a folder without a receipt has a graph, and variables of which no shard is missing."""
    try:
        module = module_root(folder)
    except ModuleError:
        return False
    return (module / "variables" / "variables.index").is_file() and not missing_shards(module)


def _hub_resolve(handle: str, root: Path) -> tuple[Path, bool]:
    """What ``hub.resolve`` says, and whether it was fetched just now."""
    root.mkdir(parents=True, exist_ok=True)
    remove_dead_locks(root)
    before = {path.name for path in root.iterdir() if path.is_dir() and any(path.iterdir())}
    tensorflow()
    try:
        import tensorflow_hub
    except ImportError as error:
        raise ModuleError(
            f"tensorflow-hub fetches it and cannot be imported ({error}): pip install 'beamlabel[launcher]'"
        ) from error
    try:
        # Without COMPRESSED the answer may be a gs:// folder.
        with _environment(TFHUB_CACHE_DIR=str(root), TFHUB_MODEL_LOAD_FORMAT="COMPRESSED"):
            folder = Path(tensorflow_hub.resolve(handle))
    except Exception as error:
        # urllib, tarfile and TensorFlow each raise their own kinds.
        raise ModuleError(
            f"tensorflow-hub could not fetch it ({type(error).__name__}: {error}); check the handle and the "
            "network, or download the module and name its folder or .tar.gz"
        ) from error
    return folder, folder.name not in before


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
