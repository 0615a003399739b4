"""What the command prints: one line at a time, on any terminal.

Knows encodings, closed pipes and full disks. Refuses to know what is printed.
"""

import os
import sys

from lcm.errors import DataError


def print_line(text: str) -> None:
    """Print a line at once; what the terminal cannot show, as an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at its end
        if isinstance(error, BrokenPipeError):  # of `lcm caption … | head`: enough was read
            raise SystemExit(1) from None
        raise DataError(f"cannot print ({error.strerror}); if it goes into a file, make room for it") from error
