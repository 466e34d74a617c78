"""The page that `weft serve` shows, in a real browser, most of it with the model that ships with Weft.

With `WEFT_SCREENSHOTS=docs` the pictures of the page in that folder are made anew.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

import weft
from weft.parts import locate

EXAMPLES = Path(__file__).parent.parent / "examples"
SERVE = [sys.executable, "-m", "weft", "serve"]
HOSTILE = "<img src=x onerror=window.attacked=1>"
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 375, "height": 760}
SCREENSHOTS = os.environ.get("WEFT_SCREENSHOTS")

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not here; install it (on Debian: apt-get install chromium)")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the real server is, with the shipped model and two knowledge bases."""
    if locate("smollm2-135m-instruct") is None or locate("efficientnet-lite2") is None:
        pytest.skip("the frozen parts are not here; run `weft pull`")
    knowledge = tmp_path_factory.mktemp("knowledge")
    shutil.copytree(EXAMPLES / "stories", knowledge / "stories")
    (knowledge / "hostile").mkdir()
    text = f"The old tower stood by the sea. The keeper of the tower was called Anna {HOSTILE}. She lit the lamp."
    (knowledge / "hostile" / f"{HOSTILE}.txt").write_text(text)
    for folder in knowledge.iterdir():
        weft.KnowledgeBase(folder).update()
    log = tmp_path_factory.mktemp("log") / "stderr.txt"
    with log.open("w") as stderr:
        server = subprocess.Popen([*SERVE, "--port", "0", "--knowledge", str(knowledge)], stderr=stderr)
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    yield found.group()
    server.terminate()
    server.wait()


@pytest.fixture
def open_page(browser: Browser, address: str):
    """Opens the page; it must neither complain in the console nor ask another origin for anything."""
    contexts, complaints, strangers = [], [], []

    def note(message) -> None:
        # The browser itself notes responses that tests make fail on purpose.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            complaints.append(message.text)

    def check(request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            strangers.append(request.url)

    def opened(**options) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, "color_scheme": "light", **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", check)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert (complaints, strangers) == ([], [])


@pytest.fixture
def page(open_page) -> Page:
    return open_page()


def give_photo(page: Page, file: Path | dict) -> None:
    page.get_by_label("Drop a photo here").or_(page.get_by_label("Another photo")).set_input_files(file)


def ask(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def add_text(page: Page, name: str, text: str) -> None:
    page.get_by_role("button", name="Add a text").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Add", exact=True).click()


def heat(page: Page) -> str:
    """The heat map as it is drawn, in full; fails if there is none."""
    expect(page.locator("#heat.on")).to_be_visible()
    opaque = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 == 3 && v > 0)"
    assert page.locator("#heat").evaluate(opaque)
    return page.locator("#heat").evaluate("canvas => canvas.toDataURL()")


def fake(page: Page, path: str, status: int, body: dict | str, **headers: str) -> None:
    """Answers requests in the server's place."""
    text = body if isinstance(body, str) else json.dumps(body)
    page.route(path, lambda route: route.fulfill(status=status, body=text, headers=headers))


def error(message: str, code: str | None = None) -> dict:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def stream(text: str, **delta) -> str:
    """An answer as the server streams it."""
    chunks = [{"content": text}, delta]
    lines = [json.dumps({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": one}]}) for one in chunks]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])


def test_photo_is_captioned_as_it_streams_and_words_show_what_they_need(page):
    """From a file to its caption, word by word, to a heat map that differs between words, to a follow-up."""
    page.evaluate(
        """() => {
            window.lengths = [];
            const note = () => lengths.push(document.querySelector(".answer")?.textContent.length ?? 0);
            new MutationObserver(note).observe(document.querySelector("#log"), {childList: true, subtree: true});
        }"""
    )
    give_photo(page, EXAMPLES / "temple.jpg")
    words = page.locator(".word")
    expect(words.nth(2)).to_be_visible()
    assert len({length for length in page.evaluate("lengths") if length > 0}) > 3
    expect(page.locator("#announcement")).to_have_text(f"Weft: {page.locator('.answer').text_content()}")

    lit, unlit = page.locator(".word:not(.unlit)"), page.locator(".word.unlit")
    lit.first.hover()
    first = heat(page)
    expect(page.locator("#looked")).to_contain_text(
        re.compile(r"^Without the region that is lit, .* \d+ % less likely")
    )
    lit.last.hover()
    assert heat(page) != first
    unlit.first.hover()
    expect(page.locator("#looked")).to_have_text(f"No region of the picture matters to “{unlit.first.text_content()}”.")
    expect(page.locator("#heat.on")).to_have_count(0)
    lit.first.hover()
    heat(page)
    page.mouse.move(5, 5)
    expect(page.locator("#heat.on")).to_have_count(0)

    ask(page, "What animal is it?")
    second = page.locator(".turn").nth(1)
    expect(second.locator(".word").first).to_be_visible()
    second.locator(".word").first.hover()
    expect(page.locator("#looked")).not_to_be_empty()
    if SCREENSHOTS:
        lit.first.hover()
        page.screenshot(path=Path(SCREENSHOTS) / "page.png", animations="disabled")


def test_photo_is_made_upright_and_small_before_it_is_sent(page, tmp_path):
    """A photo taken sideways arrives upright, with no side above 1600 pixels, as JPEG."""
    photo = Image.new("RGB", (2400, 1200), "navy")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    photo.save(tmp_path / "sideways.jpg", exif=exif)
    with page.expect_request("**/v1/memories") as sent:
        give_photo(page, tmp_path / "sideways.jpg")
    url = sent.value.post_data_json["image_url"]["url"]
    arrived = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))
    assert (arrived.format, arrived.size, dict(arrived.getexif())) == ("JPEG", (800, 1600), {})


def test_photo_can_be_pasted_and_dropped(page):
    """A picture in the clipboard or dropped anywhere is taken as the photo."""
    fake(page, "**/v1/chat/completions", 200, stream("A picture."))
    give = """async ([kind, file]) => {
        const blob = await (await fetch(file)).blob();
        const files = new DataTransfer();
        files.items.add(new File([blob], "photo.jpg", {type: "image/jpeg"}));
        const event = kind === "paste"
            ? new ClipboardEvent(kind, {clipboardData: files, bubbles: true})
            : new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true});
        document.body.dispatchEvent(event);
    }"""
    picture = page.get_by_alt_text("The photo that Weft reads")
    page.evaluate(give, ["paste", "page/examples/cat.jpg"])
    expect(picture).to_have_js_property("naturalWidth", 451)
    page.evaluate(give, ["drop", "page/examples/coffee.jpg"])
    expect(picture).to_have_js_property("naturalWidth", 600)
    expect(page.locator(".answer")).to_have_text("A picture.")


def test_citation_opens_its_document_at_the_cited_span(page):
    """An answer from a knowledge base cites; a citation opens the document, marked, and Esc leads back."""
    page.get_by_label("Knowledge base").select_option("stories")
    ask(page, "What did the dog and the cat want to bring back?")
    citation = page.locator(".citation").first
    quote = citation.locator("q").text_content().removesuffix("…")
    name = citation.locator(".name").text_content()
    citation.click()
    dialog = page.get_by_role("dialog", name=name)
    expect(dialog.locator("mark")).to_contain_text(quote)
    expect(dialog.locator("mark")).to_be_in_viewport()
    expect(dialog.locator("mark")).to_be_focused()
    assert dialog.locator("#document-text").text_content() == (EXAMPLES / "stories" / name).read_text().strip()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(citation).to_be_focused()


def test_html_in_a_document_and_its_name_is_shown_as_text(page):
    """What stands in a document or its name is never taken for HTML."""
    page.get_by_label("Knowledge base").select_option("hostile")
    ask(page, "Who was the keeper of the tower?")
    expect(page.locator(".citation .name").first).to_contain_text(HOSTILE)
    page.locator(".citation").first.click()
    expect(page.locator("#document-text")).to_contain_text(HOSTILE)
    expect(page.locator("#document-name")).to_contain_text(HOSTILE)
    assert page.evaluate("window.attacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_html_in_what_people_and_models_say_is_shown_as_text(page):
    """Nor is what stands in a text of one's own, a question, an answer, or an error."""
    fake(page, "**/v1/chat/completions", 200, stream(HOSTILE))
    add_text(page, HOSTILE, HOSTILE)
    ask(page, HOSTILE)
    expect(page.locator(".answer")).to_have_text(HOSTILE)
    expect(page.locator(".question")).to_contain_text(HOSTILE)
    expect(page.locator("#texts")).to_contain_text(HOSTILE)
    fake(page, "**/v1/chat/completions", 400, error(HOSTILE))
    ask(page, HOSTILE)
    expect(page.get_by_role("alert")).to_have_text(HOSTILE)
    assert page.evaluate("window.attacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_answer_from_a_text_of_ones_own_cites_it(page):
    """A text is read as it is given, and the cited span is right behind characters outside the basic plane."""
    text = "🐕🐈🐇 The three friends lived in Ulm. The ring belonged to a baker called Hugo. It was made of gold."
    add_text(page, "friends", text)
    ask(page, "Who did the ring belong to?")
    citation = page.locator(".citation").first
    quote = citation.locator("q").text_content()
    citation.click()
    expect(page.locator("mark")).to_have_text(quote)
    expect(page.locator("#document-text")).to_have_text(text)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}, "“notes.txt” is not a picture"),
        ({"name": "torn.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff\xe0"}, "“torn.jpg” can't be opened"),
    ],
    ids=["text", "broken"],
)
def test_file_that_is_no_picture_is_refused_in_plain_words(page, file, message):
    """The message names the file, and the page goes on to work."""
    give_photo(page, file)
    expect(page.get_by_role("alert")).to_contain_text(message)
    fake(page, "**/v1/chat/completions", 200, stream("A cat."))
    page.get_by_role("button", name="A cat").click()
    expect(page.locator(".answer")).to_have_text("A cat.")
    expect(page.get_by_role("alert")).to_be_empty()


@pytest.mark.parametrize(
    ("status", "said", "shown"),
    [
        (429, "Too many requests are waiting.", "Weft is busy with other questions. Try again in 7 seconds."),
        (413, "The body has 30 MB.", "more than this Weft takes at once"),
        (400, "The picture can't be read.", "The picture can't be read."),
        (503, "Not yet.", "could not answer in time"),
        (500, "", "error 500"),
    ],
)
def test_question_that_fails_is_kept_to_be_sent_again(page, status, said, shown):
    """The error is shown in plain words, and the question stands in the field again."""
    fake(page, "**/v1/chat/completions", status, error(said), **{"Retry-After": "7"} if status == 429 else {})
    ask(page, "Who are you?")
    expect(page.get_by_role("alert")).to_contain_text(shown)
    expect(page.get_by_label("Your question")).to_have_value("Who are you?")
    expect(page.locator(".turn")).to_have_count(0)

    fake(page, "**/v1/chat/completions", 200, stream("I am Weft."))
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".answer")).to_have_text("I am Weft.")
    expect(page.get_by_role("alert")).to_be_empty()


def test_server_that_is_gone_is_told(page):
    """Neither a server that is gone nor an answer that breaks off leaves the page hanging."""
    page.route("**/v1/**", lambda route: route.abort())
    ask(page, "Are you there?")
    expect(page.get_by_role("alert")).to_contain_text("Weft can't be reached")
    expect(page.get_by_label("Your question")).to_have_value("Are you there?")
    page.unroute("**/v1/**")
    fake(page, "**/v1/chat/completions", 200, stream("I am").replace("data: [DONE]\n\n", ""))
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Weft can't be reached")
    fake(page, "**/v1/chat/completions", 200, f"data: {json.dumps(error('The model stumbled.'))}\n\n")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("The model stumbled.")


def test_key_is_asked_for_where_the_server_wants_one(page):
    """A server with keys answers 401; the page asks, tells if the key was wrong, and then sends the question."""

    def answer(route) -> None:
        if route.request.headers.get("authorization") == "Bearer right":
            route.fulfill(status=200, body=stream("Welcome."))
        else:
            route.fulfill(status=401, body=json.dumps(error("No key.", "invalid_api_key")))

    page.route("**/v1/chat/completions", answer)
    ask(page, "May I come in?")
    dialog = page.get_by_role("dialog", name="This Weft wants a key")
    expect(dialog.get_by_text("not accepted")).to_be_hidden()
    dialog.get_by_label("Key").fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("not accepted")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert")).to_contain_text("only with a key")
    page.get_by_role("button", name="Ask", exact=True).click()
    dialog.get_by_label("Key").fill("right")
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_have_text("Welcome.")


def test_photo_that_the_server_has_forgotten_is_sent_again(page):
    """The page posts the photo once more, and the question after it, without anybody noticing."""
    posted = []
    page.on("request", lambda request: posted.append(request.url) if request.url.endswith("/memories") else None)
    answers = iter([(404, json.dumps(error("Forgotten.", "memory_not_found"))), (200, stream("A cat."))])

    def answer(route) -> None:
        status, body = next(answers)
        route.fulfill(status=status, body=body)

    page.route("**/v1/chat/completions", answer)
    page.get_by_role("button", name="A cat").click()
    expect(page.locator(".answer")).to_have_text("A cat.")
    assert len(posted) == 2


def test_follow_up_sends_the_whole_conversation(page):
    """The picture stands in the first message by its memory's id, and all that was said follows."""
    fake(page, "**/v1/chat/completions", 200, stream("A cat."))
    page.get_by_role("button", name="A cat").click()
    expect(page.locator("#announcement")).to_have_text("Weft: A cat.")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "What colour is it?")
    first, *others = sent.value.post_data_json["messages"]
    assert [part["type"] for part in first["content"]] == ["memory", "text"]
    assert first["content"][1]["text"] == "Describe the picture."
    assert others == [{"role": "assistant", "content": "A cat."}, {"role": "user", "content": "What colour is it?"}]


def test_answer_can_be_stopped(page):
    """Stop ends the stream; what was said stays, and the conversation goes on."""
    page.evaluate(
        """() => {
            const real = window.fetch;
            window.fetch = (url, options) => {
                if (!String(url).endsWith("completions")) return real(url, options);
                const chunk = {id: "chatcmpl-1", choices: [{index: 0, delta: {content: "on and "}}]};
                const bytes = new TextEncoder().encode(`data: ${JSON.stringify(chunk)}\\n\\n`);
                const body = new ReadableStream({start(controller) {
                    const timer = setInterval(() => controller.enqueue(bytes), 20);
                    options.signal.addEventListener("abort", () => {
                        clearInterval(timer);
                        window.stopped = true;
                        controller.error(options.signal.reason);
                    });
                }});
                return Promise.resolve(new Response(body));
            };
        }"""
    )
    ask(page, "Go on.")
    expect(page.locator(".answer")).to_contain_text("on and on and")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped.")).to_be_visible()
    assert page.evaluate("window.stopped")
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()


def test_everything_can_be_done_with_the_keyboard(page):
    """An example, its words, a question, a knowledge base, a citation: nothing needs a pointer."""

    def tab_to(selector: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"Tab does not lead to {selector}")

    tab_to("#photo-file")
    tab_to("#examples button")
    page.keyboard.press("Enter")
    expect(page.locator(".word").nth(1)).to_be_visible()
    tab_to(".word")
    looked = page.locator("#looked")
    expect(looked).to_contain_text(f"“{page.locator('.word').first.text_content()}”")
    page.keyboard.press("End")
    expect(page.locator(".word").last).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".word").nth(-2)).to_be_focused()
    expect(looked).to_contain_text(f"“{page.locator('.word').nth(-2).text_content()}”")
    tab_to("#question")
    page.keyboard.type("What colour is it?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn").nth(1).locator(".word").first).to_be_visible()

    page.keyboard.press("Shift+Tab")
    for _ in range(20):
        if page.evaluate("document.activeElement.matches('#knowledge')"):
            break
        page.keyboard.press("Shift+Tab")
    page.keyboard.type("stories")
    expect(page.locator("#knowledge-note")).to_contain_text("stories")
    tab_to("#question")
    page.keyboard.type("What did the dog and the cat want to bring back?")
    page.keyboard.press("Enter")
    expect(page.locator(".citation").first).to_be_visible()
    page.keyboard.press("Shift+Tab")
    expect(page.locator(".citation, .talk .quiet").last).to_be_focused()
    page.locator(".citation").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("mark")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".citation").first).to_be_focused()


@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"color_scheme": "dark", "viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2},
    ],
    ids=["light", "dark", "phone"],
)
def test_page_has_no_serious_accessibility_fault(open_page, options):
    """Neither empty, nor with an answer and an error, nor with a document open; and it fits the width of a phone."""
    page = open_page(**options)

    def faults() -> list[str]:
        found = Axe().run(page).response["violations"]
        return [f"{one['id']}: {one['nodes']}" for one in found if one["impact"] in ("serious", "critical")]

    assert faults() == []
    page.get_by_role("button", name="A cat").click()
    words = page.locator(".word")
    expect(words.nth(1)).to_be_visible()
    page.locator(".word:not(.unlit)").first.click()
    heat(page)
    if SCREENSHOTS and options.get("is_mobile"):
        page.screenshot(path=Path(SCREENSHOTS) / "page-phone.png", animations="disabled")
    give_photo(page, {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    assert faults() == []
    page.get_by_label("Knowledge base").select_option("stories")
    ask(page, "What did the dog and the cat want to bring back?")
    expect(page.locator(".citation").first).to_be_visible()
    assert faults() == []
    page.locator(".citation").first.click()
    expect(page.locator("mark")).to_be_visible()
    assert faults() == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
