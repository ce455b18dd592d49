"""Sets of task ids as ranges: an array of a million tasks is one triple.

A range is (first, last, step), both ends in it; a list of them is in ascending order and no two overlap, so that it can be
taken from its front.  Used in the messages, in the store, and for the waiting tasks of a job.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

Range = tuple[int, int, int]
MOST_WOVEN = 1_000_000


class Ranges:
    """A set of whole numbers, kept as ranges.

    Args:
        ranges: they may overlap.
        most: numbers of ranges that overlap with others of another step, which are taken one by one; ValueError.

    Example:
        >>> r = Ranges([(1, 10, 1), (20, 30, 5)])
        >>> len(r), 25 in r, 26 in r
        (13, True, False)
        >>> r.take(3), len(r)
        ([1, 2, 3], 10)
        >>> r.remove(Ranges([(5, 24, 1)]))
        Ranges([(5, 10, 1), (20, 20, 1)])
        >>> r
        Ranges([(4, 4, 1), (25, 30, 5)])
    """

    __slots__ = ("count", "ranges")

    def __init__(self, ranges: Iterable[Iterable[int]] = (), most: int | None = None) -> None:
        self.ranges: list[Range] = []
        self.count = 0
        for r in sorted(normal(*r) for r in ranges):
            if most is not None and self.ranges and r[0] <= self.ranges[-1][1] and not alike(*sorted((self.ranges[-1], r))):
                most -= size(self.ranges[-1]) + size(r)
                if most < 0:
                    raise ValueError(f"{written(self.ranges[-1])} and {written(r)} overlap in too many numbers")
            self._append(r)

    def _append(self, r: Range) -> None:
        """r begins behind where the last one begins."""
        if self.ranges and r[0] <= self.ranges[-1][1]:
            self._weave(r)
            return
        if self.ranges and self.ranges[-1][2] == r[2] and self.ranges[-1][1] + r[2] == r[0]:
            self.ranges[-1] = (self.ranges[-1][0], r[1], r[2])
        elif self.ranges and self.ranges[-1][0] == self.ranges[-1][1] and r[0] == r[1] and r[0] - self.ranges[-1][0] == 1:
            self.ranges[-1] = (self.ranges[-1][0], r[0], 1)
        else:
            self.ranges.append(r)
        self.count += size(r)

    def _weave(self, r: Range) -> None:
        """They overlap: number by number if nothing better is known, as it is rare."""
        last = self.ranges.pop()
        self.count -= size(last)
        if (together := alike(*sorted((last, r)))) is not None:
            for part in together:
                self._append(part)
            return
        for n in sorted({*numbers(last), *numbers(r)}):
            self._append((n, n, 1))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        for r in self.ranges:
            yield from numbers(r)

    def __contains__(self, n: int) -> bool:
        return any(first <= n <= last and (n - first) % step == 0 for first, last, step in self.ranges)

    def __repr__(self) -> str:
        return f"Ranges({self.ranges})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self.ranges == other.ranges

    def take(self, n: int) -> list[int]:
        """Takes the first n, or all, out of it."""
        taken: list[int] = []
        while self.ranges and len(taken) < n:
            first, last, step = self.ranges[0]
            part = range(first, last + 1, step)[:n - len(taken)]
            taken.extend(part)
            rest = first + len(part) * step
            if rest > last:
                del self.ranges[0]
            else:
                self.ranges[0] = normal(rest, last, step)
        self.count -= len(taken)
        return taken

    def remove(self, other: Ranges) -> Ranges:
        """Takes what is in both out of this one, and returns it."""
        both, rest = Ranges(), Ranges()
        for r in self.ranges:
            if any(o[0] <= r[1] and r[0] <= o[1] for o in other.ranges):
                for part, inside in split(r, other.ranges):
                    (both if inside else rest)._append(part)
            else:
                rest._append(r)
        self.ranges, self.count = rest.ranges, rest.count
        return both

    def add(self, other: Ranges) -> None:
        """Puts all of the other one in."""
        merged = Ranges([*self.ranges, *other.ranges])
        self.ranges, self.count = merged.ranges, merged.count

    def pack(self) -> list[list[int]]:
        """For a message."""
        return [list(r) for r in self.ranges]


def normal(first: int, last: int, step: int = 1) -> Range:
    """The range as it is compared: its last number is in it."""
    last = first + (last - first) // step * step
    return (first, last, 1) if first == last else (first, last, step)


def alike(a: Range, b: Range) -> list[Range] | None:
    """All numbers of two ranges that overlap, of which b begins later, if their steps let it be said in ranges.

    Example:
        >>> alike((0, 10, 2), (4, 20, 4)), alike((0, 10, 2), (3, 7, 1))
        ([(0, 10, 2), (12, 20, 4)], [(0, 2, 2), (3, 7, 1), (8, 10, 2)])
        >>> alike((0, 8, 2), (1, 9, 2)), alike((0, 9, 3), (1, 9, 2))
        ([(0, 9, 1)], None)
    """
    apart = b[0] - a[0]
    if b[2] % a[2] == 0 and apart % a[2] == 0:  # what of b is not beyond a is in it
        return [a, *beyond(b, a[1])]
    if a[2] % b[2] == 0 and apart % b[2] == 0:
        before = min(a[1], a[0] + (apart - 1) // a[2] * a[2])
        return [*([normal(a[0], before, a[2])] if apart else []), b, *beyond(a, b[1])]
    if a[2] == b[2] == 2 * apart:  # odd and even, say
        end = min(a[1], b[1])
        woven = normal(a[0], end + apart if end + apart in (a[1], b[1]) else end, apart)
        return [woven, *beyond(a, woven[1]), *beyond(b, woven[1])]
    return None


def beyond(r: Range, n: int) -> list[Range]:
    """What of it is larger than n, if anything."""
    first = max(r[0], r[0] + ((n - r[0]) // r[2] + 1) * r[2])
    return [normal(first, r[1], r[2])] if first <= r[1] else []


def written(r: Range) -> str:
    return f"{r[0]}-{r[1]}" + (f":{r[2]}" if r[2] != 1 else "")


def size(r: Range) -> int:
    return (r[1] - r[0]) // r[2] + 1


def numbers(r: Range) -> range:
    return range(r[0], r[1] + 1, r[2])


def split(r: Range, others: list[Range]) -> Iterator[tuple[Range, bool]]:
    """The parts of r, and whether they are in one of the others; those that are, and those that are not, in order."""
    at, last, step = r
    for o in others:
        if o[1] < at or o[0] > last:
            continue
        if o[2] == 1:
            begin = at if o[0] <= at else at + -(-(o[0] - at) // step) * step
            end = min(last, o[1])
            if begin > end:
                continue
            if begin > at:
                yield normal(at, begin - step, step), False
            inside = normal(begin, end, step)
            yield inside, True
            at = inside[1] + step
        elif o[2] % step == 0 and (o[0] - at) % step == 0:  # every so many of r
            begin = max(o[0], o[0] + -(-(at - o[0]) // o[2]) * o[2])
            end = begin + (min(last, o[1]) - begin) // o[2] * o[2]
            if begin > end:
                continue
            if begin > at:
                yield normal(at, begin - step, step), False
            yield normal(begin, end, o[2]), True
            if o[2] == 2 * step and begin < end:
                yield normal(begin + step, end - step, o[2]), False
            elif o[2] > step:
                yield from ((normal(n + step, n + o[2] - step, step), False) for n in range(begin, end, o[2]))
            at = end + step
        else:
            for n in numbers(normal(at, last, step)):
                if n > o[1]:
                    break
                yield (n, n, 1), n in numbers(o)
                at = n + step
        if at > last:
            return
    yield normal(at, last, step), False


def ranges_of(numbers: Iterable[int]) -> Ranges:
    """The set of these numbers.

    Example:
        >>> ranges_of([3, 1, 2, 9])
        Ranges([(1, 3, 1), (9, 9, 1)])
    """
    return Ranges((n, n, 1) for n in numbers)


def packed(value: Any) -> Ranges:
    """What pack() gave."""
    return Ranges(tuple(r) for r in value)
