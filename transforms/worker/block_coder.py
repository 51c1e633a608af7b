"""The coder of blocks, which are encoded only if a runner does not fuse the job's steps."""

from __future__ import annotations

import pickle
from typing import Any

from apache_beam.coders import Coder, registry

from beamlabel.transforms.row_batches import Block

_ELEMENT_BYTES = 200


class BlockCoder(Coder):
    """Pickles blocks, and estimates their size without pickling.

    For its counters, Beam requests the size of some elements of every step. Beam's coder for any object would encode
    the element: for a batch of images, a copy of all pixels.
    """

    def encode(self, value: Block) -> bytes:
        """Encodes the block with its content."""
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, encoded: bytes) -> Block:
        """The inverse of ``encode``."""
        block: Block = pickle.loads(encoded)
        return block

    def estimate_size(self, value: Block) -> int:
        """The approximate size of the block, in bytes."""
        return value.nbytes + _ELEMENT_BYTES * len(value)

    def is_deterministic(self) -> bool:
        """Always False: blocks are not keys."""
        return False

    def to_type_hint(self) -> type[Block]:
        """The type of blocks."""
        return Block

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


BLOCKS = Block
"""The type of a PCollection of blocks; importing it from here registers its coder."""

registry.register_coder(BLOCKS, BlockCoder)
