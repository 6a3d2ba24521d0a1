// Times of events of protocol v2, as one run tells them.
import { AIMessageChunk } from "@langchain/core/messages";
import { expect, test } from "vitest";
import { ProtocolProjection } from "../../server/runs/protocol/project.ts";
import { ToolPlaces } from "../../server/runs/protocol/tool-places.ts";

test("no event is told as older than the one before it, although the clock goes on while they are made", () => {
  let time = 0;
  const projection = new ProtocolProjection(
    "graph",
    () => (time += 1),
    () => undefined,
    new ToolPlaces(),
  );
  const metadata = { langgraph_node: "answer", langgraph_checkpoint_ns: "answer:1" };
  const piece = new AIMessageChunk({ id: "m", content: "alpha" });
  const told = [
    ...projection.begin([]),
    ...projection.entriesOf({ namespace: [], mode: "messages", payload: [piece, metadata] }),
    ...projection.entriesOf({
      namespace: [],
      mode: "updates",
      payload: { answer: {}, __interrupt__: [{ id: "q", value: "?" }] },
    }),
  ];
  const times = told.map(({ at }) => at ?? 0);
  expect(times.length).toBeGreaterThan(4);
  expect(times).toEqual(times.toSorted((left, right) => left - right));
});
