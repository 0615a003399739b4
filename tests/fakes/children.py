"""What tests do in processes of their own."""

import os
import traceback
from collections.abc import Callable
from typing import Any


def in_child(function: Callable, *args: Any) -> int:
    """Run in a process of its own, forked while there is one thread only; returns its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        function(*args)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
