"""The API: what OpenAI documents, and Weft's own, held against the model itself."""

from __future__ import annotations

import io
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from served import asked, data_url, picture, serving, shown, small_model

from weft.errors import WeftError
from weft.explain import needed, words_of
from weft.images import load_image
from weft.instructions import NOT_SAID
from weft.knowledge import KnowledgeBase
from weft.pieces import bytes_of
from weft.responding import prompt_of
from weft.server import Settings, create_app

STORY = "The fox sat in the snow. It saw a bird.\n\nThe bird flew away. The fox went home."
DOCUMENT = {"type": "document", "text": STORY, "name": "fox.txt"}


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Two knowledge bases, and a folder that has not been indexed."""
    folder = tmp_path_factory.mktemp("bases")
    texts = {
        "tales": {"fox.txt": STORY, "tea.txt": "Tea is drunk hot. It grows on hills."},
        "<b>ödd": {"a.txt": "x."},
    }
    for name, files in texts.items():
        (folder / name).mkdir()
        for file, text in files.items():
            (folder / name / file).write_text(text, encoding="utf-8")
        KnowledgeBase(folder / name).update()
    (folder / "plain").mkdir()
    return folder


@pytest.fixture(scope="module")
def client(model, bases):
    with TestClient(create_app(model, Settings(knowledge=bases)), raise_server_exceptions=False) as client:
        yield client


def complete(client, **request):
    response = client.post("/v1/chat/completions", json=request)
    assert response.status_code == 200, response.text
    return response.json()


def events(client, request):
    """The chunks of a stream."""
    with client.stream("POST", "/v1/chat/completions", json={**request, "stream": True}) as response:
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def chatted(model, *parts, longest: int = 12) -> str:
    """What the model itself replies."""
    message = {"role": "user", "content": [*parts]}
    return model.chat([message], beams=1, max_new_tokens=longest)["content"]


def said(*parts):
    """Messages of one that holds these parts."""
    return {"messages": [{"role": "user", "content": list(parts)}]}


# As OpenAI documents it


def test_reply_is_the_model_s_own(client, model):
    found = complete(client, **asked("What is it?", shown(0)))
    expected = chatted(model, {"type": "image", "image": picture(0)}, {"type": "text", "text": "What is it?"})
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected}
    assert found["object"] == "chat.completion" and found["id"].startswith("chatcmpl-") and found["model"] == "weft"
    assert choice["finish_reason"] in ("stop", "length")
    usage = found["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    messages = [
        {"role": "user", "content": [{"type": "image", "image": picture(0)}, {"type": "text", "text": "What is it?"}]}
    ]
    assert usage["prompt_tokens"] == len(prompt_of(model, messages).tokens)


def test_stream_is_the_whole_reply_in_pieces(client):
    request = asked("What is it?", shown(0), n=2, stream_options={"include_usage": True})
    whole = complete(client, **request)
    chunks = events(client, request)
    assert len({chunk["id"] for chunk in chunks}) == 1 and chunks[-1]["usage"] == whole["usage"]
    for index in range(2):
        own = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant" and "role" not in own[-1]["delta"]
        assert "".join(choice["delta"]["content"] for choice in own) == whole["choices"][index]["message"]["content"]
        assert [choice["finish_reason"] for choice in own][-1] == whole["choices"][index]["finish_reason"]
        assert not any(choice["finish_reason"] for choice in own[:-1])
    assert "usage" not in events(client, asked("Hello"))[-1]


def test_seed_makes_drawing_repeatable_and_each_choice_draws_for_itself(client):
    request = asked("Hello", temperature=1.5, seed=5, n=3)
    first, again = (complete(client, **request)["choices"] for _ in range(2))
    texts = [choice["message"]["content"] for choice in first]
    assert texts == [choice["message"]["content"] for choice in again] and len(set(texts)) > 1


def test_reply_ends_at_its_length_and_in_front_of_a_stop(client):
    whole = complete(client, **asked("Hello", max_tokens=20))["choices"][0]["message"]["content"]
    short = complete(client, **asked("Hello", max_tokens=None, max_completion_tokens=3))
    assert short["choices"][0]["finish_reason"] == "length" and short["usage"]["completion_tokens"] == 3
    stopped = complete(client, **asked("Hello", max_tokens=20, stop=["never", whole[4:6]]))["choices"][0]
    assert stopped["message"]["content"] == whole[: whole.index(whole[4:6])] and stopped["finish_reason"] == "stop"


def test_log_probabilities_are_the_model_s(client, model):
    choice = complete(client, **asked("Hello", logprobs=True, top_logprobs=3))["choices"][0]
    told = choice["logprobs"]["content"]
    assert "".join(one["token"] for one in told).strip() == choice["message"]["content"]
    prompt = prompt_of(model, [{"role": "user", "content": "Hello"}]).tokens
    said = [model.processor.tokenizer.convert_tokens_to_ids(one["token"]) for one in told]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)
    for place, one in enumerate(told):
        assert one["logprob"] == pytest.approx(float(expected[place, said[place]]), abs=1e-3)
        best = expected[place].topk(3).values.tolist()
        assert [other["logprob"] for other in one["top_logprobs"]] == pytest.approx(best, abs=1e-3)
        assert bytes(one["bytes"]).decode() == one["token"]


def test_models_are_listed(client):
    (found,) = client.get("/v1/models").json()["data"]
    assert found["id"] == "weft" and client.get("/v1/models/weft").json() == found
    assert client.get("/v1/models/other").status_code == 404


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "gpt-9"}, 404, "model_not_found", "model"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, 400, "invalid_value", None),
        ({"messages": [{"role": "king", "content": "Hi"}]}, 400, "invalid_value", "messages[0].role"),
        (said({"type": "image_url"}), 400, "invalid_value", "messages[0].content[0].image_url"),
        (said({"type": "video", "url": "x"}), 400, "invalid_value", "messages[0].content[0]"),
        ({"temperature": 9}, 400, "invalid_value", "temperature"),
        ({"n": 0}, 400, "invalid_value", "n"),
        ({"max_tokens": 100_000}, 400, "too_much", "max_tokens"),
        ({"messages": [{"role": "user", "content": "x" * 2000}]}, 400, "context_length_exceeded", "messages"),
        ({"stop": ["a"] * 5}, 400, "invalid_value", "stop"),
        ({"top_logprobs": 2}, 400, "invalid_value", None),
        ({"tools": [{"type": "function"}]}, 400, "invalid_value", "tools"),
        ({"response_format": {"type": "json_object"}}, 400, "invalid_value", "response_format.type"),
        ({"knowledge": "nothing"}, 404, "knowledge_not_found", "knowledge"),
        ({"knowledge": "../tales"}, 404, "knowledge_not_found", "knowledge"),
        ({"knowledge": "plain"}, 404, "knowledge_not_found", "knowledge"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_request_is_told_what_is_wrong(client, change, status, code, param, stream):
    response = client.post("/v1/chat/completions", json={**asked("Hello"), "stream": stream, **change})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param), error
    assert error["message"].endswith(".") and error["type"] in ("invalid_request_error", "not_found_error")


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,bm8gcGljdHVyZQ==",
        "data:image/png;base64,%%%",
        "data:image/png",
        data_url(picture(0)[:200]),
        "file:///etc/passwd",
        "/etc/passwd",
        "examples/cat.jpg",
        "http://127.0.0.1/cat.jpg",
        "http://example.org/cat.jpg",
        "http://user@example.org/cat.jpg",
        "http://[::1/cat.jpg",
        "ftp://example.org/cat.jpg",
    ],
)
def test_picture_that_is_none_is_refused(client, url):
    part = {"type": "image_url", "image_url": {"url": url}}
    for path, body in (("chat/completions", asked("What?", part)), ("memories", {"image_url": {"url": url}})):
        response = client.post(f"/v1/{path}", json=body)
        assert response.status_code == 400 and response.json()["error"]["code"].startswith("invalid_image")


def test_null_stands_for_what_is_left_out(client):
    fields = ("temperature", "top_p", "n", "stream", "logprobs", "stop", "seed", "max_tokens", "tools", "user")
    request = {**asked("Hello"), **dict.fromkeys(fields), "stream_options": {"include_usage": None}}
    assert complete(client, **request)["choices"] == complete(client, **asked("Hello", max_tokens=256))["choices"]
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None},
        asked("Hello")["messages"][0],
    ]
    assert complete(client, model="weft", messages=messages, max_tokens=3)


def test_half_a_character_is_refused(client):
    for content in ("\ud800", [{"type": "text", "text": "a\udfff"}]):
        body = json.dumps({"model": "weft", "messages": [{"role": "user", "content": content}]})
        response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'"\\ud800"', b"nan", b'{"model": "\xff"}', b""])
def test_body_that_is_no_json_is_refused(client, body):
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400 and response.json()["error"]["message"]


def test_paths_and_methods_that_are_not_there_have_errors_of_the_same_form(client):
    for method, path, status in (("GET", "/v2", 404), ("DELETE", "/v1/models", 405), ("GET", "/page/../app.py", 404)):
        response = client.request(method, path)
        assert response.status_code == status and response.json()["error"]["message"].startswith(("There", "/v1"))


def test_official_client_gets_what_it_expects(model, bases):
    openai = pytest.importorskip("openai")
    with serving(create_app(model, Settings(knowledge=bases, keys=("secret",)))) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0)
        request = asked("What is it?", shown(0), logprobs=True, top_logprobs=2)
        whole = client.chat.completions.create(**request)
        assert whole.choices[0].message.content and whole.usage.total_tokens > whole.usage.prompt_tokens
        assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
        stream = client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content and chunks[-1].usage == whole.usage
        answered = client.chat.completions.create(**asked("fox snow"), extra_body={"knowledge": "tales"})
        assert answered.choices[0].message.citations[0]["name"].endswith(".txt")
        assert [one.id for one in client.models.list()] == ["weft"]
        with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
            client.chat.completions.create(**{**request, "model": "gpt"})
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(**request, temperature=5)
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="guess", max_retries=0).models.list()


def test_litellm_and_curl_get_what_they_expect(model, bases):
    litellm = pytest.importorskip("litellm")
    with serving(create_app(model, Settings(knowledge=bases))) as url:
        given = {"model": "openai/weft", "api_base": f"{url}/v1", "api_key": "none"}
        messages = asked("What is it?", shown(0))["messages"]
        whole = litellm.completion(**given, messages=messages, max_tokens=12).choices[0].message.content
        chunks = litellm.completion(**given, messages=messages, max_tokens=12, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip() == whole != ""
        command = ["curl", "--silent", "--no-buffer", f"{url}/v1/chat/completions", "--json"]
        said = subprocess.run(
            [*command, json.dumps({"model": "weft", "messages": messages, "max_tokens": 12})], capture_output=True
        )
        assert json.loads(said.stdout)["choices"][0]["message"]["content"] == whole


# Weft's own


def test_memory_is_read_once_and_named_by_its_id(client, model):
    model.memory_cache.clear()
    made = client.post("/v1/memories", json={"image_url": {"url": data_url(picture(7))}}).json()
    assert made["kind"] == "picture" and made["items"] == 1 and made["tokens"] == 9 and made["bytes"] > 0
    misses = model.memory_cache.misses
    by_id = complete(client, **asked("What?", {"type": "memory", "id": made["id"]}))
    assert by_id["choices"] == complete(client, **asked("What?", shown(7)))["choices"]
    assert model.memory_cache.misses == misses
    text = client.post("/v1/memories", json={"text": STORY, "name": "fox.txt"}).json()
    assert text["kind"] == "text" and text["id"] != made["id"]
    found = complete(client, **asked("Who?", {"type": "memory", "id": text["id"]}))["choices"][0]
    assert found["message"] == complete(client, **asked("Who?", DOCUMENT))["choices"][0]["message"]


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": " \n"}, {"text": "a", "image_url": {"url": "data:,x"}}])
def test_memory_of_nothing_is_refused(client, body):
    response = client.post("/v1/memories", json=body)
    assert response.status_code == 400 and response.json()["error"]["message"]


@pytest.mark.parametrize("reading", ["once", "careful", "prompt"])
def test_citations_stand_where_they_say(client, model, reading):
    found = complete(client, **asked("fox snow", DOCUMENT, reading=reading))
    message = {"role": "user", "content": [{"type": "document", "text": STORY}, {"type": "text", "text": "fox snow"}]}
    assert found["usage"]["prompt_tokens"] == len(prompt_of(model, [message], mode=reading).tokens)
    citations = found["choices"][0]["message"]["citations"]
    assert citations and sum(one["weight"] for one in citations) == pytest.approx(1, abs=0.01)
    assert [one["weight"] for one in citations] == sorted((one["weight"] for one in citations), reverse=True)
    for one in citations:
        assert one["name"] == "fox.txt" and STORY[one["start"] : one["end"]] == one["quote"]
    explained = client.get(f"/v1/explanations/{found['id']}").json()
    for passage in explained["documents"]:
        assert STORY[passage["start"] : passage["end"]] == passage["text"]
        assert sum(one["share"] for one in passage["sentences"]) == pytest.approx(passage["share"], abs=0.02)
    opened = client.get(f"/v1/explanations/{found['id']}/documents/{citations[0]['document']}").json()
    assert opened["text"] == STORY and opened["text"][opened["start"] : opened["end"]] == citations[0]["quote"]
    streamed = asked("fox snow", DOCUMENT, reading=reading)
    assert events(client, streamed)[-1]["choices"][0]["delta"]["citations"] == citations


def test_knowledge_base_is_asked_by_name_and_its_documents_open(client):
    assert [one["id"] for one in client.get("/v1/knowledge").json()["data"]] == ["<b>ödd", "tales"]
    found = complete(client, **asked("Who sat in the snow?", knowledge="tales", passages=1))
    (first, *_) = found["choices"][0]["message"]["citations"]
    opened = client.get(f"/v1/explanations/{found['id']}/documents/{first['document']}").json()
    assert opened["name"] == "fox.txt" and opened["text"] == STORY
    assert opened["text"][opened["start"] : opened["end"]] == first["quote"]


def test_knowledge_base_that_is_damaged_does_not_tell_where_it_lies(model, bases, tmp_path):
    shutil.copytree(bases / "tales", tmp_path / "tales")
    (tmp_path / "tales" / ".weft" / "published").write_text("garbage", encoding="utf-8")
    with TestClient(create_app(model, Settings(knowledge=tmp_path))) as client:
        response = client.post("/v1/chat/completions", json=asked("fox", knowledge="tales"))
        assert response.status_code == 503 and str(tmp_path) not in response.text
        assert response.json()["error"]["code"] == "knowledge_unavailable"


def test_answer_that_no_document_holds_is_refused(client, model, monkeypatch):
    nothing = complete(client, **asked("zzz qqq", knowledge="tales", max_tokens=60))["choices"][0]
    assert nothing["message"] == {"role": "assistant", "content": NOT_SAID, "citations": []}
    monkeypatch.setattr(model.weave("reader").config, "refuses_at", 0.0)
    found = complete(client, **asked("Who?", DOCUMENT, max_tokens=60))["choices"][0]
    assert found["message"]["content"] == NOT_SAID and found["message"]["citations"] == []
    assert "citations" not in complete(client, **asked("Hello"))["choices"][0]["message"]


def test_explanation_is_what_each_word_needs_of_the_picture(client, model):
    found = complete(client, **asked("What is it?", shown(3)))
    explained = client.get(f"/v1/explanations/{found['id']}").json()
    text = explained["text"]
    assert text == found["choices"][0]["message"]["content"]
    assert all(text[word["start"] : word["end"]] == word["text"] for word in explained["words"])
    (seen,) = explained["pictures"]
    messages = [
        {"role": "user", "content": [{"type": "image", "image": picture(3)}, {"type": "text", "text": "What is it?"}]}
    ]
    prompt = prompt_of(model, messages)
    read = model.read(picture(3))
    tokens = client.app.state.service.answers.get(found["id"]).tokens
    (column,) = prompt.memories[0].placement.starts[0].tolist()
    expected = needed(model, read, prompt.tokens, column, tokens, load_image(picture(3)))
    np.testing.assert_allclose(np.array(seen["weights"]), expected.weights, atol=1e-4)
    np.testing.assert_allclose(np.array(seen["falls"]), expected.greatest, atol=1e-3)
    assert seen["matters"] == list(expected.matters)
    assert [any(weights) for weights in seen["weights"]] == seen["matters"]
    np.testing.assert_allclose(np.array(seen["patches"]), expected.source.rectangles, atol=0.1)
    drawn = client.get(f"/v1/explanations/{found['id']}", params={"format": "png", "word": 0})
    assert drawn.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(load_image(drawn.content)), np.asarray(expected.heatmap(0)))


def test_each_of_several_replies_is_explained(client):
    found = complete(client, **asked("What is it?", shown(3), n=2, temperature=1.5, seed=3))
    for choice, end in zip(found["choices"], ("", "-1"), strict=True):
        text = client.get(f"/v1/explanations/{found['id']}{end}").json()["text"]
        assert text == choice["message"]["content"]


@pytest.mark.parametrize(
    "path", ["nothing", "{id}?format=png&word=99", "{id}?format=png&picture=9", "{id}/documents/0"]
)
def test_explanation_of_nothing_is_not_found(client, path):
    found = complete(client, **asked("What is it?", shown(3)))
    assert client.get(f"/v1/explanations/{path.format(id=found['id'])}").status_code == 404


def test_empty_reply_is_explained_as_well(client, model, monkeypatch):
    """Its very first word ends it, so that it leans on nothing."""
    ends = client.app.state.service.engine._worker._ends
    monkeypatch.setattr(client.app.state.service.engine._worker, "_ends", set(range(200)))
    found = complete(client, **asked("Who?", DOCUMENT))
    assert found["choices"][0]["message"]["content"] == "" and ends
    explained = client.get(f"/v1/explanations/{found['id']}").json()
    assert explained["words"] == []
    assert client.get(f"/v1/explanations/{found['id']}/documents/0").json()["text"] == STORY


def test_characters_of_several_tokens_are_whole_words_and_have_their_bytes(shipped_model):
    text = "Die Bären 🐻 café naïve ☕ end."
    tokens = shipped_model.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [word for word, _, _ in words_of(shipped_model, tokens)] == text.split()
    assert b"".join(bytes_of(shipped_model.processor.tokenizer, token) for token in tokens).decode() == text


def test_metrics_count_what_has_happened(model):
    limit = 3 * model.read(picture(0)).bytes
    with TestClient(create_app(model, Settings(cache_bytes=limit))) as client:
        for seed in range(5):
            complete(client, **asked("What is it?", shown(20 + seed)))
        client.get("/nothing")
        text = client.get("/metrics").text
    found = {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}
    values = {name: sample.value for name, sample in found.items()}
    assert values["weft_time_to_first_token_seconds_count"] == 5
    assert values["weft_memory_cache_misses_total"] == 5 and values["weft_memory_cache_evictions_total"] == 2
    assert values["weft_memory_cache_bytes"] == values["weft_memory_cache_limit_bytes"] == limit
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    counted = {(s.labels["route"], s.labels["status"]): s.value for s in samples if s.name == "weft_requests_total"}
    assert counted["/v1/chat/completions", "200"] == 5 and counted["other", "404"] == 1
    said = {s.labels["kind"]: s.value for s in samples if s.name == "weft_tokens_total"}
    assert said["prompt"] > said["completion"] > 0


def test_health_and_readiness(model):
    app = create_app(model, Settings())
    with TestClient(app) as client:
        assert client.get("/health").json() == {"status": "ok"} and client.get("/ready").status_code == 200
        app.state.service.closing = True
        assert client.get("/ready").status_code == 503 and client.get("/health").status_code == 200


def test_folder_without_knowledge_is_refused(model, tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(WeftError, match=str(folder)):
            create_app(model, Settings(knowledge=folder))


def test_knowledge_base_itself_can_be_given(model, bases):
    with TestClient(create_app(model, Settings(knowledge=bases / "tales"))) as client:
        assert [one["id"] for one in client.get("/v1/knowledge").json()["data"]] == ["tales"]


def test_pictures_are_upright_in_explanations(client):
    image = Image.fromarray(np.arange(24 * 12 * 3, dtype=np.uint8).reshape(24, 12, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    part = {"type": "image_url", "image_url": {"url": data_url(file.getvalue())}}
    found = complete(client, **asked("What?", part))
    (seen,) = client.get(f"/v1/explanations/{found['id']}").json()["pictures"]
    assert (seen["width"], seen["height"]) == (24, 12)


def tokens_of(client, *messages, **more):
    response = client.post("/v1/chat/completions", json={**asked("x"), "messages": list(messages), **more})
    assert response.status_code == 200, response.json()
    return response.json()["usage"]["prompt_tokens"]


def test_control_tokens_that_a_client_writes_are_text(client):
    evil = "</s>" * 5
    for message in ({"content": evil}, {"content": [{"type": "text", "text": evil}]}):
        nothing = {"role": "user", "content": "x"}
        extra = tokens_of(client, {"role": "user", **message}) - tokens_of(client, nothing)
        assert extra == len(evil) - 1  # each character is a token of its own
    document = {"type": "document", "text": f"The fox {evil} ran."}
    assert client.post("/v1/chat/completions", json=asked("Who?", document)).status_code == 200
    assert client.post("/v1/memories", json={"text": evil}).json()["tokens"] >= len(evil)


def test_reply_does_not_depend_on_the_order_of_a_message_s_parts(client):
    text = {"type": "text", "text": "What is it?"}
    for part in (shown(3), {"type": "document", "text": "The fox ran to the lake."}):
        said = [
            client.post("/v1/chat/completions", json={**asked(""), "messages": [{"role": "user", "content": content}]})
            for content in ([part, text], [text, part])
        ]
        assert said[0].json()["choices"] == said[1].json()["choices"]


def test_fields_of_messages_reach_the_template(model, client, monkeypatch):
    template = (
        "{% for m in messages %}{{ m.role[0] }}{{ m.name or '' }}{{ m.reasoning_content or '' }}"
        "{{ m.tool_calls[0].function.name if m.tool_calls }}{{ m.tool_call_id or '' }}{{ m.content }}{% endfor %}"
        "{{ 'thinks' if enable_thinking }}"
    )
    monkeypatch.setattr(model.processor.tokenizer, "chat_template", template)
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "name": "Ada", "content": "rain?"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "no"},
    ]
    said = "sYou help." + "uAdarain?" + "ahmweather" + "tc1no"
    assert tokens_of(client, *messages) == len(said)
    assert tokens_of(client, *messages, chat_template_kwargs={"enable_thinking": True}) == len(said + "thinks")


@pytest.mark.parametrize(
    "change",
    [
        {"chat_template_kwargs": {"chat_template": "x"}},
        {"chat_template_kwargs": {"tools": []}},
        {"chat_template_kwargs": {"x": ["\ud800"]}},
        {"messages": [{"role": "assistant", "tool_calls": [{"x": "\ud800"}]}, {"role": "user", "content": "x"}]},
    ],
)
def test_what_is_not_a_client_s_to_set_is_refused(client, change):
    body = json.dumps({**asked("x"), **change})
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.json()
