"""Runs a command as systemd would for a unit: under its filters of system calls, and those of memory and sockets.

usage: confined.py FILTER COMMAND...     FILTER: a JSON file {allowed, families}: names of calls, numbers of families
"""

import ctypes
import errno
import json
import os
import sys
from pathlib import Path

ALLOW = 0x7FFF_0000
MASKED_EQUAL = 7
EQUAL = 4
PROT_WRITE, PROT_EXEC = 2, 4
MOST_FAMILIES = 64


def refuse(error: int) -> int:
    """The action that answers a call with this error."""
    return 0x0005_0000 | error


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp of seccomp.h."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


LIBRARY = ctypes.CDLL("libseccomp.so.2", use_errno=True)
LIBRARY.seccomp_init.restype = ctypes.c_void_p
LIBRARY.seccomp_init.argtypes = [ctypes.c_uint32]
LIBRARY.seccomp_load.argtypes = [ctypes.c_void_p]
LIBRARY.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(Comparison),
]


class Filter:
    """A filter with what it does when no rule says otherwise."""

    def __init__(self, default: int) -> None:
        self._context = LIBRARY.seccomp_init(default)
        assert self._context

    def add(self, action: int, call: str, *comparisons: Comparison) -> None:
        """A rule for a call by its name; one that this machine does not have is left out."""
        number = LIBRARY.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return
        array = (Comparison * len(comparisons))(*comparisons)
        status = LIBRARY.seccomp_rule_add_array(self._context, action, number, len(comparisons), array)
        assert status == 0, (call, os.strerror(-status))

    def load(self) -> None:
        """Put it into force."""
        status = LIBRARY.seccomp_load(self._context)
        assert status == 0, os.strerror(-status)


def main(path: str, command: list[str]) -> None:
    wanted = json.loads(Path(path).read_text())
    arguments = Filter(ALLOW)
    both = PROT_WRITE | PROT_EXEC
    arguments.add(refuse(errno.EPERM), "mmap", Comparison(2, MASKED_EQUAL, both, both))
    for call in ("mprotect", "pkey_mprotect"):
        arguments.add(refuse(errno.EPERM), call, Comparison(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
    for family in sorted(set(range(MOST_FAMILIES)) - set(wanted["families"])):
        arguments.add(refuse(errno.EAFNOSUPPORT), "socket", Comparison(0, EQUAL, family, 0))
    calls = Filter(refuse(errno.EPERM))
    for call in wanted["allowed"]:
        calls.add(ALLOW, call)
    arguments.load()
    calls.load()
    os.execv(command[0], command)


main(sys.argv[1], sys.argv[2:])
