/* libFuzzer's door to a target in Python: `fuzz.targets.TARGETS[RTC_FUZZ_TARGET]` is called with every input, and what it
   raises ends the run with the input kept. RTC_FUZZ_PYTHON names the interpreter whose packages are used.

   Targets get their bytes from `fuzz.exact.exact`, for which `tight` below stands in: the zero that CPython puts behind
   every bytes object would hide a read of one byte too much, so AddressSanitizer is told not to allow it. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sanitizer/asan_interface.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static PyObject *target;

static PyObject *tight(PyObject *self, PyObject *data)
{
    (void)self;
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "bytes are needed");
        return NULL;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    PyObject *made = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), size);
    if (made != NULL && size > 1) /* shorter ones are shared */
        ASAN_POISON_MEMORY_REGION(PyBytes_AS_STRING(made) + size, 1);
    return made;
}

static PyMethodDef tight_definition = {"tight", tight, METH_O, "A copy with nothing readable behind it."};

static void give_up(void)
{
    PyErr_Print();
    fflush(NULL);
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    const char *name = getenv("RTC_FUZZ_TARGET");
    const char *python = getenv("RTC_FUZZ_PYTHON");
    if (name == NULL || python == NULL) {
        fputs("RTC_FUZZ_TARGET and RTC_FUZZ_PYTHON are needed\n", stderr);
        exit(2);
    }
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    PyStatus status = PyConfig_SetBytesString(&config, &config.program_name, python);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    PyConfig_Clear(&config);

    PyObject *exact = PyImport_ImportModule("fuzz.exact");
    PyObject *function = PyCFunction_New(&tight_definition, NULL);
    if (exact == NULL || function == NULL || PyObject_SetAttrString(exact, "exact", function) < 0)
        give_up();
    PyObject *targets = PyImport_ImportModule("fuzz.targets");
    PyObject *all = targets == NULL ? NULL : PyObject_GetAttrString(targets, "TARGETS");
    target = all == NULL ? NULL : PyMapping_GetItemString(all, name);
    if (target == NULL)
        give_up();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PyObject *input = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *result = input == NULL ? NULL : PyObject_CallOneArg(target, input);
    if (result == NULL)
        give_up();
    Py_DECREF(result);
    Py_DECREF(input);
    return 0;
}
