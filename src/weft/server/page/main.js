import { Api } from "./api.js";
import { Conversation } from "./conversation.js";
import { askForKey, askForText, makeDialogsClose } from "./dialogs.js";
import { openDocument } from "./documents.js";
import { create, find } from "./dom.js";
import { inPlainWords } from "./failure.js";
import { takeFiles } from "./intake.js";
import { Log } from "./log.js";
import { NoPicture, readPhoto } from "./photo.js";
import { Stage } from "./stage.js";
const DESCRIBE = "Describe the picture.";
const SUGGESTIONS = {
    nothing: [],
    photo: [DESCRIBE, "Give the picture a title."],
    texts: ["Summarize in one sentence.", "Write a title."],
    knowledge: [],
};
const alert = find("alert", HTMLElement);
const form = find("ask", HTMLFormElement);
const field = find("question", HTMLTextAreaElement);
const send = find("send", HTMLButtonElement);
const suggestions = find("suggestions", HTMLElement);
const picker = find("knowledge", HTMLSelectElement);
const api = new Api(askForKey);
const log = new Log();
const stage = new Stage((text) => readTexts(textsNow().filter((one) => one !== text)));
let conversation = new Conversation(api, { kind: "nothing" });
let answering = null;
function begin(subject) {
    stop();
    conversation = new Conversation(api, subject);
    complain("");
    log.clear();
    stage.show(subject);
    picker.value = subject.kind === "knowledge" ? subject.name : "";
    field.placeholder = subject.kind === "knowledge" ? `Ask about “${subject.name}”` : "Ask a question";
    suggestions.replaceChildren(...SUGGESTIONS[subject.kind].map(suggestion));
}
function suggestion(words) {
    const button = create("button", { type: "button", className: "suggestion" }, words);
    button.addEventListener("click", () => {
        if (answering === null)
            void ask(words);
    });
    return button;
}
async function readGivenPhoto(source, name) {
    try {
        begin({ kind: "photo", photo: await readPhoto(source, name) });
    }
    catch (error) {
        complain(error instanceof NoPicture ? error.message : inPlainWords(error));
        return;
    }
    if (field.value === DESCRIBE)
        field.value = "";
    await ask(DESCRIBE);
}
function textsNow() {
    return conversation.subject.kind === "texts" ? conversation.subject.texts : [];
}
function readTexts(texts) {
    const empty = texts.find((one) => one.text.trim() === "");
    if (empty)
        return complain(`“${empty.name}” holds no text.`);
    begin(texts.length > 0 ? { kind: "texts", texts } : { kind: "nothing" });
    field.focus();
}
async function ask(question) {
    complain("");
    const { signal } = (answering = new AbortController());
    const asked = conversation;
    const turn = log.add(question);
    update();
    let [id, answer] = ["", ""];
    let citations = [];
    try {
        for await (const piece of asked.ask(question, signal)) {
            turn.write(piece.text);
            id = piece.id;
            answer += piece.text;
            citations = citations.concat(piece.citations);
        }
    }
    catch (error) {
        if (asked !== conversation)
            return;
        if (!signal.aborted)
            complain(inPlainWords(error));
        if (!signal.aborted || answer === "") {
            turn.remove();
            takeBack(question);
            return;
        }
    }
    finally {
        if (answering?.signal === signal)
            answering = null;
        update();
    }
    turn.finish(signal.aborted);
    asked.keep(question, answer);
    if (signal.aborted)
        return;
    turn.cite(citations, (citation) => {
        api.document(id, citation.document).then(openDocument, (error) => complain(inPlainWords(error)));
    });
    if (asked.subject.kind !== "photo")
        return;
    const explanation = await api.explanation(id).catch(() => null);
    if (explanation !== null && asked === conversation)
        showWhatItNeeds(turn, explanation);
}
function showWhatItNeeds(turn, explanation) {
    const [seen] = explanation.pictures;
    const points = Array.from(explanation.text);
    turn.explain(explanation, (word) => {
        if (word === null)
            return stage.lookAway();
        const { start, end } = explanation.words[word];
        stage.lookAt(points.slice(start, end).join("").replace(/[.,;:!?]+$/, ""), seen, word);
    });
    stage.hint();
}
function stop() {
    answering?.abort();
}
function takeBack(question) {
    field.value = [question, field.value].filter(Boolean).join("\n");
}
function complain(message) {
    alert.textContent = message;
}
function update() {
    send.textContent = answering === null ? "Ask" : "Stop";
    for (const button of suggestions.children)
        button.setAttribute("aria-disabled", String(answering !== null));
}
form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (answering !== null)
        return stop();
    const question = field.value.trim();
    if (question === "")
        return field.focus();
    field.value = "";
    void ask(question);
});
field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing)
        return;
    event.preventDefault();
    if (answering === null)
        form.requestSubmit();
});
picker.addEventListener("change", () => {
    begin(picker.value === "" ? { kind: "nothing" } : { kind: "knowledge", name: picker.value });
});
find("add-text", HTMLButtonElement).addEventListener("click", () => {
    void askForText(textsNow().length).then((text) => text && readTexts([...textsNow(), text]));
});
takeFiles((source, name) => void readGivenPhoto(source, name), async (files) => {
    const texts = await Promise.all(files.map(async (file) => ({ name: file.name, text: await file.text() })));
    readTexts([...textsNow(), ...texts]);
});
makeDialogsClose();
api.knowledge().then((names) => {
    picker.append(...names.map((name) => create("option", { value: name }, name)));
    find("knowledge-picker", HTMLElement).hidden = names.length === 0;
}, (error) => complain(inPlainWords(error)));
