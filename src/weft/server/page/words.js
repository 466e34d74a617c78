import { create } from "./dom.js";
import { cut } from "./text.js";
export function wordRow(explanation, onLook) {
    const row = create("div", { className: "words" });
    row.setAttribute("role", "toolbar");
    row.setAttribute("aria-label", "Words of the answer; move with the arrow keys to see what in the picture each needs");
    const lit = explanation.pictures[0]?.matters;
    const words = [];
    for (const slice of cut(explanation.text, explanation.words)) {
        if (slice.span === null) {
            row.append(slice.text);
            continue;
        }
        const className = lit?.[words.length] === false ? "word unlit" : "word";
        const word = create("span", { className, tabIndex: words.length === 0 ? 0 : -1 }, slice.text);
        word.setAttribute("role", "button");
        words.push(word);
        row.append(word);
    }
    let pointed = null;
    let focused = null;
    const look = () => {
        const looked = pointed ?? focused;
        for (const word of words)
            word.classList.toggle("looked", word === looked);
        onLook(looked === null ? null : words.indexOf(looked));
    };
    const wordAt = (target) => words.find((word) => word === target) ?? null;
    row.addEventListener("pointerover", (event) => {
        if (event.pointerType !== "mouse")
            return;
        pointed = wordAt(event.target) ?? pointed;
        look();
    });
    row.addEventListener("pointerleave", () => {
        if (pointed === null)
            return;
        pointed = null;
        look();
    });
    row.addEventListener("focusin", (event) => {
        focused = wordAt(event.target);
        for (const word of words)
            word.tabIndex = word === focused ? 0 : -1;
        look();
    });
    row.addEventListener("focusout", () => {
        focused = null;
        look();
    });
    row.addEventListener("keydown", (event) => {
        const at = words.findIndex((word) => word === focused);
        const goal = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: words.length - 1 }[event.key];
        if (goal === undefined)
            return;
        event.preventDefault();
        words[Math.min(words.length - 1, Math.max(0, goal))]?.focus();
    });
    return row;
}
