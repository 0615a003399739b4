"""The HTTP service: `python serve.py` starts it, `create_app()` makes it for tests and other servers.

Knows the four routes, and translates between HTTP and lcm. Refuses to know how anything is done: lcm/service does it.
Importing this file loads no model.
"""

import os
import sys
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, current_app, jsonify, request

from lcm.errors import LcmError
from lcm.service import answers, request_log, web
from lcm.service.payload import CONTRIBUTOR, read_source
from lcm.service.settings import Settings
from lcm.service.state import Service, Store

if TYPE_CHECKING:
    from lcm.captioning.description import Captioner

HELLO = "Hello World! POST an image to /learning-model for its caption, and an image with its caption to /caption.\n"
routes = Blueprint("lcm", __name__)


def create_app(
    settings: Settings | None = None, *, captioner: "Captioner | None" = None, store: Store | None = None
) -> Flask:
    """Return the service; what is not given comes from the environment, the model from its bundle.

    Call it in the process that serves: it starts a thread that looks for the model. Raises ConfigError for bad
    settings, StoreError when the contributions cannot be opened.
    """
    settings = settings or Settings.from_environment()
    request_log.set_up()
    app = Flask("lcm", static_folder=None, template_folder=None)
    guarded = {"lcm.keep", "lcm.describe"} if settings.token_for_learning else {"lcm.keep"}
    web.install(app, settings, guarded)
    app.register_blueprint(routes)
    app.extensions["lcm"] = Service.assemble(settings, captioner, store)
    return app


def service() -> Service:
    """Return what the current request works with."""
    return current_app.extensions["lcm"]


@routes.get("/")
def hello() -> Response:
    """Say that the service is up."""
    return Response(HELLO, mimetype="text/plain")


@routes.get("/healthz")
def health() -> tuple[Response, int]:
    """Say whether there is a model, and which."""
    state = service().health()
    if not state["ready"]:
        return jsonify(state | {"error": "no model is loaded yet"}), 503
    return jsonify(state), 200


@routes.post("/caption")
def keep() -> tuple[Response, dict[str, str]]:
    """Keep an image with its caption; the reply is sent when it is durable."""
    source = read_source(request.headers.get(CONTRIBUTOR))
    kept = service().keep(web.read_body(), source)
    return jsonify(status="success", id=kept.id), {"X-LCM-Known": str(kept.known).lower()}


@routes.post("/learning-model")
def describe() -> tuple[Response, dict[str, str]]:
    """Describe an image."""
    description, model = service().describe(web.read_body())
    return jsonify(answers.as_body(description)), answers.as_headers(description, model.version, model.source)


def start(settings: Settings) -> int:
    """Serve with the production server until a signal ends it; returns the exit code."""
    from lcm.service.server import run

    try:
        return run(lambda: create_app(settings), settings)
    except SystemExit as end:  # of the serving process; an orderly end aborts when a thread is loading a model
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(end.code or 0))


def main() -> int:
    """Serve as the environment says; what stops the start is told in one line."""
    try:
        return start(Settings.from_environment())
    except LcmError as error:
        print(f"lcm: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
