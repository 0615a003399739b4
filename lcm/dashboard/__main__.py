"""`make dashboard`: the page by Voila, and a service for it where none answers: `python -m lcm.dashboard [OPTION]...`.

Options are Voila's. A service is started only at an address of this machine, and ended with the page.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lcm.dashboard.client import ServiceClient
from lcm.errors import ConfigError

NOTEBOOK = "notebooks/dashboard.ipynb"


def main(options: list[str]) -> int:
    """Serve the page until a signal ends it; returns the exit code."""
    try:
        client = ServiceClient.from_environment()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the `finally` below
    running: list[subprocess.Popen] = []
    try:
        if client.is_local and not client.health():
            print(f"no service answers at {client.host}:{client.port}: starting lcm serve", flush=True)
            address = ["--host", client.host, "--port", str(client.port)]
            running.append(subprocess.Popen([sys.executable, "-m", "lcm", "serve", *address]))
            while not client.health():
                if running[0].poll() is not None:
                    print("the service for the page has ended; what it wrote above says why", file=sys.stderr)
                    return 1
                time.sleep(0.2)
        voila, own = [sys.executable, "-m", "voila", NOTEBOOK, *options], str(Path(__file__).with_name("jupyter"))
        paths = os.pathsep.join(filter(None, [own, os.environ.get("JUPYTER_PATH")]))  # our template and settings first
        environment = os.environ | {"JUPYTER_CONFIG_PATH": own, "JUPYTER_PATH": paths}
        running.append(subprocess.Popen(voila, env=environment))
        return running[-1].wait()
    except KeyboardInterrupt:
        return 130
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
