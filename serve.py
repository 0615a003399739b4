"""The HTTP service: `python serve.py` starts it, `create_app()` makes it for tests and other servers.

It translates between HTTP and lcm; how anything is done is in lcm/service. Importing this file loads no model.
"""

import os
import sys
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, current_app, jsonify, request

from lcm.errors import LcmError
from lcm.service import http
from lcm.service.engine import Engine
from lcm.service.schemas import CONTRIBUTOR, answer_body, answer_headers, read_contributor
from lcm.service.settings import Settings

if TYPE_CHECKING:
    from lcm.captioning.description import Captioner
    from lcm.contributions.store import ContributionStore

HELLO = "Hello World! POST an image to /learning-model for its caption, and an image with its caption to /caption.\n"
routes = Blueprint("lcm", __name__)


def create_app(
    settings: Settings | None = None,
    *,
    captioner: "Captioner | None" = None,
    store: "ContributionStore | None" = None,
) -> Flask:
    """Return the service; what is not given comes from the environment, the model from its bundle.

    Call it in the process that serves: it starts a thread that looks for the model. Raises ConfigError for bad
    settings, StoreError when the contributions cannot be opened.
    """
    settings = settings or Settings.from_environment()
    http.set_up_log()
    app = Flask("lcm", static_folder=None, template_folder=None)
    guarded = {"lcm.contribute", "lcm.describe"} if settings.token_for_learning else {"lcm.contribute"}
    http.install(app, settings, guarded)
    app.register_blueprint(routes)
    app.extensions["lcm"] = Engine(settings, captioner, store)
    return app


def engine() -> Engine:
    """Return what the current request works with."""
    return current_app.extensions["lcm"]


@routes.get("/")
def hello() -> Response:
    """Say that the service is up."""
    return Response(HELLO, mimetype="text/plain")


@routes.get("/healthz")
def health() -> tuple[Response, int]:
    """Say whether there is a model, and which."""
    state = engine().health()
    if not state["ready"]:
        return jsonify(state | {"error": "no model is loaded yet"}), 503
    return jsonify(state), 200


@routes.post("/caption")
def contribute() -> tuple[Response, dict[str, str]]:
    """Store an image with its caption; the reply is sent when it is durable."""
    contributor = read_contributor(request.headers.get(CONTRIBUTOR, ""))
    contribution = engine().contribute(http.read_body(), contributor)
    return jsonify(status="success", id=contribution.id), {"X-LCM-Known": str(contribution.known).lower()}


@routes.post("/learning-model")
def describe() -> tuple[Response, dict[str, str]]:
    """Describe an image."""
    description, model, unread, style = engine().describe(http.read_body(), request.accept_languages)
    return jsonify(answer_body(description, style)), answer_headers(description, model.version, unread)


def main() -> int:
    """Serve as the environment says until a signal ends it; what stops the start is told in one line."""
    from lcm.service.server import run

    try:
        settings = Settings.from_environment()
        code = run(lambda: create_app(settings), settings)
    except LcmError as error:
        print(f"lcm: {error}", file=sys.stderr)
        return 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Python's own end would wait for a thread that hangs, and aborts one that loads a model


if __name__ == "__main__":
    sys.exit(main())
