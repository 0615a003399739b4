"""Rows G of the acceptance list for a bare `lcm serve`: G01 to G04, G08 to G11, G13 and G14, with the shipped model."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lcm.contributions.store import ContributionStore
from tests.fakes.service_process import ASTRONAUT, ServiceProcess, ask, raw, read_all, wait_until

POSTS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def service(folder):
    made = ServiceProcess(folder)
    wait_until(lambda: made.health()["ready"])
    yield made
    assert made.end() == 0


def pair(caption: str) -> dict[str, str]:
    return {"image": ASTRONAUT, "caption": caption, "fileType": "jpg"}


def at_once(work, count: int) -> list:
    """Do `work(number)` in as many threads, which start together."""
    barrier = threading.Barrier(count)

    def run(number: int):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def contribute(port: int, caption: str) -> int:
    """Post until it is taken; returns the contribution's number."""
    while True:
        status, body, headers = ask(port, "POST", "/caption", pair(caption))
        if status == 200:
            return body["id"]
        assert status in (429, 503), body
        time.sleep(int(headers["Retry-After"]) / 10)


def test_g01_g02_g14_two_services_on_one_folder_lose_and_double_nothing(folder, service):
    other = ServiceProcess(folder)
    ports = (service.port, other.port)
    distinct = at_once(lambda number: contribute(ports[number % 2], f"number {number}"), POSTS)
    same = at_once(lambda number: contribute(ports[number % 2], "the same"), POSTS)
    assert other.end() == 0
    assert len(set(distinct)) == POSTS
    assert len(set(same)) == 1
    stored = list(ContributionStore(folder / "home" / "contributions").contributions())
    assert sorted(one.id for one in stored) == sorted({*distinct, *same})
    assert {one.caption for one in stored} == {"the same", *(f"number {number}" for number in range(POSTS))}


def test_g03_g04_more_questions_than_can_be_answered(service):
    """Some get 429; meanwhile GET / and contributions are answered at once."""
    statuses, seconds = [], {"/": [], "/caption": []}

    def heavy(_) -> None:
        statuses.append(service.ask("POST", "/learning-model", {"image": ASTRONAUT})[0])

    flood = threading.Thread(target=at_once, args=(heavy, POSTS))
    flood.start()
    while flood.is_alive():
        for path, body in (("/", None), ("/caption", pair("number 7"))):
            start = time.monotonic()
            assert service.ask("POST" if body else "GET", path, body)[0] == 200
            seconds[path].append(time.monotonic() - start)
    assert set(statuses) <= {200, 429, 503}
    assert statuses.count(200) >= 18, "as many as run and wait"
    assert max(seconds["/"]) < 1
    assert max(seconds["/caption"]) < 2


def request(path: str, body: dict, *, keep: bool = False) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return (head + ("\r\n" if keep else "Connection: close\r\n\r\n")).encode() + data


def test_g08_clients_that_go_away_leave_nothing_behind(service):
    question = request("/learning-model", {"image": ASTRONAUT})
    wait_until(lambda: service.ask("POST", "/learning-model", {"image": ASTRONAUT})[0] == 200)
    files, threads = service.counts()
    for number in range(30):
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(question[: (20, 2000, len(question))[number % 3]])
    wait_until(lambda: service.ask("POST", "/learning-model", {"image": ASTRONAUT})[0] == 200)
    wait_until(lambda: service.counts()[0] <= files + 1)  # the index may be opened meanwhile
    assert service.counts()[1] <= threads + 2  # the pool of predictions makes its two threads as work comes


def test_g09_a_thousand_requests_on_one_connection(service):
    connection, used = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30), set()
    for number in range(1000):
        connection.request("GET", "/" if number % 2 else "/nowhere")
        used.add(connection.sock.getsockname())
        reply = connection.getresponse()
        assert (reply.status, bool(reply.read())) == (200 if number % 2 else 404, True)
    connection.close()
    assert len(used) == 1


def test_g09_pipelined_and_half_closed(service):
    get = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = raw(service.port, get % b"" + get % b"nowhere" + get % b"healthz")
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 404, 200]


@pytest.mark.parametrize("signals", [["SIGTERM", "SIGTERM"], ["SIGINT"], ["SIGHUP"]])
def test_g10_g11_everything_accepted_is_answered_before_the_end(tmp_path, signals):
    service = ServiceProcess(tmp_path)
    wait_until(lambda: service.health()["ready"])
    sent = [("/learning-model", {"image": ASTRONAUT})] * 10 + [("/caption", pair(f"number {n}")) for n in range(10)]
    clients = [socket.create_connection(("127.0.0.1", service.port), timeout=40) for _ in sent]
    for client, one in zip(clients, sent, strict=True):
        client.sendall(request(*one))
    wait_until(lambda: service.lines("POST"))
    for name in signals:
        service.process.send_signal(getattr(signal, name))
    wait_until(lambda: is_refused(service.port), 5)
    answers = [read_all(client) for client in clients]
    assert service.process.wait(30) == 0
    assert [answer[9:12] for answer in answers] == [b"200"] * 20
    assert all(json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers)


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def test_g13_a_port_that_is_taken_ends_the_start_in_one_line(service, folder):
    with pytest.raises(AssertionError) as told:
        ServiceProcess(folder, port=service.port)
    assert f"lcm: cannot listen on 127.0.0.1:{service.port}: address already in use; " in str(told.value)
    assert "Traceback" not in str(told.value)


def test_what_stops_the_start_ends_the_process(tmp_path):
    """The port is bound by then, and threads wait for connections."""
    environment = os.environ | {"LCM_HOME": str(tmp_path), "LCM_PORT": "0", "LCM_TRANSLATOR": str(tmp_path / "none")}
    command = [sys.executable, "-m", "lcm", "serve"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert re.fullmatch(r"lcm: cannot use '.*' as a Marian checkpoint: there is no such folder\..*\n", ended.stderr)


@pytest.mark.parametrize("line", ["BAD", "GET //x HTTP/1.1", "GET / HTTP/9.9", "GET /%zz\x01 HTTP/1.1"])
def test_i2_what_the_server_itself_refuses_is_json(service, line):
    answer = raw(service.port, f"{line}\r\nHost: x\r\n\r\n".encode())
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert headers.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 505"))
    assert b"Content-Type: application/json" in headers
    assert set(json.loads(body)) == {"error"}
