"""Images as text: the one base64 rule of both routes.

Knows the rule: a `data:image/…;base64,` prefix may lead; ASCII blanks and line breaks anywhere are dropped; then only
the standard alphabet (+ /) or only the URL-safe one (- _), padded with = to a multiple of four. Everything else is
refused: Python's own decoder drops what it does not know and gives other bytes. Padding is asked for because without
it a text that was cut short looks whole. Refuses to know what the bytes are.
"""

import binascii
import re

from lcm.service.refusals import BadRequestError, TooLargeError

_PREFIX = re.compile(r"[ \t\r\n]*data:image/[a-z0-9.+-]{1,60}(;[a-z0-9.+=-]{1,60})*;base64,", re.IGNORECASE)
_BLANKS = b" \t\r\n"
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_HELP = "send the content of one image file in base64, with its padding"


def decode_image(text: str, max_bytes: int) -> bytes:
    """Return the bytes that a base64 text holds.

    Raises BadRequestError when the text does not follow the rule, TooLargeError for more than `max_bytes`.
    """
    prefix = _PREFIX.match(text[:500])
    try:
        raw = text[prefix.end() if prefix else 0 :].encode("ascii").translate(None, _BLANKS)
    except UnicodeEncodeError:
        raise BadRequestError(f"image holds characters beyond ASCII, which base64 does not have; {_HELP}") from None
    if not raw:
        raise BadRequestError(f"image is empty; {_HELP}")
    if b"-" in raw or b"_" in raw:
        if b"+" in raw or b"/" in raw:
            raise BadRequestError(f"image mixes both alphabets of base64, + / and - _; {_HELP}")
        raw = raw.translate(_FROM_URL_SAFE)
    if len(raw) // 4 * 3 - raw.count(b"=", -2) > max_bytes:
        raise TooLargeError(f"image has more than {max_bytes:,} bytes, the most accepted; make it smaller")
    try:
        if len(raw) % 4 or raw.endswith(b"==="):  # strict_mode passes over padding too many
            raise binascii.Error
        return binascii.a2b_base64(raw, strict_mode=True)
    except binascii.Error:
        raise BadRequestError(f"image is not base64, or was cut short; {_HELP}") from None
