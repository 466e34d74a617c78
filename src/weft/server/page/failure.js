export class Failure extends Error {
    status;
    said;
    code;
    wait;
    constructor(status, said = "", code = null, wait = null) {
        super(said || `HTTP ${status}`);
        this.status = status;
        this.said = said;
        this.code = code;
        this.wait = wait;
    }
}
export async function failureOf(response) {
    const body = await response.json().catch(() => null);
    const wait = Number(response.headers.get("Retry-After"));
    return failureIn(body, response.status, wait > 0 ? wait : null);
}
export function failureIn(body, status, wait = null) {
    const error = body?.error;
    const said = typeof error?.message === "string" ? error.message : "";
    return new Failure(status, said, typeof error?.code === "string" ? error.code : null, wait);
}
export function inPlainWords(error) {
    if (!(error instanceof Failure))
        return `Something in this page went wrong: ${String(error)}`;
    const later = error.wait === null ? "Try again in a moment." : `Try again in ${seconds(error.wait)}.`;
    switch (error.status) {
        case 0:
            return "Weft can't be reached. Check that it is still running and that you are connected, then try again.";
        case 401:
            return "This Weft answers only with a key. Send again, and give the key.";
        case 413:
            return `That is more than this Weft takes at once. Give a smaller picture or a shorter text. ${error.said}`.trim();
        case 429:
            return `Weft is busy with other questions. ${later}`;
        case 503:
        case 504:
            return `Weft could not answer in time. ${later}`;
        default:
            return error.said || `Weft could not do that (error ${error.status}). Try again.`;
    }
}
function seconds(count) {
    return count === 1 ? "a second" : `${Math.ceil(count)} seconds`;
}
