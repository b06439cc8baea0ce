"""Detecting other work on the machine, on fake clocks."""

import pytest
from tests.train.clock import Clock

from gptbox.train.cpu_share import CpuShare


def train(clock: Clock, share: CpuShare, seconds: float) -> list[bool]:
    seen = []
    end = clock.now + seconds
    while clock.now < end:
        clock.work(0.5 * clock.threads * (1 - clock.busy))
        clock.wait(0.02)
        share.sample()
        seen.append(share.is_low)
    return seen


def test_other_work_is_detected_and_so_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 2)
    share = CpuShare(2)
    assert not any(train(clock, share, 30))
    clock.busy = 0.9
    assert train(clock, share, 12)[-1]
    assert share.recent == pytest.approx(0.1, abs=0.05)
    clock.busy = 0.0
    assert not train(clock, share, 12)[-1]


def test_a_short_pause_is_not_taken_for_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    share = CpuShare(1)
    train(clock, share, 20)
    clock.wait(2)  # a slow disk
    assert not any(train(clock, share, 20))


def test_the_share_is_relative_to_a_cpu_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    share = CpuShare(0.5)
    clock.busy = 0.5
    assert not any(train(clock, share, 30))


def test_with_zero_cpus_the_share_is_never_low(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    share = CpuShare(0.0)
    clock.busy = 0.9
    assert not any(train(clock, share, 30))


@pytest.mark.parametrize(("cpu_s", "wall_s", "low"), [(50, 60, False), (10, 60, True), (1, 5, False)])
def test_the_share_over_a_whole_run(cpu_s: float, wall_s: float, low: bool) -> None:
    assert CpuShare(1).is_low_over(cpu_s, wall_s) is low
