"""Output of loaded images, one by one or in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Union

from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms.records import Block, EmbeddedRows, Loaded, LoadedImage


class OneByOne(NamedTuple):
    """Emits elements one by one, with the timestamp and window of their input element."""

    timestamp: Any
    window: Any

    def emit(self, element: Loaded) -> Iterator[WindowedValue]:
        """Emits the element."""
        yield WindowedValue(element, self.timestamp, (self.window,))


class Batch:
    """Groups elements of one timestamp and window in blocks: images, as batches for the engine, and other elements.

    Args:
      timestamp, window: of all elements.
      size: images in each block but the last, and the most elements in any block.
    """

    def __init__(self, timestamp: Any, window: Any, size: int) -> None:
        self.timestamp, self.window = timestamp, window
        self._size = size
        self._images: list[LoadedImage] = []
        self._others: list[Loaded] = []

    def emit(self, element: Loaded) -> Iterator[WindowedValue]:
        """Adds the element and emits full blocks. An element of many rows is emitted at once."""
        if isinstance(element, LoadedImage):
            self._images.append(element)
            return self.flush() if len(self._images) >= self._size else iter(())
        self._others.append(element)
        if isinstance(element, EmbeddedRows) or len(self._others) >= self._size:
            return self._flush_others()
        return iter(())

    def flush(self) -> Iterator[WindowedValue]:
        """Emits the remaining elements, if any."""
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
