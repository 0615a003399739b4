"""The service as a process: `lcm serve`, on a free port."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
JSON = {"Content-Type": "application/json"}
ASTRONAUT = base64.b64encode((ROOT / "reports" / "examples" / "astronaut.jpg").read_bytes()).decode()


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def ask(
    port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    """Return status, body and headers of a reply; a record is sent as JSON, and JSON is read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        data = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, data, (JSON if data is not None else {}) | (headers or {}))
        reply = connection.getresponse()
        text = reply.read()
    finally:
        connection.close()
    is_json = reply.headers["Content-Type"] == JSON["Content-Type"]
    return reply.status, json.loads(text) if is_json else text, dict(reply.headers)


def answers(port: int, path: str = "/") -> bool:
    """Whether a server answers there, whatever it says."""
    try:
        ask(port, "GET", path)
    except (OSError, http.client.HTTPException):
        return False
    return True


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def raw(port: int, data: bytes, *more: bytes) -> bytes:
    """Send bytes as they are and return all that comes until the server closes; a reset ends it too."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        try:
            for part in (data, *more):
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


class ServiceProcess:
    """A running `lcm serve`, its state folder in `folder`."""

    def __init__(self, folder: Path, port: int = 0):
        self._log = folder / f"log-{time.monotonic_ns()}"
        clean = {name: one for name, one in os.environ.items() if name == "LCM_CACHE" or not name.startswith("LCM_")}
        own = {"LCM_PORT": str(port), "LCM_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "lcm", "serve"]
            self.process = subprocess.Popen(command, cwd=folder, env=clean | own, stderr=log)
        wait_until(lambda: self.lines("serving on") or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()
        self.port = int(self.lines("serving on")[0].rsplit(":", 1)[1])

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def lines(self, text: str) -> list[str]:
        return [line for line in self.log().splitlines() if text in line]

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any, dict[str, str]]:
        return ask(self.port, method, path, body, **options)

    def health(self) -> dict[str, Any]:
        return self.ask("GET", "/healthz")[1]

    def counts(self) -> tuple[int, int] | None:
        """Return open files and threads, None where the system does not tell."""
        proc = Path(f"/proc/{self.process.pid}")
        return (len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))) if proc.is_dir() else None

    def resident_mb(self) -> float | None:
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            return None
        return int(status.read_text().partition("VmRSS:")[2].split()[0]) / 1024

    def end(self, number: int = signal.SIGTERM) -> int:
        """Return the exit code after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(40)
