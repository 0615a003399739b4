"""What HTTP asks of every request, whichever route it is for: id, token, web origins, errors as JSON, one log line.

Nothing that a client wrote goes into the log as it is.
"""

import hmac
import logging
import secrets
import time
import traceback

from flask import Flask, Response, current_app, g, jsonify, request
from werkzeug.exceptions import ClientDisconnected, HTTPException, NotFound, RequestEntityTooLarge

from lcm.errors import LcmError
from lcm.service.schemas import CONTRIBUTOR, EXPOSED_HEADERS, HTTP_MESSAGES, RefusedError, refusal_of
from lcm.service.settings import Settings

LOG = logging.getLogger("lcm.service")
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
PREFLIGHT_S = 600  # how long a browser may remember what is allowed
MAX_LOGGED = 2000  # characters of a message that is not ours alone


def install(app: Flask, settings: Settings, guarded: set[str]) -> None:
    """Put on an app what every request gets; `guarded` are the endpoints that ask for the token, if there is one."""
    # One byte more than is taken: Werkzeug cuts a stream of unknown length there, and the byte tells that it was cut.
    app.config.update(MAX_CONTENT_LENGTH=(settings.max_body_mb << 20) + 1, PROPAGATE_EXCEPTIONS=False, DEBUG=False)
    app.url_map.merge_slashes = False  # no redirects
    app.log_exception = lambda exc_info: LOG.error("%s %s", g.request_id, stack_of(exc_info[1]))

    @app.before_request
    def begin() -> None:
        g.started, g.request_id, g.reason = time.perf_counter(), secrets.token_hex(8), ""
        if request.environ.get("PATH_INFO", "").startswith("//"):  # which Werkzeug takes for one slash
            raise NotFound
        if settings.token and request.endpoint in guarded and request.method != "OPTIONS":
            check_token(request.headers.get("Authorization", ""), settings.token)

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers.update(HEADERS | {"X-LCM-Request-Id": g.request_id})
        if request.method == "OPTIONS" and response.status_code == 200:
            response.status_code = 204
            del response.headers["Content-Type"]
        if settings.origins:
            allow_origin(response, settings.origins)
        log_request(response.status_code)
        return response

    app.register_error_handler(LcmError, refuse)
    app.register_error_handler(HTTPException, refuse_http)


def read_body() -> bytes:
    """Return the request's body; raises RefusedError unless it is plain JSON in UTF-8."""
    charset = request.mimetype_params.get("charset", "utf-8")
    if request.mimetype != "application/json" or charset.lower() not in ("utf-8", "utf8"):
        raise RefusedError(415, "send the body as JSON in UTF-8, with the header Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise RefusedError(415, "send the body as it is, without the header Content-Encoding: no compression is read")
    body = request.get_data(cache=False)
    if len(body) >= current_app.config["MAX_CONTENT_LENGTH"]:
        raise RequestEntityTooLarge
    if len(body) < (request.content_length or 0):  # the client has gone before the end
        raise ClientDisconnected
    return body


def check_token(header: str, token: str) -> None:
    """Raise RefusedError unless an Authorization header carries the token, which is compared in constant time."""
    kind, _, sent = header.partition(" ")
    # As bytes: `compare_digest` takes no text beyond ASCII.
    is_right = hmac.compare_digest(sent.strip().encode("utf-8", "surrogatepass"), token.encode("ascii"))
    if kind.lower() != "bearer" or not is_right:
        raise RefusedError(401, "this service asks for a token; send the header Authorization: Bearer and the token")


def allow_origin(response: Response, origins: tuple[str, ...]) -> None:
    """Tell a browser that a page of one of these origins may read the reply, and what it may send."""
    response.vary.add("Origin")
    origin = request.headers.get("Origin", "")
    if origin not in origins:
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        response.headers["Access-Control-Allow-Methods"] = response.headers.get("Allow", "")
        response.headers["Access-Control-Allow-Headers"] = f"Authorization, Content-Type, {CONTRIBUTOR}"
        response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_S)


def refuse(error: LcmError) -> Response:
    """Answer an error of lcm; what went wrong here goes to the log, not to the client."""
    refusal, g.reason = refusal_of(error), str(error)  # which never repeats what was sent
    response = jsonify(error=str(refusal))
    response.status_code = refusal.status
    if refusal.retry_after_s:
        response.headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def refuse_http(error: HTTPException) -> Response:
    """Answer what HTTP itself refuses, and our own mistakes, with the headers that belong to it."""
    g.reason = type(error).__name__
    response = error.get_response()  # with Allow, where it is about methods
    response.data = jsonify(error=HTTP_MESSAGES.get(error.code, error.name)).data
    response.mimetype = "application/json"
    return response


def set_up_log() -> None:
    """Show the log on stderr, with the time of each line, unless the process has a log already."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    LOG.setLevel(logging.INFO)


def log_request(status: int) -> None:
    """Write the line of the current request; it shows the route that matched, never the address that was asked for."""
    route = request.url_rule.rule if request.url_rule else "(no such route)"
    line = f"{request.method} {route} {status} {1000 * (time.perf_counter() - g.started):.1f} ms {g.reason}"
    level = logging.INFO if status < 500 else logging.ERROR if status == 500 else logging.WARNING
    LOG.log(level, "%s %s", g.request_id, escape(line.rstrip()))


def stack_of(error: BaseException | None) -> str:
    """Return an error's kind and lines of code, and those behind it; no message: it may hold what was sent."""
    parts = []
    while error is not None and len(parts) < 5:
        parts.append(f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}")
        error = error.__cause__ or error.__context__
    return "after ".join(parts)


def escape(text: str) -> str:
    """Return text that moves no cursor and hides nothing: line breaks, controls and all but ASCII as escapes."""
    safe = text[:MAX_LOGGED].encode("unicode_escape").decode("ascii")
    return safe + "…" * (len(text) > MAX_LOGGED)
