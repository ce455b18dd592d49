"""1,000 concurrent HTTP requests over loopback, from async Gs on 2 Ps and from tasks of plain asyncio.

    python benchmarks/async_http.py [--requests N] [--rounds N]

The server is a process of its own and answers after 20 ms, so that all requests are under way at once.  Prints the medians and
their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

import dgmp

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


def serve(ready: Connection) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.02)
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def get(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer[-5:]


async def gather(port: int, n: int) -> list[bytes]:
    return list(await asyncio.gather(*[get(port) for _ in range(n)]))


def seconds(run: object, n: int) -> float:
    begun = time.perf_counter()
    assert run() == [b"hello"] * n  # type: ignore[operator]
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    n = options.requests
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    gs, tasks = [], []
    with dgmp.Runtime(procs=2) as rt:
        rt.go(get, port).result()
        for _ in range(options.rounds):  # in turn, so that both meet the same machine
            gs.append(seconds(lambda: dgmp.gather(*[rt.go(get, port) for _ in range(n)]), n))
            tasks.append(seconds(lambda: asyncio.run(gather(port, n)), n))
    server.terminate()
    ours_s, theirs_s = statistics.median(gs), statistics.median(tasks)
    print(f"{n} requests: async Gs {ours_s:.3f} s, asyncio {theirs_s:.3f} s, ratio {ours_s / theirs_s:.2f}")


if __name__ == "__main__":
    main()
