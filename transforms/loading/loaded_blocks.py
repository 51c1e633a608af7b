"""Where a loaded image goes: out on its own, or into a block with the others of its batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Union

from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms.records import Block, EmbeddedRows, Loaded, LoadedImage


class OneByOne(NamedTuple):
    """Elements go out as they come, with the time and the window of the element that they are of."""

    timestamp: Any
    window: Any

    def emit(self, element: Loaded) -> Iterator[WindowedValue]:
        """The element itself."""
        yield WindowedValue(element, self.timestamp, (self.window,))


class Batch:
    """Gathers elements of one time and window to blocks: images, which are a batch for the engine, and what is none.

    Args:
      timestamp, window: of all of them.
      size: images in each block but the last, and elements in any.
    """

    def __init__(self, timestamp: Any, window: Any, size: int) -> None:
        self.timestamp, self.window = timestamp, window
        self._size = size
        self._images: list[LoadedImage] = []
        self._others: list[Loaded] = []

    def emit(self, element: Loaded) -> Iterator[WindowedValue]:
        """Blocks that are full with this element. Many rows in one element do not wait for images."""
        if isinstance(element, LoadedImage):
            self._images.append(element)
            return self.flush() if len(self._images) >= self._size else iter(())
        self._others.append(element)
        if isinstance(element, EmbeddedRows) or len(self._others) >= self._size:
            return self._flush_others()
        return iter(())

    def flush(self) -> Iterator[WindowedValue]:
        """What was gathered, if anything was."""
        if self._images:
            images, self._images = self._images, []
            yield self._block(images, sum(image.pixels.nbytes for image in images))
        yield from self._flush_others()

    def _flush_others(self) -> Iterator[WindowedValue]:
        others, self._others = self._others, []
        if others:
            rows = (element.batch.nbytes for element in others if isinstance(element, EmbeddedRows))
            yield self._block(others, sum(rows))

    def _block(self, elements: Sequence[Loaded], nbytes: int) -> WindowedValue:
        return WindowedValue(Block(elements, nbytes), self.timestamp, (self.window,))


Place = Union[OneByOne, Batch]
