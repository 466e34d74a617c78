// The conversation as it is shown. An answer is written out as it streams, and read out to screen readers once, when
// it is finished.

import type { Citation, Explanation } from "./api.js";
import { create, find } from "./dom.js";
import { shortened } from "./text.js";
import { type OnLook, wordRow } from "./words.js";

const FIRST_CITATIONS = 3;
const QUOTE = 160;
const NEAR = 40; // pixels from the end at which one is taken to follow

/** A question and the answer to it. */
export class TurnView {
  private readonly answer = create("p", { className: "answer writing" });
  private readonly turn: HTMLElement;

  constructor(
    question: string,
    private readonly announce: (text: string) => void,
  ) {
    this.turn = create(
      "article",
      { className: "turn" },
      create("p", { className: "question" }, create("span", { className: "for-ears" }, "You: "), question),
      this.answer,
    );
  }

  get element(): HTMLElement {
    return this.turn;
  }

  write(text: string): void {
    const end = document.documentElement;
    const following = window.scrollY + window.innerHeight >= end.scrollHeight - NEAR;
    this.answer.append(text);
    if (following) window.scrollTo(0, end.scrollHeight); // who scrolls back to read is left in peace
  }

  /** Nothing more comes. */
  finish(stopped: boolean): void {
    this.answer.classList.remove("writing");
    this.announce(`Weft: ${this.answer.textContent}`);
    if (stopped) this.turn.append(create("p", { className: "note" }, "Stopped."));
  }

  /** Makes the words tell what they need of the picture. */
  explain(explanation: Explanation, onLook: OnLook): void {
    this.answer.replaceChildren(explanation.text);
    this.answer.classList.add("for-ears"); // whole for screen readers; the row beside it has it word by word
    this.answer.after(wordRow(explanation, onLook));
  }

  cite(citations: Citation[], open: (citation: Citation) => void): void {
    if (citations.length === 0) return;
    const list = create("ol", { className: "citations" });
    list.setAttribute("aria-label", "Where it stands");
    const items = citations.map((citation, index) => {
      const button = create(
        "button",
        { type: "button", className: "citation" },
        create("span", { className: "number" }, `${index + 1}`),
        " ", // heard between the two, if not seen
        create("span", { className: "name" }, citation.name),
        " ",
        create("q", {}, shortened(citation.quote, QUOTE)),
      );
      button.addEventListener("click", () => open(citation));
      return create("li", {}, button);
    });
    list.append(...items.slice(0, FIRST_CITATIONS));
    this.turn.append(list);
    const others = items.slice(FIRST_CITATIONS);
    if (others.length === 0) return;
    const more = create("button", { type: "button", className: "quiet" }, `${others.length} more`);
    more.addEventListener("click", () => {
      list.append(...others);
      others[0].querySelector("button")?.focus();
      more.remove();
    });
    this.turn.append(more);
  }

  remove(): void {
    this.turn.remove();
    this.announce("");
  }
}

export class Log {
  private readonly list = find("log", HTMLElement);
  private readonly announcement = find("announcement", HTMLElement);

  add(question: string): TurnView {
    const turn = new TurnView(question, (text) => (this.announcement.textContent = text));
    this.list.append(turn.element);
    this.announcement.textContent = "Weft is reading.";
    window.scrollTo(0, document.documentElement.scrollHeight);
    return turn;
  }

  clear(): void {
    this.list.replaceChildren();
  }
}
