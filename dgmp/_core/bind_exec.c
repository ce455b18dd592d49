/* bind_exec.c: starting programs and noting their ends, and signals as something to read (dgmp.jobs). */
#include "binding.h"
#include "spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Appends the texts (str, or bytes) of a list or tuple to out; what they lie in is kept in `kept`.  0: an exception. */
static int texts(PyObject *from, char **out, PyObject *kept) {
    Py_ssize_t n = PySequence_Size(from);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_GetItem(from, i), *bytes = NULL;
        if (!item || !PyUnicode_FSConverter(item, &bytes)) {  /* ValueError: a NUL in it */
            Py_XDECREF(item);
            return 0;
        }
        out[i] = PyBytes_AsString(bytes);
        int e = PyList_Append(kept, bytes);
        Py_DECREF(item);
        Py_DECREF(bytes);
        if (e) return 0;
    }
    out[n] = NULL;
    return 1;
}

static int cores_of(PyObject *cores, cpu_set_t *set, struct spawn *s) {
    if (cores == Py_None) return 1;
    CPU_ZERO(set);
    PyObject *it = PyObject_GetIter(cores), *core;
    if (!it) return 0;
    while ((core = PyIter_Next(it)) != NULL) {
        long n = PyLong_AsLong(core);
        Py_DECREF(core);
        if (PyErr_Occurred()) break;
        if (n < 0 || n >= CPU_SETSIZE) {
            PyErr_Format(PyExc_ValueError, "no core %ld", n);
            break;
        }
        CPU_SET((int)n, set);
    }
    Py_DECREF(it);
    s->cores = set, s->cores_size = sizeof *set;
    return !PyErr_Occurred();
}

/* What the OSError is about: the program, or the folder; nothing where no process could be made. */
static PyObject *failed(const struct spawn *s, int e) {
    errno = e;
    if (s->failed == SPAWN_CLONE) return PyErr_SetFromErrno(PyExc_OSError);
    const char *what = s->failed == SPAWN_CHDIR ? s->cwd : s->failed == SPAWN_EXEC ? s->path : "";
    PyObject *name = PyUnicode_DecodeFSDefault(what);
    if (name) PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name);
    Py_XDECREF(name);
    return NULL;
}

/* execute(path, argv, environment, more_environment, cwd, stdin, stdout, stderr, cores, nice, death_signal, ignore_terminal,
 * nofile) -> (pid, pidfd).  OSError: with a filename where the process was made and the program could not be begun (path; the
 * folder; "" for what else was asked for), without where none could be made. */
PyObject *execute(PyObject *mod, PyObject *args) {
    (void)mod;
    struct spawn s = {.fds = {-1, -1, -1}};
    PyObject *path, *argv, *env, *more, *cwd, *cores, *out = NULL;
    unsigned long long nofile;
    cpu_set_t set;
    if (!PyArg_ParseTuple(args, "OOOOOiiiOiipK", &path, &argv, &env, &more, &cwd, &s.fds[0], &s.fds[1], &s.fds[2], &cores,
                          &s.nice, &s.death_signal, &s.ignore_terminal, &nofile) ||
        !cores_of(cores, &set, &s))
        return NULL;
    s.nofile = (rlim_t)nofile;
    Py_ssize_t nargs = PySequence_Size(argv), nenv = PySequence_Size(env), nmore = PySequence_Size(more);
    if (nargs < 0 || nenv < 0 || nmore < 0) return NULL;
    char **all = malloc(((size_t)(nargs + nenv + nmore) + 3) * sizeof *all), **envp = all + nargs + 1;
    PyObject *kept = PyList_New(0), *program = NULL, *folder = NULL;
    if (!all) PyErr_NoMemory();
    else if (kept && texts(argv, all, kept) && texts(env, envp, kept) && texts(more, envp + nenv, kept) &&
             PyUnicode_FSConverter(path, &program) && (cwd == Py_None || PyUnicode_FSConverter(cwd, &folder))) {
        s.path = PyBytes_AsString(program), s.cwd = folder ? PyBytes_AsString(folder) : NULL;
        s.argv = all, s.envp = envp;
        int e;
        Py_BEGIN_ALLOW_THREADS
        e = spawn(&s);
        Py_END_ALLOW_THREADS
        out = e ? failed(&s, e) : Py_BuildValue("(ii)", (int)s.pid, s.pidfd);
    }
    Py_XDECREF(program);
    Py_XDECREF(folder);
    Py_XDECREF(kept);
    free(all);
    return out;
}

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

/* reap(pidfd) -> None while it runs; then (exit code, signal, seconds in user mode, in the kernel, most resident KiB, which is at
 * least ours), and pidfd is closed.  ChildProcessError: it is no child of ours, or has been reaped. */
PyObject *reap(PyObject *mod, PyObject *arg) {
    (void)mod;
    int fd = (int)PyLong_AsLong(arg);
    if (PyErr_Occurred()) return NULL;
    struct ended e;
    int ended = spawn_reap(fd, &e);
    if (ended < 0) return PyErr_SetFromErrno(PyExc_OSError);
    if (!ended) Py_RETURN_NONE;
    close(fd);
    return Py_BuildValue("(iiddl)", e.code, e.signal, seconds(e.usage.ru_utime), seconds(e.usage.ru_stime), e.usage.ru_maxrss);
}

/* signal_fd(fd, numbers) -> a descriptor from which these signals, which the caller blocks, are read; fd: one to change, or
 * -1 */
PyObject *signal_fd(PyObject *mod, PyObject *args) {
    (void)mod;
    int fd;
    PyObject *numbers;
    sigset_t set;
    if (!PyArg_ParseTuple(args, "iO", &fd, &numbers)) return NULL;
    sigemptyset(&set);
    Py_ssize_t n = PySequence_Size(numbers);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *number = PySequence_GetItem(numbers, i);
        long value = number ? PyLong_AsLong(number) : -1;
        Py_XDECREF(number);
        if (PyErr_Occurred()) return NULL;
        if (sigaddset(&set, (int)value)) return PyErr_SetFromErrno(PyExc_OSError);
    }
    fd = n < 0 ? -1 : signalfd(fd, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd >= 0) return PyLong_FromLong(fd);
    return n < 0 ? NULL : PyErr_SetFromErrno(PyExc_OSError);
}

/* read_signal(fd) -> (number, pid of who has sent it, whether the terminal did); None: there is none */
PyObject *read_signal(PyObject *mod, PyObject *arg) {
    (void)mod;
    int fd = (int)PyLong_AsLong(arg);
    if (PyErr_Occurred()) return NULL;
    struct signalfd_siginfo info;
    ssize_t n;
    do n = read(fd, &info, sizeof info);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)sizeof info)
        return Py_BuildValue("(iii)", (int)info.ssi_signo, (int)info.ssi_pid, info.ssi_code == SI_KERNEL);
    if (n < 0 && errno == EAGAIN) Py_RETURN_NONE;
    return PyErr_SetFromErrno(PyExc_OSError);
}
