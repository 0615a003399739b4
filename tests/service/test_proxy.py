"""Rows G05 to G07 and C15 to C18 of the acceptance list through nginx with deploy/nginx.conf, before a real service.

Of the configuration only the two addresses are replaced, and the places of its own files.
"""

import json
import os
import shutil
import socket
import subprocess
import time

import pytest

from lcm.contributions.store import ContributionStore
from tests.fakes.service_process import (
    ASTRONAUT,
    ROOT,
    ServiceProcess,
    answers,
    ask,
    free_port,
    raw,
    read_all,
    wait_until,
)

CONFIGURATION = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(not NGINX, reason="needs nginx: apt-get install nginx-light")
LIMIT = 32 << 20
SLOW_S = 12.0  # above the 10 s that the configuration gives a client
PAIR = json.dumps({"image": ASTRONAUT, "caption": "through the proxy", "fileType": "jpg"}).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="module")
def service(folder):
    made = ServiceProcess(folder)
    wait_until(lambda: made.health()["ready"])
    yield made
    assert made.end() == 0


@pytest.fixture(scope="module")
def port(folder, service):
    """The port of nginx, which passes on to the service."""
    port = free_port()
    changed = CONFIGURATION.replace("server lcm:8000;", f"server 127.0.0.1:{service.port};", 1)
    changed = changed.replace("listen 8080;", f"listen 127.0.0.1:{port};", 1)
    changed = changed.replace("/tmp/", f"{folder}/").replace("error_log stderr", f"error_log {folder}/errors")
    (folder / "nginx.conf").write_text(changed)
    as_we_are = ["-g", "user root;"] if os.geteuid() == 0 else []  # else its workers could not read our folder
    nginx = subprocess.Popen([NGINX, *as_we_are, "-p", folder, "-c", folder / "nginx.conf"])
    try:
        wait_until(lambda: nginx.poll() is not None or answers(port))
        yield port
    finally:
        nginx.terminate()
        nginx.wait(30)


@pytest.fixture
def nothing_stored(folder):
    store = ContributionStore(folder / "home" / "contributions")
    before = list(store.contributions())
    yield
    assert list(store.contributions()) == before


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /caption HTTP/1.1", "Host: x", "Content-Type: application/json", *lines, "", ""]).encode()


def status_of(answer: bytes) -> int:
    """Return the status of the only answer; 0 for none. The proxy's own are JSON as well."""
    if not answer:
        return 0
    assert answer.count(b"HTTP/1.1 ") == 1
    first, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in first
    if not first.startswith(b"HTTP/1.1 200"):
        assert set(json.loads(body)) == {"error"}
    return int(first[9:12])


def test_c17_both_routes_answer_and_what_follows_a_body_is_no_part_of_it(port):
    status, body, headers = ask(port, "POST", "/learning-model", {"image": ASTRONAUT})
    assert (status, set(body)) == (200, {"tags", "captions", "english_captions"})
    assert headers["Server"] == "lcm"
    followed = head(f"Content-Length: {len(PAIR)}", "Connection: close") + PAIR + b"x" * 100
    assert status_of(raw(port, followed)) == 200


def test_g05_g06_g07_slow_clients_disturb_nobody_and_are_closed(port, service):
    """150 send a byte of a header every 10 s, 50 a body of 100 bytes a second, 50 read nothing of their answers."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(250)]
    headers, bodies, readers = clients[:150], clients[150:200], clients[200:]
    for client in headers:
        client.sendall(b"G")
    for client in bodies:
        client.sendall(head("Content-Length: 100000") + b" ")
    for client in readers:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 300)
    start, seconds = time.monotonic(), []
    while time.monotonic() - start < SLOW_S:
        for client in bodies[:-1]:  # the last one stands still
            client.sendall(b" " * 10)
        began = time.monotonic()
        status, _, _ = ask(port, "POST", "/learning-model", {"image": ASTRONAUT})
        seconds.append(time.monotonic() - began)
        assert status == 200
        time.sleep(0.1)
    assert max(seconds) < 2, "the good client"
    assert all(is_closed(client) for client in headers)
    assert is_closed(bodies[-1])
    assert service.counts()[0] < 150, "open files: no slow body has got to the service"
    for client in clients:
        client.close()


def is_closed(client: socket.socket) -> bool:
    """Whether the proxy has ended a connection, with an answer or without."""
    client.settimeout(0.5)
    try:
        return status_of(read_all(client)) in (0, 408)
    except TimeoutError:
        return False


@pytest.mark.usefixtures("nothing_stored")
def test_c15_a_body_at_the_limit_passes_and_one_byte_more_does_not(port):
    def post(size: int) -> bytes:
        return raw(port, head(f"Content-Length: {size}", "Connection: close"), b" " * size)

    assert status_of(post(LIMIT)) == 400, "the service reads it, and finds no JSON"
    assert status_of(post(LIMIT + 1)) == 413
    asked_first = head(f"Content-Length: {LIMIT + 1}", "Expect: 100-continue")
    assert status_of(raw(port, asked_first)) == 413


@pytest.mark.usefixtures("nothing_stored")
def test_c16_an_endless_body_is_refused_before_twice_the_limit(port, folder):
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head("Transfer-Encoding: chunked"))
        try:
            while sent < 1 << 30 and not client_has_answer(client):
                client.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
        assert sent < 2 * LIMIT
        assert status_of(read_all(client)) in (0, 413)
    wait_until(lambda: not [one for one in (folder / "lcm-nginx-body").rglob("*") if one.is_file()])


def client_has_answer(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        client.settimeout(30)


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("missing", [1, len(PAIR)])
def test_c17_a_body_shorter_than_its_length_is_not_stored(port, missing):
    assert status_of(raw(port, head(f"Content-Length: {len(PAIR)}") + PAIR[: len(PAIR) - missing])) in (0, 400)


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: -1"],
        ["Content-Length: abc"],
        ["Content-Length: +5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 99999999999999999999999"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: xchunked"],
    ],
    ids=" ".join,
)
def test_c18_lengths_that_two_readers_could_take_for_two(port, service, lines):
    before = len(service.lines("POST"))
    smuggled = b"0\r\n\r\nPOST /caption HTTP/1.1\r\nHost: x\r\n\r\n"
    assert status_of(raw(port, head(*lines) + smuggled)) in (400, 413, 501)
    assert len(service.lines("POST")) == before, "the service has seen no request"


def test_c23_a_large_header_is_431(port):
    assert ask(port, "GET", "/", headers={"X-Large": "x" * (64 << 10)})[0] == 431
