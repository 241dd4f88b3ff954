"""A bad network on a virtual clock: the same seed gives the same faults, each as often and as long as it says."""

from __future__ import annotations

import itertools

import pytest

from scripts.measure.bad_link import BadLink, Faults

EVERY_S = 0.01


def sent(faults: Faults, count: int = 20_000, seed: int = 1, size_bytes: int = 100) -> list[list[float]]:
    """Packets every 10 ms."""
    link = BadLink(faults, seed)
    return [link.send(k * EVERY_S, size_bytes) for k in range(count)]


def test_a_good_network_does_nothing() -> None:
    assert all(
        abs(leaves[0] - k * EVERY_S) < 1e-6 and len(leaves) == 1 for k, leaves in enumerate(sent(Faults()))
    )


def test_the_same_seed_is_the_same_network() -> None:
    faults = Faults(loss=0.1, jitter_ms=30, late=0.1, twice=0.1)
    assert sent(faults, 500) == sent(faults, 500)
    assert sent(faults, 500) != sent(faults, 500, seed=2)


def runs_lost(leaves: list[list[float]]) -> list[int]:
    """How many in a row were lost, each time."""
    return [len(list(run)) for lost, run in itertools.groupby(leaves, lambda x: not x) if lost]


@pytest.mark.parametrize("burst", [None, 3.0, 8.0])
def test_so_many_are_lost_and_so_many_in_a_row(burst: float | None) -> None:
    lost = runs_lost(sent(Faults(loss=0.1, burst_packets=burst)))
    assert sum(lost) / 20_000 == pytest.approx(0.1, rel=0.2)
    assert sum(lost) / len(lost) == pytest.approx(1 / 0.9 if burst is None else burst, rel=0.15)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_everything_are_lost_whatever_the_bursts(share: float) -> None:
    assert len(runs_lost(sent(Faults(loss=share, burst_packets=3), 100))) == share


def test_other_faults_leave_the_lost_ones_as_they_are() -> None:
    def lost(faults: Faults) -> list[bool]:
        return [not x for x in sent(faults, 500)]

    assert lost(Faults(loss=0.1)) == lost(Faults(loss=0.1, delay_ms=50, jitter_ms=9, late=0.2, twice=0.1))


def test_jitter_wanders_over_all_of_it_and_keeps_the_order() -> None:
    leaves = [x[0] for x in sent(Faults(delay_ms=20, jitter_ms=50))]
    delays = [1000 * (x - k * EVERY_S) for k, x in enumerate(leaves)]
    assert all(b > a for a, b in itertools.pairwise(leaves))
    assert 20 <= min(delays) < 23
    assert 67 < max(delays) <= 70 + 1e-3
    steps = [abs(b - a) for a, b in itertools.pairwise(delays)]
    assert 1 < sum(steps) / len(steps) < 10, "from packet to packet, half of 10 ms at the most"


def test_after_a_long_silence_jitter_goes_on() -> None:
    link = BadLink(Faults(jitter_ms=50))
    link.send(0.0, 100)
    assert 1e6 <= link.send(1e6, 100)[0] <= 1e6 + 0.05


def test_late_ones_come_out_of_order_and_doubled_ones_twice() -> None:
    leaves = sent(Faults(late=0.1, twice=0.05))
    late = [x for k, x in enumerate(leaves) if x[0] > k * EVERY_S + 0.05]
    assert len(late) / 20_000 == pytest.approx(0.1, rel=0.2)
    assert sum(len(x) == 2 for x in leaves) / 20_000 == pytest.approx(0.05, rel=0.2)
    assert all(len(set(x)) == 1 for x in leaves)


def test_what_is_more_than_the_rate_waits_and_then_is_lost() -> None:
    """1000 bytes every 10 ms are 800 kbit/s."""
    link = BadLink(Faults(rate_kbps=400, queue_ms=200))
    leaves = [link.send(k * EVERY_S, 1000) for k in range(1000)]
    came = [(k * EVERY_S, x[0]) for k, x in enumerate(leaves) if x]
    assert len(came) / 1000 == pytest.approx(0.5, abs=0.03)
    assert link.counts["full"] == 1000 - len(came)
    assert max(b - a for a, b in came) <= 0.2 + 0.02 + 1e-6
    assert link.send(60.0, 1000)[0] == pytest.approx(60.02), "an empty queue delays nothing"


def test_a_blackout_at_the_end_of_each_period() -> None:
    leaves = sent(Faults(blackout_s=2, blackout_every_s=60), count=12_000)
    out = [k * EVERY_S for k, x in enumerate(leaves) if not x]
    assert (min(out), max(out)) == (pytest.approx(58.0), pytest.approx(119.99))
    assert len(out) == 2 * 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": 1.1},
        {"loss": -0.1},
        {"delay_ms": -1},
        {"burst_packets": 0.5},
        {"rate_kbps": 0},
        {"blackout_s": 60.0},
    ],
)
def test_what_is_no_network(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"share|negative|burst|rate|blackout"):
        Faults(**wrong)
