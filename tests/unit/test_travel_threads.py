"""What one thread notes while it pickles is not lost as others pickle."""

import sys
import threading

from dgmp.ship import travel

ROUNDS = 20_000


def test_each_thread_takes_what_it_noted():
    wrong = []

    def pickle_again_and_again(base):
        for i in range(ROUNDS):
            mine = [base + 2 * i, base + 2 * i + 1]
            for word in mine:
                travel.note(word)
            stands = travel.take()
            if not stands or sorted(travel.words(stands)) != mine:
                wrong.append(mine)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=pickle_again_and_again, args=(n << 32,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
