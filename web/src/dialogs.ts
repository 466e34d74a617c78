// The dialogs: each closes with Esc, with its own button, and with a click beside it.

import { find } from "./dom.js";
import type { Text } from "./subject.js";

export function makeDialogsClose(): void {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      const target = event.target as HTMLElement;
      if (target === dialog || target.closest("[data-close]")) dialog.close();
    });
  }
}

/** Asks for the key; null if the person gives none. */
export function askForKey(refused: boolean): Promise<string | null> {
  const field = find("key", HTMLInputElement);
  find("key-refused", HTMLElement).hidden = !refused;
  field.value = "";
  return submitted("key-dialog", "key-form").then((given) => (given && field.value.trim()) || null);
}

/** Asks for a text; null if the person gives none. Told how many there are, for its name. */
export async function askForText(count: number): Promise<Text | null> {
  const name = find("text-name", HTMLInputElement);
  const text = find("text-text", HTMLTextAreaElement);
  name.value = text.value = "";
  name.placeholder = `Text ${count + 1}`;
  const given = await submitted("text-dialog", "text-form");
  return given ? { name: name.value.trim() || name.placeholder, text: text.value } : null;
}

/** Opens a dialog with a form; whether the form was sent before the dialog closed. */
function submitted(dialogId: string, formId: string): Promise<boolean> {
  const dialog = find(dialogId, HTMLDialogElement);
  const form = find(formId, HTMLFormElement);
  return new Promise((resolve) => {
    let sent = false;
    form.onsubmit = (event) => {
      event.preventDefault(); // what it holds stays in the page
      sent = true;
      dialog.close();
    };
    dialog.onclose = () => resolve(sent);
    dialog.showModal();
  });
}
