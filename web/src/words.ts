// The words of an answer, each of which can be pointed at, tapped or reached with the arrow keys.

import type { Explanation } from "./api.js";
import { create } from "./dom.js";
import { cut } from "./text.js";

/** Told which word is looked at now, as a number; null when none is any more. */
export type OnLook = (word: number | null) => void;

/** A row of words with one stop for the Tab key; left, right, Home and End move within it. */
export function wordRow(explanation: Explanation, onLook: OnLook): HTMLElement {
  const row = create("div", { className: "words" });
  row.setAttribute("role", "toolbar");
  row.setAttribute("aria-label", "Words of the answer; move with the arrow keys to see what in the picture each needs");
  const lit = explanation.pictures[0]?.matters;
  const words: HTMLElement[] = [];
  for (const slice of cut(explanation.text, explanation.words)) {
    if (slice.span === null) {
      row.append(slice.text);
      continue;
    }
    const className = lit?.[words.length] === false ? "word unlit" : "word";
    const word = create("span", { className, tabIndex: words.length === 0 ? 0 : -1 }, slice.text);
    word.setAttribute("role", "button"); // no <button>: its text could not be selected and copied
    words.push(word);
    row.append(word);
  }

  let pointed: HTMLElement | null = null;
  let focused: HTMLElement | null = null;
  const look = (): void => {
    const looked = pointed ?? focused;
    for (const word of words) word.classList.toggle("looked", word === looked);
    onLook(looked === null ? null : words.indexOf(looked));
  };
  const wordAt = (target: EventTarget | null): HTMLElement | null => words.find((word) => word === target) ?? null;

  row.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse") return; // a finger taps, which gives the focus
    pointed = wordAt(event.target) ?? pointed; // between two words it stays with the one before
    look();
  });
  row.addEventListener("pointerleave", () => {
    if (pointed === null) return;
    pointed = null;
    look();
  });
  row.addEventListener("focusin", (event) => {
    focused = wordAt(event.target);
    for (const word of words) word.tabIndex = word === focused ? 0 : -1;
    look();
  });
  row.addEventListener("focusout", () => {
    focused = null;
    look();
  });
  row.addEventListener("keydown", (event) => {
    const at = words.findIndex((word) => word === focused);
    const goal = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: words.length - 1 }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    words[Math.min(words.length - 1, Math.max(0, goal))]?.focus();
  });
  return row;
}
