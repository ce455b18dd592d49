"""Five philosophers, five forks: each fork is a Mutex that two processes may share.

    python examples/dining_philosophers.py [meals of each]
"""

import sys

import dgmp


def dine(name: str, first: dgmp.Mutex, second: dgmp.Mutex, meals: int, eaten: dgmp.Chan[str]) -> None:
    for _ in range(meals):
        with first, second:
            dgmp.gosched()  # others want to eat, too
            eaten.send(name)


def dinner(names: list[str], meals: int) -> dict[str, int]:
    """How many meals each has had."""
    forks = [dgmp.Mutex() for _ in names]
    eaten = dgmp.Chan[str](len(names))
    with dgmp.Group() as table:
        for i, name in enumerate(names):
            left, right = i, (i + 1) % len(names)
            # Everybody takes the lower fork first: so there is no circle of those who wait.
            table.go(dine, name, forks[min(left, right)], forks[max(left, right)], meals, eaten)
        counts = dict.fromkeys(names, 0)
        for _ in range(meals * len(names)):
            counts[eaten.recv()] += 1
    return counts


if __name__ == "__main__":
    names = ["Aristotle", "Hypatia", "Kant", "Arendt", "Laozi"]
    for name, meals in dinner(names, int(sys.argv[1]) if len(sys.argv) > 1 else 10).items():
        print(f"{name} has eaten {meals} times")
