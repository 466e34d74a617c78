import assert from "node:assert/strict";
import { test } from "node:test";

import { heatOf, lessLikely, whereabouts } from "../build/heat.js";

const grid = (columns, rows, size) =>
  Array.from({ length: columns * rows }, (_, patch) => {
    const [left, top] = [(patch % columns) * size, Math.floor(patch / columns) * size];
    return [left, top, left + size, top + size];
  });
const seen = { width: 400, height: 200, patches: grid(8, 4, 50), weights: [] };
const lookingAt = (...patches) => heatOf(seen, seen.patches.map((_, patch) => (patches.includes(patch) ? 1 : 0.01)));

test("a map has the picture's shape, and the warmest place has 1", () => {
  const heat = lookingAt(0);
  assert.deepEqual([heat.width, heat.height], [128, 64]);
  assert.equal(Math.max(...heat.values), 1);
});

test("the warmest place is where the heaviest patch is", () => {
  const heat = lookingAt(21); // sixth column, third row: around (275, 125) of 400 x 200
  const warmest = heat.values.indexOf(1);
  assert.ok(Math.abs((warmest % 128) - 88) < 8 && Math.abs(Math.floor(warmest / 128) - 40) < 8);
});

test("how much less likely a word is is told in words", () => {
  assert.equal(lessLikely(Math.log(2)), "50 %");
  assert.equal(lessLikely(20), "99 %");
});

test("where it is warm is told in words", () => {
  assert.equal(whereabouts(lookingAt(0)), "mostly in the upper left");
  assert.equal(whereabouts(lookingAt(31)), "mostly in the lower right");
  assert.equal(whereabouts(lookingAt(11, 12, 19, 20)), "mostly in the middle");
  assert.equal(whereabouts(heatOf(seen, seen.patches.map(() => 1))), "all over the picture");
});
