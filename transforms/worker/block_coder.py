"""The coder of blocks: they are encoded only where a runner does not fuse the job's steps."""

from __future__ import annotations

import pickle
from typing import Any

from apache_beam.coders import Coder, registry

from beamlabel.transforms.row_batches import Block

_ELEMENT_BYTES = 200


class BlockCoder(Coder):
    """Pickles blocks, and tells their size without that.

    Beam asks every step for the size of some of its elements, for its counters. Its coder for any object finds it by
    encoding the element: of a batch of images that is a copy of all pixels.
    """

    def encode(self, value: Block) -> bytes:
        """The block with all that it holds."""
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, encoded: bytes) -> Block:
        """The inverse of ``encode``."""
        block: Block = pickle.loads(encoded)
        return block

    def estimate_size(self, value: Block) -> int:
        """In bytes, about."""
        return value.nbytes + _ELEMENT_BYTES * len(value)

    def is_deterministic(self) -> bool:
        """No: blocks are no keys."""
        return False

    def to_type_hint(self) -> type[Block]:
        """What it encodes."""
        return Block

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


BLOCKS = Block
"""The type of a PCollection of blocks; whoever has it from here has its coder."""

registry.register_coder(BLOCKS, BlockCoder)
