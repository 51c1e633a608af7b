"""Options of loading images, and limits on the images in a worker thread."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.row_batches import images_in_batch

# The least number of images in flight.
_WINDOW = 256
# Bytes of pixels of decoded images not yet taken: 447 images at 224 × 224.
_WAITING_BYTES = 64 << 20
# Images per compute thread at the least: a chunk for the engine, and the images decoded meanwhile.
_PER_THREAD = 8


@dataclass(frozen=True)
class LoadOptions:
    """Options of loading images.

    Attributes:
      fetch: byte cap, deadline, and limits on the images to fetch.
      decode: the size of the result, crop and pixel cap.
      threads: images in flight at a time, in each worker thread of the runner.
      window: images in flight, or decoded and not yet taken; keeps the cores busy while the runner's thread is busy
        elsewhere. ``most_decoded`` limits the decoded ones.
      worker_threads: compute threads in a worker process; None: one per core that it may use.
    """

    fetch: FetchOptions
    decode: DecodeOptions
    threads: int = 64
    window: int = 256
    worker_threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
        if self.window < self.threads:
            raise ValueError(f"window must be at least threads ({self.threads}), not {self.window}")

    @property
    def pixel_bytes(self) -> int:
        """The bytes of a decoded image."""
        return self.decode.height * self.decode.width * 3

    @property
    def longest_load(self) -> float:
        """The longest time of loading an image by its deadlines, in seconds."""
        return self.fetch.deadline + self.decode.decode_deadline

    def most_decoded(self, compute_threads: int) -> int:
        """The most images that may be in decoding, or decoded and not yet taken, which bounds the step's memory.

        Their pixels take at most 64 MiB, or eight images per compute thread if that is more.
        """
        return max(min(_WAITING_BYTES // self.pixel_bytes, self.window), _PER_THREAD * compute_threads)

    def in_batch(self, batch_size: int) -> int:
        """The number of images in a batch, see ``images_in_batch``."""
        return images_in_batch(batch_size, self.pixel_bytes)


def window(threads: int) -> int:
    """The default window for a number of threads, see ``LoadOptions``."""
    return max(_WINDOW, 2 * threads)
