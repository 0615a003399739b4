"""JSON bodies: bytes in, one object out.

Knows what JSON the service reads: UTF-8 without a byte order mark, one object, no NaN and no Infinity, of bounded
structure. Of a key given twice the last one counts, as in most parsers. Refuses to know the keys.
"""

import json
from typing import Any, NoReturn

from lcm.service.refusals import BadRequestError

# Brackets, braces and commas, those in texts too. A body of 32 MB that is but `[[],[],…` makes 700 MB of objects; what
# the service takes holds a thousand labels at most.
MAX_PARTS = 50_000
_HELP = 'send one JSON object in UTF-8, such as {"image": "…"}'


def read_object(body: bytes) -> dict[str, Any]:
    """Return the object that a body holds; raises BadRequestError when it holds anything else."""
    if not body:
        raise BadRequestError(f"the body is empty; {_HELP}")
    if sum(map(body.count, (b"[", b"{", b","))) > MAX_PARTS:
        raise BadRequestError(f"the body holds more than {MAX_PARTS:,} brackets and commas; send only what is needed")
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise BadRequestError(f"the body is not UTF-8 (byte {error.start}); {_HELP}") from None
    except json.JSONDecodeError as error:
        raise BadRequestError(f"the body is not JSON (line {error.lineno}, column {error.colno}); {_HELP}") from None
    except (ValueError, RecursionError):  # a number of over 4,300 digits; brackets nested a thousand deep
        raise BadRequestError(f"the body holds a number too long or brackets too deep; {_HELP}") from None
    if not isinstance(value, dict):
        raise BadRequestError(f"the body is JSON but not an object; {_HELP}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    """Refuse what Python reads and JSON does not have."""
    raise BadRequestError(f"the body holds {name}, which is not JSON; {_HELP}")
