import { create, find } from "./dom.js";
import { cut } from "./text.js";
export function openDocument(document) {
    const dialog = find("document", HTMLDialogElement);
    find("document-name", HTMLElement).textContent = [document.name, document.part].filter(Boolean).join(", ");
    const mark = create("mark", { tabIndex: -1 });
    find("document-text", HTMLElement).replaceChildren(...cut(document.text, [document]).map((slice) => {
        if (slice.span === null)
            return slice.text;
        mark.textContent = slice.text;
        return mark;
    }));
    dialog.showModal();
    mark.scrollIntoView({ block: "center" });
    mark.focus({ preventScroll: true });
}
