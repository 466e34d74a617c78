const LONGER_SIDE = 1600;
const QUALITY = 0.92;
export class NoPicture extends Error {
}
export async function readPhoto(source, name) {
    const bitmap = await createImageBitmap(source).catch(() => {
        throw new NoPicture(complaint(source, name));
    });
    const scale = Math.min(1, LONGER_SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    if (context === null)
        throw new NoPicture("This browser can't draw pictures.");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return { url: canvas.toDataURL("image/jpeg", QUALITY), width: canvas.width, height: canvas.height };
}
function complaint(source, name) {
    return source instanceof Blob && !source.type.startsWith("image/")
        ? `“${name}” is not a picture. Give a photo, for example a JPEG or PNG.`
        : `“${name}” can't be opened: it may be damaged, or of a kind that this browser does not know. Try a JPEG or PNG.`;
}
