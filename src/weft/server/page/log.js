import { create, find } from "./dom.js";
import { shortened } from "./text.js";
import { wordRow } from "./words.js";
const FIRST_CITATIONS = 3;
const QUOTE = 160;
const NEAR = 40;
export class TurnView {
    announce;
    answer = create("p", { className: "answer writing" });
    turn;
    constructor(question, announce) {
        this.announce = announce;
        this.turn = create("article", { className: "turn" }, create("p", { className: "question" }, create("span", { className: "for-ears" }, "You: "), question), this.answer);
    }
    get element() {
        return this.turn;
    }
    write(text) {
        const end = document.documentElement;
        const following = window.scrollY + window.innerHeight >= end.scrollHeight - NEAR;
        this.answer.append(text);
        if (following)
            window.scrollTo(0, end.scrollHeight);
    }
    finish(stopped) {
        this.answer.classList.remove("writing");
        this.announce(`Weft: ${this.answer.textContent}`);
        if (stopped)
            this.turn.append(create("p", { className: "note" }, "Stopped."));
    }
    explain(explanation, onLook) {
        this.answer.replaceChildren(explanation.text);
        this.answer.classList.add("for-ears");
        this.answer.after(wordRow(explanation, onLook));
    }
    cite(citations, open) {
        if (citations.length === 0)
            return;
        const list = create("ol", { className: "citations" });
        list.setAttribute("aria-label", "Where it stands");
        const items = citations.map((citation, index) => {
            const button = create("button", { type: "button", className: "citation" }, create("span", { className: "number" }, `${index + 1}`), " ", create("span", { className: "name" }, citation.name), " ", create("q", {}, shortened(citation.quote, QUOTE)));
            button.addEventListener("click", () => open(citation));
            return create("li", {}, button);
        });
        list.append(...items.slice(0, FIRST_CITATIONS));
        this.turn.append(list);
        const others = items.slice(FIRST_CITATIONS);
        if (others.length === 0)
            return;
        const more = create("button", { type: "button", className: "quiet" }, `${others.length} more`);
        more.addEventListener("click", () => {
            list.append(...others);
            others[0].querySelector("button")?.focus();
            more.remove();
        });
        this.turn.append(more);
    }
    remove() {
        this.turn.remove();
        this.announce("");
    }
}
export class Log {
    list = find("log", HTMLElement);
    announcement = find("announcement", HTMLElement);
    add(question) {
        const turn = new TurnView(question, (text) => (this.announcement.textContent = text));
        this.list.append(turn.element);
        this.announcement.textContent = "Weft is reading.";
        window.scrollTo(0, document.documentElement.scrollHeight);
        return turn;
    }
    clear() {
        this.list.replaceChildren();
    }
}
