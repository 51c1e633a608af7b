"""The order of requests to a host; every waiting request gets its turn."""

import threading
import time

from beamlabel.transforms.loading.web import host_gate
from beamlabel.transforms.loading.web.host_gate import HostGate


class Word:
    """Records the answer to a waiting request."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def __call__(self, may_ask: bool) -> None:
        self.told.append(may_ask)


def test_so_many_at_a_time_and_then_in_turn() -> None:
    gate, words = HostGate(), [Word() for _ in range(5)]
    assert [gate.enter("a:1", 2, word) for word in words] == [True, True, False, False, False]
    assert gate.enter("b:1", 2, Word()), "another host"
    gate.leave("a:1")
    assert [word.told for word in words] == [[], [], [True], [], []]
    late = Word()
    assert not gate.enter("a:1", 9, late), "the order is kept"
    gate.leave("a:1")
    gate.leave("a:1")
    assert [word.told for word in words] == [[], [], [True], [True], [True]]
    for _ in range(2):
        gate.leave("a:1")
    assert late.told == [True]


def test_a_host_that_is_held_lets_nobody_in() -> None:
    gate, waiting = HostGate(), Word()
    assert gate.enter("a:1", 1, Word())
    assert not gate.enter("a:1", 1, waiting)
    until = time.monotonic() + 3600
    gate.hold("a:1", until)
    gate.hold("a:1", until - 60)
    assert gate.held_until("a:1") == until
    assert waiting.told == [False], "it shall see again"
    gate.leave("a:1")
    word = Word()
    assert not gate.enter("a:1", 1, word)
    assert word.told == [False]
    assert gate.held_until("b:1") == 0
    assert gate.enter("b:1", 1, word)


def test_alarms_come_in_the_order_of_their_times() -> None:
    gate, told, done = HostGate(), list[str](), threading.Event()
    now = time.monotonic()
    gate.later(now + 0.02, lambda _: (told.append("second"), done.set()))
    gate.later(now - 1, lambda _: told.append("first"))
    assert done.wait(60)
    assert told == ["first", "second"]


def test_hosts_that_nobody_asks_are_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(host_gate, "_HOSTS_REMEMBERED", 10)
    gate = HostGate()
    for number in range(100):
        gate.hold(f"{number}:1", time.monotonic() - 1)
        assert gate.enter(f"{number}:1", 1, Word())
        gate.leave(f"{number}:1")
        gate.hold(f"{number}:1", time.monotonic() + 1e-9)
    gate.enter("a:1", 1, Word())
    assert len(gate._hosts) < 20
