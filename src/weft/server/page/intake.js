import { find } from "./dom.js";
export function takeFiles(photo, texts) {
    for (const id of ["photo-file", "camera-file"]) {
        const input = find(id, HTMLInputElement);
        input.addEventListener("change", () => {
            const file = input.files?.[0];
            if (file)
                photo(file, file.name);
            input.value = "";
        });
    }
    for (const button of document.querySelectorAll("#examples button")) {
        button.addEventListener("click", () => {
            const image = button.querySelector("img");
            if (image !== null)
                photo(image, image.alt);
        });
    }
    const give = (files) => {
        const texty = files.filter(isText);
        if (texty.length > 0)
            texts(texty);
        else
            photo(files[0], files[0].name);
    };
    document.addEventListener("paste", (event) => {
        const pasted = event.clipboardData;
        if (pasted === null || pasted.files.length === 0 || pasted.types.includes("text/plain"))
            return;
        event.preventDefault();
        give([...pasted.files]);
    });
    document.addEventListener("dragover", (event) => {
        if (!event.dataTransfer?.types.includes("Files"))
            return;
        event.preventDefault();
        document.body.classList.add("dragging");
    });
    document.addEventListener("dragleave", (event) => {
        if (event.relatedTarget === null)
            document.body.classList.remove("dragging");
    });
    document.addEventListener("drop", (event) => {
        document.body.classList.remove("dragging");
        if (!event.dataTransfer?.files.length)
            return;
        event.preventDefault();
        give([...event.dataTransfer.files]);
    });
}
function isText(file) {
    return file.type.startsWith("text/") || /\.(txt|md)$/i.test(file.name);
}
