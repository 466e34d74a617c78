import { find } from "./dom.js";
export function makeDialogsClose() {
    for (const dialog of document.querySelectorAll("dialog")) {
        dialog.addEventListener("click", (event) => {
            const target = event.target;
            if (target === dialog || target.closest("[data-close]"))
                dialog.close();
        });
    }
}
export function askForKey(refused) {
    const field = find("key", HTMLInputElement);
    find("key-refused", HTMLElement).hidden = !refused;
    field.value = "";
    return submitted("key-dialog", "key-form").then((given) => (given && field.value.trim()) || null);
}
export async function askForText(count) {
    const name = find("text-name", HTMLInputElement);
    const text = find("text-text", HTMLTextAreaElement);
    name.value = text.value = "";
    name.placeholder = `Text ${count + 1}`;
    const given = await submitted("text-dialog", "text-form");
    return given ? { name: name.value.trim() || name.placeholder, text: text.value } : null;
}
function submitted(dialogId, formId) {
    const dialog = find(dialogId, HTMLDialogElement);
    const form = find(formId, HTMLFormElement);
    return new Promise((resolve) => {
        let sent = false;
        form.onsubmit = (event) => {
            event.preventDefault();
            sent = true;
            dialog.close();
        };
        dialog.onclose = () => resolve(sent);
        dialog.showModal();
    });
}
