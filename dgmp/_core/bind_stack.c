/* bind_stack.c: how deep the C stack is (runtime.asyncpreempt asks, in a signal's handler). */
#include "binding.h"

#include <signal.h>

/* stack_address() -> where the C stack is now */
PyObject *stack_address(PyObject *mod, PyObject *none) {
    (void)mod, (void)none;
    return PyLong_FromVoidPtr(__builtin_frame_address(0));
}

/* send_self(number): that signal comes to this thread now.  Its Python handler runs when the interpreter next looks, as for one
 * that somebody else has sent; signal.raise_signal and os.kill would run it from within themselves. */
PyObject *send_self(PyObject *mod, PyObject *number) {
    (void)mod;
    long n = PyLong_AsLong(number);
    if (PyErr_Occurred()) return NULL;
    raise((int)n);
    Py_RETURN_NONE;
}
