"""Computes rates and percentiles of samples."""

import random
from collections import Counter

from .http_client import GAP


class NotMeasured(Exception):
    """Why there is no number."""


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else None


def seconds_of(samples):
    return [sample.seconds for sample in samples if sample.status == 200]


def times(samples):
    return {f"p{share}": percentile(seconds_of(samples), share / 100) for share in (50, 99)}


def least_p99(load, capacity, requests=200_000):
    """The 99th percentile of an ideal server's seconds, which has no overhead and takes 1 / capacity for each of the requests
    that come at random times, one after the other (M/D/1)."""
    dice, free, now, waits = random.Random(1), 0.0, 0.0, []
    for _ in range(requests):
        now += dice.expovariate(load * capacity)
        free = max(free, now) + 1 / capacity
        waits.append(free - now)
    return percentile(waits, 0.99)


def statuses(samples):
    return {str(status): count for status, count in sorted(Counter(sample.status for sample in samples).items())}


def rate(samples):
    """Answers a second. They come in batches, so the first batch only starts the clock."""
    ends = sorted(sample.end for sample in samples if sample.status == 200)
    first = next((place for place, end in enumerate(ends) if end - ends[0] > GAP), None)
    if first is None:
        raise NotMeasured("too few answers to tell a rate; allow more seconds")
    return (len(ends) - first) / (ends[-1] - ends[first - 1])


def slope(points):
    """The slope of the line through points (x, y)."""
    count = len(points)
    mean_x, mean_y = (sum(point[axis] for point in points) / count for axis in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
