"""How images are loaded, and how many of them a worker thread holds."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.row_batches import images_in_batch

# Images in flight, at the least.
_WINDOW = 256
# Pixels of images that are decoded and not yet taken: of 447 images at 224 × 224.
_WAITING_BYTES = 64 << 20
# But so many images for each thread that computes: a chunk for the engine, and those that are decoded meanwhile.
_PER_THREAD = 8


@dataclass(frozen=True)
class LoadOptions:
    """How images are loaded.

    Attributes:
      fetch: byte cap, deadline, and what may be fetched.
      decode: the size of the result, crop and pixel cap.
      threads: images in flight at a time, in each worker thread of the runner.
      window: images in flight or decoded and not yet taken; is what keeps the cores busy while the runner's thread is
        busy elsewhere. ``most_decoded`` says how many of them may be decoded.
      worker_threads: that compute in a worker process; None: as many as the cores that it may use.
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
        """Of a decoded image."""
        return self.decode.height * self.decode.width * 3

    @property
    def longest_load(self) -> float:
        """Seconds that an image may take by its deadlines."""
        return self.fetch.deadline + self.decode.decode_deadline

    def most_decoded(self, compute_threads: int) -> int:
        """How many images may be decoded, or be on their way there, and not yet be taken: their pixels are what the
        step holds.

        They take 64 MiB at the most, or those of eight images for each thread that computes.
        """
        return max(min(_WAITING_BYTES // self.pixel_bytes, self.window), _PER_THREAD * compute_threads)

    def in_batch(self, batch_size: int) -> int:
        """How many images go out together, see ``images_in_batch``."""
        return images_in_batch(batch_size, self.pixel_bytes)


def window(threads: int) -> int:
    """The window that suits so many threads, see ``LoadOptions``."""
    return max(_WINDOW, 2 * threads)
