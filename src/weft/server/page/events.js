export async function* eventData(pieces) {
    let rest = "";
    let data = [];
    for await (const piece of pieces) {
        const lines = (rest + piece).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
            if (line.startsWith("data:")) {
                data.push(line.slice(5).replace(/^ /, ""));
            }
            else if (line === "" && data.length > 0) {
                yield data.join("\n");
                data = [];
            }
        }
    }
}
export async function* pieces(body) {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    try {
        for (;;) {
            const { done, value } = await reader.read();
            if (done)
                return;
            yield decoder.decode(value, { stream: true });
        }
    }
    finally {
        reader.cancel().catch(() => undefined);
    }
}
