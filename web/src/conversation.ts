// A conversation about one subject: what was said, and how the next question is put to the server.

import type { Api, Message, Piece } from "./api.js";
import { Failure } from "./failure.js";
import { Memories, type Subject } from "./subject.js";

export class Conversation {
  private readonly said: { question: string; answer: string }[] = [];
  private readonly memories: Memories;

  constructor(
    private readonly api: Api,
    readonly subject: Subject,
  ) {
    this.memories = new Memories(subject);
  }

  /** Asks a question, with all that was said before it; the answer comes in pieces. */
  async *ask(question: string, signal: AbortSignal): AsyncGenerator<Piece> {
    try {
      yield* this.attempt(question, signal);
    } catch (error) {
      if (!(error instanceof Failure && error.code === "memory_not_found")) throw error;
      this.memories.forget();
      yield* this.attempt(question, signal);
    }
  }

  /** Remembers a question that was answered. */
  keep(question: string, answer: string): void {
    this.said.push({ question, answer });
  }

  private async *attempt(question: string, signal: AbortSignal): AsyncGenerator<Piece> {
    const messages: Message[] = this.said.flatMap((turn) => [
      { role: "user", content: turn.question },
      { role: "assistant", content: turn.answer },
    ]);
    messages.push({ role: "user", content: question });
    const parts = await this.memories.parts(this.api, signal);
    if (parts.length > 0) {
      messages[0] = { role: "user", content: [...parts, { type: "text", text: this.said[0]?.question ?? question }] };
    }
    const knowledge = this.subject.kind === "knowledge" ? this.subject.name : null;
    yield* this.api.answer(messages, knowledge, signal);
  }
}
