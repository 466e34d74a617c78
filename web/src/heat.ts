// What a word needs of the picture: a heat map over it, and the same in words. It is drawn as `weft caption --explain`
// draws it, warm where the picture matters to the word and dark elsewhere.

import type { Seen } from "./api.js";

/** Warmth of each cell of a coarse picture, row by row; the warmest cell has 1. */
export interface Heat {
  width: number;
  height: number;
  values: Float32Array;
}

const LONGER_SIDE = 128;
const DIM = 0.35; // how much light is left where nothing matters to the word
const TINT = 0.35; // how much of the warm colour there is where most does
const WARM = [255, 140, 0];

export function heatOf(seen: Seen, weights: readonly number[]): Heat {
  const scale = LONGER_SIDE / Math.max(seen.width, seen.height);
  const width = Math.max(1, Math.round(seen.width * scale));
  const height = Math.max(1, Math.round(seen.height * scale));
  let values = new Float32Array(width * height);
  seen.patches.forEach((patch, index) => {
    const [left, top, right, bottom] = patch.map((side) => Math.round(side * scale));
    for (let y = Math.max(0, top); y < Math.min(height, bottom); y++) {
      for (let x = Math.max(0, left); x < Math.min(width, right); x++) values[y * width + x] += weights[index];
    }
  });
  const [left, top, right, bottom] = seen.patches[0];
  const across = Math.round(((right - left) * scale) / 2);
  const down = Math.round(((bottom - top) * scale) / 2);
  // Three running means come close to a Gaussian, whose width is that of a patch: the edges of patches disappear.
  for (let round = 0; round < 3; round++) {
    values = runningMean(values, height, width, width, 1, across);
    values = runningMean(values, width, height, 1, width, down);
  }
  const most = values.reduce((a, b) => Math.max(a, b), 0) || 1;
  return { width, height, values: values.map((value) => value / most) };
}

/** Means over `2 radius + 1` neighbours along lines; at the ends, over those that there are. */
function runningMean(
  values: Float32Array,
  lines: number,
  length: number,
  lineStep: number,
  step: number,
  radius: number,
): Float32Array<ArrayBuffer> {
  const means = new Float32Array(values.length);
  for (let line = 0; line < lines; line++) {
    const start = line * lineStep;
    let sum = 0;
    for (let at = 0; at < Math.min(radius, length); at++) sum += values[start + at * step];
    for (let at = 0; at < length; at++) {
      if (at + radius < length) sum += values[start + (at + radius) * step];
      if (at - radius - 1 >= 0) sum -= values[start + (at - radius - 1) * step];
      const count = Math.min(length - 1, at + radius) - Math.max(0, at - radius) + 1;
      means[start + at * step] = sum / count;
    }
  }
  return means;
}

/** Draws a heat map; the canvas takes its size, and is stretched over the picture by the style sheet. */
export function draw(canvas: HTMLCanvasElement, heat: Heat): void {
  canvas.width = heat.width;
  canvas.height = heat.height;
  const image = new ImageData(heat.width, heat.height);
  heat.values.forEach((warmth, cell) => {
    // Dimming and tinting a pixel below is laying one colour over it: this one, so opaque.
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

/** Roughly where the warmth is, of nine places, as in "mostly in the upper left". */
export function whereabouts(heat: Heat): string {
  const sums = PLACES.map(() => 0);
  const counts = PLACES.map(() => 0);
  heat.values.forEach((warmth, cell) => {
    const column = Math.floor(((cell % heat.width) * 3) / heat.width);
    const row = Math.floor((Math.floor(cell / heat.width) * 3) / heat.height);
    sums[row * 3 + column] += warmth ** 2; // as it looks: faint warmth is hardly seen
    counts[row * 3 + column] += 1;
  });
  const means = sums.map((sum, place) => sum / Math.max(1, counts[place]));
  const order = PLACES.map((_, place) => place).sort((a, b) => means[b] - means[a]);
  const near = order.filter((place) => means[place] > 0.8 * means[order[0]]);
  if (near.length > 3) return "all over the picture";
  return `mostly ${near.slice(0, 2).map((place) => PLACES[place]).join(" and ")}`;
}

/** A fall of a log-probability as the share of the probability that is lost, as in "63 %". */
export function lessLikely(fall: number): string {
  return `${Math.min(99, Math.round(100 * (1 - Math.exp(-fall))))} %`;
}
