"""The concurrent prime sieve (Go: test/chan/sieve1.go): a chain of Gs, each of which filters the multiples of one prime.

    python examples/prime_sieve.py [how many primes]
"""

import sys

import dgmp


def generate(out: dgmp.Chan[int]) -> None:
    """2, 3, 4, ... until nobody wants more."""
    i = 2
    try:
        while True:
            out.send(i)
            i += 1
    except dgmp.ChanClosed:
        pass


def sieve(numbers: dgmp.Chan[int], out: dgmp.Chan[int], prime: int) -> None:
    """Passes on what `prime` does not divide."""
    try:
        for i in numbers:
            if i % prime:
                out.send(i)
    except dgmp.ChanClosed:
        numbers.close()


def primes(n: int) -> list[int]:
    found = []
    numbers = dgmp.Chan[int]()
    dgmp.go(generate, numbers)
    for _ in range(n):
        prime = numbers.recv()
        found.append(prime)
        rest = dgmp.Chan[int]()
        dgmp.go(sieve, numbers, rest, prime)
        numbers = rest
    numbers.close()  # the chain ends from its end on, each sieve closing what it reads from
    return found


if __name__ == "__main__":
    print(*dgmp.go(primes, int(sys.argv[1]) if len(sys.argv) > 1 else 20).result())
