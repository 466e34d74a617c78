import { Failure } from "./failure.js";
import { Memories } from "./subject.js";
export class Conversation {
    api;
    subject;
    said = [];
    memories;
    constructor(api, subject) {
        this.api = api;
        this.subject = subject;
        this.memories = new Memories(subject);
    }
    async *ask(question, signal) {
        try {
            yield* this.attempt(question, signal);
        }
        catch (error) {
            if (!(error instanceof Failure && error.code === "memory_not_found"))
                throw error;
            this.memories.forget();
            yield* this.attempt(question, signal);
        }
    }
    keep(question, answer) {
        this.said.push({ question, answer });
    }
    async *attempt(question, signal) {
        const messages = this.said.flatMap((turn) => [
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
