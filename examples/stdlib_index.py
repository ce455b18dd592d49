"""Index the running Python's own standard library, file by file, as Gs.

    dgmp run examples/stdlib_index.py [--files N] [--top N] [--no-check]

Every .py file is parsed with `ast` by a G of its own; Gs above them, a tree, merge what their children found.  The same
job then runs serially, and the two answers must be equal.
"""

from __future__ import annotations

import argparse
import ast
import sys
import sysconfig
import time
import warnings
from collections import Counter
from pathlib import Path

import dgmp

FAN_OUT = 8  # an inner G has at most so many children


# What is known about a set of files: how much of everything, and how often each name is called.  Plain types: classes of
# a script travel by value, which costs a G more than parsing a small file.
Index = tuple[Counter[str], Counter[str]]


def merge(into: Index, other: Index) -> None:
    for mine, theirs in zip(into, other, strict=True):
        mine.update(theirs)


def sources() -> list[str]:
    """The standard library's Python files."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(str(p) for p in root.rglob("*.py") if "site-packages" not in p.parts and "__pycache__" not in p.parts)


def index_file(path: str) -> Index:
    """Parses one file.  Some of the library's test data is not meant to parse: it is counted as skipped."""
    counts: Counter[str] = Counter()
    names: Counter[str] = Counter()
    try:
        source = Path(path).read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        counts["skipped"] = 1
        return counts, names
    counts["files"] = 1
    counts["lines"] = source.count(b"\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            counts["definitions"] += 1
        elif isinstance(node, ast.Call):
            counts["calls"] += 1
            if isinstance(node.func, ast.Name):
                names[node.func.id] += 1
            elif isinstance(node.func, ast.Attribute):
                names[node.func.attr] += 1
    return counts, names


def index_tree(paths: list[str]) -> Index:
    """A G that merges: one child G for each file, or for each part of a long list."""
    if len(paths) <= FAN_OUT:
        children = [dgmp.spawn(index_file, (path,), name=path) for path in paths]
    else:
        size = -(-len(paths) // FAN_OUT)
        children = [dgmp.go(index_tree, paths[i:i + size]) for i in range(0, len(paths), size)]
    total: Index = Counter(), Counter()
    for child in children:
        merge(total, child.result())
    return total


def index_serially(paths: list[str]) -> Index:
    total: Index = Counter(), Counter()
    for path in paths:
        merge(total, index_file(path))
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description="Index the Python standard library with Gs.")
    parser.add_argument("--files", type=int, help="only the first FILES files")
    parser.add_argument("--top", type=int, default=10, help="how many names to list")
    parser.add_argument("--no-check", action="store_true", help="do not repeat the job serially")
    options = parser.parse_args()

    paths = sources()[: options.files]
    print(f"Indexing {len(paths):,} files of Python {sys.version.split()[0]}'s standard library on "
          f"{dgmp.gomaxprocs()} cores ...", flush=True)
    begun = time.perf_counter()
    counts, names = found = dgmp.go(index_tree, paths).result()
    parallel = time.perf_counter() - begun
    stats = dgmp.stats()

    print(f"\n  files parsed   {counts['files']:>10,}   ({counts['skipped']} skipped: they do not parse, most are test data)")
    print(f"  lines          {counts['lines']:>10,}")
    print(f"  definitions    {counts['definitions']:>10,}   (functions and classes)")
    print(f"  call sites     {counts['calls']:>10,}")
    print("\n  most called names")
    for name, count in sorted(names.items(), key=lambda item: (-item[1], item[0]))[: options.top]:
        print(f"    {name:<20} {count:>8,}")

    print(f"\n  with dgmp      {parallel:>8.2f} s")
    same = True
    if not options.no_check:
        begun = time.perf_counter()
        same = index_serially(paths) == found
        serial = time.perf_counter() - begun
        print(f"  serially       {serial:>8.2f} s")
        print(f"  speed-up       {serial / parallel:>8.2f} x   (wall times of this run, on {dgmp.gomaxprocs()} cores)")
        print(f"  same result    {'yes' if same else 'NO':>8}")

    print("\n  what the scheduler did")
    print(f"    Gs run         {stats['gs']:>8,}   one a file, and the tree above them")
    print(f"    steals         {stats['steals']:>8,}   which moved {stats['stolen']:,} Gs to another core")
    print(f"    parks          {stats['parks']:>8,}   Gs that waited for children while their process ran others")
    print(f"    Ms made        {stats['ms_made']:>8,}   processes, for {stats['gomaxprocs']} Ps", flush=True)
    if not same:
        print("stdlib_index: the parallel and the serial result differ", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
