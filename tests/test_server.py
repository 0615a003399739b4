"""The production server: slow, broken and hostile clients, signals, crashes. Case ids are those of ACCEPTANCE.md.

Each test starts a server of its own as a process, with a small application and with times and sizes scaled down.
"""

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
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from waitress.adjustments import Adjustments

from lcm.service.connections import Bodies, Channel, Limits

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 60  # no single step takes longer, or the test fails
GOOD_S = 6.0  # a good client is answered within that; if it had to wait for the others, in 10 s and more

APP = """
import json, os, sys, threading, time
from types import SimpleNamespace
from lcm.errors import ConfigError
from lcm.service.connections import Limits
from lcm.service.server import run

settings, limits, fault = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
seen, released = [], threading.Event()

def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    answer = {"path": path, "pid": os.getpid()}
    if path not in ("/", "/state"):
        seen.append(path)
    if path == "/state":
        answer |= {"seen": seen, "threads": threading.active_count(), "files": len(os.listdir("/dev/fd"))}
    if path == "/sleep":
        time.sleep(float(query))
    if path == "/big":
        answer["text"] = "x" * int(query)
    if path.startswith("/raise"):
        raise ValueError("a secret message")
    if path == "/echo":
        answer["bytes"] = len(environ["wsgi.input"].read())
        time.sleep(float(query or 0))
    while path == "/until" and not os.path.exists(query):
        time.sleep(0.02)
    if path == "/hold":
        released.wait(60)
    if path == "/release":
        released.set()
    answer["forwarded"] = environ.get("HTTP_X_FORWARDED_FOR")
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

def make():
    if fault == "config":
        raise ConfigError("no such thing; choose another")
    if fault == "killed":
        os.kill(os.getpid(), 9)
    if fault == "slow":
        print("it begins", file=sys.stderr, flush=True)
        time.sleep(1)
    return application

try:
    code = run(make, SimpleNamespace(**settings), Limits(**limits))
except ConfigError as error:
    print(f"lcm: {error}", file=sys.stderr)
    code = 1
sys.exit(code)
"""


class Service:
    """A server process; `pid` is the supervisor's."""

    def __init__(self, tmp_path, settings, limits, fault=""):
        self.temporary = tmp_path / "temporary"
        self.temporary.mkdir()
        self.log = tmp_path / "stderr"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", APP, json.dumps(settings), json.dumps(limits), fault],
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self.port = 0

    def wait_until_ready(self):
        wait_for(lambda: self.lines("serving on") or self.process.poll() is not None)
        url = self.lines("serving on")[0].split()[-1]
        self.host, self.port = re.fullmatch(r"http://\[?(.+?)\]?:(\d+)", url).groups()
        return self

    def lines(self, text=""):
        return [line for line in self.log.read_text(errors="replace").splitlines() if text in line]

    def connect(self, timeout=SECONDS):
        return socket.create_connection((self.host, self.port), timeout)

    def get(self, path="/", timeout=SECONDS):
        """Return the status and the JSON answer of a request on a connection of its own."""
        return self.send("GET", path, None, timeout)

    def send(self, method, path, body=None, timeout=SECONDS, headers=None):
        connection = http.client.HTTPConnection(self.host, int(self.port), timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()

    def wait_until_seen(self, path, times=1):
        """Wait until the application is at work on so many requests of a path."""
        wait_for(lambda: self.get("/state")[1]["seen"].count(path) >= times)

    def raw(self, data, finish=False):
        """Return all that the server answers to these bytes until it closes."""
        with self.connect() as client:
            client.sendall(data)
            if finish:
                client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def slowest(self, seconds):
        """Return the longest time in which a good client was answered meanwhile."""
        longest, end = 0.0, time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.monotonic()
            assert self.get()[0] == 200
            longest = max(longest, time.monotonic() - started)
            time.sleep(0.1)
        return longest

    def tell(self, number):
        self.process.send_signal(number)

    def end(self):
        """Return the exit code."""
        return self.process.wait(SECONDS)

    def kill(self):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # a group of its own: see start_new_session
        self.process.wait()


def start(folder, fault="", **changes):
    """Return a server that is starting, with settings and limits mixed in `changes`."""
    settings = {"host": "127.0.0.1", "port": 0, "http_threads": 8, "max_body": 1 << 20, "time_limit_s": 10}
    limits = {"sweep_s": 0.1, "linger_s": 1.0}
    for name, value in changes.items():
        (settings if name in settings else limits)[name] = value
    return Service(folder, settings, limits, fault)


@pytest.fixture
def serve(tmp_path):
    """Return a function that starts a server: `serve(max_body=…, header_s=…)`."""
    services = []

    def serve(fault="", ready=True, **changes):
        folder = tmp_path / str(len(services))
        folder.mkdir()
        services.append(start(folder, fault, **changes))
        return services[-1].wait_until_ready() if ready else services[-1]

    yield serve
    for service in services:
        service.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return one server for the tests that leave it as it was."""
    service = start(tmp_path_factory.mktemp("shared"))
    yield service.wait_until_ready()
    service.kill()


def wait_for(condition, seconds=SECONDS):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def read_all(client):
    """Return what is sent until the connection is closed; being reset counts as that."""
    parts = []
    with suppress(ConnectionError):
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)]


def assert_refused(answer, status):
    """The server's own refusals have the service's shape, say nothing of the server, and close."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert statuses(answer) == [status]
    assert set(json.loads(body)) == {"error"}
    assert b"content-type: application/json" in head.lower()
    assert b"connection: close" in head.lower()
    assert b"x-content-type-options: nosniff" in head.lower()
    assert b"\r\nserver:" not in head.lower()
    assert b"waitress" not in answer.lower()


def drip(clients, data, every_s, stop):
    """Send a little to every connection, again and again."""
    while not stop.wait(every_s):
        for client in clients:
            with suppress(OSError):
                client.sendall(data)


def answers_to_slow_clients(service, count, head, data, seconds, every_s=0.2):
    """Open connections that only ever send a little; return what each got, while a good client was served well."""
    with ExitStack() as stack:
        clients = [stack.enter_context(service.connect()) for _ in range(count)]
        for client in clients:
            client.sendall(head)
        stop = threading.Event()
        thread = threading.Thread(target=drip, args=(clients, data, every_s, stop))
        thread.start()
        try:
            assert service.slowest(seconds) < GOOD_S
        finally:
            stop.set()
            thread.join()
        return [read_all(client) for client in clients]


# Slow clients


@pytest.mark.parametrize("count", [150, 500])
def test_g05_slow_headers_are_closed_and_disturb_nobody(serve, count):
    service = serve(header_s=1.5, http_threads=4)
    answers = answers_to_slow_clients(service, count, b"GET / HTTP/1.1\r\nX-Slow: ", b"x", 4)
    assert len(answers) == count
    for answer in answers:
        assert_refused(answer, 408)


def test_g05_silent_connections_are_closed(serve):
    service = serve(header_s=0.5)
    assert answers_to_slow_clients(service, 20, b"", b"", 1.5) == [b""] * 20


def test_g05_more_connections_than_the_server_takes(serve):
    service = serve(connections=40, http_threads=4)
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(service.connect()).sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        assert service.slowest(1) < GOOD_S
        files = service.get("/state")[1]["files"]
        assert files < 40 + 20, "those that waited longest were closed"


def test_g06_slow_bodies_are_closed_and_disturb_nobody(serve):
    service = serve(time_limit_s=1.5, http_threads=4)
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    for answer in answers_to_slow_clients(service, 50, head, b"x" * 100, 3.5):
        assert_refused(answer, 408)
    assert service.get("/state")[1]["seen"] == []


def test_g06_a_slow_body_that_keeps_coming_is_taken(serve):
    """Each `body_rate` bytes give a second more: 3,000 bytes in about 3 s, where the limit alone is 2 s."""
    service = serve(time_limit_s=2, body_rate=50)
    with service.connect() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3000\r\n\r\n")
        for _ in range(20):
            client.sendall(b"x" * 150)
            time.sleep(0.15)
        assert b'"bytes": 3000' in read_all(client)


def test_g07_slow_readers_hold_no_thread_and_are_closed(serve):
    service = serve(time_limit_s=1, http_threads=2)
    before = service.get("/state")[1]["files"]
    with ExitStack() as stack:
        clients = []
        for _ in range(20):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((service.host, int(service.port)))
            client.sendall(b"GET /big?8000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            clients.append(client)
        assert service.slowest(2.5) < GOOD_S
        wait_for(lambda: service.get("/state")[1]["files"] <= before)
        for client in clients:
            assert len(read_all(client)) < 8000000


@pytest.mark.parametrize(("length", "is_taken"), [(100, True), (50_000_000, False)])
def test_g07_a_reply_is_offered_before_its_client_is_found_slow(length, is_taken):
    """As after a pause of the whole process, in which the limit has passed and the client could take nothing."""
    own, client = socket.socketpair()
    server = SimpleNamespace(limits=Limits(), time_limit_s=1, stopped_at=None, bodies=Bodies(1), active_channels={})
    channel = Channel(server, own, "", Adjustments(), map={})
    with client, own:
        channel.outbufs[0].append(bytes(length))
        channel.total_outbufs_len, channel.since = length, time.monotonic() - 100
        channel.check(time.monotonic())
        assert channel.connected == is_taken
        assert (len(client.recv(1 << 16)) == length) == is_taken


def test_idle_connections_are_closed(serve):
    service = serve(idle_s=0.5, header_s=30)
    with service.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        started = time.monotonic()
        assert statuses(read_all(client)) == [200]
        assert 0.4 < time.monotonic() - started < 15


# Bodies


def test_c15_a_body_at_the_limit_is_taken_and_one_byte_more_is_not(serve):
    service = serve()
    assert service.send("POST", "/echo", b"x" * (1 << 20))[1]["bytes"] == 1 << 20
    for _ in range(5):  # the reply gets to the client though it sends everything before it reads
        status, answer = service.send("POST", "/echo", b"x" * ((1 << 20) + 1))
        assert status == 413
        assert set(answer) == {"error"}
    assert service.get("/state")[1]["seen"] == ["/echo"]


def test_c15_a_client_that_asks_first_is_refused_at_once(serve):
    service = serve()
    head = b"POST /echo HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert_refused(service.raw(head % ((1 << 20) + 1)), 413)
    with service.connect() as client:
        client.sendall(head % 3)
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert b'"bytes": 3' in read_all(client)


def test_c16_an_endless_body_is_refused_before_twice_the_limit(serve):
    service = serve(max_body=8 << 20)
    chunk = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
    sent, answer = 0, b""
    with service.connect() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            while sent < 1 << 30:
                client.sendall(chunk)
                sent += len(chunk)
        answer = read_all(client)
    if answer:  # some systems throw the reply away when they learn that nobody reads what is sent
        assert_refused(answer, 413)
    assert sent < (2 * 8 << 20) + (10 << 20), "of which the last MB are in the system's buffers"
    assert service.lines("413")
    assert list(service.temporary.iterdir()) == []
    assert service.get("/state")[1]["seen"] == []


def test_c16_chunks_of_any_size_are_read(shared):
    for size in (1, 5000):
        body = (b"%x\r\n" % size + b"x" * size + b"\r\n") * 3 + b"0\r\n\r\n"
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b'"bytes": %d' % (3 * size) in shared.raw(head + body)


@pytest.mark.parametrize("chunk", [b"5;" + b"x=" * 4000, b"0\r\nTrailer: " + b"x" * 8000, b"zz\r\n", b"3\r\nabcdef"])
def test_c16_a_bad_chunk_is_refused(shared, chunk):
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert_refused(shared.raw(head + chunk), 400)


def test_c16_all_bodies_together_are_bounded(serve):
    """12 bodies of nearly 8 MB, where 3 times 8 MB may be held: the others wait for a better moment, none is lost."""
    service = serve(max_body=8 << 20, bodies=3, http_threads=16)
    body = b"x" * ((8 << 20) - 100)

    def post(path):
        connection = http.client.HTTPConnection(service.host, int(service.port), timeout=SECONDS)
        connection.request("POST", path, body)
        reply = connection.getresponse()
        return reply.status, reply.getheader("Retry-After"), set(json.loads(reply.read()))

    with ThreadPoolExecutor(12) as pool:
        held = [pool.submit(post, "/hold") for _ in range(3)]
        service.wait_until_seen("/hold", 3)
        refused = list(pool.map(post, ["/echo"] * 9))
        service.get("/release")
        assert [answer.result()[0] for answer in held] == [200] * 3
    assert {(status, retry, *keys) for status, retry, keys in refused} == {(503, "1", "error")}
    assert post("/echo")[0] == 200, "what was held is free again"
    assert list(service.temporary.iterdir()) == []


def test_c17_a_body_shorter_than_its_length_never_gets_to_the_application(serve):
    service = serve()
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    assert service.raw(head + b"12345", finish=True) == b""
    assert service.get("/state")[1]["seen"] == []
    answer = service.raw(head + b"1234567890rest", finish=True)
    assert statuses(answer) == [200]
    assert b'"bytes": 10' in answer


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 5_0",
        "Content-Length: abc",
        "Content-Length: 5, 5",
        "Content-Length:",
        "Content-Length: 5\r\nContent-Length: 60",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Content-Length : 5",
        " Content-Length: 5",
        "Content-Length: 5\nX: y",
    ],
)
def test_c18_a_length_that_two_readers_could_take_for_two_is_refused(shared, lines):
    before = shared.get("/state")[1]["seen"]
    rest = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = shared.raw(b"POST /echo HTTP/1.1\r\nHost: x\r\n" + lines.encode() + b"\r\n\r\n" + rest)
    assert_refused(answer, 400)
    assert shared.get("/state")[1]["seen"] == before


def test_c18_chunks_are_not_for_http_1_0(shared):
    assert_refused(shared.raw(b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400)


# Heads


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(shared, data):
    assert_refused(shared.raw(data), 400)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("//caption", "//caption"),
        ("///caption", "///caption"),
        ("/caption/", "/caption/"),
        ("/caption%00", "/caption\0"),
        ("/..%2f..%2fetc/passwd", "/../../etc/passwd"),
        ("/%252e", "/%2e"),
        ("http://other/caption", "/caption"),
        ("/" + "x" * 8192, "/" + "x" * 8192),
    ],
)
def test_c21_addresses_get_to_the_application_as_they_were_sent(shared, address, path):
    request = f"GET {address} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = shared.raw(request.encode())
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["path"] == path
    assert b"\r\nserver:" not in answer.lower()
    assert b"\r\nvia:" not in answer.lower()


def test_c23_heads_have_a_limit(shared):
    many = b"".join(b"X-%d: y\r\n" % number for number in range(200))
    assert statuses(shared.raw(b"GET / HTTP/1.1\r\nConnection: close\r\n" + many + b"\r\n")) == [200]
    assert_refused(shared.raw(b"GET / HTTP/1.1\r\nX: " + b"x" * 65536 + b"\r\n\r\n"), 431)
    assert_refused(shared.raw(b"GET /" + b"x" * 65536 + b" HTTP/1.1\r\n\r\n"), 431)


def test_c23_what_a_proxy_would_say_is_not_believed(shared):
    headers = {"X-Forwarded-For": "<script>", "X-Forwarded-Host": "evil", "Host": "evil"}
    assert shared.send("GET", "/", headers=headers)[1]["forwarded"] is None


def test_an_application_that_raises_is_a_500_without_its_reason(serve):
    service = serve()
    status, answer = service.get("/raise")
    assert (status, set(answer)) == (500, {"error"})
    assert "secret" not in json.dumps(answer)
    assert service.get()[0] == 200
    assert service.lines("ValueError")
    assert not service.lines("a secret message")


def test_the_log_escapes_what_clients_send(serve):
    service = serve()
    assert_refused(service.raw(b"GET /\x1b[31mred HTTP/1.1\r\n\r\n"), 400)
    assert_refused(service.raw(b"GET / HTTP/1.1\r\nX\x1b: y\r\n\r\n"), 400)
    assert statuses(service.raw(b"GET /raise%1b%0d%0a HTTP/1.0\r\n\r\n")) == [500]
    assert len(service.lines("(not routed) 400")) == 2
    assert service.lines("/raise\\x1b\\r\\n")
    assert b"\x1b" not in service.log.read_bytes()


# Connections


def test_g08_clients_that_go_away_leave_nothing_behind(serve):
    service = serve()
    before = service.get("/state")[1]
    for number in range(200):
        with service.connect() as client:
            client.sendall(
                [
                    b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc",  # in the middle of a body
                    b"GET /sleep?0.05 HTTP/1.1\r\nHost: x\r\n\r\n",  # while it is answered
                    b"GET /big?100000 HTTP/1.1\r\nHost: x\r\n\r\n",  # before it is read
                    b"GET / HT",
                ][number % 4]
            )
            if number % 8 > 3:  # with a reset
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for(lambda: service.get("/state")[1]["files"] <= before["files"])
    after = service.get("/state")[1]
    assert after["threads"] == before["threads"]
    assert not service.lines("Traceback")
    assert not service.lines("uncaptured")


def test_g09_a_thousand_requests_on_one_connection(shared):
    connection = http.client.HTTPConnection(shared.host, int(shared.port), timeout=SECONDS)
    connection.connect()
    address = connection.sock.getsockname()
    for number in range(1000):
        connection.request("POST", f"/echo/{number}", b"x" * (number % 7))
        assert json.loads(connection.getresponse().read())["path"] == f"/echo/{number}"
    assert connection.sock.getsockname() == address
    connection.close()


def test_g09_pipelined_requests_are_answered_in_order(shared):
    requests = [
        b"POST /sleep%s HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody" % query
        for query in (b"?0.3", b"?0", b"?0.1")
    ]
    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = shared.raw(b"".join(requests) + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n" * 30 + last)
    assert re.findall(rb'"path": "/(\w+)"', answer) == [b"sleep"] * 3 + [b"next"] * 30 + [b"last"]


def test_g09_a_client_that_has_finished_sending_is_answered(shared):
    answer = shared.raw(b"GET /sleep?0.5 HTTP/1.1\r\nHost: x\r\n\r\n", finish=True)
    assert statuses(answer) == [200]


def test_g09_a_request_may_come_byte_by_byte(shared):
    with shared.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc":
            client.sendall(bytes([byte]))
            time.sleep(0.001)
        assert b'"bytes": 3' in read_all(client)


# Signals and crashes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_g10_all_accepted_requests_are_answered_before_the_end(serve, tmp_path, number):
    """8 threads: 10 slow and 10 quick requests at work or waiting, one body half sent, one connection unused so far."""
    service, go_on = serve(linger_idle_s=5.0), tmp_path / "go-on"
    worker = service.get()[1]["pid"]
    paths = [f"/until?{go_on}"] * 10 + ["/sleep?0.2"] * 10
    with ThreadPoolExecutor(20) as pool, service.connect() as half, service.connect() as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert statuses(kept.recv(1000)) == [200]
        half.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        before = open_files(worker)
        answers = [pool.submit(service.get, path) for path in paths]
        if before:
            wait_for(lambda: open_files(worker) >= before + len(paths))  # all are accepted
        else:
            time.sleep(2)
        started = time.monotonic()
        service.tell(number)
        wait_for(lambda: is_refused(service))
        go_on.touch()
        kept.sendall(b"GET /kept HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_all(kept)
        assert statuses(answer) == [200]
        assert b"connection: close" in answer.lower()
        half.sendall(b"67890")
        assert b'"bytes": 10' in read_all(half)
        assert [answer.result()[0] for answer in answers] == [200] * 20
    assert service.end() == 0
    assert time.monotonic() - started < 20, "it did not wait until requests are cut off"


def open_files(worker):
    """How many files and connections a process has open; 0 where the system does not tell."""
    folder = Path(f"/proc/{worker}/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def is_refused(service):
    """Whether new connections are refused; one that is made once more is closed without a word."""
    try:
        with service.connect():
            return False
    except ConnectionRefusedError:
        return True


def test_g10_without_work_the_end_is_quick(serve):
    service = serve()
    started = time.monotonic()
    service.tell(signal.SIGTERM)
    assert service.end() == 0
    assert time.monotonic() - started < 20, "it did not wait until requests are cut off"


def test_g10_requests_that_never_end_are_cut_off_in_time(serve):
    service = serve(drain_s=1.0)
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(service.get, "/sleep?60")
        service.wait_until_seen("/sleep")
        service.tell(signal.SIGTERM)
        started = time.monotonic()
        assert service.end() == 1
        assert time.monotonic() - started < 30
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            cut.result()
    assert service.lines("cut off")


def test_g10_a_signal_during_the_start_ends_it(serve):
    service = serve("slow", ready=False)
    wait_for(lambda: service.lines("it begins"))
    service.tell(signal.SIGTERM)
    assert service.end() == 0


def test_g11_sigterm_twice_still_answers_everything(serve):
    service = serve()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.get, "/sleep?1")
        service.wait_until_seen("/sleep")
        for _ in range(3):
            service.tell(signal.SIGTERM)
            time.sleep(0.1)
        assert answer.result()[0] == 200
    assert service.end() == 0


def test_g11_sigint_twice_ends_at_once(serve):
    service = serve()
    worker = service.get()[1]["pid"]
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(service.get, "/sleep?60")
        service.wait_until_seen("/sleep")
        service.tell(signal.SIGINT)
        wait_for(lambda: is_refused(service))
        service.tell(signal.SIGINT)
        started = time.monotonic()
        assert service.end() == 128 + signal.SIGKILL
        assert time.monotonic() - started < 20, "it did not wait until requests are cut off"
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            cut.result()
    wait_for(lambda: not is_running(worker))


def test_g11_sighup_starts_a_new_process_and_loses_nothing(serve):
    service = serve()
    first = service.get()[1]["pid"]
    with ThreadPoolExecutor(4) as pool:
        slow = pool.submit(service.get, "/sleep?1")
        service.wait_until_seen("/sleep")
        service.tell(signal.SIGHUP)
        others = [pool.submit(service.get) for _ in range(3)]  # they wait for the new process, or come in just before
        assert slow.result() == (200, {"path": "/sleep", "pid": first, "forwarded": None})
        assert [answer.result()[0] for answer in others] == [200] * 3
    assert service.get()[1]["pid"] != first
    assert service.process.poll() is None
    service.tell(signal.SIGTERM)
    assert service.end() == 0


def test_g11_a_killed_process_is_replaced(serve):
    service = serve()
    assert service.process.pid != service.get()[1]["pid"]
    for _ in range(2):
        worker = service.get()[1]["pid"]
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda worker=worker: not is_running(worker))
        assert service.get()[1]["pid"] != worker, "the listening socket outlives it: nobody is refused"
    assert len(service.lines("ended with -9")) == 2
    service.tell(signal.SIGTERM)
    assert service.end() == 0


def test_g11_a_killed_supervisor_takes_the_serving_process_along(serve):
    service = serve()
    worker = service.get()[1]["pid"]
    service.tell(signal.SIGKILL)
    wait_for(lambda: not is_running(worker))
    assert is_refused(service)


def is_running(pid):
    """Whether a process exists and has not ended; one that nobody has waited for yet has ended."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return shown.strip() not in ("",) and not shown.strip().startswith("Z")


# The start


@pytest.mark.parametrize(("fault", "code", "said"), [("config", 1, "lcm: no such thing"), ("killed", 137, "")])
def test_g13_a_start_that_fails_is_not_tried_again(serve, fault, code, said):
    service = serve(fault, ready=False)
    assert service.end() == code
    assert len(service.lines()) == bool(said)
    assert service.lines(said) or not said


def test_g13_a_port_that_is_taken(serve):
    first = serve()
    second = serve(port=int(first.port), ready=False)
    assert second.end() == 1
    (line,) = second.lines()
    assert line.startswith(f"lcm: cannot listen on 127.0.0.1:{first.port}: address already in use; ")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "::1%nowhere", ".."])
def test_g13_a_host_that_is_not_there(serve, host):
    service = serve(host=host, ready=False)
    assert service.end() == 1
    assert len(service.lines()) == 1
    assert service.lines("lcm: cannot listen on ")


def has_ipv6():
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "::"])
def test_addresses_of_both_families(serve, host):
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    service = serve(host=host)
    assert int(service.port) > 0
    assert service.get()[0] == 200
    if host in ("::", "localhost"):
        service.host = "127.0.0.1"
        assert service.get()[0] == 200
