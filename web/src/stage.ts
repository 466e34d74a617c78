// What Weft reads, as it is shown: the photo, with the heat map over it, the texts, or the knowledge base.

import type { Seen } from "./api.js";
import { create, find } from "./dom.js";
import { draw, heatOf, lessLikely, whereabouts } from "./heat.js";
import type { Subject, Text } from "./subject.js";
import { shortened } from "./text.js";

const PREVIEW = 140;

export class Stage {
  private readonly figure = find("photo", HTMLElement);
  private readonly picture = find("picture", HTMLImageElement);
  private readonly canvas = find("heat", HTMLCanvasElement);
  private readonly hintToPoint = find("hint", HTMLElement);
  private readonly looked = find("looked", HTMLElement);
  private readonly texts = find("texts", HTMLElement);
  private readonly knowledge = find("knowledge-note", HTMLElement);

  /** @param without told to go on without a text. */
  constructor(private readonly without: (text: Text) => void) {}

  show(subject: Subject): void {
    document.body.dataset.subject = subject.kind;
    this.figure.hidden = subject.kind !== "photo";
    this.texts.hidden = subject.kind !== "texts";
    this.knowledge.hidden = subject.kind !== "knowledge";
    this.lookAway();
    this.hintToPoint.hidden = true;
    if (subject.kind === "photo") {
      const { url, width, height } = subject.photo;
      this.picture.src = url;
      this.figure.style.setProperty("--shape", `${width / height}`);
    } else if (subject.kind === "texts") {
      this.texts.replaceChildren(...subject.texts.map((text) => this.card(text)));
    } else if (subject.kind === "knowledge") {
      this.knowledge.textContent = `Weft looks every question up in “${subject.name}”, and says where the answer stands.`;
    }
  }

  /** There are words to point at. */
  hint(): void {
    this.hintToPoint.hidden = false;
  }

  /** Lights what a word needs of the photo, if it needs anything; `index` is the word's. */
  lookAt(word: string, seen: Seen, index: number): void {
    this.hintToPoint.hidden = true;
    this.canvas.classList.toggle("on", seen.matters[index]);
    if (!seen.matters[index]) {
      this.looked.textContent = `No region of the picture matters to “${word}”.`;
      return;
    }
    const heat = heatOf(seen, seen.weights[index]);
    draw(this.canvas, heat);
    this.looked.textContent = `Without the region that is lit, ${whereabouts(heat)}, “${word}” is ${lessLikely(seen.falls[index])} less likely.`;
  }

  lookAway(): void {
    this.canvas.classList.remove("on");
    this.looked.textContent = "";
    this.hint();
  }

  private card(text: Text): HTMLElement {
    const remove = create("button", { type: "button", className: "quiet" }, "Remove");
    remove.setAttribute("aria-label", `Remove ${text.name}`);
    remove.addEventListener("click", () => this.without(text));
    return create(
      "li",
      { className: "card" },
      create("strong", {}, text.name),
      remove,
      create("p", {}, shortened(text.text, PREVIEW)),
    );
  }
}
