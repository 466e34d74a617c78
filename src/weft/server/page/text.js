export function cut(text, spans) {
    const points = Array.from(text);
    const slices = [];
    let done = 0;
    const add = (start, end, span) => {
        if (end > start)
            slices.push({ text: points.slice(start, end).join(""), span });
        done = end;
    };
    spans.forEach(({ start, end }, index) => {
        add(done, start, null);
        add(start, end, index);
    });
    add(done, points.length, null);
    return slices;
}
export function shortened(text, longest) {
    const points = Array.from(text.trim().replace(/\s+/g, " "));
    return points.length <= longest ? points.join("") : `${points.slice(0, longest - 1).join("").trimEnd()}…`;
}
