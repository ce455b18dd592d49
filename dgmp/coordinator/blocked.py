"""What is said when every M blocks: in which calls, of which Gs, and for how long.  Called by state."""

from __future__ import annotations

MOST = 5  # functions,
MOST_GS = 3  # and Gs of each

Call = tuple[int, str, float]


def warning(calls: list[Call], max_ms: int) -> str:
    """The line for the client's user.

    Args:
        calls: what the Ms run: the goid, the G's name ("" if it is not known), and for how many seconds.
        max_ms: how many Ms there are.
    """
    by_name: dict[str, list[Call]] = {}
    for call in sorted(calls, key=lambda call: -call[2]):
        by_name.setdefault(call[1] or "functions without a name", []).append(call)
    names = sorted(by_name, key=lambda name: -len(by_name[name]))
    told = [f"{name} ({len(by_name[name])}: {of(by_name[name])})" for name in names[:MOST]]
    if rest := sum(len(by_name[name]) for name in names[MOST:]):
        told.append(f"{rest} other{'s' if rest > 1 else ''}")
    return (f"dgmp: warning: Gs are waiting, but all {max_ms} Ms (max_ms) block, in {', '.join(told)}; a larger max_ms, or "
            "calls that park instead of blocking, would let them run")


def of(calls: list[Call]) -> str:
    gs = [f"G {goid} for {seconds:.1f} s" for goid, _, seconds in calls[:MOST_GS]]
    return ", ".join(gs) + (" ..." if len(calls) > MOST_GS else "")
