"""The log: one line a request, and nothing in it that a client wrote.

Knows what a line holds, how a mistake of ours is told, and how other text is made safe for a terminal. Refuses to know
where the lines go: `set_up` gives them to stderr where nobody else asked for them.
"""

import logging
import traceback

LOG = logging.getLogger("lcm.service")
MAX_LENGTH = 2000  # characters of a message that is not ours alone


def set_up() -> None:
    """Show the lines on stderr, with their time, unless the process has a log already."""
    LOG.setLevel(logging.INFO)
    if not LOG.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        LOG.addHandler(handler)


def log_request(request_id: str, method: str, route: str, status: int, seconds: float, reason: str = "") -> None:
    """Write the line of one request; `route` is a rule of ours, never the address that was asked for."""
    line = f"{request_id} {method} {route} {status} {1000 * seconds:.1f} ms"
    level = logging.INFO if status < 500 else logging.ERROR if status == 500 else logging.WARNING
    LOG.log(level, "%s", f"{line} {escape(reason)}".rstrip())


def log_mistake(request_id: str, error: BaseException) -> None:
    """Write where an error came about that nobody expected, without its message, which may hold what was sent."""
    LOG.error("%s %s", request_id, stack_of(error))


def stack_of(error: BaseException) -> str:
    """Return an error's kind and the lines of code it went through, and those of the errors behind it."""
    parts = []
    while error is not None and len(parts) < 5:
        parts.append(f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}")
        error = error.__cause__ or error.__context__
    return "after ".join(parts)


def escape(text: str) -> str:
    """Return text that moves no cursor and hides nothing: line breaks, controls and all but ASCII as escapes."""
    safe = text[:MAX_LENGTH].encode("unicode_escape").decode("ascii")
    return safe + "…" * (len(text) > MAX_LENGTH)
