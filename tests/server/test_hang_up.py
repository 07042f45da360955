"""SIGHUP that comes too early is kept."""

import os
import signal

import pytest

from realtime_communication.server.hang_up import hold_hang_ups, take_hang_up


@pytest.fixture(autouse=True)
def restored():
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_it_is_noted_once_however_often_it_comes():
    hold_hang_ups()
    assert not take_hang_up()
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)
    assert take_hang_up()
    assert not take_hang_up()


def test_one_of_an_earlier_start_is_forgotten():
    hold_hang_ups()
    os.kill(os.getpid(), signal.SIGHUP)
    hold_hang_ups()
    assert not take_hang_up()
