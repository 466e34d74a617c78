// Spans of a text. The server counts code points, a string here counts UTF-16 units: "🐕" is one of the first, two of
// the second.

export interface Span {
  start: number;
  end: number;
}

export interface Slice {
  text: string;
  /** Which of the spans it is; null for the text between them. */
  span: number | null;
}

/** A text cut at the ends of spans, which come in order and do not overlap; together the slices are the whole text. */
export function cut(text: string, spans: readonly Span[]): Slice[] {
  const points = Array.from(text);
  const slices: Slice[] = [];
  let done = 0;
  const add = (start: number, end: number, span: number | null): void => {
    if (end > start) slices.push({ text: points.slice(start, end).join(""), span });
    done = end;
  };
  spans.forEach(({ start, end }, index) => {
    add(done, start, null);
    add(start, end, index);
  });
  add(done, points.length, null);
  return slices;
}

/** So much of a text as fits a line or two. */
export function shortened(text: string, longest: number): string {
  const points = Array.from(text.trim().replace(/\s+/g, " "));
  return points.length <= longest ? points.join("") : `${points.slice(0, longest - 1).join("").trimEnd()}…`;
}
