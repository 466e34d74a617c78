// What went wrong, as the server or the network tells it, and in plain words.

export class Failure extends Error {
  /**
   * @param status of HTTP; 0 where the server was not reached, or its answer broke off.
   * @param said the server's own words.
   * @param code the server's name for what went wrong.
   * @param wait seconds after which it is worth another try.
   */
  constructor(
    readonly status: number,
    readonly said = "",
    readonly code: string | null = null,
    readonly wait: number | null = null,
  ) {
    super(said || `HTTP ${status}`);
  }
}

export async function failureOf(response: Response): Promise<Failure> {
  const body: unknown = await response.json().catch(() => null);
  const wait = Number(response.headers.get("Retry-After"));
  return failureIn(body, response.status, wait > 0 ? wait : null);
}

/** Of `{"error": {"message": ..., "code": ...}}`. */
export function failureIn(body: unknown, status: number, wait: number | null = null): Failure {
  const error = (body as { error?: { message?: unknown; code?: unknown } } | null)?.error;
  const said = typeof error?.message === "string" ? error.message : "";
  return new Failure(status, said, typeof error?.code === "string" ? error.code : null, wait);
}

export function inPlainWords(error: unknown): string {
  if (!(error instanceof Failure)) return `Something in this page went wrong: ${String(error)}`;
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

function seconds(count: number): string {
  return count === 1 ? "a second" : `${Math.ceil(count)} seconds`;
}
