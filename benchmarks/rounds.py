"""Comparison in rounds.

Both sides run in turn and a ratio is taken within each round, so that a slow minute hits both sides.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from benchmarks.load import Measured

Runs = dict[str, list[Measured]]


def interleaved(runs: Mapping[str, Callable[[], Measured]], rounds: int) -> Runs:
    """Run everything once in each round, in alternating order."""
    found: Runs = {name: [] for name in runs}
    for number in range(rounds):
        order = list(runs) if number % 2 == 0 else list(reversed(runs))
        for name in order:
            found[name].append(runs[name]())
    return found


def rate(measured: Sequence[Measured]) -> float:
    """Return the median of the responses a second."""
    return median(each.per_second for each in measured)


def ratio(ours: Sequence[Measured], theirs: Sequence[Measured]) -> float:
    """Return the median of the ratios of each round."""
    return median(one.per_second / other.per_second for one, other in zip(ours, theirs, strict=True))


def p50(measured: Sequence[Measured]) -> float:
    """Return the median of the rounds' medians, in milliseconds."""
    return median(each.p50_ms for each in measured)


def p99(measured: Sequence[Measured]) -> float:
    """Return the median of the rounds' 99th percentiles, in milliseconds."""
    return median(each.p99_ms for each in measured)
