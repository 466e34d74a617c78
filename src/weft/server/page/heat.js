const LONGER_SIDE = 128;
const DIM = 0.35;
const TINT = 0.35;
const WARM = [255, 140, 0];
export function heatOf(seen, weights) {
    const scale = LONGER_SIDE / Math.max(seen.width, seen.height);
    const width = Math.max(1, Math.round(seen.width * scale));
    const height = Math.max(1, Math.round(seen.height * scale));
    let values = new Float32Array(width * height);
    seen.patches.forEach((patch, index) => {
        const [left, top, right, bottom] = patch.map((side) => Math.round(side * scale));
        for (let y = Math.max(0, top); y < Math.min(height, bottom); y++) {
            for (let x = Math.max(0, left); x < Math.min(width, right); x++)
                values[y * width + x] += weights[index];
        }
    });
    const [left, top, right, bottom] = seen.patches[0];
    const across = Math.round(((right - left) * scale) / 2);
    const down = Math.round(((bottom - top) * scale) / 2);
    for (let round = 0; round < 3; round++) {
        values = runningMean(values, height, width, width, 1, across);
        values = runningMean(values, width, height, 1, width, down);
    }
    const most = values.reduce((a, b) => Math.max(a, b), 0) || 1;
    return { width, height, values: values.map((value) => value / most) };
}
function runningMean(values, lines, length, lineStep, step, radius) {
    const means = new Float32Array(values.length);
    for (let line = 0; line < lines; line++) {
        const start = line * lineStep;
        let sum = 0;
        for (let at = 0; at < Math.min(radius, length); at++)
            sum += values[start + at * step];
        for (let at = 0; at < length; at++) {
            if (at + radius < length)
                sum += values[start + (at + radius) * step];
            if (at - radius - 1 >= 0)
                sum -= values[start + (at - radius - 1) * step];
            const count = Math.min(length - 1, at + radius) - Math.max(0, at - radius) + 1;
            means[start + at * step] = sum / count;
        }
    }
    return means;
}
export function draw(canvas, heat) {
    canvas.width = heat.width;
    canvas.height = heat.height;
    const image = new ImageData(heat.width, heat.height);
    heat.values.forEach((warmth, cell) => {
        const tint = TINT * warmth;
        const opacity = 1 - (DIM + (1 - DIM) * warmth) * (1 - tint);
        image.data.set(WARM.map((channel) => (channel * tint) / opacity).concat(255 * opacity), cell * 4);
    });
    canvas.getContext("2d")?.putImageData(image, 0, 0);
}
const PLACES = [
    "in the upper left",
    "at the top",
    "in the upper right",
    "on the left",
    "in the middle",
    "on the right",
    "in the lower left",
    "at the bottom",
    "in the lower right",
];
export function whereabouts(heat) {
    const sums = PLACES.map(() => 0);
    const counts = PLACES.map(() => 0);
    heat.values.forEach((warmth, cell) => {
        const column = Math.floor(((cell % heat.width) * 3) / heat.width);
        const row = Math.floor((Math.floor(cell / heat.width) * 3) / heat.height);
        sums[row * 3 + column] += warmth ** 2;
        counts[row * 3 + column] += 1;
    });
    const means = sums.map((sum, place) => sum / Math.max(1, counts[place]));
    const order = PLACES.map((_, place) => place).sort((a, b) => means[b] - means[a]);
    const near = order.filter((place) => means[place] > 0.8 * means[order[0]]);
    if (near.length > 3)
        return "all over the picture";
    return `mostly ${near.slice(0, 2).map((place) => PLACES[place]).join(" and ")}`;
}
export function lessLikely(fall) {
    return `${Math.min(99, Math.round(100 * (1 - Math.exp(-fall))))} %`;
}
