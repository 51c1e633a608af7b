"""Where a loaded image goes: out on its own, or into a block with the others of its batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Union

from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms.records import Block, EmbeddedRows, Loaded, LoadedImage

# Failures, unit ends and the like wait for the images of their batch; so many do not.
_OTHERS = 64


class OneByOne(NamedTuple):
    """Elements go out as they come, with the time and the window of the element that they are of."""

    timestamp: Any
    window: Any

    def emit(self, element: Loaded) -> Iterator[WindowedValue]:
        """The element itself."""
        yield WindowedValue(element, self.timestamp, (self.window,))


class Batch:
    """Gathers elements of one time and window to blocks of ``size`` images.

    Args:
      timestamp, window: of all of them.
      size: images in each block but the last.
    """

    def __init__(self, timestamp: Any, window: Any, size: int) -> None:
        self.timestamp, self.window = timestamp, window
        self._size = size
        self._images: list[LoadedImage] = []
        self._others: list[Loaded] = []

    def emit(self, element: Loaded) -> Iterator[WindowedValue]:
        """A block, if one is full with this element. Many rows in one element do not wait for images."""
        if isinstance(element, LoadedImage):
            self._images.append(element)
            return self.flush() if len(self._images) >= self._size else iter(())
        self._others.append(element)
        if isinstance(element, EmbeddedRows) or len(self._others) >= _OTHERS:
            return self._block([])
        return iter(())

    def flush(self) -> Iterator[WindowedValue]:
        """What was gathered, if anything was."""
        images, self._images = self._images, []
        return self._block(images)

    def _block(self, images: list[LoadedImage]) -> Iterator[WindowedValue]:
        others, self._others = self._others, []
        if not images and not others:
            return
        nbytes = sum(image.pixels.nbytes for image in images)
        nbytes += sum(element.batch.nbytes for element in others if isinstance(element, EmbeddedRows))
        yield WindowedValue(Block([*images, *others], nbytes), self.timestamp, (self.window,))


Place = Union[OneByOne, Batch]
