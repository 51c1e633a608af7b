"""Errors in the sink's threads end the bundle; a hanging heartbeat blocks neither the sink nor its end."""

from __future__ import annotations

import threading

import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.units.unit_records import read_record
from beamlabel.transforms.worker.tally import Tally
from beamlabel.transforms.writing import write_unit
from beamlabel.transforms.writing.heartbeat import DIRECTORY, Heartbeat
from beamlabel.transforms.writing.unit_rows import CHUNK_ROWS, UnitRows
from beamlabel.transforms.writing.write_unit import _WriteUnitDoFn
from support.outputs import FULL, end, failure, prediction
from support.threads import no_more_threads

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
ERRORS = [OSError("injected"), MemoryError("injected"), SystemExit("injected"), KeyboardInterrupt("injected")]


def unit(number, rows):
    unit_id = f"00000-{number:012d}"
    return [*(prediction(row, unit_id=unit_id) for row in range(rows)), end(rows, unit_id=unit_id)]


def bundle(step, elements):
    """The records of one bundle, which ends as in Beam."""
    step.start_bundle()
    records = [record for element in elements for record in step.process(element)]
    return [*records, *(value.value for value in step.finish_bundle())]


@pytest.fixture
def step(tmp_path):
    made = _WriteUnitDoFn(FULL, str(tmp_path), heartbeats=True)
    made.setup()
    yield made
    made.teardown()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "place",
    [
        (UnitRows, "add"),
        (write_unit, "stage_data"),
        (write_unit, "stage_failures"),
        (write_unit, "stage_record"),
    ],
)
def test_an_error_anywhere_in_the_writer(step, monkeypatch, place, error):
    def fail(*arguments):
        raise error

    elements = [*unit(1, CHUNK_ROWS + 1)[:-1], failure(CHUNK_ROWS + 1, unit_id="00000-000000000001")]
    elements.append(end(CHUNK_ROWS + 2, unit_id="00000-000000000001"))
    with monkeypatch.context() as patch:
        patch.setattr(*place, fail)
        with pytest.raises(Exception, match="injected"):
            bundle(step, elements)
    (record,) = bundle(step, elements)
    assert record.predicted == CHUNK_ROWS + 1


def test_no_thread_to_write_in(step, monkeypatch):
    with (
        no_more_threads(monkeypatch, "write-unit"),
        pytest.raises(RuntimeError, match="can't start new thread"),
    ):
        bundle(step, unit(1, 2))
    assert len(bundle(step, unit(1, 2))) == 1


@pytest.fixture
def hanging_heartbeats(monkeypatch):
    """A storage that answers everything except heartbeats; yields the hanging ones."""
    gate, real, hanging = threading.Event(), storage.write_bytes, []

    def write_bytes(path, data):
        if f"/{DIRECTORY}/" in path:
            hanging.append(path)
            gate.wait()
        real(path, data)

    monkeypatch.setattr(storage, "write_bytes", write_bytes)
    monkeypatch.setattr(Heartbeat, "is_due", lambda self: True)
    yield hanging
    gate.set()


def test_a_hanging_heartbeat_delays_nothing(tmp_path, hanging_heartbeats):
    step = _WriteUnitDoFn(FULL, str(tmp_path), heartbeats=True)
    step.setup()
    records = bundle(step, [*unit(1, 20), *unit(2, 20)])
    step.teardown()
    assert len(hanging_heartbeats) == 1, "no second one while the first is pending"
    assert [read_record(str(tmp_path), record.unit_id) for record in records] == records


@pytest.mark.parametrize("error", [OSError("full"), ValueError("no"), SystemExit(1)])
def test_a_heartbeat_that_fails_is_no_matter(tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error

    heart = Heartbeat(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", fail)
        heart.write({"unit": Tally(1)})
        heart.close()
    with no_more_threads(monkeypatch, "heartbeat"):
        Heartbeat(str(tmp_path)).write({"unit": Tally(1)})
    heart = Heartbeat(str(tmp_path))
    heart.write({"unit": Tally(1)})
    heart.close()
    assert len(list((tmp_path / DIRECTORY).iterdir())) == 1
