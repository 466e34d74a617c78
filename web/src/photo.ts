// A picture as the page shows it and the server gets it: upright, not too large, as JPEG. What else a camera
// writes into a file, such as the place, stays behind.

const LONGER_SIDE = 1600;
const QUALITY = 0.92;

/** A file that can't be shown as a picture; the message is for the person who gave it. */
export class NoPicture extends Error {}

export interface Photo {
  url: string;
  width: number;
  height: number;
}

export async function readPhoto(source: Blob | HTMLImageElement, name: string): Promise<Photo> {
  const bitmap = await createImageBitmap(source).catch(() => {
    throw new NoPicture(complaint(source, name));
  });
  const scale = Math.min(1, LONGER_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  if (context === null) throw new NoPicture("This browser can't draw pictures.");
  context.fillStyle = "white"; // what shows through where a picture is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return { url: canvas.toDataURL("image/jpeg", QUALITY), width: canvas.width, height: canvas.height };
}

function complaint(source: Blob | HTMLImageElement, name: string): string {
  return source instanceof Blob && !source.type.startsWith("image/")
    ? `“${name}” is not a picture. Give a photo, for example a JPEG or PNG.`
    : `“${name}” can't be opened: it may be damaged, or of a kind that this browser does not know. Try a JPEG or PNG.`;
}
