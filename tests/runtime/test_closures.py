"""Closures, tasks and classes of `__main__` through a live runtime."""

import functools
import subprocess
import sys
import textwrap
import warnings

import pytest

import dgmp
from tests import helpers
from tests.unit.test_classes import CLASSES, MADE, MEMBERS
from tests.unit.test_functions import Notebook


def run_script(tmp_path, source, *args):
    """Its output; it must say nothing else."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(source))
    done = subprocess.run([sys.executable, *args, str(script)], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def each(rt, fn, *args):
    """A call for every M, and once more: what was changed must be seen in each."""
    return dgmp.gather(*[rt.go(fn, *args) for _ in range(40)])


@pytest.mark.parametrize("source,change", [
    ("x = 1\ndef fn(): return x", "x = 2"),
    ("def fn(x=1): return x", "fn.__defaults__ = (2,)"),
    ("def helper(): return 1\ndef fn(): return helper()", "def helper(): return 2"),
    ("class A: x = 1\ndef fn(): return A.x", "A.x = 2"),
    ("xs = [0]\ndef fn(): return len(xs)", "xs.append(0)"),
    ("def fn(): return 1", "fn.__code__ = (lambda: 2).__code__"),
])
def test_never_stale_in_any_m(rt, source, change):
    notebook = Notebook(source)
    assert each(rt, notebook["fn"]) == [1] * 40
    notebook.run(change)
    assert each(rt, notebook["fn"]) == [2] * 40


def test_what_a_g_changes_stays_in_that_g(rt):
    notebook = Notebook("""
        n = 0
        def fn():
            global n
            n += 1
            return n
        def counts():
            counts.n = getattr(counts, "n", 0) + 1
            return counts.n
    """)
    assert each(rt, notebook["fn"]) == [1] * 40 and each(rt, notebook["counts"]) == [1] * 40


def test_gs_that_are_parked_share_no_state(rt):
    notebook = Notebook("""
        import dgmp
        def fn(x):
            fn.x = x
            dgmp.gather(*[dgmp.go(abs, i) for i in range(3)])
            return fn.x
    """)
    assert dgmp.gather(*[rt.go(notebook["fn"], i) for i in range(50)]) == list(range(50))


def test_every_kind_of_callable(rt):
    notebook = Notebook(CLASSES)
    k = 3
    for fn, args, want in [
        (lambda x: x * k, (2,), 6), (functools.partial(helpers.add, 1), (2,), 3), ("{}!".format, (1,), "1!"),
        (functools.partial(lambda a, b: a - b, 1), (2,), -1), ([3, 1].index, (1,), 1), (notebook["Child"](4).double, (), 8),
        (notebook["Property"].one, (), 1),
        (notebook["Plain"], (5,), notebook["Plain"](5)), (notebook["Property"].make, (), notebook["Property"]()),
        (functools.lru_cache(lambda x: x + k), (1,), 4), (notebook["Color"], (1,), notebook["Color"].RED),
        (functools.partialmethod, (len,), None), (Notebook("class A:\n def __call__(self, x): return x")["A"](), (9,), 9),
    ]:
        for _ in range(3):
            got = rt.go(fn, *args).result()
            assert got == want or want is None


@pytest.mark.parametrize("source", [*(f"{name}()" for name in MADE), *MEMBERS, "local()", "Outer.Inner()"])
def test_results_are_of_the_owner_s_classes(rt, source):
    notebook = Notebook(CLASSES).run(f"made = {source}\ndef make_it(): return {'made' if source == 'local()' else source}")
    obj = notebook["made"]
    for got in dgmp.gather(*[rt.go(notebook["make_it"]) for _ in range(4)], *[rt.go(helpers.identity, obj) for _ in range(4)]):
        assert type(got) is type(obj) and got == obj
        assert source not in MEMBERS or got is obj


def test_an_exception_of_main_is_caught_by_its_class(rt):
    notebook = Notebook(CLASSES).run("def fail(): raise ErrorWithCode('boo', code=3)")
    with pytest.raises(notebook["Error"], match="boo") as e:
        rt.go(notebook["fail"]).result()
    assert type(e.value) is notebook["ErrorWithCode"] and e.value.code == 3


def test_classes_through_children(rt):
    """Client to M to child and back, twice."""
    notebook = Notebook(CLASSES).run("""
        import dgmp
        def child(x):
            Plain.count += 1
            return Child(x.x + 1)
        def parent(x):
            a, b = dgmp.gather(dgmp.go(child, x), dgmp.go(child, Child(7)))
            assert type(a) is type(b) is type(x) is Child, (a, b, x)
            return a, b, x
    """)
    for _ in range(5):
        a, b, x = rt.go(notebook["parent"], notebook["Child"](1)).result()
        assert {type(a), type(b), type(x)} == {notebook["Child"]} and (a.x, b.x, x.x) == (2, 8, 1)
    assert notebook["Plain"].count == 0


def test_a_main_script(tmp_path):
    assert run_script(tmp_path, """
        import dataclasses, enum, dgmp
        @dataclasses.dataclass
        class Point:
            x: int
            count = 0
            def double(self): return Point(2 * self.x)
        class Color(enum.Enum):
            RED = 1
        class MyError(Exception): pass
        def double(p):
            Point.count += 1
            return p.double()
        def fail(): raise MyError("boo")
        def fib(n): return n if n < 2 else sum(dgmp.gather(dgmp.go(fib, n - 1), dgmp.go(fib, n - 2)))
        for i in range(3):
            p = dgmp.go(double, Point(i)).result()
            print(type(p) is Point, p, Point.count)
        print(dgmp.go(lambda: Color.RED).result() is Color.RED)
        try:
            dgmp.go(fail).result()
        except MyError as e:
            print(repr(e))
        print(dgmp.go(fib, 10).result())
    """) == ("True Point(x=0) 0\nTrue Point(x=2) 0\nTrue Point(x=4) 0\nTrue\nMyError('boo')\n55\n")


def test_a_child_of_multiprocessing_s_spawns_gs(tmp_path):
    assert run_script(tmp_path, """
        import multiprocessing, dgmp
        class Point:
            x = 1
        def make(): return Point()
        def child(queue):
            p = dgmp.go(make).result()
            queue.put((type(p) is Point, p.x, make.__module__))
        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            print(queue.get())
            process.join()
    """) == "(True, 1, '__mp_main__')\n"


def test_dash_c_and_stdin(tmp_path):
    source = "import dgmp\nclass A: x = 1\ndef f(): return A()\nprint(type(dgmp.go(f).result()) is A)"
    for args, text in (["-c", source], None), (["-"], source):
        done = subprocess.run([sys.executable, *args], input=text, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert (done.stdout, done.stderr) == ("True\n", "")


# ------------------------------------------------------------------ tasks
def test_a_task_is_as_it_was_at_its_first_go(rt):
    notebook = Notebook("xs, y = [1], 1\ndef fn(z=0): return list(xs), y, z")
    task = dgmp.task(notebook["fn"])
    notebook.run("y = 2")
    assert rt.go(task).result() == ([1], 2, 0)
    notebook.run("xs.append(2)\ny = 3\nfn.__defaults__ = (5,)")
    assert each(rt, task) == [([1], 2, 0)] * 40
    assert task() == ([1, 2], 3, 5)
    assert rt.go(dgmp.task(notebook["fn"])).result() == ([1, 2], 3, 5)


def test_a_task_is_encoded_once_and_decoded_once_in_each_m(rt):
    class Counts:
        def __init__(self):
            self.pickled = 0

        def __getstate__(self):
            self.pickled += 1
            return {"pickled": self.pickled, "calls": 0}

        def call(self):
            self.calls += 1
            return self.pickled, self.calls

    counts = Counts()
    task = dgmp.task(lambda: (counts.call(), dgmp.current()["pid"]))
    results = each(rt, task)
    assert {pickled for (pickled, _), _ in results} == {1} and counts.pickled == 1
    for pid in {pid for _, pid in results}:
        calls = sorted(n for (_, n), at in results if at == pid)
        assert calls == list(range(1, len(calls) + 1))  # one copy in each M


def test_the_ways_to_make_and_use_a_task(rt):
    @dgmp.task
    def plain(x, *, y=1):
        """Says so."""
        return x + y

    @dgmp.task()
    def empty(x):
        return -x

    @dgmp.task(name="third")
    def named(x):
        return dgmp.current()["name"]

    assert plain.__name__ == "plain" and plain.__doc__ == "Says so." and isinstance(plain, dgmp.Task) and "plain" in repr(plain)
    assert plain(1) == 2 and plain(1, y=4) == 5 and empty(1) == -1
    assert rt.go(plain, 1).result() == 2 and rt.go(plain, 1, y=rt.go(abs, -6)).result() == 7
    assert rt.go(plain, rt.go(abs, -6)).result() == 7
    assert rt.spawn(plain, (1,), {"y": 2}, name="x").name == "x" and rt.go(empty, 2).result() == -2
    assert dgmp.task(lambda x: x + 1)(1) == 2 and rt.go(dgmp.task(functools.partial(pow, 2)), 3).result() == 8
    assert rt.go(dgmp.task(helpers.add), 1, 2).result() == 3 and dgmp.task(dgmp.task(helpers.add))(1, 2) == 3
    for wrong in (3, classmethod(len)):
        with pytest.raises(TypeError, match="a task needs a function"):
            dgmp.task(wrong)
    with pytest.raises(TypeError, match="name must be a string"):
        dgmp.task(name=3)(len)


def test_task_go_uses_the_runtime_of_the_process(tmp_path):
    assert run_script(tmp_path, """
        import dgmp
        @dgmp.task
        def fib(n): return n if n < 2 else sum(dgmp.gather(fib.go(n - 1), dgmp.go(fib, n=n - 2)))
        @dgmp.task(name="odd one")
        def odd(n): return n > 0 and even.go(n - 1).result()
        @dgmp.task
        def even(n): return n == 0 or odd.go(n=n - 1).result()
        class Counter:
            def __init__(self, n): self.n = n
            @dgmp.task
            def add(self, x, *, times=1):
                "Adds."
                return self.n + times * x
        counter = Counter(1)
        print(fib.go(12).result(), even.go(7).result(), odd.go(3).result(), odd.go(1).name)
        print(counter.add(2), counter.add.go(2).result(), counter.add.go(2, times=dgmp.go(abs, -3)).result())
        print(dgmp.go(counter.add, 5).result(), dgmp.go(Counter.add, counter, 5).result(), Counter.add.__doc__)
        print(dgmp.go(lambda: fib).result() is fib, dgmp.go(lambda t: t.go(5).result(), fib).result())
        print("fib" in str(fib.go("x").exception().__cause__))
    """) == "144 False True odd one\n3 3 7\n6 6 Adds.\nTrue 5\nTrue\n"


def test_an_importable_task_goes_by_reference(tmp_path):
    (tmp_path / "tasks_of_mine.py").write_text("import dgmp\n@dgmp.task\ndef f(x): return x + 1\n"
                                               "class A:\n @staticmethod\n @dgmp.task\n def g(x): return x * 2\n")
    assert run_script(tmp_path, """
        import pickle, dgmp
        from tasks_of_mine import f, A
        print(f.go(1).result(), dgmp.go(f, x=2).result(), dgmp.go(lambda: f(3)).result(), A.g.go(4).result())
        print(len(pickle.dumps(f)) < 100, pickle.loads(pickle.dumps(f)) is f, dgmp.go(lambda: f).result() is f)
    """) == "2 3 4 8\nTrue True True\n"


def test_a_task_that_cannot_travel(rt):
    import threading

    lock = threading.Lock()
    task = dgmp.task(lambda: lock)
    for _ in range(2):
        with pytest.raises(dgmp.EncodingError, match="<lambda> cannot be pickled"):
            rt.go(task)
    assert rt.go(abs, -1).result() == 1


# ------------------------------------------------------------------ large captures
def warned(rt, fn, *args):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(6):
            rt.go(fn, *args).result()
    return seen


def test_a_large_capture_that_is_encoded_again_and_again_warns_once(rt):
    notebook = Notebook("xs, y = [bytes(2_000_000)], [1]\ndef helper(): return xs and y\ndef fn(): return len(helper())")
    seen = warned(rt, notebook["fn"])
    assert [w.category for w in seen] == [dgmp.LargeCaptureWarning] and seen[0].filename == __file__
    text = str(seen[0].message)
    assert "fn has been encoded 3 times" in text and "@dgmp.task" in text
    assert "the global variable 'xs' (list, 2.0 MB)" in text
    assert not warned(rt, notebook["fn"])


@pytest.mark.parametrize("make,text", [
    (lambda big: lambda: len(big), "the captured variable 'big' (bytearray, 3.0 MB)"),
    (lambda big: functools.partial(len, big), "argument 1 of its partial (bytearray, 3.0 MB)"),
    (lambda big: big.count, "the callable object"), (lambda big: lambda x=big: len(x), "a default value (bytearray"),
])
def test_the_large_part_is_named(rt, make, text):
    args = (b"x",) if "callable" in text else ()
    seen = warned(rt, make(bytearray(3_000_000)), *args)
    assert len(seen) <= 1 and all(text in str(w.message) for w in seen) and (seen or args)


def test_no_warning_for_large_arguments_small_captures_tasks_and_what_stands_in_the_table(rt):
    big = bytes(2_000_000)
    box = [big]
    assert not warned(rt, lambda x: len(x), big) and not warned(rt, len, big) and not warned(rt, lambda: len(big))
    assert not warned(rt, dgmp.task(lambda: len(box[0])))


def test_map_gives_results_of_the_owner_s_classes(rt):
    notebook = Notebook(CLASSES)
    cls = notebook["Child"]
    for got in list(rt.map(cls, range(50))) + list(rt.map(lambda x: x, [cls(i) for i in range(50)])):
        assert type(got) is cls
    assert list(rt.map(dgmp.task(lambda x: -x), range(5))) == [0, -1, -2, -3, -4] and notebook["Plain"].count == 0
