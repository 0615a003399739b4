"""Messages of drivers, made fit for a log: one line, and nothing that opens a store.

Knows what credentials look like, and where this process was given some: in an address, in environment variables.
Refuses to know what failed.
"""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

HIDDEN = "***"
MAX_CHARS = 240  # of a message; drivers repeat whole replies of a server
_READ_CHARS = 4000  # of which a message is made
_SECRET_NAME = r"key|secret|token|passw|pwd|credential|signature|\bsig\b|authorization|connection_string"
_OPAQUE, _KINDS = r"[\w+/=-]", (r"\d", "[A-Z]", "[a-z]")  # base64: long, with all kinds of characters
_NAMED = re.compile(_SECRET_NAME, re.IGNORECASE)
_OPAQUE_RUN = rf"(?<!{_OPAQUE})" + "".join(f"(?={_OPAQUE}*{kind})" for kind in _KINDS) + f"{_OPAQUE}{{24,}}"
_PATTERNS = (  # in this order: the wider ones last, when what is known by its place is gone
    (re.compile(r"(?<=://)[^\s\"']*@"), f"{HIDDEN}@"),  # who logs in, in an address; passwords may hold "/" and "@"
    (re.compile(r"[^\s/\"'@(<=]+:[^\s/\"'@]*@"), f"{HIDDEN}@"),  # user:password@ where the protocol was cut off
    (re.compile(r"\?[^\s\"'>)]*=[^\s\"'>)]*"), f"?{HIDDEN}"),  # the query of an address: a signature, mostly
    (re.compile(r"(?i)\b(bearer|basic|sharedkey|aws4-hmac-sha256)\s+[^\s\"',]+"), rf"\1 {HIDDEN}"),
    (re.compile(rf"(?i)((?:{_SECRET_NAME})[\w-]*[\"']?\s*[:=]\s*)[\"']?[^\s\"',;&<>]+"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(AKIA|ASIA|GOOG)[0-9A-Z]{12,}"), HIDDEN),  # ids of access keys at AWS and Google
    (re.compile(r"\beyJ[\w-]{8,}(\.[\w-]+)*"), HIDDEN),  # JSON Web Tokens
    (re.compile(_OPAQUE_RUN), HIDDEN),
    (re.compile(r"\b[0-9a-fA-F]{32,}\b"), HIDDEN),  # hexadecimal tokens; an image's hash looks the same and goes too
)


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return the text as one line without credentials: neither the `secrets` nor what looks like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = text[:_READ_CHARS]
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_CHARS else f"{line[:MAX_CHARS]} …"


def known_secrets(url: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets that this process was given: those in a store's address, and those that variables name so."""
    found = set(_secrets_in_url(url))
    for name, value in environment.items():
        if _NAMED.search(name):
            found.update(_parts(value))
    return tuple({form for secret in found for form in (secret, unquote(secret))})


def _secrets_in_url(url: str) -> Iterator[str]:
    login, _, _ = url.partition("://")[2].rpartition("@")
    user, _, password = login.partition(":")
    if len(password) >= 3:
        yield password
    if password and len(user) >= 6:  # the id of a key, where the password is the key
        yield user
    yield from (value for pair in url.partition("?")[2].split("&") if len(value := pair.partition("=")[2]) >= 3)


def _parts(value: str) -> Iterator[str]:
    """Yield a variable's value and, of a connection string, the values that are secret; short ones hide nothing."""
    pieces = [value.strip()]
    for pair in value.split(";"):
        name, _, piece = pair.partition("=")
        pieces += [piece] if _NAMED.search(name) else []
    yield from (piece for piece in pieces if len(piece) >= 6)
