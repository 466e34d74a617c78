import { eventData, pieces } from "./events.js";
import { Failure, failureIn, failureOf } from "./failure.js";
const KEY = "weft-key";
export class Api {
    askForKey;
    model = null;
    asking = null;
    constructor(askForKey) {
        this.askForKey = askForKey;
    }
    async knowledge() {
        const list = await this.json("v1/knowledge");
        return list.data.map((one) => one.id);
    }
    async remember(readable, signal) {
        const request = { method: "POST", body: JSON.stringify(readable), signal };
        return (await this.json("v1/memories", request)).id;
    }
    async *answer(messages, knowledge, signal) {
        const request = { model: await this.modelName(), messages, stream: true, ...(knowledge === null ? {} : { knowledge }) };
        const response = await this.request("v1/chat/completions", { method: "POST", body: JSON.stringify(request), signal });
        if (response.body === null)
            throw new Failure(0);
        try {
            for await (const data of eventData(pieces(response.body))) {
                if (data === "[DONE]")
                    return;
                const chunk = JSON.parse(data);
                if (chunk.error)
                    throw failureIn(chunk, 500);
                const delta = chunk.choices[0]?.delta ?? {};
                yield { id: chunk.id, text: delta.content ?? "", citations: delta.citations ?? [] };
            }
        }
        catch (error) {
            throw error instanceof TypeError ? new Failure(0) : error;
        }
        throw new Failure(0);
    }
    explanation(id) {
        return this.json(`v1/explanations/${encodeURIComponent(id)}`);
    }
    document(id, index) {
        return this.json(`v1/explanations/${encodeURIComponent(id)}/documents/${index}`);
    }
    modelName() {
        this.model ??= this.json("v1/models")
            .then((list) => list.data[0].id)
            .catch((error) => {
            this.model = null;
            throw error;
        });
        return this.model;
    }
    async json(path, options = {}) {
        return (await this.request(path, options)).json();
    }
    async request(path, options) {
        for (;;) {
            const key = sessionStorage.getItem(KEY);
            const headers = { "Content-Type": "application/json", ...(key === null ? {} : { Authorization: `Bearer ${key}` }) };
            const response = await fetch(path, { ...options, headers }).catch((error) => {
                throw error instanceof TypeError ? new Failure(0) : error;
            });
            if (response.ok)
                return response;
            const failure = await failureOf(response);
            if (response.status !== 401 || !(await this.anotherKey(key)))
                throw failure;
        }
    }
    async anotherKey(refused) {
        if (sessionStorage.getItem(KEY) !== refused)
            return true;
        this.asking ??= this.askForKey(refused !== null).finally(() => (this.asking = null));
        const key = await this.asking;
        if (key !== null)
            sessionStorage.setItem(KEY, key);
        return key !== null;
    }
}
