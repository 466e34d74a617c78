"""The application on Ray Serve with two replicas of a small model, over real sockets: ``pytest examples/ray``."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "tests"))
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import httpx
import pytest
import ray
from app import Ingress, Replica
from ray import serve
from served import asked, data_url, picture, shown, small_model

from weft.model import WeftModel
from weft.server import Settings

KEY, OTHER_KEY = "sesame", "open"
LONG = 900
"""Tokens of a reply that takes a while."""


def talkative_model() -> WeftModel:
    """A small model whose replies are as long as they may be."""
    model = small_model()
    model.generation_config.eos_token_id = []
    return model


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found_by_workers = {"PYTHONPATH": os.pathsep.join(sys.path)}
    ray.init(num_cpus=4, include_dashboard=False, runtime_env={"env_vars": found_by_workers})
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    settings = Settings(keys=(KEY, OTHER_KEY))
    two = Replica.options(autoscaling_config={"min_replicas": 2, "max_replicas": 2}, ray_actor_options={"num_cpus": 1})
    serve.run(Ingress.bind(two.bind(talkative_model, settings), settings))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=bearing(KEY), timeout=60) as client:
        yield client
    serve.shutdown()
    ray.shutdown()


def bearing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def replica(response: httpx.Response) -> str:
    """The replica that answered."""
    return response.headers["x-weft-replica"]


def complete(client: httpx.Client, *parts: dict[str, Any], **more: Any) -> httpx.Response:
    response = client.post("/v1/chat/completions", json=asked("What is it?", *parts, **more))
    assert response.status_code == 200, response.text
    return response


def metric(client: httpx.Client, name: str) -> dict[str, float]:
    """A metric of each of the two replicas; every request for metrics leads to either of them."""
    values: dict[str, float] = {}
    end = time.monotonic() + 60
    while len(values) < 2:
        assert time.monotonic() < end, "one of the replicas never answers"
        response = client.get("/metrics")
        found = re.search(rf"^{re.escape(name)} (\S+)$", response.text, re.MULTILINE)
        assert found, f"no {name} in {response.text}"
        values[replica(response)] = float(found[1])
    return values


def test_same_picture_returns_to_the_replica_that_has_read_it(client):
    before = metric(client, "weft_memory_cache_misses_total")
    replicas = {replica(complete(client, shown(1))) for _ in range(8)}
    after = metric(client, "weft_memory_cache_misses_total")
    assert len(replicas) == 1
    assert sum(after.values()) - sum(before.values()) == 1


def test_pictures_spread_over_both_replicas(client):
    replicas = [replica(complete(client, shown(seed), max_tokens=2)) for seed in range(100, 132)]
    assert min(replicas.count(name) for name in set(replicas)) >= 4
    assert len(set(replicas)) == 2


def test_conversations_that_show_nothing_spread_over_both_replicas(client):
    assert len({replica(complete(client, max_tokens=2)) for _ in range(32)}) == 2


@pytest.mark.parametrize("seed", range(6))
def test_memory_of_a_picture_is_found(client, seed):
    read = client.post("/v1/memories", json={"image_url": {"url": data_url(picture(seed))}})
    named = complete(client, {"type": "memory", "id": read.json()["id"]})
    assert replica(named) == replica(read) == replica(complete(client, shown(seed)))


@pytest.mark.parametrize("seed", range(6))
def test_memory_of_a_text_is_found(client, seed):
    text = {"text": f"Mr. {seed} keeps a dog.", "name": "dogs"}
    read = client.post("/v1/memories", json=text)
    named = complete(client, {"type": "memory", "id": read.json()["id"]})
    assert replica(named) == replica(read) == replica(complete(client, {"type": "document", **text}))


def test_memory_opens_to_its_owner_alone(client):
    read = client.post("/v1/memories", json={"image_url": {"url": data_url(picture(1))}})
    named = asked("What is it?", {"type": "memory", "id": read.json()["id"]})
    assert client.post("/v1/chat/completions", json=named, headers=bearing(OTHER_KEY)).status_code == 404


@pytest.mark.parametrize("seed", range(4))
def test_explanation_is_found_on_the_replica_that_replied(client, seed):
    reply = complete(client, shown(seed))
    explained = client.get(f"/v1/explanations/{reply.json()['id']}")
    assert replica(explained) == replica(reply)
    assert len(explained.json()["pictures"]) == 1
    drawn = client.get(f"/v1/explanations/{reply.json()['id']}", params={"format": "png", "word": 0})
    assert drawn.content.startswith(b"\x89PNG")


def test_explanation_of_no_reply_is_not_found(client):
    response = client.get("/v1/explanations/chatcmpl-none")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "explanation_not_found")


def test_stream_comes_as_it_is_made(client):
    request = asked("What is it?", shown(2), max_tokens=LONG, stream=True)
    begun = time.monotonic()
    with client.stream("POST", "/v1/chat/completions", json=request) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [(line, time.monotonic() - begun) for line in response.iter_lines() if line]
    (_, first), (line, last) = events[0], events[-1]
    assert line == "data: [DONE]"
    assert first < last / 4  # had it been kept until its end, the first would come hardly before the last


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_goes_away_is_not_worked_for(client, stream):
    before = metric(client, 'weft_tokens_total{kind="completion"}')
    request = asked("What is it?", shown(3), max_tokens=LONG, n=8, stream=stream)
    if stream:
        with client.stream("POST", "/v1/chat/completions", json=request) as response:
            next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=request, timeout=0.5)
    end = time.monotonic() + 10
    while sum(metric(client, "weft_replies_running").values()):
        assert time.monotonic() < end, "it is still worked for"
    said = sum(metric(client, 'weft_tokens_total{kind="completion"}').values()) - sum(before.values())
    assert said < 8 * LONG


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, "invalid_json"),
        ("POST", "/v1/chat/completions", b'{"model": "weft", "messages": []}', 400, "invalid_value"),
        ("POST", "/v1/chat/completions", b" " * (20 * 2**20 + 1), 413, "request_too_large"),
        ("GET", "/v1/models/none", b"", 404, "model_not_found"),
        ("GET", "/v1/chat/completions", b"", 405, None),
        ("GET", "/nothing", b"", 404, None),
    ],
)
def test_errors_keep_status_and_form(client, method, path, body, status, code):
    response = client.request(method, path, content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_pictures_that_are_none_are_refused(client):
    request = asked("What is it?", {"type": "image_url", "image_url": {"url": data_url(b"no picture")}})
    response = client.post("/v1/chat/completions", json=request)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_image")


def test_key_is_asked_for(client):
    response = client.post("/v1/chat/completions", json=asked("Hello"), headers=bearing("wrong"))
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")


def test_page_is_served(client):
    assert client.get("/").headers["content-type"].startswith("text/html")


def test_service_recovers_when_a_replica_dies(client):
    memory = client.post("/v1/memories", json={"image_url": {"url": data_url(picture(4))}})
    lost = replica(memory)
    with ThreadPoolExecutor() as pool:
        long = asked("What is it?", shown(4), max_tokens=LONG, n=8)
        broken = pool.submit(client.post, "/v1/chat/completions", json=long)
        while not metric(client, "weft_replies_running")[lost]:
            pass
        (actor,) = (one for one in ray.util.list_named_actors(all_namespaces=True) if one["name"].endswith(lost))
        ray.kill(ray.get_actor(**actor))
        assert (broken.result().status_code, broken.result().json()["error"]["code"]) == (503, "replica_gone")
    assert replica(complete(client, shown(4))) != lost
    assert lost not in metric(client, "weft_replies_running")  # which asks until two have answered
    named = asked("What is it?", {"type": "memory", "id": memory.json()["id"]})
    forgotten = client.post("/v1/chat/completions", json=named)
    assert (forgotten.status_code, forgotten.json()["error"]["code"]) == (404, "memory_not_found")
