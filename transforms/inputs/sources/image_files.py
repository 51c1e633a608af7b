"""Which files of a folder are images: by their names, and if these do not tell by their first bytes."""

from __future__ import annotations

import os.path
import re
from enum import Enum

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.file_kinds import IMAGE_HEAD_BYTES, is_image


class FileKind(Enum):
    """What a file is taken for; but for images and the unknown also the cause why it is left out."""

    IMAGE = "image"
    HIDDEN = "hidden"
    OTHER = "not_an_image"
    EXCLUDED = "excluded"
    UNKNOWN = "unknown"


_WORD = re.compile(r"\S+")

# Formats that are decoded, and others that are images nevertheless and fail as such: a row says so.
_IMAGES = frozenset(
    _WORD.findall("""
    jpg jpeg jpe jfif jif jfi pjpeg pjp png apng gif webp bmp dib rle tif tiff btf jp2 j2k jpf jpx jpm j2c jpc jph ico
    cur icns psd psb tga icb vda vst pcx dcx ppm pgm pbm pnm pam pfm dds qoi sgi rgb rgba bw ras sun xbm xpm svg svgz
    avif avifs heic heics heif heifs hif jxl jxr wdp hdp exr hdr dng nef nrw cr2 cr3 crw arw sr2 srf orf rw2 raf pef
    srw x3f 3fr dcr kdc mrw erf mef mos iiq rwl gpr dcm dicom fits fit wmf emf eps xcf djvu dpx cin bpg flif ff
    """)
)
# Files that lie beside images, and the containers of other things. Not read: there may be one for each image.
_OTHERS = frozenset(
    _WORD.findall("""
    txt md rst log csv tsv json jsonl ndjson xml xmp aae yaml yml toml ini cfg conf html htm css js ts py ipynb sh bat
    c h cpp java go rs sql db sqlite sqlite3 thm lrv lrcat lrdata pp3 dop cos on1 picasa ctg ith url lnk webloc plist
    parquet orc avro arrow feather tfrecord tfrecords npy npz h5 hdf5 pkl pickle pt pth mat tar tgz tbz txz zip gz bz2
    xz zst 7z rar pdf doc docx xls xlsx ppt pptx odt ods odp rtf tex mp4 m4v mov avi mkv webm mpg mpeg mts m2ts wmv
    flv 3gp mp3 m4a wav flac ogg opus aac amr srt vtt exe dll so dmg iso bin part tmp bak crc md5 sha1 sha256 lock
    """)
)
# What systems and programs leave in folders of photographs: their indexes, thumbnails and waste bins.
_SYSTEM_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "iconcache.db", "icon\r")
)
# What runs are at work in: locks, staged files and artifacts, in an output and beside its place.
_OWN_FOLDER = "_beamlabel"
_SYSTEM_FOLDERS = frozenset(
    ("@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "__macosx", "system volume information")
)


def kind_by_name(path: str) -> FileKind:
    """What a path below the listed folder tells.

    A name that begins with a dot is hidden, and all in a folder of such a name, as shells and Beam have it; so is what
    runs are at work in.
    """
    *folders, name = path.lower().split("/")
    if name.startswith(".") or name in _SYSTEM_FILES:
        return FileKind.HIDDEN
    if any(folder.startswith((".", _OWN_FOLDER)) or folder in _SYSTEM_FOLDERS for folder in folders):
        return FileKind.HIDDEN
    ending = name.rpartition(".")[2] if "." in name else ""
    if ending in _IMAGES:
        return FileKind.IMAGE
    return FileKind.OTHER if ending in _OTHERS else FileKind.UNKNOWN


def is_in_own_folder(folder: str) -> bool:
    """Whether a local folder, by its real path, is one that runs are at work in."""
    return any(part.startswith(_OWN_FOLDER) for part in os.path.realpath(folder).split("/"))


def kind_by_content(path: str) -> FileKind:
    """Whether a file's first bytes are those of an image; a file that cannot be read is one, and fails as such."""
    try:
        with storage.open_input(path) as file:
            return (
                FileKind.IMAGE if is_image(storage.read_range(file, 0, IMAGE_HEAD_BYTES)) else FileKind.OTHER
            )
    except OSError:
        return FileKind.IMAGE
