"""Signals during and after the submission of a job."""

import os
import signal

import pytest

from beamlabel.pipeline.process.cancellation import Cancelled, cancellation


def test_the_first_signal_raises_and_the_second_does_not() -> None:
    with cancellation() as cancelled:
        with pytest.raises(Cancelled, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert cancelled.seen is not None
    assert cancelled.seen.exit_code == 143


def test_a_hand_over_is_finished_first() -> None:
    before = signal.getsignal(signal.SIGINT)
    with cancellation() as cancelled:
        with cancelled.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            finished = True
        assert finished
        with pytest.raises(Cancelled, match="SIGINT"):
            cancelled.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_hand_over_that_hangs_ends_at_the_second_signal() -> None:
    with cancellation() as cancelled, pytest.raises(Cancelled, match="SIGINT"), cancelled.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("went on")


def test_signals_are_taken_back_after_a_hand_over() -> None:
    """Beam's job servers install their own handler and stop when it is called."""
    with cancellation() as cancelled:
        with cancelled.deferred():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        with pytest.raises(Cancelled):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_closed_terminal_cancels_unless_nohup_made_it_ignored() -> None:
    with cancellation(), pytest.raises(Cancelled) as raised:
        os.kill(os.getpid(), signal.SIGHUP)
    assert raised.value.exit_code == 129
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cancellation() as cancelled:
            os.kill(os.getpid(), signal.SIGHUP)
        assert cancelled.seen is None
    finally:
        signal.signal(signal.SIGHUP, before)
