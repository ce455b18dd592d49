"""A chat: the room and everybody in it are async Gs, and talk through a socket.

    python examples/chat.py [--people N]

All of them run on one M, which holds a P only while one of them has something to do.  Each person says a line and leaves when
it has heard everybody's; what each has heard is the result of its G.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile

import dgmp


async def room(path: str, people: int) -> int:
    """Passes each line on to everybody, once all are there; returns how many it was given."""
    writers: list[asyncio.StreamWriter] = []
    all_there, all_gone = asyncio.Event(), asyncio.Event()
    lines = left = 0

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lines, left
        writers.append(writer)
        if len(writers) == people:
            all_there.set()
        await all_there.wait()
        while line := await reader.readline():
            lines += 1
            for other in writers:
                other.write(line)
        writer.close()
        left += 1
        if left == people:
            all_gone.set()

    async with await asyncio.start_unix_server(meet, path):
        await all_gone.wait()
    return lines


async def person(path: str, name: str, people: int) -> list[str]:
    """Says hello, and returns what it has heard."""
    for _ in range(500):
        try:
            reader, writer = await asyncio.open_unix_connection(path)
            break
        except (FileNotFoundError, ConnectionRefusedError):  # the room is not open yet
            await asyncio.sleep(0.01)
    writer.write(f"{name}: hello\n".encode())
    heard = [(await reader.readline()).decode().strip() for _ in range(people)]
    writer.close()
    return heard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=20)
    people = parser.parse_args().people
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/room"
        lines = dgmp.go(room, path, people)
        heard = dgmp.gather(*[dgmp.go(person, path, f"person {i}", people) for i in range(people)])
    expected = sorted(f"person {i}: hello" for i in range(people))
    assert all(sorted(each) == expected for each in heard)
    print(f"{people} people said {lines.result()} lines, and each heard {len(heard[0])}")


if __name__ == "__main__":
    main()
