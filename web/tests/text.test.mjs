import assert from "node:assert/strict";
import { test } from "node:test";

import { cut, shortened } from "../build/text.js";

test("spans count code points, also behind characters of two UTF-16 units", () => {
  assert.deepEqual(cut("🐕 runs 🐈.", [{ start: 0, end: 1 }, { start: 2, end: 6 }]), [
    { text: "🐕", span: 0 },
    { text: " ", span: null },
    { text: "runs", span: 1 },
    { text: " 🐈.", span: null },
  ]);
});

test("slices together are the whole text", () => {
  const slices = cut("A dog runs.", [{ start: 2, end: 5 }]);
  assert.equal(slices.map((slice) => slice.text).join(""), "A dog runs.");
});

test("a long text is shortened to one line of so many characters", () => {
  assert.equal(shortened("one\ntwo   three", 9), "one two…");
  assert.equal(shortened("one two", 9), "one two");
});
