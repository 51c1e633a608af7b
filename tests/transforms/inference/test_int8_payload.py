"""The payload of an int8 artifact."""

import numpy as np
import pytest

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.int8_payload import Int8Model, pack_int8, unpack_int8

MODEL = Int8Model(b"<net/>", bytes(range(256)))
LOGITS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize("answers", [(LOGITS, None), (None, LOGITS), (LOGITS, LOGITS + 1)])
def test_it_comes_back_whole_and_equal_ones_are_equal_bytes(answers):
    payload = pack_int8(MODEL, answers)
    assert payload == pack_int8(MODEL, answers)
    model, found = unpack_int8(memoryview(payload))
    assert model == MODEL
    for before, after in zip(answers, found, strict=True):
        assert (before is None) == (after is None)
        assert before is None or np.array_equal(before, after)


@pytest.mark.parametrize("payload", [b"", b"no archive", pack_int8(MODEL, (LOGITS, None))[:-30]])
def test_other_bytes_are_refused(payload):
    with pytest.raises(ModuleError):
        unpack_int8(payload)
