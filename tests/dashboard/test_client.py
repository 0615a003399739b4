"""The client asks a real service with the tiny captioner, and others that answer something else."""

import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from lcm.dashboard.__main__ import main
from lcm.dashboard.client import MAX_PHOTO, ServiceClient, ServiceError
from lcm.errors import ConfigError, LcmError
from tests.fakes.service_process import free_port

from .site import picture

ODD = "<script>alert(\"1\")</script> & 'more'"


def test_a_photo_is_described(address):
    answer = ServiceClient(address).describe(picture("green"))
    assert (answer.caption, answer.model, answer.contributed) == ("a green square", "tiny-1", False)
    assert set(answer.others) == {"a square", "a green"}
    assert 0 < answer.confidence < 0.1
    assert [word for word, _ in answer.tags] == ["green", "square"]


def test_a_correction_is_kept_and_is_the_answer(address, store):
    client = ServiceClient(address)
    number, known = client.contribute(picture(), ODD, "Łucja 李")
    assert (known, client.contribute(picture(), ODD)) == (False, (number, True))
    (kept,) = store.contributions()
    assert (kept.id, kept.caption, kept.source) == (number, ODD, "http:Łucja 李")
    answer = client.describe(picture())
    assert (answer.caption, answer.contributed) == (ODD, True)
    client.contribute(picture("blue"), "a chat", language="fr")  # a text that no guess takes for French
    assert [one.language for one in store.contributions()] == ["en", "fr"]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda client: client.describe(picture()[:60]), "damaged, cut short"),
        (lambda client: client.describe(b"no image"), "accepted"),
        (lambda client: client.describe(bytes(MAX_PHOTO + 1)), r"10.0 MB; up to 10 MB are accepted"),
        (lambda client: client.contribute(picture(), " \n "), "caption"),
        (lambda client: client.contribute(picture(), "a dog", "a" * 65), "the contributor's name has 65 characters"),
    ],
)
def test_a_refusal_is_told_in_words(address, store, ask, words):
    with pytest.raises(LcmError, match=words):
        ask(ServiceClient(address))
    assert list(store.contributions()) == []


def test_a_service_asks_for_its_token(run_service, tmp_path, store, monkeypatch):
    token = "correct-horse-battery-staple"
    with run_service(tmp_path, store, token=token) as address:
        with pytest.raises(ServiceError, match="set LCM_TOKEN where this page is started"):
            ServiceClient(address).contribute(picture(), "a dog")
        monkeypatch.setenv("LCM_SERVICE", address)
        monkeypatch.setenv("LCM_TOKEN", token)
        assert ServiceClient.from_environment().contribute(picture(), "a dog") == (1, False)


def test_a_service_that_is_away_is_told_with_what_to_start():
    port = free_port()
    client = ServiceClient(f"http://127.0.0.1:{port}")
    assert client.health() == {}
    with pytest.raises(ServiceError, match=rf"127.0.0.1:{port} \(.*lcm serve --port {port}, or name"):
        client.contribute(picture(), "a dog")


def test_without_a_setting_the_usual_address_is_asked(monkeypatch):
    monkeypatch.setenv("LCM_SERVICE", " ")
    client = ServiceClient.from_environment()
    assert (client.host, client.port, client.is_local) == ("127.0.0.1", 8000, True)
    assert not ServiceClient("https://captions.example").is_local


@contextmanager
def other_program(says: bytes):
    """Serve something that is no lcm on a free port; returns its address."""

    def greet() -> None:
        with suppress(OSError):  # of the end
            while connection := other.accept()[0]:
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(says)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):  # unread bytes would reset the connection
                        pass

    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=greet, daemon=True).start()
        yield f"http://127.0.0.1:{other.getsockname()[1]}"


NO_REPLIES = [
    b"[1]",
    b'{"status": "success"}',
    b'{"id": "7", "captions": []}',
    b'{"id": null, "captions": ["a"], "english_captions": null, "tags": []}',
]


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"SSH-2.0-other\r\n", "No answer from the service at"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n<h1>Bad Gateway</h1>", "the service refused with 502"),
        (b"HTTP/1.0 200 OK\r\n\r\n<h1>Welcome</h1>", "is it lcm"),
        *((b"HTTP/1.0 200 OK\r\n\r\n" + body, "is it lcm") for body in NO_REPLIES),
    ],
)
def test_another_program_is_no_service(says, words):
    with other_program(says) as address:
        client = ServiceClient(address)
        assert client.health() == {}
        with pytest.raises(ServiceError, match=words):
            client.contribute(picture(), "a dog")
        with pytest.raises(ServiceError, match=words):
            client.describe(picture())


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000", "ftp://here", "http://", "file:///etc/passwd", "http://here:80000", "http://[::1"]
)
def test_a_bad_address_is_refused(address, monkeypatch, capsys):
    with pytest.raises(ConfigError, match=r"LCM_SERVICE is .* such as http://127.0.0.1:8000"):
        ServiceClient(address)
    monkeypatch.setenv("LCM_SERVICE", address)
    assert main([]) == 2
    assert "LCM_SERVICE is" in capsys.readouterr().err
