// A cited document, opened at the cited span.

import type { CitedDocument } from "./api.js";
import { create, find } from "./dom.js";
import { cut } from "./text.js";

export function openDocument(document: CitedDocument): void {
  const dialog = find("document", HTMLDialogElement);
  find("document-name", HTMLElement).textContent = [document.name, document.part].filter(Boolean).join(", ");
  const mark = create("mark", { tabIndex: -1 });
  find("document-text", HTMLElement).replaceChildren(
    ...cut(document.text, [document]).map((slice) => {
      if (slice.span === null) return slice.text;
      mark.textContent = slice.text;
      return mark;
    }),
  );
  dialog.showModal(); // Esc closes it, and the focus goes back to the citation
  mark.scrollIntoView({ block: "center" });
  mark.focus({ preventScroll: true });
}
