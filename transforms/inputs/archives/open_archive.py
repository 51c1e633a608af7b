"""An archive of any kind as its members."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from beamlabel.transforms import storage
from beamlabel.transforms.archive_member import Member
from beamlabel.transforms.inputs.archives import zip as zips
from beamlabel.transforms.inputs.archives.compression import compression_of, decompressed
from beamlabel.transforms.inputs.archives.entries import ArchiveError, Broken, Entry
from beamlabel.transforms.inputs.archives.tar import BLOCK, tar_entries
from beamlabel.transforms.inputs.archives.windows import FileWindow, StreamWindow, Window
from beamlabel.transforms.records import ImageError, InputFile

TAR, ZIP = "tar", "zip"


@dataclass
class OpenArchive:
    """An open archive.

    Attributes:
      file: the archive.
      compression: of the whole archive, see ``compression_of``; then members can only be read in order.
      directory: the bytes with the headers.
      contents: the bytes of members; the same for a tar.
    """

    file: InputFile
    compression: str | None
    directory: Window
    contents: Window

    def entries(self) -> Iterator[Entry | Broken]:
        """The members, see ``tar_entries`` and ``zip_entries``."""
        return (zips.zip_entries if self.file.format == ZIP else tar_entries)(self.directory)

    def read(self, entry: Entry, most: int | None = None) -> bytes:
        """The bytes of a member, or its first ``most``; fewer if the archive ends there.

        Raises:
          ArchiveError: they are unreadable.
          OSError: the storage fails.
        """
        if entry.zipped is None:
            return self.contents.read(entry.offset, entry.size if most is None else min(entry.size, most))
        try:
            return zips.unpacked(self.contents, self.member(entry), most=most)
        except ImageError as error:
            raise ArchiveError(error.reason, error.detail) from error

    def member(self, entry: Entry) -> Member:
        """The place of a member, for fetching it."""
        return Member(self.file.path, self.file.version, entry.offset, entry.size, entry.zipped)


@contextmanager
def open_archive(file: InputFile, *, sparing: bool) -> Iterator[OpenArchive]:
    """Opens an archive.

    Args:
      file: of the format ``tar`` or ``zip``.
      sparing: see ``FileWindow``.

    Raises:
      ValueError: it has changed since it was matched.
      OSError: it cannot be read.
    """
    size = check_version(file)
    sparing = sparing or storage.is_local(file.path)
    with storage.open_input(file.path) as raw:
        compression = compression_of(raw.read(BLOCK)) if file.format == TAR else None
        raw.seek(0)
        if compression is not None:
            with decompressed(raw, compression) as stream:
                window: Window = StreamWindow(stream)
                yield OpenArchive(file, compression, window, window)
        elif file.format == TAR:
            window = FileWindow(raw, size, sparing=sparing)
            yield OpenArchive(file, None, window, window)
        else:
            contents = FileWindow(raw, size, sparing=True)
            yield OpenArchive(file, None, FileWindow(raw, size, sparing=False), contents)


def check_version(file: InputFile) -> int:
    """The size of a file, after a check that it has not changed since it was matched.

    Raises:
      ValueError: it has changed.
      OSError: it cannot be read.
    """
    now = storage.stat(file.path)
    if (file.version is not None and now.version != file.version) or file.size not in (None, now.size):
        raise ValueError(f"{file.path} has changed since the run was planned")
    if now.size is None:
        raise ValueError(f"{file.path}: the storage does not report its size")
    return now.size
