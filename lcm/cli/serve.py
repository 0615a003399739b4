"""`lcm serve`: the HTTP service.

Knows that its arguments are settings that the environment can hold, too. Refuses to know HTTP.
"""

import argparse
import os


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    serve = commands.add_parser("serve", help="serve captions, tags and corrections over HTTP")
    serve.add_argument("--host", metavar="ADDRESS", help="address to listen on (LCM_HOST; default: this machine only)")
    serve.add_argument("--port", metavar="PORT", help="port to listen on (LCM_PORT; default: 8000)")
    serve.set_defaults(command=_serve)


def _serve(options: argparse.Namespace) -> int:
    from lcm.errors import require

    require("flask", "serve")
    import serve
    from lcm.service.settings import Settings

    given = {"LCM_HOST": options.host, "LCM_PORT": options.port}
    environment = os.environ | {name: value for name, value in given.items() if value is not None}
    return serve.start(Settings.from_environment(environment))
