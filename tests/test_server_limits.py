"""The server under load and under attack: what it takes, what it refuses, and that it goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from fastapi.testclient import TestClient
from served import asked, data_url, picture, serving, shown, slow_down, small_model
from typer.testing import CliRunner

from weft.cli import app
from weft.drawing import Chooser, Sampling
from weft.engine import Engine, Limits
from weft.errors import WeftError
from weft.fairness import FairQueue
from weft.knowledge import KnowledgeBase
from weft.server import Settings, create_app
from weft.server import pictures as fetching
from weft.server.kept import Kept
from weft.server.settings import read_keys
from weft.working import AHEAD, Worker

LONG = {"max_tokens": 900}
"""A reply that takes seconds."""


@pytest.fixture(scope="module")
def model():
    model = small_model()
    model.generation_config.eos_token_id = []  # replies go on until they are cut off
    return model


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    monkeypatch.setattr(Worker, "_step", Worker._step)  # to have it back afterwards
    slow_down()


def status(client, **request) -> tuple[int, str | None]:
    response = client.post("/v1/chat/completions", json=request)
    return response.status_code, response.json().get("error", {}).get("code")


def sent(url: str, request: dict) -> socket.socket:
    """The connection over which a request has been sent, to be closed before its reply has come."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(request).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", "content-type: application/json"]
    connection = socket.create_connection((host, int(port)))
    connection.sendall("\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body)
    return connection


def until(condition, seconds: float = 10.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


# Limits


@pytest.mark.parametrize(
    ("settings", "request_", "expected"),
    [
        ({"messages": 2}, {"messages": [{"role": "user", "content": "Hi"}] * 3}, (400, "too_much")),
        ({"pictures": 1}, asked("What?", shown(0), shown(1)), (400, "too_much")),
        ({"document_characters": 10}, asked("What?", {"type": "document", "text": "a" * 11}), (400, "too_much")),
        ({"pixels": 500}, asked("What?", shown(0)), (400, "invalid_image")),
        ({"reply_tokens": 5}, asked("What?", max_tokens=6), (400, "too_much")),
        ({"body_bytes": 500}, asked("What?", shown(0)), (413, "request_too_large")),
        ({"timeout": 0.3}, asked("What?", **LONG), (504, "timeout")),
    ],
)
def test_what_is_too_much_is_refused(model, settings, request_, expected):
    app = create_app(model, Settings(**settings))
    with TestClient(app) as client:
        assert status(client, **{"model": "weft", **request_}) == expected
        assert status(client, **asked("Hi", max_tokens=2)) == (200, None)
        until(lambda: app.state.service.engine.load == {"running": 0, "waiting": 0, "memory_bytes": 0})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repeat_penalty", 1.3),
        ("mirostat", 2),
        ("reasoning_effort", "high"),
        ("tool_choice", "required"),
        ("best_of", 2),
        ("top_k", -2),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("logit_bias", {"x": 1.0}),
    ],
)
def test_what_is_not_understood_is_refused_by_name(model, field, value):
    with TestClient(create_app(model)) as client:
        response = client.post("/v1/chat/completions", json=asked("Hi", **{field: value}))
        assert response.status_code == 400 and field in response.json()["error"]["message"]


def test_what_asks_for_nothing_is_passed_over(model):
    idle = {"metadata": {"a": "b"}, "store": True, "tool_choice": "auto", "parallel_tool_calls": True, "audio": None}
    with TestClient(create_app(model)) as client:
        expected = client.post("/v1/chat/completions", json=asked("Hi")).json()["choices"]
        idle |= {"top_k": -1, "repetition_penalty": 1.0, "frequency_penalty": 0.0, "logit_bias": {}, "tools": []}
        assert client.post("/v1/chat/completions", json=asked("Hi", **idle)).json()["choices"] == expected


def test_penalties_and_biases_are_honoured(model):
    with TestClient(create_app(model)) as client:

        def tokens(**options):
            request = asked("Hi", logprobs=True, **options)
            response = client.post("/v1/chat/completions", json=request)
            assert response.status_code == 200, response.text
            return [bytes(one["bytes"]) for one in response.json()["choices"][0]["logprobs"]["content"]]

        plain = tokens()
        assert len(set(plain)) < len(plain)  # the small model repeats itself
        assert len(set(tokens(frequency_penalty=2.0, presence_penalty=2.0))) > len(set(plain))
        assert tokens(logit_bias={"65": 100.0}) == [b"A"] * 12
        assert status(client, **asked("Hi", logit_bias={"999999": 1.0})) == (400, "invalid_request")


def test_body_without_a_length_is_cut_off(model):
    with TestClient(create_app(model, Settings(body_bytes=1000))) as client:
        endless = (b" " * 100 for _ in range(100))
        response = client.post("/v1/chat/completions", content=endless, headers={"content-type": "application/json"})
        assert response.status_code == 413 and response.json()["error"]["code"] == "request_too_large"


def test_picture_that_claims_to_be_huge_is_not_decoded(model):
    """A picture of 30,000 by 30,000 pixels in a few hundred bytes."""
    head = bytearray(picture(0))
    head[16:24] = (30_000).to_bytes(4, "big") * 2
    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    with TestClient(create_app(model, Settings())) as client:
        part = {"type": "image_url", "image_url": {"url": data_url(bytes(head))}}
        response = client.post("/v1/chat/completions", json=asked("What?", part))
        assert response.status_code == 400 and "pixels" in response.json()["error"]["message"]


def test_time_limit_ends_a_stream_with_an_error(model):
    with TestClient(create_app(model, Settings(timeout=0.5))) as client:
        with client.stream("POST", "/v1/chat/completions", json=asked("What?", stream=True, **LONG)) as response:
            lines = [line for line in response.iter_lines() if line]
        assert response.status_code == 200 and len(lines) > 2
        assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "timeout"


def test_full_queue_says_when_to_come_again(model):
    app = create_app(model, Settings(rows=1, waiting=1))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        engine = app.state.service.engine
        threads = [
            threading.Thread(target=status, args=(client,), kwargs=asked("Hi", max_tokens=300)) for _ in range(2)
        ]
        threads[0].start()
        until(lambda: engine.load["running"] == 1)
        threads[1].start()
        until(lambda: engine.load["waiting"] == 1)
        response = client.post("/v1/chat/completions", json=asked("Hi"))
        assert response.status_code == 429 and int(response.headers["retry-after"]) > 0
        assert response.json()["error"]["code"] == "queue_full"
        assert client.get("/ready").status_code == 503 and client.get("/health").status_code == 200
        for thread in threads:
            thread.join()
        assert status(client, **asked("Hi")) == (200, None)


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_goes_away_is_not_worked_for(model, stream):
    app = create_app(model, Settings())
    with serving(app) as url:
        with sent(url, asked("Hi", stream=stream, **LONG)):
            until(lambda: app.state.service.engine.load["running"] == 1)
        until(lambda: app.state.service.engine.load["running"] == 0, 2)


def test_clients_take_turns():
    queue = FairQueue[str]()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.push(item[0], item)
    assert len(queue) == 6
    assert [queue.pop() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    with pytest.raises(KeyError):
        queue.pop()


def test_engine_serves_whoever_asks_little_between_whoever_asks_much(model):
    async def run() -> list[str]:
        ended = []
        with Engine(model, Limits(rows=1)) as engine:

            async def ask(client: str) -> None:
                async for _ in engine.ask([{"role": "user", "content": "Hi"}], Sampling(max_tokens=10), client=client):
                    pass
                ended.append(client)

            many = [asyncio.create_task(ask("many")) for _ in range(30)]
            await asyncio.sleep(0)
            few = asyncio.create_task(ask("few"))
            await asyncio.gather(few, *many)
        return ended

    # What has been read already goes first.
    assert asyncio.run(run()).index("few") <= AHEAD + 2


def test_contents_and_answers_make_room(model):
    kept: Kept[bytes] = Kept(10, len)
    for name, size in (("a", 4), ("b", 4), ("a", 5), ("c", 3)):
        kept.put(name, b"x" * size)
    assert kept.get("b") is None and kept.get("a") == b"xxxxx" and kept.bytes == 8 and kept.dropped == 1
    kept.put("large", b"x" * 11)
    assert len(kept) == 0 and kept.bytes == 0
    with TestClient(create_app(model, Settings(content_bytes=2 * 2100, answer_bytes=3 * 3000))) as client:
        ids = [client.post("/v1/memories", json={"text": f"Text number {n}."}).json()["id"] for n in range(3)]
        request = asked("What?", {"type": "memory", "id": ids[0]})
        assert status(client, **request) == (404, "memory_not_found")
        assert status(client, **asked("What?", {"type": "memory", "id": ids[2]})) == (200, None)
        found = [client.post("/v1/chat/completions", json=asked("Hi", max_tokens=2)).json()["id"] for _ in range(9)]
        assert client.get(f"/v1/explanations/{found[0]}").status_code == 404
        assert client.get(f"/v1/explanations/{found[-1]}").status_code == 200


# What an attacker would try


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"weft","messages":[' + b"1," * 900_000 + b"1]}",
        b'{"model":"weft","messages":[{"role":"user","content":[' + b"1," * 900_000 + b"1]}]}",
        b'{"model":"weft","messages":[' + b'{"role":"user","content":""},' * 50_000 + b"1]}",
    ],
)
def test_many_errors_in_one_request_take_no_longer_than_one(model, body):
    with TestClient(create_app(model, Settings())) as client:
        started = time.monotonic()
        response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400 and time.monotonic() - started < 3


def test_nothing_of_a_request_without_a_key_is_read(model):
    with TestClient(create_app(model, Settings(keys=("a",)))) as client:
        response = client.post("/v1/chat/completions", content=b"{" * 10, headers={"content-type": "application/json"})
        assert response.status_code == 401
        assert client.post("/v1/nothing").status_code == 401


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-6, 1e-3])
def test_temperature_near_zero_harms_nobody(model, temperature):
    with TestClient(create_app(model, Settings())) as client:
        assert status(client, **asked("Hi", temperature=temperature, max_tokens=40)) == (200, None)


def test_reply_whose_words_can_not_be_chosen_fails_alone(model):
    async def run() -> list[object]:
        with Engine(model) as engine:
            worker, choose = engine._worker, Chooser.choose
            broken = Sampling(max_tokens=30, seed=13, temperature=1.0)

            def sometimes(self, prompt, said, logits, likeliest):
                if self.sampling is broken and len(said) == 3:
                    raise ValueError("broken")
                return choose(self, prompt, said, logits, likeliest)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Chooser, "choose", sometimes)

                async def ask(sampling: Sampling) -> object:
                    reply = engine.ask([{"role": "user", "content": "Hi"}], sampling)
                    try:
                        return len([said async for piece in reply for said in piece.said])
                    except ValueError as error:
                        return str(error)

                ended = await asyncio.gather(ask(Sampling(max_tokens=30)), ask(broken), ask(Sampling(max_tokens=30)))
                until(lambda: engine.load["running"] == 0)
                assert worker.alive
        return ended

    assert asyncio.run(run()) == [30, "broken", 30]


@pytest.mark.parametrize("stream", [False, True])
def test_places_of_those_who_have_gone_are_free(model, stream):
    app = create_app(model, Settings(rows=1, waiting=12))
    with serving(app) as url:
        engine = app.state.service.engine
        first = threading.Thread(target=lambda: httpx.post(f"{url}/v1/chat/completions", json=asked("Hi", **LONG)))
        first.start()
        until(lambda: engine.load["running"] == 1)
        gone = [sent(url, asked("Hi", stream=stream, **LONG)) for _ in range(12)]
        until(lambda: engine.load["waiting"] >= 11)
        for connection in gone:
            connection.close()
        until(lambda: engine.load["waiting"] <= AHEAD, 3)
        first.join()
        until(lambda: engine.load == {"running": 0, "waiting": 0, "memory_bytes": 0})


def test_what_is_still_to_be_done_ends_when_the_engine_does(model):
    engine = Engine(model)
    held, ended = threading.Event(), []
    engine.run(lambda _: held.wait(10))
    futures = [engine.run(lambda _: None) for _ in range(3)]
    futures[0].cancel()
    closing = threading.Thread(target=lambda: (engine.close(), ended.append(True)))
    closing.start()
    until(lambda: engine._worker._closed)
    held.set()
    closing.join(10)
    assert ended and not engine.alive
    for future in futures[1:]:
        with pytest.raises(WeftError, match="closed"):
            future.result(5)


def test_engine_that_has_failed_is_told_of(model, monkeypatch, caplog):
    app = create_app(model, Settings())
    with TestClient(app) as client:
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        worker = app.state.service.engine._worker
        monkeypatch.setattr(worker, "_keep", lambda kept: 1 / 0)
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        assert status(client, **asked("Hi"))[0] == 503
        assert client.get("/health").status_code == client.get("/ready").status_code == 503
        assert status(client, **asked("Hi"))[0] == 503 and "the engine has failed" in caplog.text


def test_damaged_pictures_of_every_kind_are_refused(model):
    """One byte after the other of the head of a TIFF, which Pillow stumbles over in many ways."""
    whole = picture(0, format="TIFF")
    chance = random.Random(0)
    with TestClient(create_app(model, Settings())) as client:
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(3):
                damaged[-chance.randrange(1, 200)] = chance.randrange(256)
            part = {"type": "image_url", "image_url": {"url": data_url(bytes(damaged))}}
            response = client.post("/v1/memories", json={"image_url": part["image_url"]})
            assert response.status_code in (200, 400)


# Who may come in


def test_keys_open_and_things_belong_to_them(model):
    app = create_app(model, Settings(keys=("first", "sécond")))
    with TestClient(app) as client:
        for header in (None, "Bearer guess", "Bearer ", "Basic first", "first", "Bearer first sécond".encode()):
            headers = {} if header is None else {"authorization": header}
            for path in ("/v1/models", "/v1/knowledge", "/metrics", "/v1/explanations/x"):
                response = client.get(path, headers=headers)
                assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
            assert client.post("/v1/chat/completions", json=asked("Hi"), headers=headers).status_code == 401
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        assert client.get("/").status_code == 200
        first, second = ({"authorization": f"Bearer {key}".encode()} for key in ("first", "sécond"))
        made = client.post("/v1/memories", json={"text": "A secret."}, headers=first).json()["id"]
        request = asked("What?", {"type": "memory", "id": made})
        assert client.post("/v1/chat/completions", json=request, headers=second).status_code == 404
        found = client.post("/v1/chat/completions", json=request, headers=first).json()["id"]
        assert client.get(f"/v1/explanations/{found}", headers=first).status_code == 200
        assert client.get(f"/v1/explanations/{found}", headers=second).status_code == 404
        assert client.post("/v1/memories", json={"text": "A secret."}, headers=second).json()["id"] != made


def test_keys_come_from_options_a_file_and_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "keys.txt"
    file.write_text("one\n# three\n\n  two \n", encoding="utf-8")
    monkeypatch.setenv("WEFT_API_KEYS", "three, one")
    assert read_keys(["four"], file) == ("four", "three", "one", "two")
    monkeypatch.delenv("WEFT_API_KEYS")
    assert read_keys([], None) == ()
    file.write_text("\n", encoding="utf-8")
    for wrong in (file, tmp_path / "missing.txt", tmp_path):
        with pytest.raises(WeftError, match=wrong.name):
            read_keys([], wrong)


def test_pages_of_others_are_kept_out(model):
    with TestClient(create_app(model, Settings())) as client:
        asking = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        response = client.options("/v1/chat/completions", headers=asking)
        assert response.status_code == 405 and "access-control-allow-origin" not in response.headers
        # A form or a script of another page can send text without asking first, but no JSON.
        plain = client.post(
            "/v1/chat/completions", content=json.dumps(asked("Hi")), headers={"content-type": "text/plain"}
        )
        assert plain.status_code == 400
        policy = client.get("/").headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    with TestClient(create_app(model, Settings(origins=("https://good.example",)))) as client:
        response = client.options("/v1/models", headers={**asking, "origin": "https://good.example"})
        assert response.headers["access-control-allow-origin"] == "https://good.example"
        stainless = {**asking, "origin": "https://good.example", "access-control-request-headers": "x-stainless-os"}
        assert client.options("/v1/models", headers=stainless).status_code == 200
        assert client.options("/v1/models", headers=asking).status_code == 400


def test_log_holds_no_contents(model, caplog, monkeypatch):
    app = create_app(model, Settings(keys=("opensesame",)))
    with caplog.at_level(logging.DEBUG), TestClient(app, raise_server_exceptions=False) as client:
        client.headers["authorization"] = "Bearer opensesame"
        client.post("/v1/chat/completions", json=asked("swordfish", {"type": "document", "text": "swordfish"}))
        client.post("/v1/chat/completions", json={"model": "swordfish", "messages": "swordfish"})
        monkeypatch.setattr(app.state.service.conversations, "of", None)  # a fault of the server's own
        assert status(client, **asked("swordfish")) == (500, "internal_error")
    assert "a request failed" in caplog.text
    assert "swordfish" not in caplog.text and "opensesame" not in caplog.text


# Pictures from elsewhere


class Web(BaseHTTPRequestHandler):
    """Pictures, and what may come in their place."""

    def do_GET(self):
        if self.path.startswith("/to"):
            self.send_response(302)
            self.send_header("location", self.path.removeprefix("/to="))
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        if self.path == "/large":
            self.wfile.write(b"x" * 50_000)
        elif self.path == "/slow":
            time.sleep(1.5)
        else:
            self.wfile.write(picture(0))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web():
    server = HTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()


def fetch(web: str, path: str, hosts: tuple[str, ...] = ("localhost",)) -> bytes:
    return asyncio.run(fetching.Pictures(hosts, 20_000, 10_000).get(f"{web}{path}"))


def test_picture_of_an_allowed_host_is_fetched(web, monkeypatch):
    monkeypatch.setattr(fetching, "is_public", lambda address: True)
    assert fetch(web, "/cat.png") == picture(0)
    assert fetch(web, f"/to={web}/cat.png") == fetch(web, "/to=/cat.png") == picture(0)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/large", "bytes"),
        ("/slow", "seconds"),
        ("/missing", "404"),
        ("/to=/to=/to=/to=/to=/cat.png", "sends on"),
        ("/to=http://other.example/cat.png", "not fetched from 'other.example'"),
        ("/to=file:///etc/passwd", "http"),
        ("/to=", "sends on"),
    ],
)
def test_what_an_allowed_host_sends_is_limited(web, path, reason, monkeypatch):
    monkeypatch.setattr(fetching, "is_public", lambda address: True)
    monkeypatch.setattr(fetching, "SECONDS", 1.0)
    with pytest.raises(WeftError, match=reason):
        fetch(web, path)


def test_no_private_address_is_reached_whatever_its_name(web):
    with pytest.raises(WeftError, match="public"):
        fetch(web, "/cat.png")
    port = web.rpartition(":")[2]
    with pytest.raises(WeftError, match="public"):
        fetch(f"http://127.0.0.1:{port}", "/cat.png", ("127.0.0.1",))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_which_addresses_are_public(address, public):
    assert fetching.is_public(address) is public


# Coming and going

SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
from click.testing import Result
from served import slow_down, small_model
from weft.server import Settings, create_app
from weft.server.running import serve
slow_down()
model = small_model()
model.generation_config.eos_token_id = []
serve(lambda: create_app(model, Settings(names=("127.0.0.1", "::1"))), "127.0.0.1", 0)
"""


@contextmanager
def started():
    """A server in a process of its own, and its address."""
    command = [sys.executable, "-c", SERVE, str(Path(__file__).parent)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("Weft serves on "))
        yield process, line.split()[-1]
        process.kill()


@pytest.fixture
def process():
    with started() as server:
        yield server


def test_server_that_is_told_to_stop_finishes_and_takes_nothing_new(process):
    running, url = process
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked("Hi", stream=True, **LONG), timeout=30) as reply:
        lines = reply.iter_lines()
        next(lines)
        running.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/health")
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert running.wait(20) == 0 or running.returncode == -signal.SIGTERM


def test_server_that_is_killed_under_load_starts_again_and_says_the_same():

    def ask(url: str, longest: int = 300) -> str:
        request = asked("Hi", max_tokens=longest)
        reply = httpx.post(f"{url}/v1/chat/completions", json=request, timeout=60).json()
        return reply["choices"][0]["message"]["content"]

    with started() as (running, url):
        expected, failed = ask(url), []

        def load() -> None:
            try:
                ask(url, 900)
            except httpx.TransportError as error:
                failed.append(error)

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: "weft_replies_running 8.0" in httpx.get(f"{url}/metrics").text)
        running.kill()
        for thread in threads:
            thread.join()
        assert len(failed) == 8
    with started() as (_, url):
        assert ask(url) == expected


def test_names_that_lead_here_are_not_let_in(model):
    """A page whose host was made to point at this machine can't call a server without keys."""
    with TestClient(create_app(model, Settings(names=("127.0.0.1", "::1")))) as client:
        for host, status in {"127.0.0.1": 200, "127.0.0.1:80": 200, "[::1]": 200, "[::1]:80": 200}.items():
            assert client.get("/health", headers={"host": host}).status_code == status
        for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:80", "", "[::2]", "[evil]127.0.0.1"):
            refused = client.get("/health", headers={"host": host})
            assert refused.status_code == 400 and refused.json()["error"]["code"] == "wrong_host"


INDEX = """
import sys
from weft.knowledge import KnowledgeBase
print("go", flush=True)
KnowledgeBase(sys.argv[1]).update()
"""


def test_index_can_be_read_after_its_update_was_killed(model, tmp_path):
    base = tmp_path / "tales"
    base.mkdir()
    (base / "fox.txt").write_text("The fox sat in the snow.", encoding="utf-8")
    KnowledgeBase(base).update()
    for number in range(3000):
        (base / f"{number}.txt").write_text(f"Tale number {number}. " * 20, encoding="utf-8")
    for wait in (0.3, 1.0):
        with subprocess.Popen([sys.executable, "-c", INDEX, str(base)], stdout=subprocess.PIPE) as update:
            assert update.stdout is not None
            update.stdout.readline()
            time.sleep(wait)
            update.kill()
        with TestClient(create_app(model, Settings(knowledge=tmp_path))) as client:
            found = client.post("/v1/chat/completions", json=asked("Where is the fox?", knowledge="tales", passages=1))
            assert found.json()["choices"][0]["message"]["citations"][0]["name"] == "fox.txt"


# The command


def command(*words: str) -> Result:
    return CliRunner().invoke(app, ["serve", *words])


def test_command_that_can_not_serve_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("weft.load", lambda _: pytest.fail("the model is loaded though it can't be served"))
    (tmp_path / "keys.txt").write_text("", encoding="utf-8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, reason in (
            (["--port", port], port),
            (["--host", "no-such-address.invalid"], "no-such-address.invalid"),
            (["--port", "0", "--knowledge", str(tmp_path)], "weft index"),
            (["--port", "0", "--knowledge", str(tmp_path / "missing")], "missing"),
            (["--api-key-file", str(tmp_path / "keys.txt")], "keys.txt"),
        ):
            failed = command(*words).exception
            assert isinstance(failed, WeftError) and reason in str(failed)
    assert command("--port", "99999").exit_code == 2


def test_model_that_is_not_there_is_named(tmp_path):
    failed = command("--port", "0", "--model", str(tmp_path / "none"))
    assert isinstance(failed.exception, WeftError) and "none" in str(failed.exception)


def test_open_address_without_keys_is_warned_of(tmp_path):
    """The folder of knowledge bases is missing, so that nothing is really opened."""
    for words, warned in (([], True), (["--api-key", "a"], False)):
        told = command("--host", "0.0.0.0", "--port", "0", "--knowledge", str(tmp_path / "missing"), *words)
        assert ("is open to everyone" in told.output) is warned
