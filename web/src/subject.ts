// What a conversation is about: a photo, texts, or a knowledge base.

import type { Api, Part, Readable } from "./api.js";
import type { Photo } from "./photo.js";

export interface Text {
  name: string;
  text: string;
}

export type Subject =
  | { kind: "nothing" }
  | { kind: "photo"; photo: Photo }
  | { kind: "texts"; texts: Text[] }
  | { kind: "knowledge"; name: string };

/** What a conversation is about, as the server holds it: read once, and named by an id from then on. */
export class Memories {
  private readonly readables: Readable[];
  private ids: string[] | null = null;

  constructor(subject: Subject) {
    this.readables = readablesOf(subject);
  }

  /** Parts for a message; what the server has not read yet, it reads now. */
  async parts(api: Api, signal: AbortSignal): Promise<Part[]> {
    this.ids ??= await Promise.all(this.readables.map((readable) => api.remember(readable, signal)));
    return this.ids.map((id) => ({ type: "memory", id }));
  }

  /** The server has forgotten what it read. */
  forget(): void {
    this.ids = null;
  }
}

function readablesOf(subject: Subject): Readable[] {
  switch (subject.kind) {
    case "photo":
      return [{ image_url: { url: subject.photo.url } }];
    case "texts":
      return subject.texts;
    default:
      return [];
  }
}
