"""Runs the Autobahn suite's fuzzing client: ``python2.7 boot.py SITE --mode=fuzzingclient ...``. For Python 2.7.

Three things of the client's own are made cheaper, which take most of the time of the cases of 12 and 13 and say nothing
of the server. It compresses with the least effort: what the server has to take is a deflate stream as before. It
compares what comes back itself, not the SHA-1 of it, which this Python has no quick form of. And it decodes the text
that it cuts its messages from once, not for each of them.
"""

import site
import sys
import zlib

sys.path.pop(0)  # this folder
# A plain entry of the path would not have its .pth files read, which zope.interface needs; a site folder has.
site.addsitedir(sys.argv.pop(1))

from autobahntestsuite.case import case12_x_x
from autobahntestsuite.wstest import run


class Whole:
    """In place of ``hashlib``: the digest of a message is the message."""

    @classmethod
    def sha1(cls):
        return cls()

    def update(self, message):
        self._message = message

    def digest(self):
        return self._message


class Text(str):
    """A file's bytes, which remember what they were decoded to."""

    decoded = None

    def decode(self, encoding):
        if self.decoded is None:
            self.decoded = str.decode(self, encoding)
        return self.decoded


class File:
    """In place of an open file; what was read of each is kept."""

    def __init__(self, path, mode):
        self._opened = (path, mode)

    def read(self):
        if self._opened not in _read:
            with open(*self._opened) as opened:
                _read[self._opened] = Text(opened.read())
        return _read[self._opened]


_read = {}
_compressobj = zlib.compressobj


def _quick_compressobj(level, *rest):
    return _compressobj(zlib.Z_BEST_SPEED, *rest)


case12_x_x.hashlib = Whole
case12_x_x.open = File
zlib.compressobj = _quick_compressobj
run()
