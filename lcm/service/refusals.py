"""Refusals: why a request was not served, and the status each reason has.

Knows the service's own errors, which status every error of lcm gets and what may be said of it: what the client did
wrong is told as it is, what went wrong here is told in general, for such messages hold paths. Refuses to know Flask.
"""

from dataclasses import dataclass

from lcm.errors import BadImageError, DataError, LcmError, StoreBusyError, StoreError, StoreFullError


class BadRequestError(LcmError):
    """A body or a field that is not what the route takes."""


class WrongTypeError(LcmError):
    """A body of another content type or encoding."""


class TooLargeError(LcmError):
    """An image of more bytes than the service takes."""


class UnauthorisedError(LcmError):
    """No token, or not the right one."""


class BusyError(LcmError):
    """As much work as the service takes on is being done already."""


class NotReadyError(LcmError):
    """There is no model to answer with."""


class WaitedTooLongError(LcmError):
    """The time limit passed before the work could begin."""


class TookTooLongError(LcmError):
    """The time limit passed before the work was done."""


class BrokenAnswerError(LcmError):
    """The model answered with something that is no description."""


@dataclass(frozen=True)
class Refusal:
    """How one kind of error is answered."""

    status: int
    message: str = ""  # empty: the error's own, written for the client
    retry_after_s: int = 0  # 0: the same request would be refused again


REFUSALS: dict[type[LcmError], Refusal] = {
    BadRequestError: Refusal(400),
    BadImageError: Refusal(400),
    DataError: Refusal(400),
    UnauthorisedError: Refusal(401),
    TooLargeError: Refusal(413),
    WrongTypeError: Refusal(415),
    BusyError: Refusal(429, "the service has as much to do as it takes on; send the request again a little later", 1),
    NotReadyError: Refusal(503, "no model is loaded yet, so images cannot be described; try again a little later", 5),
    WaitedTooLongError: Refusal(503, "the service had no time for this request; send it again a little later", 5),
    TookTooLongError: Refusal(504, "the answer took longer than the time limit; send the request again later", 5),
    StoreBusyError: Refusal(503, "the store of contributions is busy and nothing was stored; send it again", 1),
    StoreFullError: Refusal(507, "there is no space left for contributions and nothing was stored; send it later", 60),
    StoreError: Refusal(503, "contributions cannot be stored just now and nothing was; try again later", 10),
    LcmError: Refusal(500, "something went wrong in the service; its log names the cause under the request's id"),
}


def refusal_of(error: LcmError) -> Refusal:
    """Return how an error is answered: by its own class, or by the nearest one above that the table names."""
    return next(REFUSALS[kind] for kind in type(error).__mro__ if kind in REFUSALS)


# What HTTP itself refuses, before any of our code; everything else keeps the standard's name.
HTTP_MESSAGES = {
    400: "the request is not one that this service understands; check how it was sent",
    404: "there is nothing at this address; choose from GET /, GET /healthz, POST /caption, POST /learning-model",
    405: "this address does not take this method; the header Allow says which ones it takes",
    413: "the request body is larger than the service takes; send a smaller image",
    500: REFUSALS[LcmError].message,
}
