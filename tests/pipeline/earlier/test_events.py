"""The events of an image in every order: the one that counts."""

import itertools
import random
import tracemalloc

import numpy as np
import pytest

from beamlabel.pipeline.earlier import events
from beamlabel.pipeline.earlier.events import (
    DELETED,
    EVENT,
    KNOWN_FAILURE,
    LASTING_FAILURE,
    NOT_FOUND,
    OTHER_ROW,
    PASSING_FAILURE,
    SAME_ROW,
    UNCHANGED,
    EventWriter,
    newest,
)
from beamlabel.transforms.storage.identity import content_bits

IMAGE = f"{7:032x}"
# By a run over this run's input.
SAME_ROW_OF_INPUT, OTHER_ROW_OF_INPUT, FAILURE_OF_INPUT = (
    (SAME_ROW, True),
    (OTHER_ROW, True),
    (KNOWN_FAILURE, True),
)


def event(kind, at, stat=0, content=0, image=IMAGE, row=0):
    made = np.zeros(1, EVENT)
    ((made["high"], made["low"]),) = events.ids_of([image])
    made["kind"], made["of_input"] = kind if isinstance(kind, tuple) else (kind, False)
    made["at"], made["stat"], made["content"], made["row"] = at, stat, content, row
    return made


# Events as (kind, at, stat, content) → the stat of the row that counts as labeled, the stat of the known failure, and
# whether the image is a candidate for deletion; None for none.
CASES = {
    "a row": ([(SAME_ROW, 1, 5, 50)], 5, None, False),
    "a row of the input": ([(SAME_ROW_OF_INPUT, 1, 5, 50)], 5, None, True),
    "a row of another module": ([(OTHER_ROW_OF_INPUT, 1, 5, 50)], None, None, True),
    "the newest row": ([(SAME_ROW, 1, 5, 50), (SAME_ROW, 2, 6, 60)], 6, None, False),
    "a row of the input, labeled for another input since": (
        [(SAME_ROW_OF_INPUT, 1, 5, 50), (OTHER_ROW, 2, 6, 60)], 5, None, False,
    ),
    "a failure": ([(KNOWN_FAILURE, 1, 5, 50)], None, 5, False),
    "a failure that may pass": ([(PASSING_FAILURE, 1, 5, 50)], None, None, False),
    "only the newest failure counts": ([(KNOWN_FAILURE, 1, 5, 50), (PASSING_FAILURE, 2, 0, 0)], None, None, False),
    "and it lasts": ([(PASSING_FAILURE, 1, 0, 0), (KNOWN_FAILURE, 2, 5, 50)], None, 5, False),
    "a success after a failure": ([(KNOWN_FAILURE, 1, 5, 50), (SAME_ROW, 2, 6, 60)], 6, None, False),
    "a success of another module": ([(KNOWN_FAILURE, 1, 5, 50), (OTHER_ROW, 2, 6, 60)], None, None, False),
    "a success beside a failure": ([(KNOWN_FAILURE, 1, 5, 50), (SAME_ROW, 1, 5, 50)], 5, None, False),
    "replaced by a broken image": ([(SAME_ROW, 1, 5, 50), (KNOWN_FAILURE, 2, 6, 60)], None, 6, False),
    "replaced by an image that an earlier version could not decode": (
        [(SAME_ROW, 1, 5, 50), (LASTING_FAILURE, 2, 6, 60)], None, None, False,
    ),
    "replaced by what could not be fetched": ([(SAME_ROW, 1, 5, 50), (PASSING_FAILURE, 2, 6, 0)], None, None, False),
    "it could not be fetched": ([(SAME_ROW, 1, 5, 50), (PASSING_FAILURE, 2, 5, 0)], 5, None, False),
    "nobody knows what could not be fetched": ([(SAME_ROW, 1, 5, 50), (PASSING_FAILURE, 2, 0, 0)], 5, None, False),
    "it was not there": ([(SAME_ROW, 1, 5, 50), (NOT_FOUND, 2, 0, 0)], None, None, False),
    "broken, and back as it was": (
        [(SAME_ROW, 1, 5, 50), (KNOWN_FAILURE, 2, 6, 60), (SAME_ROW, 3, 5, 50)], 5, None, False,
    ),
    "touched, and too large for a lower limit": (
        [(SAME_ROW, 1, 5, 50), (LASTING_FAILURE, 2, 6, 50)], 5, None, False,
    ),
    "it failed for good, and nobody knows its content": (
        [(SAME_ROW, 1, 5, 50), (LASTING_FAILURE, 2, 0, 0)], None, None, False,
    ),
    "replaced by a broken image, then by one that cannot be fetched": (
        [(SAME_ROW, 1, 5, 50), (KNOWN_FAILURE, 2, 6, 60), (PASSING_FAILURE, 3, 5, 0)], None, None, False,
    ),
    "a failure of the input": ([(FAILURE_OF_INPUT, 1, 5, 50)], None, 5, True),
    "a failure of the input, deleted": ([(FAILURE_OF_INPUT, 1, 5, 50), (DELETED, 2, 0, 0)], None, None, False),
    "a row of the input, failed for another input since": (
        [(SAME_ROW_OF_INPUT, 1, 5, 50), (PASSING_FAILURE, 2, 0, 0)], 5, None, False,
    ),
    "deleted": ([(SAME_ROW_OF_INPUT, 1, 5, 50), (DELETED, 2, 0, 0)], None, None, False),
    "deleted, and back": (
        [(SAME_ROW_OF_INPUT, 1, 5, 50), (DELETED, 2, 0, 0), (SAME_ROW_OF_INPUT, 3, 5, 50)], 5, None, True,
    ),
    "deleted, back, and deleted": (
        [(SAME_ROW_OF_INPUT, 1, 5, 50), (DELETED, 2, 0, 0), (SAME_ROW_OF_INPUT, 3, 5, 50), (DELETED, 4, 0, 0)],
        None, None, False,
    ),
    "deleted, and back broken": (
        [(SAME_ROW_OF_INPUT, 1, 5, 50), (DELETED, 2, 0, 0), (KNOWN_FAILURE, 3, 6, 60)], None, 6, False,
    ),
    "failed before it was deleted": (
        [(SAME_ROW, 1, 5, 50), (KNOWN_FAILURE, 2, 6, 60), (DELETED, 3, 0, 0)], None, None, False,
    ),
    "touched": ([(SAME_ROW, 1, 5, 50), (UNCHANGED, 2, 6, 50)], 6, None, False),
    "touched again": ([(SAME_ROW, 1, 5, 50), (UNCHANGED, 2, 6, 50), (UNCHANGED, 3, 7, 50)], 7, None, False),
    "touched before another content came": (
        [(SAME_ROW, 1, 5, 50), (UNCHANGED, 2, 6, 50), (SAME_ROW, 3, 8, 80)], 8, None, False,
    ),
    "touched, and no content known": ([(SAME_ROW, 1, 5, 0), (UNCHANGED, 2, 6, 0)], 5, None, False),
    "a broken one touched": ([(KNOWN_FAILURE, 1, 5, 50), (UNCHANGED, 2, 6, 50)], None, 6, False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_counts(case):
    happened, labeled, failed, live = CASES[case]
    for order in itertools.permutations(happened):
        found = newest(np.concatenate([event(*one) for one in order]))
        assert found.labeled["stat"].tolist() == ([] if labeled is None else [labeled])
        assert found.failed["stat"].tolist() == ([] if failed is None else [failed])
        assert len(found.live) == live


# Kinds of rows with the features that this run would compute.
SAME, OTHER = "same", "other"

# Events → the stat of the row whose features count; None for none.
FEATURES = {
    "a row with them": ([(OTHER, 1, 5, 50)], 5),
    "a row without": ([(OTHER_ROW, 1, 5, 50)], None),
    "the newest": ([(OTHER, 1, 5, 50), (OTHER, 2, 6, 60)], 6),
    "labeled by it": ([(SAME, 1, 5, 50)], None),
    "labeled since": ([(OTHER, 1, 5, 50), (SAME_ROW, 2, 5, 50)], None),
    "labeled of another content before": ([(SAME_ROW, 1, 5, 50), (OTHER, 2, 6, 60)], 6),
    "hidden by a row of another base": ([(OTHER, 1, 5, 50), (OTHER_ROW, 2, 5, 50)], 5),
    "touched, and labeled by another base": ([(OTHER, 1, 5, 50), (OTHER_ROW, 2, 6, 50)], 5),
    "another content was labeled by another base": ([(OTHER, 1, 5, 50), (OTHER_ROW, 2, 6, 60)], None),
    "that was so before": ([(OTHER_ROW, 1, 6, 60), (OTHER, 2, 5, 50)], 5),
    "a content that nobody knows was labeled by another base": ([(OTHER, 1, 5, 50), (OTHER_ROW, 2, 5, 0)], 5),
    "of a content that nobody knows": ([(OTHER, 1, 5, 0)], None),
    "touched": ([(OTHER, 1, 5, 50), (UNCHANGED, 2, 6, 50)], 6),
    "touched, and another content": ([(OTHER, 1, 5, 50), (UNCHANGED, 2, 6, 60)], 5),
    "deleted": ([(OTHER, 1, 5, 50), (DELETED, 2)], None),
    "deleted before": ([(DELETED, 1), (OTHER, 2, 5, 50)], 5),
    "failed since, for a reason that may pass": ([(OTHER, 1, 5, 50), (PASSING_FAILURE, 2, 0, 0)], 5),
    "another content failed since": ([(OTHER, 1, 5, 50), (PASSING_FAILURE, 2, 6, 60)], None),
    "the same content fails by now": ([(OTHER, 1, 5, 50), (KNOWN_FAILURE, 2, 5, 50)], 5),
    "a content that nobody knows failed for good": ([(OTHER, 1, 5, 50), (LASTING_FAILURE, 2, 0, 0)], None),
    "it was not there": ([(OTHER, 1, 5, 50), (NOT_FOUND, 2)], None),
    "it was not there, and is again": ([(NOT_FOUND, 1), (OTHER, 2, 5, 50)], 5),
}  # fmt: skip


def with_features(kind, *rest):
    made = event({SAME: SAME_ROW, OTHER: OTHER_ROW}.get(kind, kind), *rest)
    made["features"] = kind in (SAME, OTHER)
    return made


@pytest.mark.parametrize("case", FEATURES)
def test_whose_features_count(case):
    happened, stat = FEATURES[case]
    for order in itertools.permutations(happened):
        found = newest(np.concatenate([with_features(*one) for one in order]))
        assert found.features["stat"].tolist() == ([] if stat is None else [stat])


def test_images_do_not_mix(tmp_path, monkeypatch):
    """A thousand images with one case each, in random order, through the index on disk."""
    monkeypatch.setattr(events, "_BUFFER_BYTES", 4000)
    shuffle = random.Random(0)
    images = {f"{shuffle.getrandbits(128):032x}": shuffle.choice(list(CASES)) for _ in range(1000)}
    happened = [event(*one, image=image) for image, case in images.items() for one in CASES[case][0]]
    shuffle.shuffle(happened)
    with EventWriter(tmp_path) as writer:
        for start in range(0, len(happened), 37):
            writer.add(np.concatenate(happened[start : start + 37]))
        found = list(writer.newest())
    assert not list(tmp_path.iterdir())
    for place in range(3):
        there = np.concatenate([one[place] for one in found])
        ids = [f"{high:016x}{low:016x}" for high, low in zip(there["high"], there["low"], strict=True)]
        assert ids == sorted(image for image, case in images.items() if CASES[case][place + 1])
    assert all(
        CASES[images[f"{one['high']:016x}{one['low']:016x}"]][1] == one["stat"]
        for part in found
        for one in part.labeled
    )


def test_contents_are_as_workers_see_them():
    hashes = [None, "0" * 31 + "1", "f" * 32, "0123456789abcdef" * 2]
    assert events.contents_of(hashes).tolist() == [content_bits(digest) for digest in hashes]
    assert events.contents_of([]).tolist() == []


def test_nothing_happened(tmp_path):
    with EventWriter(tmp_path) as writer:
        assert list(writer.newest()) == []


def test_memory_does_not_grow_with_the_number_of_events(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "_BUFFER_BYTES", 1 << 18)
    peaks = []
    random_ids = np.random.default_rng(0)
    for count in (50_000, 400_000):
        tracemalloc.start()
        with EventWriter(tmp_path) as writer:
            for _ in range(0, count, 5000):
                made = np.zeros(5000, EVENT)
                made["high"] = random_ids.integers(0, 2**63, 5000) * 2
                writer.add(made)
            assert sum(len(one.labeled) for one in writer.newest()) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 400_000 * EVENT.itemsize / 20
