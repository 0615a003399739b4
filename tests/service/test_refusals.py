"""Every refusal of rows C to F of the acceptance list, in its exact words, with section A's invariants checked."""

import json
from pathlib import Path

import pytest

from tests.fakes.service_client import MemoryStore
from tests.frozen.refusal_cases import TOKEN, requests

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "frozen" / "refusals.json").read_text(encoding="utf-8"))


def test_rows_c_to_f_are_refused_as_frozen(service, monkeypatch):
    """Nothing is fetched and no process is started meanwhile (I9, E21)."""
    store, number = MemoryStore(), {}
    callers = {"C24": service(store=store, token=TOKEN)}
    usual = service(store=store)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was asked for"))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process was asked for"))
    for row, method, path, data, headers in requests():
        number[row, path] = number.get((row, path), 0) + 1
        name = f"{row}.{number[row, path]} {path}"
        caller = callers.get(row, usual)
        reply = caller.send(method, path, data=data, headers=headers, follow_up=number[row, path] == 1)
        assert [reply.status_code, reply.text] == GOLDEN[name], name
    assert len(GOLDEN) == sum(number.values())
    assert store.rows == []
