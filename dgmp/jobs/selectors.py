"""Jobs and tasks as a user names them, in HyperQueue's way: `1-3,last,all`, and tasks of a job as `5.1-10`.

    selector   one or more parts with commas between them
    part       jobs, or jobs.tasks: `5.7`, `last.1-10`
    jobs       `all`, `last`, or numbers
    tasks      numbers
    numbers    `7`, `1-10`, `1-10:3` (1, 4, 7, 10); `_` may stand between digits

The command line (dgmp/cli) parses what it is given into the protocol's Select; the daemon knows what there is.  `--array` and
`--after` are numbers, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .protocol import MAX_RANGES, Select
from .ranges import MOST_WOVEN, Range, Ranges, numbers

NUMBERS = re.compile(r"([0-9][0-9_]*)(?:-([0-9][0-9_]*)(?::([0-9][0-9_]*))?)?", re.ASCII)
LARGEST = 1 << 53


def selection(text: str) -> list[Select]:
    """What a selector says.

    Example:
        >>> selection("5.1-10,7,last")
        [Select(jobs=(5, 5), tasks=Ranges([(1, 10, 1)])), Select(jobs=(7, 7), tasks=None), Select(jobs='last', tasks=None)]

    Raises:
        ValueError: it is none.
    """
    return [select for part in text.split(",") for select in one_part(part.strip(), text)]


def one_part(part: str, text: str) -> Iterable[Select]:
    jobs, dot, tasks = part.partition(".")
    try:
        chosen = Ranges([one_range(tasks)]) if dot else None
        if jobs in ("all", "last"):
            return [Select(jobs, chosen)]
        first, last, step = one_range(jobs)
    except ValueError as e:
        raise ValueError(f"{text!r} names no jobs ({e}): say 3, 1-5, last or all; tasks as in 5.1-10") from None
    if first == 0:
        raise ValueError(f"{text!r} names no jobs: ids begin at 1")
    if step == 1:
        return [Select((first, last), chosen)]
    if (last - first) // step >= MAX_RANGES:
        raise ValueError(f"{part!r} names more than {MAX_RANGES} jobs one by one")
    return [Select((job, job), chosen) for job in numbers((first, last, step))]


def one_range(text: str) -> Range:
    """The numbers of `7`, `1-10` or `1-10:3`; ValueError says what it is instead."""
    found = NUMBERS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no number or range" if text else "nothing is there")
    first, last, step = (int(n.rstrip("_")) if n else None for n in found.groups())
    assert first is not None
    if max(first, last or 0, step or 0) > LARGEST:
        raise ValueError(f"{text} is too large")
    if last is not None and last < first:
        raise ValueError(f"{text} is empty")
    if step == 0:
        raise ValueError(f"{text} has no step")
    return first, first if last is None else last, step or 1


def task_ids(text: str) -> Ranges:
    """What --array says: `1-1000`, `0-100:5`, `1,3,7-9`.

    Example:
        >>> task_ids("1-3,10-30:10")
        Ranges([(1, 3, 1), (10, 30, 10)])

    Raises:
        ValueError: it is none.
    """
    try:
        return Ranges((one_range(part.strip()) for part in text.split(",")), MOST_WOVEN)
    except ValueError as e:
        raise ValueError(f"{text!r} is no array ({e}): give the tasks' ids, such as 1-1000, 0-100:5 or 1,3,7") from None


def written(ranges: Sequence[Sequence[int]] | Ranges) -> str:
    """Numbers as task_ids reads them; the protocol's ranges will do.

    Example:
        >>> written(task_ids("1-3,5,10-30:10"))
        '1-3,5,10-30:10'
    """
    parts = []
    for first, last, *step in ranges.ranges if isinstance(ranges, Ranges) else ranges:
        by = f":{step[0]}" if step and step[0] != 1 else ""
        parts.append(str(first) if first == last else f"{first}-{last}{by}")
    return ",".join(parts)


def one_job(text: str) -> Select:
    """The one job, perhaps with tasks, that is named where only one can be: `5`, `last`, `5.7`.

    Raises:
        ValueError: it is none, or says more than one.
    """
    chosen = selection(text)
    if len(chosen) != 1 or chosen[0].jobs == "all" or (not isinstance(chosen[0].jobs, str) and len(set(chosen[0].jobs)) > 1):
        raise ValueError(f"{text!r} may name several jobs: give one, such as 5 or last")
    return chosen[0]
