// What the hash of an entry of the audit log covers, and which link does not fit the one before it.
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { faultsOf, hashOf } from "../../server/privacy/chain.ts";
import type { ChainedEntry, Link } from "../../server/privacy/chain.ts";

const entry: ChainedEntry = {
  entry_id: "01990000-0000-7000-8000-000000000001",
  tenant_id: "default",
  at: "2026-01-02T03:04:05.678901Z",
  actor_kind: "command",
  actor_hash: null,
  action: "keys.rotated",
  object: "k1",
  outcome: "done",
  detail: '{"count": 12345678901234567890}',
};

test("the hash is that of the one before it and the entry as JSON with sorted keys", () => {
  const text =
    '{"action":"keys.rotated","actor_hash":null,"actor_kind":"command","at":"2026-01-02T03:04:05.678901Z",' +
    '"detail":"{\\"count\\": 12345678901234567890}","entry_id":"01990000-0000-7000-8000-000000000001",' +
    '"object":"k1","outcome":"done","tenant_id":"default"}';
  const first = createHash("sha256").update(text).digest();
  expect(hashOf(null, entry)).toEqual(first);
  const second = createHash("sha256")
    .update(Buffer.concat([first, Buffer.from(text)]))
    .digest();
  expect(hashOf(first, entry)).toEqual(second);
});

test("fields in another order have the same hash", () => {
  const turned = Object.fromEntries(Object.entries(entry).toReversed()) as unknown as ChainedEntry;
  expect(hashOf(null, turned)).toEqual(hashOf(null, entry));
});

test.each(Object.keys(entry))("a change of %s changes the hash", (field) => {
  expect(hashOf(null, { ...entry, [field]: "x" })).not.toEqual(hashOf(null, entry));
});

const linkAfter = (before: Link | undefined): Link => {
  const prev = before?.hash ?? null;
  return { seq: (before?.seq ?? 0) + 1, prev_hash: prev, hash: hashOf(prev, entry), entry };
};

test("a link that fits has no fault, and any other says what it is", () => {
  const first = linkAfter(undefined);
  const second = linkAfter(first);
  expect([faultsOf(first, undefined), faultsOf(second, first)]).toEqual([[], []]);
  expect(faultsOf(second, undefined)).toEqual(["gap"]);
  expect(faultsOf({ ...first, seq: 0 }, undefined)).toEqual(["gap"]);
  expect(faultsOf({ ...second, seq: 1 }, undefined)).toEqual(["unbound"]);
  expect(faultsOf({ ...second, entry: null }, first)).toEqual(["gone"]);
  expect(faultsOf({ ...second, entry: { ...entry, object: "k2" } }, first)).toEqual(["altered"]);
  expect(faultsOf({ ...second, prev_hash: null }, first)).toEqual(["unbound", "altered"]);
});
