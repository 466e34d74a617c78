// Ways to give Weft a file: choose it, take a photo, drop it, paste it, or take an example.

import { find } from "./dom.js";

/**
 * @param photo told of what was given as a photo, and its name.
 * @param texts told of text files that were dropped or pasted.
 */
export function takeFiles(
  photo: (source: Blob | HTMLImageElement, name: string) => void,
  texts: (files: File[]) => void,
): void {
  for (const id of ["photo-file", "camera-file"]) {
    const input = find(id, HTMLInputElement);
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      if (file) photo(file, file.name);
      input.value = ""; // so that the same file can be given again
    });
  }

  for (const button of document.querySelectorAll<HTMLButtonElement>("#examples button")) {
    button.addEventListener("click", () => {
      const image = button.querySelector("img");
      if (image !== null) photo(image, image.alt);
    });
  }

  const give = (files: File[]): void => {
    const texty = files.filter(isText);
    if (texty.length > 0) texts(texty);
    else photo(files[0], files[0].name);
  };
  document.addEventListener("paste", (event) => {
    const pasted = event.clipboardData;
    if (pasted === null || pasted.files.length === 0 || pasted.types.includes("text/plain")) return;
    event.preventDefault();
    give([...pasted.files]);
  });
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dragging"); // it has left the window
  });
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dragging");
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    give([...event.dataTransfer.files]);
  });
}

function isText(file: File): boolean {
  return file.type.startsWith("text/") || /\.(txt|md)$/i.test(file.name);
}
