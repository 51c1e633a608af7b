"""The child process that decodes images unfit for the fast path, one at a time: see ``with_limits``."""

from __future__ import annotations

import functools
import json
import sys
import time
from types import TracebackType

from PIL import Image

from beamlabel.transforms.decoding.in_place import decode_in_place
from beamlabel.transforms.decoding.picture import pillow_image
from beamlabel.transforms.decoding.picture.limits import in_place
from beamlabel.transforms.decoding.picture.options import DecodeOptions
from beamlabel.transforms.records import ImageError, Reason
from beamlabel.transforms.worker.limited_child import Requests, forbid_files, limit
from beamlabel.transforms.worker.memory import available_memory

# OpenJPEG takes up to 40 bytes a pixel, all other decoders less.
_BYTES_A_PIXEL, _MORE_BYTES = 48, 512 << 20
# The smallest limit: when memory is short, even a tiny image would fail otherwise.
_LEAST_BYTES = 256 << 20
_FREE_SECONDS = 5


class _ParentsLock:
    """The lock on large images, shared by all children of a process."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self.is_held = False

    def __enter__(self) -> None:
        if not self.is_held:
            self._requests.wait_for_lock()
            self.is_held = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Does nothing: the parent releases the lock with the answer."""


def main(parent: int) -> None:
    """Answers requests of ``parent`` until the pipe closes."""
    requests = Requests(parent)
    Image.init()
    forbid_files()
    lock = _ParentsLock(requests)
    pillow_image.use_lock(lock)

    def answer(words: bytes, data: bytes) -> tuple[bytes, memoryview | None]:
        lock.is_held = False
        return _answer(data, DecodeOptions(**json.loads(words)))

    requests.serve(answer)


@functools.lru_cache(maxsize=1)
def _free_memory(_: int) -> int:
    """Free memory in bytes, up to a few seconds old: reading it costs as much as decoding a small picture."""
    free = available_memory()
    return sys.maxsize if free is None else max(free, _LEAST_BYTES)


def _answer(data: bytes, options: DecodeOptions) -> tuple[bytes, memoryview | None]:
    most = min(
        _BYTES_A_PIXEL * options.max_pixels + _MORE_BYTES, _free_memory(int(time.monotonic() / _FREE_SECONDS))
    )
    limit(options.decode_deadline, most)
    content = None
    try:
        with in_place():
            decoded = decode_in_place(data, options)
        found = {
            "width": int(decoded.width),
            "height": int(decoded.height),
            "format": decoded.format,
            "converted": bool(decoded.color_converted),
        }
        content = decoded.pixels.data.cast("B")
    except ImageError as error:
        found = {"reason": error.reason.value, "detail": error.detail}
    except MemoryError:
        detail = f"the decoder needs more than {most >> 20} MiB of memory"
        found = {"reason": Reason.DECODE_ERROR.value, "detail": detail}
    except Exception as error:  # a bug in beamlabel; the parent raises it
        found = {"fault": f"{type(error).__name__}: {error}"[:1000]}
    return json.dumps(found).encode(), content
