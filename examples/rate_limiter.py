"""A rate limiter: requests wait for a ticker; up to three may go at once after a pause (gobyexample.com/rate-limiting).

    python examples/rate_limiter.py [requests]
"""

import sys
import time

import dgmp

BURST = 3
EACH_S = 0.02


def refill(tokens: dgmp.Chan[float], stop: dgmp.Chan[None]) -> None:
    """A token every EACH_S; what finds no room is lost."""
    ticks = dgmp.tick(EACH_S)
    while True:
        i, now, _ = dgmp.select(dgmp.recv(ticks), dgmp.recv(stop))
        if i == 1:
            return
        tokens.try_send(now)


def serve(request: int, tokens: dgmp.Chan[float]) -> int:
    tokens.recv()
    return request


def main(n: int) -> None:
    tokens, stop = dgmp.Chan[float](BURST), dgmp.Chan[None]()
    for _ in range(BURST):
        tokens.send(0.0)
    limiter = dgmp.go(refill, tokens, stop)
    begun = time.monotonic()
    served = dgmp.gather(*[dgmp.go(serve, i, tokens) for i in range(n)])
    took = time.monotonic() - begun
    stop.close()
    limiter.result()
    print(f"{len(served)} requests served, not faster than allowed: {took >= (n - BURST - 1) * EACH_S}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
