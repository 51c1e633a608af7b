"""Lists a module's files and checks that they are complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from beamlabel.transforms.hub.partial import write_file
from beamlabel.transforms.inference.artifact import ModuleError

SAVED_MODEL = "saved_model.pb"
KERAS_SUFFIX = ".keras"
TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
HDF5_SUFFIXES = (".h5", ".hdf5")
WAY_OUT = "in the program that has the model, call model.export(DIR) and name that directory"
# Such files hold weights without a network, or a network that only the Keras version that wrote it reads reliably.
HDF5 = f"HDF5 files, of models or of weights only, are not read: {WAY_OUT}"
# A `.keras` file is fingerprinted under this name, so that renaming it changes nothing.
_KERAS_NAME = "model.keras"
_SHOWN = 8


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file: its POSIX path below the module's directory, its size in bytes, its SHA-256 in hex."""

    path: str
    size: int
    sha256: str


def scan(module: Path) -> tuple[FileEntry, ...]:
    """The files of a module, a directory or one ``.keras`` file, sorted by path.

    Only regular files and links to them have entries. Files beside the module have none; see ``is_beside``.
    """
    if module.is_file():
        return (_entry(module, _KERAS_NAME),)
    files = (
        (path, path.relative_to(module).as_posix()) for path in _walk(module, frozenset()) if path.is_file()
    )
    return tuple(sorted(_entry(path, name) for path, name in files if not is_beside(name)))


def is_beside(path: str) -> bool:
    """Whether a file in a module's directory does not belong to the module: its name begins with ``_``.

    Examples are ``_TRAINING.json`` and ``_report.html``, which ``beamlabel train`` writes beside the module.

    Args:
      path: POSIX path below the directory.
    """
    return path.startswith("_")


def _walk(directory: Path, above: frozenset[Path]) -> Iterator[Path]:
    """All files below a directory. Follows links to directories, except loops, as TensorFlow does."""
    above |= {directory.resolve()}
    for path in directory.iterdir():
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:
            yield from _walk(path, above)


def fingerprint(entries: Iterable[FileEntry]) -> str:
    """SHA-256, in hex, over a module's files in canonical form.

    The form is one record per file, in the order of the paths: ``path NUL size NUL sha256 LF``, all
    UTF-8, the size in decimal and the SHA-256 of the content in lower case hex. It leaves out the additions of a
    tarball (``./`` before names, owners, times, directories, order), so a directory and its tarball have one
    fingerprint.
    """
    digest = hashlib.sha256()
    for entry in sorted(entries):
        digest.update(f"{entry.path}\0{entry.size}\0{entry.sha256}\n".encode())
    return digest.hexdigest()


def module_root(directory: Path) -> Path:
    """The module in a directory: the directory, a lone ``.keras`` file in it, or the module in its only subdirectory.

    Tarballs and TensorFlow Serving's ``NAME/1/`` layout wrap a module in a directory.

    Raises:
      ModuleError: there is no module; the message names the files found.
    """
    if (directory / SAVED_MODEL).is_file():
        return directory
    children = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    if len(children) == 1:
        if children[0].is_dir():
            return module_root(children[0])
        if children[0].suffix == KERAS_SUFFIX:
            return children[0]
    raise ModuleError(
        f"no module: {directory} has no {SAVED_MODEL}; it holds {_names(children)}{_hint(children)}"
    )


def missing_shards(module: Path) -> list[str]:
    """Names of the variable shards that are missing from a SavedModel's directory.

    TensorFlow names them ``variables.data-00000-of-00002`` beside ``variables.index``; a directory with
    neither may be a module without variables.
    """
    variables = module / "variables"
    shards = sorted(path.name for path in variables.glob("variables.data-*-of-*"))
    if not (variables / "variables.index").is_file():
        return ["variables/variables.index"] if shards else []
    if not shards:
        return ["variables/variables.data-*"]
    total = shards[0].rpartition("-")[2]
    if not total.isdecimal():
        return []
    wanted = (f"variables.data-{shard:05d}-of-{total}" for shard in range(int(total)))
    return [f"variables/{name}" for name in wanted if name not in shards]


@dataclass(frozen=True)
class Receipt:
    """The files of a cached directory when it was last complete; stored as JSON beside the directory.

    Attributes:
      directory: the directory's name, beside the receipt.
      files: all the files in it.
    """

    directory: str
    files: tuple[FileEntry, ...]

    @classmethod
    def read(cls, path: Path) -> Receipt | None:
        """Reads a receipt; None if it is missing or damaged."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            return cls(value["folder"], tuple(FileEntry(**entry) for entry in value["files"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """Writes the receipt, atomically."""
        value = {"folder": self.directory, "files": [asdict(entry) for entry in self.files]}
        write_file(path, json.dumps(value, indent=1).encode())

    def holds(self, directory: Path) -> bool:
        """Whether the receipt fits a directory that still has every file with its size (checked first) and content.

        Anybody who can write the cache can write a receipt, so its name only has to equal that of ``directory``.
        """
        if self.directory != directory.name:
            return False
        try:
            if any((directory / entry.path).stat().st_size != entry.size for entry in self.files):
                return False
            return scan(directory) == self.files
        except (OSError, TypeError, ValueError):
            return False


def _entry(path: Path, name: str) -> FileEntry:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(name, size, digest.hexdigest())


def _names(children: list[Path]) -> str:
    if not children:
        return "nothing"
    shown = ", ".join(f"{path.name}/" if path.is_dir() else path.name for path in children[:_SHOWN])
    return f"{shown} and {len(children) - _SHOWN} more" if len(children) > _SHOWN else shown


def _hint(children: list[Path]) -> str:
    suffixes = {path.suffix for path in children}
    if KERAS_SUFFIX in suffixes:
        return "; name the .keras file itself"
    if suffixes & set(HDF5_SUFFIXES):
        return f"; {HDF5}"
    if "checkpoint" in {path.name for path in children} or ".index" in suffixes:
        return f"; a checkpoint holds weights only: {WAY_OUT}"
    if "saved_model.pbtxt" in {path.name for path in children}:
        return "; save it in binary form"
    if ".tflite" in suffixes:
        return "; a .tflite file is not a module, name the SavedModel that it was converted from"
    return ""
