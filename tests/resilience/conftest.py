"""Receivers of webhooks for the tests of their senders."""

import contextlib

import pytest

from serving.receiver import Receiver


@pytest.fixture
def make_receiver():
    with contextlib.ExitStack() as stack:

        def make(*answers, **options):
            receiver = Receiver(*answers, **options)
            stack.callback(receiver.close)
            return receiver

        yield make
