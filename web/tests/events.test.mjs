import assert from "node:assert/strict";
import { test } from "node:test";

import { eventData } from "../build/events.js";

async function events(...pieces) {
  const found = [];
  const stream = (async function* () {
    yield* pieces;
  })();
  for await (const data of eventData(stream)) found.push(data);
  return found;
}

test("an event may arrive in pieces, and several in one", async () => {
  assert.deepEqual(await events("da", "ta: {\"a\": 1}\n", "\ndata: 2\n\ndata: [DO", "NE]\n\n"), ['{"a": 1}', "2", "[DONE]"]);
});

test("lines may end with CR LF, comments are passed over, and data may span lines", async () => {
  assert.deepEqual(await events(": still here\r\n\r\ndata: 1\r", "\ndata:2\r\n\r\n"), ["1\n2"]);
});

test("an event that broke off is none", async () => {
  assert.deepEqual(await events("data: 1\n\ndata: 2"), ["1"]);
});
