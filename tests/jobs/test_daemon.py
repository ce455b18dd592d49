"""The daemon, as its clients see it: real daemons, real commands."""

import argparse
import os
import random
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import pytest

from dgmp.jobs import boot, folders
from dgmp.jobs.client import Client, read, select
from dgmp.jobs.protocol import VERSION, NoDaemon, ProtocolError, Select, encode
from dgmp.jobs.ranges import Ranges
from dgmp.jobs.store import MIGRATIONS
from dgmp.jobs.wire import pack
from tests.helpers import NOT_OF_LIBC, eventually
from tests.jobs.harness import Raw, kill, reaped


def waited(client, job):
    [ended] = client.wait([select(job)], 60)
    return ended


def output(client, job, task=0, stream="stdout"):
    return read(client.logs(job, task)[stream]).decode()


def row(client, job, task=0):
    return next(r for r in client.tasks(job)["tasks"] if r["task"] == task)


# ---------------------------------------------------------------------- tasks
def test_an_array_of_commands_with_their_environment_and_output(here, client):
    job = here.submit(client, 'echo "$DGMP_JOB_ID.$DGMP_TASK_ID $DGMP_ATTEMPT $X"; echo no >&2; pwd', array=[[2, 10, 4]],
                      env={**here.env, "X": "y z"})
    ended = waited(client, job)
    assert (ended["state"], ended["total"], ended["counts"]["finished"]) == ("finished", 3, 3)
    for task in (2, 6, 10):
        assert output(client, job, task) == f"{job}.{task} 1 y z\n{here.work}\n"
        assert output(client, job, task, "stderr") == "no\n"


def test_what_a_task_is_told_is_its_own_though_another_task_has_submitted_it(here):
    here.up("--cpus=2", "--resource-total=gpu=[a,b]")
    client = here.client()
    names = ("CUDA_VISIBLE_DEVICES", "DGMP_ENTRY", "DGMP_JOB_ID", "DGMP_MEM", "DGMP_RESOURCE_GPU", "DGMP_RESOURCE_X",
             "DGMP_SLOT", "DGMP_TASK_ID", "OMP_NUM_THREADS")
    job = here.python(client, f"import os; print(*(f'{{n}}={{os.environ[n]}}' for n in {names} if n in os.environ))",
                      env={**here.env, **dict.fromkeys(names, "outer")}, array=[[5, 6]], cpus=1, resources={"gpu": 1})
    assert waited(client, job)["state"] == "finished"
    assert output(client, job, 5).split() == [
        "CUDA_VISIBLE_DEVICES=a", f"DGMP_JOB_ID={job}", "DGMP_RESOURCE_GPU=a", "DGMP_SLOT=1", "DGMP_TASK_ID=5",
        "OMP_NUM_THREADS=1"]


def test_ten_thousand_tasks_leave_no_ten_thousand_files(here, client):
    job = here.submit(client, "echo $DGMP_TASK_ID", array=[[1, 200]])
    assert waited(client, job)["state"] == "finished"
    assert [output(client, job, n) for n in (1, 77, 200)] == ["1\n", "77\n", "200\n"]
    files = [path for path in here.state.rglob("*") if path.is_file()]
    assert len(files) < 12, files


def test_large_and_binary_output_arrives_whole(here, client):
    job = here.python(client, "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096)")
    assert waited(client, job)["state"] == "finished"
    assert read(client.logs(job)["stdout"], most=1 << 21) == bytes(range(256)) * 4096


def test_output_goes_where_the_job_says(here, client):
    job = here.submit(client, "echo out; echo err >&2", array=[[1, 2]], umask=0o027, stdout=str(here.work / "{job}-{task}.txt"),
                      stderr=str(here.work / "all"))
    waited(client, job)
    assert (here.work / f"{job}-1.txt").read_text() == "out\n" and (here.work / "all").read_text() == "err\nerr\n"
    assert stat.S_IMODE((here.work / "all").stat().st_mode) == 0o640
    assert output(client, job, 2) == "out\n"


def test_the_output_of_a_running_task_can_be_read(here, client):
    os.mkfifo(here.work / "go")
    job = here.submit(client, "echo begun; cat go; echo over")
    assert eventually(lambda: (client.logs(job)["stdout"] or {}).get("path") and output(client, job) == "begun\n")
    assert client.logs(job)["state"] == "running" and client.logs(job)["stdout"]["length"] is None
    (here.work / "go").write_text("middle\n")
    waited(client, job)
    assert output(client, job) == "begun\nmiddle\nover\n"


@pytest.mark.parametrize("argv, exit, reason, words", [
    (["sh", "-c", "exit 7"], 7, "exit", None),
    (["sh", "-c", "kill -9 $$"], -9, "signal", None),
    (["there is no such program"], 127, "spawn", "No such file"),
    (["/"], 126, "spawn", "Permission denied"),
])
def test_how_a_task_fails(here, client, argv, exit, reason, words):
    job = client.submit(argv, env=here.env)
    assert waited(client, job)["state"] == "failed"
    found = row(client, job)
    assert (found["exit"], found["reason"]) == (exit, reason)
    assert words is None or words in found["text"]
    assert client.show([select(job)])[0]["failures"] == [found]


def test_a_folder_that_is_not_there_is_named(here, client):
    job = client.submit(["true"], cwd="/there/is/none", env=here.env)
    assert waited(client, job)["state"] == "failed"
    assert "/there/is/none" in row(client, job)["text"]


def test_a_script_that_does_not_say_of_what_is_the_shell_s(here, client):
    script = here.work / "script"
    script.write_text("echo as shells do\n")
    script.chmod(0o755)
    job = client.submit([str(script)], env=here.env)
    assert waited(client, job)["state"] == "finished" and output(client, job) == "as shells do\n"


def test_tasks_have_no_descriptors_of_ours_and_signals_as_usual(here, client):
    job = client.submit(["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"], env=here.env)
    waited(client, job)
    assert [int(line.split()[1], 16) & NOT_OF_LIBC for line in output(client, job).splitlines()] == [0, 0]
    job = here.python(client, "import os, signal as s; print(os.listdir('/proc/self/fd'), s.getsignal(s.SIGPIPE), "
                      "s.getsignal(s.SIGTERM), s.pthread_sigmask(s.SIG_BLOCK, []), os.getpgid(0) == os.getpid())")
    waited(client, job)
    assert output(client, job) == "['0', '1', '2', '3'] 1 0 set() True\n"  # 3 is the folder's; Python ignores SIGPIPE


def test_the_first_daemon_of_all_has_nothing_to_complain_of(here, client):
    assert waited(client, here.submit(client, "true"))["state"] == "finished"
    assert "trying again" not in (here.state / folders.LOG).read_text()


# ---------------------------------------------------------------------- retries, timeouts, cancel
def test_retries_run_a_task_until_it_finishes(here, client):
    job = here.submit(client, '[ "$DGMP_ATTEMPT" = 3 ]', retries=4)
    assert waited(client, job)["state"] == "finished"
    assert row(client, job)["attempt"] == 3


def test_retries_end(here, client):
    job = here.submit(client, "echo x >> tries; false", retries=2)
    assert waited(client, job)["state"] == "failed"
    assert (row(client, job)["attempt"], len(here.lines("tries"))) == (3, 3)


def test_retry_by_hand_runs_the_failed_ones_only(here, client):
    job = here.submit(client, 'echo $DGMP_TASK_ID >> ran; [ -e fine ] || [ "$DGMP_TASK_ID" != 2 ]', array=[[1, 3]], retries=1)
    assert waited(client, job)["counts"]["failed"] == 1
    (here.work / "fine").touch()
    assert client.retry([select(job)]) == 1
    assert waited(client, job)["state"] == "finished"
    assert sorted(here.lines("ran")) == ["1", "2", "2", "2", "3"]
    assert client.retry([select(job)]) == 0


def test_a_task_that_takes_too_long_is_ended_with_all_it_has_started(here, client):
    job = here.submit(client, "trap '' TERM; sleep 300 & echo $! > child; wait; sleep 300", timeout=0.3)
    assert waited(client, job)["state"] == "failed"
    found = row(client, job)
    assert (found["reason"], found["text"]) == ("timeout", "it took longer than 0.3 s")
    assert eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in here.lines("child")))


def test_cancel_ends_what_runs_and_does_not_start_the_rest(here, client):
    job = here.submit(client, "echo $$ >> pids; sleep 300", array=[[1, 1_000_000]])
    assert eventually(lambda: len(here.lines("pids")) == 2)
    told = client.cancel([select(job)])
    assert told["cancelled"] + told["ending"] == 1_000_000 and told["ending"] >= 2
    ended = waited(client, job)
    assert (ended["state"], ended["counts"]["cancelled"]) == ("cancelled", 1_000_000)
    assert len(here.lines("pids")) == 2
    assert not any(os.path.exists(f"/proc/{pid}") for pid in here.lines("pids"))


def test_cancel_of_some_tasks(here, client):
    os.mkfifo(here.work / "go")
    job = here.submit(client, "cat go; echo $DGMP_TASK_ID >> ran", array=[[1, 100]])
    assert eventually(lambda: client.status()["cpus"]["used"] == 2)
    client.cancel([Select((job, job), Ranges([(11, 100, 1)]))])
    assert client.wait([Select((job, job), Ranges([(11, 100, 1)]))], 60)
    assert client.tasks(job)["waiting"] or client.status()["tasks"]["waiting"]  # the others still wait
    stop = threading.Event()
    feeder = threading.Thread(target=feed, args=(here.work / "go", stop))
    feeder.start()
    try:
        ended = waited(client, job)
    finally:
        stop.set()
        feeder.join()
    assert ended["counts"] == {"waiting": 0, "running": 0, "finished": 10, "failed": 0, "cancelled": 90, "aborted": 0}
    assert sorted(map(int, here.lines("ran"))) == list(range(1, 11))


def feed(fifo, stop):
    """Opens it again and again, so that whoever reads it goes on."""
    while not stop.wait(0.005):
        try:
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            pass


# ---------------------------------------------------------------------- order
def test_after_waits_and_after_ok_aborts(here, client):
    os.mkfifo(here.work / "go")
    first = here.submit(client, "cat go; echo first >> order; exit 1")
    second = here.submit(client, "echo second >> order", after=[first])
    never = here.submit(client, "echo never >> order", after_ok=[first], array=[[1, 5]])
    chained = here.submit(client, "echo never >> order", after_ok=[never])
    third = here.submit(client, "echo third >> order", after_ok=[second])
    assert client.jobs()["jobs"][0]["held"] == [second]
    (here.work / "go").write_text("")
    assert [job["state"] for job in client.wait([select(n) for n in (first, second, never, chained, third)], 60)] == \
        ["failed", "finished", "aborted", "aborted", "finished"]
    assert here.lines("order") == ["first", "second", "third"]
    late = here.submit(client, "true", after_ok=[first])
    assert waited(client, late)["state"] == "aborted"


def test_higher_priority_goes_first_and_equals_as_they_came(here, client):
    client.shutdown()
    client.close()
    here.up("--cpus=1")
    client = here.client()
    os.mkfifo(here.work / "go")
    gate = here.submit(client, "cat go")
    assert eventually(lambda: client.status()["cpus"]["used"] == 1)
    jobs = [here.submit(client, f"echo {name} >> order", priority=priority)
            for name, priority in (("low", -1), ("a", 0), ("high", 5), ("b", 0))]
    (here.work / "go").write_text("")
    client.wait([select(job) for job in (gate, *jobs)], 60)
    assert sorted(here.lines("order")) == ["a", "b", "high", "low"]
    assert here.lines("order").index("high") < here.lines("order").index("b") < here.lines("order").index("low")


def test_named_resources_are_shared_out_and_a_job_behind_is_not_kept(here):
    here.up("--cpus=4", "--resource-total=gpu=[7,9]")
    client = here.client()
    os.mkfifo(here.work / "go")
    gpus = here.submit(client, "echo $CUDA_VISIBLE_DEVICES >> gpus; cat go", array=[[1, 6]], resources={"gpu": 1})
    assert eventually(lambda: len(here.lines("gpus")) == 2)
    plain = here.submit(client, "true")  # there are cores left, if no gpu
    assert waited(client, plain)["state"] == "finished"
    assert sorted(here.lines("gpus")) == ["7", "9"]
    client.cancel([select(gpus)])
    with pytest.raises(ProtocolError, match="gpu=3"):
        here.submit(client, "true", resources={"gpu": 3})
    with pytest.raises(ProtocolError, match="tpu"):
        here.submit(client, "true", resources={"tpu": 1})


def test_memory_is_what_the_cgroup_has(monkeypatch):
    from dgmp.runtime import limits

    monkeypatch.setattr(limits, "memory_size", lambda: 5 << 20)
    shared, told = boot.resources_of(argparse.Namespace(cpus=1, mem=None, resource_total=[]))
    assert shared.most_mem == 5 << 20 and told[1] == str(5 << 20)


def test_cpus_are_held_and_bound(here):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    here.up("--cpus=2")
    client = here.client()
    code = "import os; print(sorted(os.sched_getaffinity(0)), os.environ['DGMP_CPUS'], os.environ.get('OMP_NUM_THREADS'))"
    one, both, loose = (here.python(client, code, **spec) for spec in ({"cpus": 1}, {"cpus": 2}, {}))
    client.wait([select(n) for n in (one, both, loose)], 60)
    cores = sorted(os.sched_getaffinity(0))
    assert output(client, both) == f"{cores[:2]} {cores[0]},{cores[1]} 2\n"
    assert output(client, one) in [f"[{core}] {core} 1\n" for core in cores[:2]]
    assert output(client, loose) == f"{cores}  None\n"


# ---------------------------------------------------------------------- many
def test_a_million_tasks_are_one_row(here, client):
    job = here.submit(client, "sleep 300", array=[[1, 1_000_000]])
    assert client.jobs()["jobs"][0]["total"] == 1_000_000
    size = sum(path.stat().st_size for path in here.state.glob("jobs.sqlite*"))
    assert size < 1 << 20
    client.cancel([select(job)])
    waited(client, job)


def test_two_clients_at_once(here, client):
    jobs = {}

    def submits(name):
        with Client() as other:
            mine = [here.submit(other, f"echo {name}") for _ in range(25)]
            jobs[name] = mine
            other.wait([select(job) for job in mine], 60)

    threads = [threading.Thread(target=submits, args=(name,)) for name in ("one", "two", "three")]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(sum(jobs.values(), [])) == list(range(1, 76))
    assert {output(client, job) for job in jobs["two"]} == {"two\n"}


def test_listing_pages_filters_and_selects(here, client):
    ids = [client.submit(["true"], name=f"job-{n}", env=here.env) for n in range(5)]
    bad = client.submit(["false"], name="bad", env=here.env)
    client.wait([Select("all")], 60)
    page = client.jobs(limit=4)
    assert ([job["id"] for job in page["jobs"]], page["more"]) == ([bad, *ids[:1:-1]], True)
    assert [job["id"] for job in client.jobs(before=page["jobs"][-1]["id"])["jobs"]] == ids[1::-1]
    assert [job["id"] for job in client.jobs(states=["failed"])["jobs"]] == [bad]
    assert [job["id"] for job in client.jobs(name="job-[12]")["jobs"]] == ids[2:0:-1]
    assert [job["id"] for job in client.jobs([Select((2, 3)), Select("last")])["jobs"]] == [bad, 3, 2]
    assert [job["id"] for job in client.jobs([Select((n, n)) for n in ids] * 100)["jobs"]] == ids[::-1]
    assert client.jobs()["counts"] == {"waiting": 0, "running": 0, "finished": 5, "failed": 1, "cancelled": 0, "aborted": 0}
    for call in (client.show, client.cancel, client.retry, client.wait, client.jobs):
        with pytest.raises(ProtocolError, match="no job 99") as e:
            call([select(99)])
        assert e.value.code == "no_such_job"
    with pytest.raises(ProtocolError, match="no task 7"):
        client.logs(bad, 7)


def test_subscriptions_tell_what_changes(here, client):
    os.mkfifo(here.work / "go")
    job = here.submit(client, "cat go; exit $DGMP_TASK_ID", array=[[0, 1]])
    events = client.subscribe([select(job)], tasks=True)
    assert [j["id"] for j in events.jobs] == [job]
    other = here.submit(client, "true", cpus=0)
    waited(client, other)
    stop = threading.Event()
    feeder = threading.Thread(target=feed, args=(here.work / "go", stop))
    feeder.start()
    seen = {}
    try:
        while True:
            kind, body = events.next(60)
            if kind == "tasks":
                seen.update({task["task"]: task["state"] for task in body["tasks"] if task["job"] == job})
                assert {task["job"] for task in body["tasks"]} == {job}
            elif body["jobs"][0]["ended"] is not None:
                break
    finally:
        stop.set()
        feeder.join()
    assert body["jobs"][0]["state"] == "failed" and seen == {0: "finished", 1: "failed"}
    events.close()


# ---------------------------------------------------------------------- who may talk to it, and what they say
def test_folders_and_files_are_ours_alone_whatever_the_umask(here):
    before = os.umask(0)
    try:
        here.up()
        client = here.client()
        waited(client, here.submit(client, "echo x; [ $(umask) = 0022 ]", umask=0o022))
    finally:
        os.umask(before)
    for path in [here.runtime, here.state, *here.runtime.rglob("*"), *here.state.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE((here.runtime / folders.SOCKET).stat().st_mode) == 0o600
    assert client.show([select(1)])[0]["state"] == "finished"


@pytest.mark.parametrize("which", ["runtime", "state"])
def test_a_folder_open_to_others_is_refused(here, which):
    folder = getattr(here, which)
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises((boot.NotUp, folders.UnsafeFolder), match="open to others.*chmod 700"):
        here.up()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_link_in_place_of_the_folder_is_refused(here):
    (here.root / "elsewhere").mkdir(mode=0o700)
    here.runtime.symlink_to(here.root / "elsewhere")
    with pytest.raises(boot.NotUp, match="symbolic link"):
        here.up()
    with pytest.raises(folders.UnsafeFolder, match="symbolic link"):
        Client()


def test_a_path_too_long_for_a_socket_is_refused(here, monkeypatch):
    monkeypatch.setenv("DGMP_RUNTIME_DIR", str(here.root / ("x" * 100)))
    with pytest.raises(boot.NotUp, match="too long for a socket"):
        here.up()


def test_another_user_is_kept_out(here, client):
    if os.getuid() != 0:
        pytest.skip("needs root")
    here.root.chmod(0o711)
    here.runtime.chmod(0o711)  # as if it had been opened by mistake
    (here.runtime / folders.SOCKET).chmod(0o666)
    code = f"""if 1:
        import os, zmq
        os.setuid(65534)
        socket = zmq.Context().socket(zmq.DEALER)
        socket.linger = 0
        socket.connect("ipc://{here.runtime}/daemon.sock")
        socket.send({encode({"v": VERSION, "id": 1, "verb": "status"})!r})
        print(socket.poll(1000))
        os._exit(0)"""
    python = os.path.realpath(sys.executable)
    done = subprocess.run([python, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, text=True,
                          capture_output=True, timeout=60)
    if "ModuleNotFoundError" in done.stderr or "Permission" in done.stderr:
        pytest.skip("another user cannot read this installation")
    assert (done.stdout, done.stderr) == ("0\n", "")
    here.runtime.chmod(0o700)


def test_no_daemon_is_said(here):
    with pytest.raises(NoDaemon, match="start it with `dgmp up`"):
        Client()
    here.up()
    here.client().shutdown()
    with pytest.raises(NoDaemon, match="start it with `dgmp up`"):
        Client()


def test_a_second_daemon_is_refused(here, client):
    with pytest.raises(boot.NotUp, match=f"up already .pid {here.daemon}"):
        here.up()
    assert client.hello()["pid"] == here.daemon


def test_a_daemon_that_has_not_said_its_pid_yet_has_its_folder_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "LOCK_LOOKS", 2)
    [held] = folders.lock(tmp_path)
    os.ftruncate(held, 0)
    with pytest.raises(folders.AlreadyUp, match="is up already"):
        folders.lock(tmp_path)
    os.close(held)
    os.close(*folders.lock(tmp_path))


def test_sockets_of_a_killed_daemon_are_replaced(here, client):
    kill(here.daemon)
    assert (here.runtime / folders.SOCKET).exists()
    with pytest.raises(NoDaemon):
        Client()
    with pytest.raises(NoDaemon, match="has ended"):
        client.status()
    here.up()
    assert here.client().status()["closing"] is False


@pytest.fixture
def raw(here, client):
    raw = Raw(here)
    yield raw
    raw.close()


def test_a_job_that_is_named_ten_thousand_times_is_looked_at_once(here, raw, client):
    sleeper = here.submit(client, "sleep 1000")
    job = here.submit(client, "true", array=[[n, n + 1] for n in range(0, 20_000, 4)], after=[sleeper])  # slow to read
    client.cancel([select("all")])
    client.wait([select("all")], 60)
    for verb in ("show", "wait", "retry", "cancel", "subscribe"):
        for named in ("all", [1, 1 << 53]):
            answer = raw.ask(encode({"v": VERSION, "id": 3, "verb": verb, "body": {"select": [[named, None]] * 10_000}}))
            assert "ok" in answer, (verb, str(answer)[:300])
            assert {found["id"] for found in answer["ok"].get("jobs", [])} in ({sleeper, job}, set()), verb


def test_garbage_is_dropped_and_harms_nobody(here, raw, client):
    for frames in ([b""], [b"\xc1"], [os.urandom(1000)], [b"\x93\x01\x02\x03"], [b"\x81\x01\x02"], [b"a", b"b"],
                   [b"\x91" * 100_000], [encode({"v": VERSION})],
                   [encode({"v": VERSION, "id": "x", "verb": "status"})], [b"\xdf\xff\xff\xff\xff"]):
        raw.socket.send_multipart(frames)
    assert "ok" in raw.ask(encode({"v": VERSION, "id": 9, "verb": "status"}))
    with socket.socket(socket.AF_UNIX) as plain:
        plain.connect(str(here.runtime / folders.SOCKET))
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    assert waited(client, here.submit(client, "true"))["state"] == "finished"


def test_a_message_too_large_ends_that_connection_only(here, raw, client):
    raw.socket.send(b"\xc6" + (20 << 20).to_bytes(4, "big") + bytes(20 << 20))
    assert waited(client, here.submit(client, "true"))["state"] == "finished"
    assert client.hello()["pid"] == here.daemon


def test_a_request_too_large_is_refused_by_the_client(here, client):
    with pytest.raises(ProtocolError, match="message of [0-9]+ bytes.* at most 16777216"):
        here.submit(client, "true", env={f"A{n}": "x" * 100_000 for n in range(170)})
    assert client.hello()["pid"] == here.daemon  # the connection is as it was


# ---------------------------------------------------------------------- going down, and what stays
def test_down_waits_for_what_runs_and_keeps_what_waits(here, client):
    os.mkfifo(here.work / "go")
    job = here.submit(client, "echo $DGMP_TASK_ID >> ran; [ -e free ] || cat go", array=[[1, 50]])
    assert eventually(lambda: len(here.lines("ran")) == 2)
    with pytest.raises(TimeoutError):
        client.shutdown(timeout=0.2)
    with pytest.raises(ProtocolError, match="going down") as e:
        here.submit(client, "true")
    assert e.value.code == "closing"
    (here.work / "free").touch()
    stop = threading.Event()
    feeder = threading.Thread(target=feed, args=(here.work / "go", stop))
    feeder.start()
    client.shutdown()
    stop.set()
    feeder.join()
    assert not here.processes() and sorted(here.lines("ran")) == ["1", "2"]
    here.up()
    assert waited(here.client(), job)["state"] == "finished"
    assert sorted(map(int, here.lines("ran"))) == list(range(1, 51))


def test_down_now_ends_what_runs_and_it_runs_again(here, client):
    job = here.submit(client, "echo $DGMP_ATTEMPT >> ran; [ $DGMP_ATTEMPT = 2 ] || sleep 300")
    assert eventually(lambda: here.lines("ran") == ["1"])
    client.shutdown(now=True)
    assert eventually(lambda: not here.processes())  # what has been killed may take a moment to die
    here.up()
    assert waited(here.client(), job)["state"] == "finished" and here.lines("ran") == ["1", "2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_tasks_outlive_the_daemon_and_their_ends_are_known_later(here, client, number):
    os.mkfifo(here.work / "go")
    job = here.submit(client, "cat go; exit 5")
    assert eventually(lambda: client.status()["running"])
    pid = client.status()["running"][0]["pid"]
    kill(here.daemon, number)
    assert eventually(lambda: not here.processes("dgmp.jobs.daemon"))
    assert os.path.exists(f"/proc/{pid}")
    (here.work / "go").write_text("")
    assert eventually(lambda: not here.processes())  # the keeper too: nothing is left to do
    here.up()
    client = here.client()
    assert waited(client, job)["state"] == "failed"
    assert (row(client, job)["exit"], row(client, job)["attempt"], row(client, job)["pid"]) == (5, 1, pid)


def test_a_running_task_is_found_again_after_the_death_of_daemon_and_keeper(here, client):
    os.mkfifo(here.work / "go")
    job = here.submit(client, "echo $DGMP_ATTEMPT >> ran; [ $DGMP_ATTEMPT = 2 ] || cat go")
    strict = here.submit(client, "cat go; echo strict >> ran", on_lost="fail")
    assert eventually(lambda: [bool(task["pid"]) for task in client.status()["running"]] == [True, True])
    pids = {task["job"]: task["pid"] for task in client.status()["running"]}
    for pid in (here.daemon, *here.processes("dgmp.jobs.keeper")):
        kill(pid)
    here.up()
    client = here.client()
    assert eventually(lambda: {task["job"]: task["pid"] for task in client.status()["running"]} == pids)
    stop = threading.Event()
    feeder = threading.Thread(target=feed, args=(here.work / "go", stop))
    feeder.start()
    try:
        assert [j["state"] for j in client.wait([select(job), select(strict)], 60)] == ["finished", "failed"]
    finally:
        stop.set()
        feeder.join()
    assert row(client, job)["attempt"] == 2 and row(client, strict)["reason"] == "lost"
    assert sorted(here.lines("ran")) == ["1", "2", "strict"]


def test_the_next_daemon_may_have_more_to_share_out(here):
    here.daemon = here.up("--cpus=1", "--resource-total=gpu=[a]")
    client = here.client()
    first = here.submit(client, "sleep 300", resources={"gpu": 1})
    assert eventually(lambda: client.status()["running"])
    keeper = here.keeper(client)
    kill(here.daemon)
    here.up("--cpus=3", "--resource-total=gpu=[a,b]", "--resource-total=disk=1")
    client = here.client()
    seconds = [here.submit(client, "echo $CUDA_VISIBLE_DEVICES; sleep 300", resources={"gpu": 1, "disk": 1}, cpus=2),
               here.submit(client, "true", resources={"gpu": 2})]
    assert eventually(lambda: {task["job"] for task in client.status()["running"]} == {first, seconds[0]})
    assert client.status()["keeper"] == keeper and eventually(lambda: output(client, seconds[0]) == "b\n")
    client.cancel([select(first), select(seconds[0])])
    assert waited(client, seconds[1])["state"] == "finished"


def test_what_a_task_holds_stays_its_own_when_its_keeper_is_killed(here):
    here.up("--cpus=2", "--resource-total=gpu=[a,b]", "--resource-total=disk=5000")
    client = here.client()
    says = "echo $DGMP_SLOT $DGMP_CPUS $CUDA_VISIBLE_DEVICES > said.$DGMP_JOB_ID; exec sleep 300"
    needs = {"cpus": 1, "resources": {"gpu": 1, "disk": 10}}
    first, second = (here.submit(client, says, **needs) for _ in range(2))
    assert eventually(lambda: here.lines(f"said.{first}") and here.lines(f"said.{second}"))
    client.cancel([select(first)])
    waited(client, first)
    kill(here.keeper(client))
    third = here.submit(client, says, **needs)
    assert eventually(lambda: here.lines(f"said.{third}"))
    assert row(client, second)["state"] == "running"
    assert here.lines(f"said.{third}") == here.lines(f"said.{first}") != here.lines(f"said.{second}")


def test_a_keeper_of_another_version_is_replaced_once_it_is_idle(here, monkeypatch):
    (here.root / "sitecustomize.py").write_text(  # for a dgmp whose daemon and keeper are of version 99
        "import sys, dgmp.jobs.keeper as keeper\nkeeper.VERSION = 99\n"
        "if 'dgmp.jobs.keeper' in sys.orig_argv:\n    keeper.main(sys.orig_argv[3:])\n    sys.exit()\n")
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(here.root))
        here.daemon = here.up()
    client = here.client()
    os.mkfifo(here.work / "go")
    running = here.submit(client, "cat go")
    assert eventually(lambda: client.status()["running"])
    kill(here.daemon)
    here.up()
    client = here.client()
    other = here.submit(client, "true")
    assert client.jobs([select(other)])["jobs"][0]["state"] == "waiting"
    (here.work / "go").write_text("")
    assert [job["state"] for job in client.wait([select(running), select(other)], 60)] == ["finished", "finished"]


def test_a_found_task_can_be_cancelled(here, client):
    job = here.submit(client, "sleep 300")
    assert eventually(lambda: client.status()["running"])
    for pid in (here.daemon, *here.processes("dgmp.jobs.keeper")):
        kill(pid)
    here.up()
    client = here.client()
    client.cancel([select(job)])
    assert waited(client, job)["state"] == "cancelled"


def test_the_daemon_replaces_a_keeper_that_was_killed(here, client):
    job = here.submit(client, "sleep 0.01", array=[[1, 200]])
    keeper = here.keeper(client)
    kill(keeper)
    assert waited(client, job)["state"] == "finished"
    assert client.status()["keeper"] not in (0, keeper)


def test_a_task_that_runs_on_is_not_lost_with_its_keeper(here, client):
    job = here.submit(client, "echo $DGMP_ATTEMPT >> ran; while [ ! -e go ]; do sleep 0.01; done")
    assert eventually(lambda: here.lines("ran") == ["1"] and row(client, job)["pid"])
    keeper = here.keeper(client)
    kill(keeper)
    assert waited(client, here.submit(client, "true"))["state"] == "finished"  # the next one is there
    assert client.status()["keeper"] != keeper
    assert (row(client, job)["state"], row(client, job)["attempt"], here.lines("ran")) == ("running", 1, ["1"])
    (here.work / "go").touch()
    assert waited(client, job)["state"] == "finished" and here.lines("ran") == ["1", "2"]  # nobody saw how it ended


def test_a_keeper_that_cannot_be_started_is_tried_again(here, client):
    job = here.submit(client, "true")
    waited(client, job)
    keeper = here.runtime / folders.KEEPER_SOCKET
    keeper.unlink()
    keeper.mkdir()
    kill(here.keeper(client))
    job = here.submit(client, "true")
    assert eventually(lambda: f"{keeper}: Is a directory" in (here.state / folders.LOG).read_text())
    assert client.status()["pid"] == here.daemon
    keeper.rmdir()
    assert waited(client, job)["state"] == "finished"


def test_what_a_lost_task_has_written_is_kept_though_no_keeper_can_be_started_at_first(here, client):
    job = here.submit(client, "echo begun | tee ran; sleep 300", on_lost="fail")
    assert eventually(lambda: here.lines("ran") and row(client, job)["pid"] and output(client, job) == "begun\n")
    path, task, keeper = here.runtime / folders.KEEPER_SOCKET, row(client, job)["pid"], client.status()["keeper"]

    def tried():
        return (here.state / folders.LOG).read_text().count(f"{path}: Is a directory")

    path.unlink()
    path.mkdir()
    os.kill(keeper, signal.SIGSTOP)  # it does not see how the task ends
    kill(task)
    kill(keeper)
    assert eventually(lambda: reaped(task))
    before = tried()
    assert eventually(lambda: tried() > before + 2)
    path.rmdir()
    assert waited(client, job)["state"] == "failed" and output(client, job) == "begun\n"


@pytest.mark.parametrize("damage", [lambda file: file.write(b"nonsense" * 3), lambda file: file.truncate(20),
                                    lambda file: os.unlink(file.name)])
def test_a_keeper_whose_journal_is_damaged_is_replaced(here, client, damage):
    running = here.submit(client, "echo begun >> ran; while [ ! -e go ]; do sleep 0.01; done", on_lost="fail")
    assert eventually(lambda: here.lines("ran") == ["begun"] and row(client, running)["pid"])
    keeper = here.keeper(client)
    [journal] = (here.state / "journal").iterdir()
    with open(journal, "ab") as file:
        damage(file)
    assert waited(client, here.submit(client, "echo next >> ran"))["state"] == "finished"  # which may have run twice
    assert client.status()["keeper"] != keeper and "is damaged" in (here.state / folders.LOG).read_text()
    assert row(client, running)["state"] == "running"  # it is found again
    (here.work / "go").touch()
    assert waited(client, running)["state"] == "failed" and row(client, running)["reason"] == "lost"


def test_after_a_power_failure_what_may_have_run_is_lost_and_the_rest_goes_on(here, client):
    job = here.submit(client, "echo $DGMP_TASK_ID >> ran; [ -e free ] || sleep 300", array=[[1, 20]])
    strict = here.submit(client, "echo strict >> ran; sleep 300", on_lost="fail", priority=1)
    assert eventually(lambda: len(here.lines("ran")) >= 2)
    for pid in here.processes():
        kill(pid)
    with sqlite3.connect(here.state / folders.STORE) as db:  # as another boot would find it
        db.execute("UPDATE meta SET value = ? WHERE key = 'boot'", (pack("an earlier one"),))
    db.close()
    (here.work / "free").touch()
    here.up()
    client = here.client()
    ended = {j["id"]: j for j in client.wait([select(job), select(strict)], 60)}
    assert ended[job]["state"] == "finished"
    assert {int(n) for n in here.lines("ran") if n != "strict"} == set(range(1, 21))
    if ended[strict]["state"] == "failed":
        assert row(client, strict)["reason"] == "lost" and here.lines("ran").count("strict") <= 1


def test_output_that_a_power_failure_has_taken_is_not_replaced_by_another_task_s(here, client):
    job = here.submit(client, "[ $DGMP_TASK_ID = 1 ] || [ -e free ] || exit 1; echo task $DGMP_TASK_ID", array=[[1, 3]])
    waited(client, job)
    assert output(client, job, 1) == "task 1\n"
    for pid in here.processes():
        kill(pid)
    [log] = (here.state / "logs").iterdir()
    os.truncate(log, 0)
    (here.work / "free").touch()
    here.up()
    client = here.client()
    client.retry([select(job)])
    assert waited(client, job)["state"] == "finished"
    assert [output(client, job, n) for n in (1, 2, 3)] == ["", "task 2\n", "task 3\n"]


def test_finished_stays_finished_and_held_stays_held(here, client):
    done = here.submit(client, "echo once >> ran; echo said")
    waited(client, done)
    gate = here.submit(client, "sleep 300")
    held = here.submit(client, "true", after_ok=[gate])
    assert eventually(lambda: client.status()["running"])
    kill(here.daemon)
    here.up()
    client = here.client()
    assert client.show([select(done)])[0]["state"] == "finished" and output(client, done) == "said\n"
    assert client.show([select(held)])[0]["held"] == [gate]
    client.cancel([select(gate)])
    assert waited(client, held)["state"] == "aborted"
    assert here.lines("ran") == ["once"]


def test_a_store_of_a_newer_dgmp_is_refused(here):
    here.up()
    here.client().shutdown()
    with sqlite3.connect(here.state / folders.STORE) as db:
        db.execute("PRAGMA user_version = 1000")
    db.close()
    with pytest.raises(boot.NotUp, match="newer dgmp"):
        here.up()


def test_the_store_is_sqlite_in_wal_mode(here, client):
    with sqlite3.connect(here.state / folders.STORE) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    db.close()


def test_a_full_disk_is_said_and_nothing_is_lost(here, client):
    before = here.submit(client, "echo before >> ran")
    waited(client, before)
    full = resource.prlimit(here.daemon, resource.RLIMIT_FSIZE, (os.path.getsize(here.state / "jobs.sqlite-wal"), -1))
    with pytest.raises(ProtocolError, match="cannot be written") as e:
        for _ in range(100):
            here.submit(client, "echo not >> ran", env={**here.env, "X": os.urandom(3000).hex()})
    assert e.value.code == "store"
    assert client.status()["pid"] == here.daemon  # it goes on to answer
    kept = client.jobs()["jobs"][0]["id"]
    resource.prlimit(here.daemon, resource.RLIMIT_FSIZE, full)
    after = here.submit(client, "echo after >> ran")
    assert after == kept + 1
    assert waited(client, after)["state"] == "finished"
    assert here.lines("ran").count("not") == kept - before and here.lines("ran").count("after") == 1


def test_the_daemon_does_without_its_log_where_there_is_no_room_for_it(here, client):
    no_room = resource.prlimit(here.daemon, resource.RLIMIT_FSIZE, (os.path.getsize(here.state / folders.LOG), -1))
    for _ in range(3):
        with pytest.raises(ProtocolError, match="cannot be written"):
            here.submit(client, "true")
    resource.prlimit(here.daemon, resource.RLIMIT_FSIZE, no_room)
    assert waited(client, here.submit(client, "true"))["state"] == "finished" and client.status()["pid"] == here.daemon


def test_so_does_its_keeper(here, client):
    waited(client, here.submit(client, "true"))
    keeper = here.keeper(client)
    [journal] = (here.state / "journal").iterdir()

    def grows():
        before = os.path.getsize(journal)
        return eventually(lambda: os.path.getsize(journal) > before or client.status()["keeper"] != keeper)

    most = resource.prlimit(keeper, resource.RLIMIT_NOFILE)
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, (3, most[1]))
    with open(here.state / folders.LOG, "ab") as log:
        log.write(b"-" * 4000)
    no_room = resource.prlimit(keeper, resource.RLIMIT_FSIZE, (os.path.getsize(here.state / folders.LOG), -1))
    job = here.submit(client, "true")
    assert grows() and grows()  # it tries, and tries again
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, most)
    resource.prlimit(keeper, resource.RLIMIT_FSIZE, no_room)
    assert waited(client, job)["state"] == "finished" and client.status()["keeper"] == keeper


def test_a_disk_that_stays_full_does_not_fill_the_journals_folder(here, client):
    no_room = resource.prlimit(here.daemon, resource.RLIMIT_FSIZE, (4096, -1))
    with pytest.raises(ProtocolError, match="cannot be written"):
        here.submit(client, "true")
    assert eventually(lambda: (here.state / folders.LOG).read_text().count("trying again") > 3)
    assert len(list((here.state / "journal").iterdir())) == 1
    resource.prlimit(here.daemon, resource.RLIMIT_FSIZE, no_room)
    (here.state / "journal" / "never.1").touch()
    assert waited(client, here.submit(client, "true"))["state"] == "finished"
    assert len(list((here.state / "journal").iterdir())) == 1


def test_an_idle_daemon_uses_no_cpu(here, client):
    waited(client, here.submit(client, "true"))
    pids = here.processes()
    assert len(pids) == 2

    def ticks():
        return [open(f"/proc/{pid}/schedstat").read().split()[2] for pid in pids]  # how often they have run

    assert eventually(lambda: settled(ticks))


def settled(look):
    before = look()
    time.sleep(1)
    return look() == before


# ---------------------------------------------------------------------- functions
def test_a_function_is_called_with_its_arguments(here, client):
    (here.work / "mine.py").write_text(
        "def add(a, b=1, *, times=1):\n    return (a + b) * times\nasync def later(x):\n    return [x]\n"
        "def nothing():\n    pass\nclass C:\n    @staticmethod\n    def name(s):\n        return repr(s)\n")
    calls = {("mine:add", "2", "3", "times=10"): "50\n", ("mine:add", '"a"', "b=cd"): "acd\n",
             ("mine:later", "null"): "[None]\n", ("mine:nothing",): "", ("mine:C.name", "x=y z"): None,
             ("mine:C.name", '"s=1"'): "'s=1'\n"}
    jobs = {call: client.submit_function(call[0], call[1:], cwd=str(here.work), env=here.env) for call in calls}
    client.wait([select(job) for job in jobs.values()], 60)
    for call, said in calls.items():
        if said is None:
            assert client.show([select(jobs[call])])[0]["state"] == "failed"
            assert "takes (s): missing a required argument: 's'" in output(client, jobs[call], stream="stderr")
        else:
            assert (output(client, jobs[call]), output(client, jobs[call], stream="stderr")) == (said, ""), call


@pytest.mark.parametrize("target, exit, words", [
    ("mine:none", 2, "dgmp: mine has no 'none'\n"), ("mine", 2, "dgmp: 'mine' is no module:function\n"),
    (".:f", 2, "dgmp: '.:f' is no module:function\n"), ("mine:N", 2, "dgmp: mine:N cannot be called: it is int\n"),
    ("mine:two", 2, "dgmp: mine:two takes (x, y): missing a required argument: 'y'\n"),
    ("nowhere:f", 2, "dgmp: there is no module 'nowhere': No module named 'nowhere'\n"),
    ("mine.more:f", 2, "dgmp: there is no module 'mine.more': No module named 'mine.more'; 'mine' is not a package\n"),
    ("mine:bad", 1, 'Traceback (most recent call last):\n  File "{work}/mine.py", line 3, in bad\n    raise KeyError(x)\n'
     "KeyError: 'x'\n"),
    ("wrong:f", 2, 'Traceback (most recent call last):\n  File "{work}/wrong.py", line 1, in <module>\n    import nowhere\n'
     "ModuleNotFoundError: No module named 'nowhere'\ndgmp: cannot import what 'wrong:f' names: No module named 'nowhere'\n")])
def test_a_function_that_cannot_be_called_or_raises(here, client, target, exit, words):
    (here.work / "mine.py").write_text("N = 1\ndef bad(x):\n    raise KeyError(x)\ndef two(x, y):\n    pass\n")
    (here.work / "wrong.py").write_text("import nowhere\n")
    job = client.submit_function(target, ["x"], cwd=str(here.work), env=here.env)
    assert waited(client, job)["state"] == "failed"
    assert row(client, job)["exit"] == exit
    assert output(client, job, stream="stderr") == words.replace("{work}", str(here.work))


# ---------------------------------------------------------------------- what was acknowledged
def test_nothing_acknowledged_is_lost_when_the_daemon_is_killed(here):
    acknowledged, stop = [], threading.Event()

    def submits():
        while not stop.is_set():
            try:
                with Client() as client:
                    while not stop.is_set():
                        acknowledged.append(here.submit(client, "echo $DGMP_JOB_ID >> ran"))
            except NoDaemon:
                stop.wait(0.01)

    here.daemon = here.up()
    threads = [threading.Thread(target=submits) for _ in range(2)]
    [t.start() for t in threads]
    try:
        for more in (20, 45, 70):
            assert eventually(lambda: len(acknowledged) >= more)  # noqa: B023
            kill(here.daemon)
            here.daemon = here.up()
    finally:
        stop.set()
        [t.join() for t in threads]
    client = here.client()
    client.wait([Select("all")], 60)
    assert len(set(acknowledged)) == len(acknowledged)
    ran = [int(line) for line in here.lines("ran")]
    assert set(acknowledged) <= set(ran) and len(set(ran)) == len(ran)


def test_an_acknowledged_cancel_is_not_lost(here, client):
    job = here.submit(client, "echo $$ >> pids; sleep 300", array=[[1, 1000]])
    assert eventually(lambda: len(here.lines("pids")) == 2)
    keeper = here.keeper(client)
    kill(keeper, signal.SIGSTOP)  # it does not get to hear of it from this daemon
    client.cancel([select(job)])
    kill(here.daemon)
    kill(keeper, signal.SIGCONT)
    here.up()
    assert waited(here.client(), job)["counts"]["cancelled"] == 1000
    assert len(here.lines("pids")) == 2


def test_mutations_of_good_messages_harm_nothing(raw, client):
    rng = random.Random(7)
    bodies = [("submit", {"argv": ["true"], "array": [[1, 3]], "env": {"A": "b"}, "after": [1], "resources": {"gpu": 1}}),
              ("list", {"select": [[[1, 5], None], ["last", [[1, 2, 1]]]], "states": ["failed"], "name": "*", "limit": 5}),
              ("tasks", {"job": 1, "tasks": [[0, 5]], "after": 0}), ("logs", {"job": 1, "task": 0}), ("forget", {"id": 1}),
              ("retry", {"select": [["all", None]], "states": ["failed"]}), ("subscribe", {"select": [["all", None]]}),
              ("wait", {"select": [[[1, 1], [[0, 0]]]]}), ("show", {"select": [[[1, 1], None]]}), ("status", {}), ("hello", {})]
    odd = [None, True, -1, 1 << 63, 1.5, "", "all", [], [[]], {}, b"\xff", [1, 2, 3], {"a": 1}, "x" * 1000, [None] * 5, "\0"]
    client.submit(["true"])
    seen = set()
    for number in range(2000):
        verb, body = rng.choice(bodies)
        raw.socket.send(encode({"v": VERSION, "id": number, "verb": verb, "body": mutated(rng, body, odd)}))
        if number % 100 == 99:  # who reads too few of the answers gets no more
            answer = raw.ask(encode({"v": VERSION, "id": -number, "verb": "status"}))
            while answer.get("id") != -number:
                seen.add(answer.get("error", {}).get("code", "ok"))
                answer = raw.hear()
    assert client.hello()["pid"] == client.pid
    assert {"ok", "bad_spec"} <= seen and "internal" not in seen


def mutated(rng, value, odd):
    """The same with something in it replaced."""
    if rng.random() < 0.15 or not isinstance(value, (dict, list)) or not value:
        return rng.choice(odd)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return [*value[:at], mutated(rng, value[at], odd), *value[at + 1:]]
    key = rng.choice(list(value))
    return {**value, key: mutated(rng, value[key], odd)}


def test_who_does_not_read_for_a_while_gets_all_of_it_later(here, client):
    events = client.subscribe()
    numbers = [client.send("status", {}) for _ in range(5000)]
    other = here.client()
    job = here.submit(other, "true")
    waited(other, job)  # nobody waits for the one that does not read
    assert len([client.reply(number, 20) for number in numbers]) == 5000
    while all(found["state"] != "finished" for found in events.next(20)[1]["jobs"]):
        pass
    waited(client, here.submit(client, "true"))
