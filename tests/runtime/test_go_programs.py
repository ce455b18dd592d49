"""Go's own channel programs (test/chan/*.go), carried over: whole programs with known results."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

import dgmp

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(params=[1, 2])
def rt(request):
    with dgmp.Runtime(procs=request.param) as runtime:
        yield runtime


# ---------------------------------------------------------------- fifo.go
def fifo_async(n):
    chan = dgmp.Chan(n)
    for i in range(n):
        chan.send(i)
    return [chan.recv() for _ in range(n)]


def chain(chan, value, before, after):
    before.recv()
    if chan.recv() != value:
        raise AssertionError(value)
    after.send(1)


def fifo_sync(n):
    """Gs that begin to receive one after another get what is sent one after another."""
    chan = dgmp.Chan()
    before = first = dgmp.Chan()
    futures = []
    for i in range(n):
        after = dgmp.Chan()
        futures.append(dgmp.go(chain, chan, i, before, after))
        before = after
    first.send(0)
    for i in range(n):
        chan.send(i)
    before.recv()
    dgmp.gather(*futures)


def test_fifo(rt):
    assert rt.go(fifo_async, 10).result() == list(range(10))
    rt.go(fifo_sync, 10).result()


# ---------------------------------------------------------------- goroutines.go
def link(left, right):
    left.send(right.recv() + 1)


def long_chain(n):
    leftmost = right = dgmp.Chan()
    for _ in range(n):
        left, right = right, dgmp.Chan()
        dgmp.go(link, left, right)
    dgmp.go(right.send, 0)
    return leftmost.recv()


def test_a_long_chain_of_gs(rt):
    assert rt.go(long_chain, 1000).result() == 1000


# ---------------------------------------------------------------- doubleselect.go
def double_sender(n, c1, c2, c3, c4):
    """Sends each number once, on whichever channel takes it."""
    for i in range(n):
        dgmp.select(dgmp.send(c1, i), dgmp.send(c2, i), dgmp.send(c3, i), dgmp.send(c4, i))
    for chan in (c1, c2, c3, c4):
        chan.close()


def forward(out, chan, done):
    for i in chan:
        out.send(i)
    done.send(True)


def close_when_done(out, done):
    for _ in range(4):
        done.recv()
    out.close()


def double_select(n):
    """No value comes twice."""
    chans = [dgmp.Chan() for _ in range(4)]
    out, done = dgmp.Chan(), dgmp.Chan()
    dgmp.go(double_sender, n, *chans)
    for chan in chans:
        dgmp.go(forward, out, chan, done)
    dgmp.go(close_when_done, out, done)
    return sorted(out)


def test_double_select(rt):
    assert rt.go(double_select, 500).result() == list(range(500))


# ---------------------------------------------------------------- sieve1.go
PRIMES = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97]


def generate(chan, n):
    for i in range(2, n):
        chan.send(i)
    chan.close()


def keep_indivisible(numbers, out, prime):
    for i in numbers:
        if i % prime:
            out.send(i)
    out.close()


def sieve(n):
    numbers = dgmp.Chan()
    dgmp.go(generate, numbers, n)
    primes = []
    while True:
        prime, ok = numbers.recv_ok()
        if not ok:
            return primes
        primes.append(prime)
        out = dgmp.Chan()
        dgmp.go(keep_indivisible, numbers, out, prime)
        numbers = out


def test_prime_sieve(rt):
    assert rt.go(sieve, 100).result() == PRIMES


# ---------------------------------------------------------------- powser1.go: power series whose terms come on demand
class Series:
    """A series: whoever wants its next term asks for it."""

    def __init__(self):
        self.request, self.terms = dgmp.Chan(), dgmp.Chan()

    def put(self, term):
        """When it is asked for.  False: nobody wants any more."""
        _, ok = self.request.recv_ok()
        if ok:
            self.terms.send(term)
        return ok

    def get(self):
        self.request.send(None)
        return self.terms.recv()

    def drop(self):
        self.request.close()


def made_by(fn, *args):
    out = Series()
    dgmp.go(fn, out, *args)
    return out


def constant(out, value):
    while out.put(value):
        pass


def add(out, a, b):
    while out.put(a.get() + b.get()):
        pass
    a.drop()
    b.drop()


def differential(out, a):
    a.get()
    n = 1
    while out.put(a.get() * n):
        n += 1
    a.drop()


def integral(out, a, first):
    going = out.put(first)
    n = 1
    while going:
        going = out.put(a.get() / n)
        n += 1
    a.drop()


def multiply(out, a, b):
    """By keeping the terms so far: powser1 does it with streams of streams."""
    xs, ys = [], []
    going = True
    while going:
        xs.append(a.get())
        ys.append(b.get())
        going = out.put(sum(x * y for x, y in zip(xs, reversed(ys), strict=True)))
    a.drop()
    b.drop()


def first_terms(series, n):
    terms = [series.get() for _ in range(n)]
    series.drop()
    return terms


def power_series():
    one = Fraction(1)

    def ones():
        return made_by(constant, one)

    return {
        "1 / (1 - x)": first_terms(ones(), 5),
        "sum": first_terms(made_by(add, ones(), ones()), 5),
        "derivative": first_terms(made_by(differential, ones()), 5),
        "log": first_terms(made_by(integral, ones(), Fraction(0)), 5),
        "square": first_terms(made_by(multiply, ones(), ones()), 5),
        "derivative of the square": first_terms(made_by(differential, made_by(multiply, ones(), ones())), 4),
    }


def test_power_series(rt):
    got = rt.go(power_series).result()
    assert got == {
        "1 / (1 - x)": [1] * 5, "sum": [2] * 5, "derivative": [1, 2, 3, 4, 5],
        "log": [0, 1, Fraction(1, 2), Fraction(1, 3), Fraction(1, 4)], "square": [1, 2, 3, 4, 5],
        "derivative of the square": [2, 6, 12, 20],
    }


# ---------------------------------------------------------------- the examples
@pytest.mark.parametrize("name, argument, expected", [
    ("prime_sieve.py", "10", "2 3 5 7 11 13 17 19 23 29\n"),
    ("dining_philosophers.py", "4", "".join(f"{x} has eaten 4 times\n" for x in (
        "Aristotle", "Hypatia", "Kant", "Arendt", "Laozi"))),
    ("rate_limiter.py", "6", "6 requests served, not faster than allowed: True\n"),
    ("pipeline.py", "2", "2 True\n"),
])
def test_examples(name, argument, expected):
    done = subprocess.run([sys.executable, EXAMPLES / name, argument], capture_output=True, text=True, timeout=60)
    assert done.stdout == expected and done.returncode == 0, done.stderr
