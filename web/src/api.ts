// The server's HTTP interface. Everything else in the page gets its data from here.

import { eventData, pieces } from "./events.js";
import { Failure, failureIn, failureOf } from "./failure.js";
import type { Span } from "./text.js";

export type Part = { type: "text"; text: string } | { type: "memory"; id: string };

export interface Message {
  role: "user" | "assistant";
  content: string | Part[];
}

/** What can be read: a picture as a data URL, or a text with its name. */
export type Readable = { image_url: { url: string } } | { text: string; name: string };

export interface Citation {
  /** Which document of the answer's explanation. */
  document: number;
  name: string;
  quote: string;
}

/** What each word needs of one picture, whose patches are `[left, top, right, bottom]` in its pixels. */
export interface Seen {
  width: number;
  height: number;
  patches: [number, number, number, number][];
  /** For each word how much of what it needs lies on each patch. */
  weights: number[][];
  /** For each word by how much its log-probability falls without the region that it needs most. */
  falls: number[];
  /** For each word whether some region matters to it. */
  matters: boolean[];
}

export interface Explanation {
  text: string;
  words: Span[];
  pictures: Seen[];
}

/** A whole document, and the span of it that was cited. */
export interface CitedDocument extends Span {
  name: string;
  part: string;
  text: string;
}

/** A piece of an answer: some of its text, or, at its end, what it cites. */
export interface Piece {
  id: string;
  text: string;
  citations: Citation[];
}

/** Asks for the key; null if there is none to be had. Told whether one was refused just now. */
export type AskForKey = (refused: boolean) => Promise<string | null>;

const KEY = "weft-key";

export class Api {
  private model: Promise<string> | null = null;
  private asking: Promise<string | null> | null = null;

  constructor(private readonly askForKey: AskForKey) {}

  async knowledge(): Promise<string[]> {
    const list = await this.json<{ data: { id: string }[] }>("v1/knowledge");
    return list.data.map((one) => one.id);
  }

  /** Has something read, and returns the id of the memory. */
  async remember(readable: Readable, signal: AbortSignal): Promise<string> {
    const request = { method: "POST", body: JSON.stringify(readable), signal };
    return (await this.json<{ id: string }>("v1/memories", request)).id;
  }

  /** Answers the last message, piece by piece. */
  async *answer(messages: Message[], knowledge: string | null, signal: AbortSignal): AsyncGenerator<Piece> {
    const request = { model: await this.modelName(), messages, stream: true, ...(knowledge === null ? {} : { knowledge }) };
    const response = await this.request("v1/chat/completions", { method: "POST", body: JSON.stringify(request), signal });
    if (response.body === null) throw new Failure(0);
    try {
      for await (const data of eventData(pieces(response.body))) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw failureIn(chunk, 500);
        const delta = chunk.choices[0]?.delta ?? {};
        yield { id: chunk.id, text: delta.content ?? "", citations: delta.citations ?? [] };
      }
    } catch (error) {
      throw error instanceof TypeError ? new Failure(0) : error; // how fetch says that the connection was lost
    }
    throw new Failure(0);
  }

  explanation(id: string): Promise<Explanation> {
    return this.json(`v1/explanations/${encodeURIComponent(id)}`);
  }

  document(id: string, index: number): Promise<CitedDocument> {
    return this.json(`v1/explanations/${encodeURIComponent(id)}/documents/${index}`);
  }

  private modelName(): Promise<string> {
    this.model ??= this.json<{ data: { id: string }[] }>("v1/models")
      .then((list) => list.data[0].id)
      .catch((error: unknown) => {
        this.model = null; // asked for again next time
        throw error;
      });
    return this.model;
  }

  private async json<T>(path: string, options: RequestInit = {}): Promise<T> {
    return (await this.request(path, options)).json();
  }

  /** A response that went well; while the server wants a key, the person is asked for it. */
  private async request(path: string, options: RequestInit): Promise<Response> {
    for (;;) {
      const key = sessionStorage.getItem(KEY);
      const headers = { "Content-Type": "application/json", ...(key === null ? {} : { Authorization: `Bearer ${key}` }) };
      const response = await fetch(path, { ...options, headers }).catch((error: unknown) => {
        throw error instanceof TypeError ? new Failure(0) : error;
      });
      if (response.ok) return response;
      const failure = await failureOf(response);
      if (response.status !== 401 || !(await this.anotherKey(key))) throw failure;
    }
  }

  /** Whether there is another key to try than the one that was refused. Requests refused together ask once. */
  private async anotherKey(refused: string | null): Promise<boolean> {
    if (sessionStorage.getItem(KEY) !== refused) return true;
    this.asking ??= this.askForKey(refused !== null).finally(() => (this.asking = null));
    const key = await this.asking;
    if (key !== null) sessionStorage.setItem(KEY, key);
    return key !== null;
  }
}
