import { create, find } from "./dom.js";
import { draw, heatOf, lessLikely, whereabouts } from "./heat.js";
import { shortened } from "./text.js";
const PREVIEW = 140;
export class Stage {
    without;
    figure = find("photo", HTMLElement);
    picture = find("picture", HTMLImageElement);
    canvas = find("heat", HTMLCanvasElement);
    hintToPoint = find("hint", HTMLElement);
    looked = find("looked", HTMLElement);
    texts = find("texts", HTMLElement);
    knowledge = find("knowledge-note", HTMLElement);
    constructor(without) {
        this.without = without;
    }
    show(subject) {
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
        }
        else if (subject.kind === "texts") {
            this.texts.replaceChildren(...subject.texts.map((text) => this.card(text)));
        }
        else if (subject.kind === "knowledge") {
            this.knowledge.textContent = `Weft looks every question up in “${subject.name}”, and says where the answer stands.`;
        }
    }
    hint() {
        this.hintToPoint.hidden = false;
    }
    lookAt(word, seen, index) {
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
    lookAway() {
        this.canvas.classList.remove("on");
        this.looked.textContent = "";
        this.hint();
    }
    card(text) {
        const remove = create("button", { type: "button", className: "quiet" }, "Remove");
        remove.setAttribute("aria-label", `Remove ${text.name}`);
        remove.addEventListener("click", () => this.without(text));
        return create("li", { className: "card" }, create("strong", {}, text.name), remove, create("p", {}, shortened(text.text, PREVIEW)));
    }
}
