"""Systems that a test is for: elsewhere it is skipped, with the reason."""

import os
import sys

import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: /proc or /dev/full")
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs named pipes, signals or a shell")
