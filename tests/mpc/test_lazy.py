"""Properties that are computed once, and by nobody's leave."""

import threading

from mpc.lazy import lazy


class Thing:
    def __init__(self, wait=None):
        self.computed = 0
        self.wait = wait

    @lazy
    def value(self) -> int:
        """What it is worth."""
        self.computed += 1
        if self.wait is not None:
            assert self.wait.wait(60)
        return self.computed


def test_it_is_computed_once():
    thing = Thing()
    assert [thing.value, thing.value, thing.computed] == [1, 1, 1]
    assert Thing.value.__doc__ == "What it is worth."


def test_one_object_does_not_wait_for_another():
    end = threading.Event()
    slow = threading.Thread(target=lambda: Thing(end).value)
    slow.start()
    try:
        assert Thing().value == 1
    finally:
        end.set()
        slow.join()
