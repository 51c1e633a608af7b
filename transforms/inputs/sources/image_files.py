"""Finds the images of a directory by their names, and by their first bytes if the names are inconclusive."""

from __future__ import annotations

import os.path
import re
from enum import Enum

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.file_kinds import IMAGE_HEAD_BYTES, is_image


class FileKind(Enum):
    """The kind of a file; except for IMAGE and UNKNOWN also the cause for leaving it out."""

    IMAGE = "image"
    HIDDEN = "hidden"
    OTHER = "not_an_image"
    EXCLUDED = "excluded"
    UNKNOWN = "unknown"


_WORD = re.compile(r"\S+")

# Decoded formats, and other image formats, which fail with a row of their own.
_IMAGES = frozenset(
    _WORD.findall("""
    jpg jpeg jpe jfif jif jfi pjpeg pjp png apng gif webp bmp dib rle tif tiff btf jp2 j2k jpf jpx jpm j2c jpc jph ico
    cur icns psd psb tga icb vda vst pcx dcx ppm pgm pbm pnm pam pfm dds qoi sgi rgb rgba bw ras sun xbm xpm svg svgz
    avif avifs heic heics heif heifs hif jxl jxr wdp hdp exr hdr dng nef nrw cr2 cr3 crw arw sr2 srf orf rw2 raf pef
    srw x3f 3fr dcr kdc mrw erf mef mos iiq rwl gpr dcm dicom fits fit wmf emf eps xcf djvu dpx cin bpg flif ff
    """)
)
# Files found beside images, and containers of other things. They are not opened: each image may have one.
_OTHERS = frozenset(
    _WORD.findall("""
    txt md rst log csv tsv json jsonl ndjson xml xmp aae yaml yml toml ini cfg conf html htm css js ts py ipynb sh bat
    c h cpp java go rs sql db sqlite sqlite3 thm lrv lrcat lrdata pp3 dop cos on1 picasa ctg ith url lnk webloc plist
    parquet orc avro arrow feather tfrecord tfrecords npy npz h5 hdf5 pkl pickle pt pth mat tar tgz tbz txz zip gz bz2
    xz zst 7z rar pdf doc docx xls xlsx ppt pptx odt ods odp rtf tex mp4 m4v mov avi mkv webm mpg mpeg mts m2ts wmv
    flv 3gp mp3 m4a wav flac ogg opus aac amr srt vtt exe dll so dmg iso bin part tmp bak crc md5 sha1 sha256 lock
    """)
)
# Files of systems and programs in directories of photographs: indexes, thumbnails and trash.
_SYSTEM_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "iconcache.db", "icon\r")
)
# Directories of running jobs, in an output and beside it: locks, staged files and artifacts.
_OWN_DIRECTORY = "_beamlabel"
_SYSTEM_DIRECTORIES = frozenset(
    ("@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "__macosx", "system volume information")
)


def kind_by_name(path: str) -> FileKind:
    """The kind of a path below the listed directory.

    A name that begins with a dot is hidden, and so is everything in a directory with such a name, as in shells and
    Beam. The directories of running jobs are hidden, too.
    """
    *directories, name = path.lower().split("/")
    if name.startswith(".") or name in _SYSTEM_FILES:
        return FileKind.HIDDEN
    if any(
        directory.startswith((".", _OWN_DIRECTORY)) or directory in _SYSTEM_DIRECTORIES
        for directory in directories
    ):
        return FileKind.HIDDEN
    ending = name.rpartition(".")[2] if "." in name else ""
    if ending in _IMAGES:
        return FileKind.IMAGE
    return FileKind.OTHER if ending in _OTHERS else FileKind.UNKNOWN


def is_in_own_directory(directory: str) -> bool:
    """Whether a local directory, by its real path, belongs to running jobs."""
    return any(part.startswith(_OWN_DIRECTORY) for part in os.path.realpath(directory).split("/"))


def kind_by_content(path: str) -> FileKind:
    """Whether a file's first bytes are those of an image; an unreadable file counts as one, and fails later."""
    try:
        with storage.open_input(path) as file:
            return (
                FileKind.IMAGE if is_image(storage.read_range(file, 0, IMAGE_HEAD_BYTES)) else FileKind.OTHER
            )
    except OSError:
        return FileKind.IMAGE
