// Laws of the wire when the instance that a client is connected to stops and comes back.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { ONE_REQUEST, eachCluster } from "../support/cluster.ts";
import type { Cluster } from "../support/cluster.ts";
import type { Running } from "../support/holdfast.ts";
import { until } from "../support/until.ts";

let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const SETTINGS = { HOLDFAST_CONFIG: "test/fixtures/laws.langgraph.json" };

const newName = (): string => randomUUID().slice(0, 8);
const inputOf = (name: string): { name: string; gate: string } => ({ name, gate: gate.url });
const whole = (name: string): string[] => ["begin", "work", "finish"].map((node) => `${name}:${node}`);

/** One instance, and its own address. */
function oneOf(cluster: Cluster): { server: Running; url: string } {
  const [[server], [url]] = [cluster.servers, cluster.urls];
  if (!server || !url) throw new Error("There is no instance.");
  return { server, url };
}

eachCluster(SETTINGS, (cluster) => {
  test("leaving cancels when asked, and a socket cut by the server never does", async () => {
    const { runs } = cluster.client;
    const [asked, unasked, cut] = [newName(), newName(), newName()];
    const leaves = async (name: string, onDisconnect: "cancel" | "continue"): Promise<string> => {
      const threadId = await cluster.newThread();
      const leave = new AbortController();
      const options = { input: inputOf(name), signal: leave.signal, onDisconnect };
      const stream = runs.stream(threadId, "slow", options);
      await stream.next();
      await gate.waitFor(name);
      leave.abort();
      await stream.next().catch(() => undefined);
      return threadId;
    };
    const statusOn = async (threadId: string): Promise<string | undefined> =>
      (await runs.list(threadId))[0]?.status;

    const left = await leaves(asked, "cancel");
    await until(() => gate.left.includes(asked), "the graph to stop", 2000);
    await until(async () => (await statusOn(left)) === "interrupted", "the run to be cancelled");
    const goesOn = await leaves(unasked, "continue");
    gate.open(unasked);
    await until(async () => (await statusOn(goesOn)) === "success", "the other run to end");

    const threadId = await cluster.newThread();
    const { server, url } = oneOf(cluster);
    const answer = await fetch(`${url}/threads/${threadId}/runs/stream`, {
      method: "POST",
      body: JSON.stringify({ assistant_id: "slow", input: inputOf(cut), on_disconnect: "cancel" }),
    });
    const end = answer.text().then(() => "a clean end", String);
    await gate.waitFor(cut);
    server.process.kill("SIGTERM");
    expect(await end).toBe("TypeError: terminated");
    await cluster.restart(server);
    gate.open(cut);
    await until(async () => (await statusOn(threadId)) === "success", "the run to end");
    expect((await cluster.client.threads.getState(threadId)).values).toMatchObject({ log: whole(cut) });
  });

  test("join survives a restart of the instance while its headers are held back", async () => {
    const name = newName();
    const threadId = await cluster.newThread();
    const run = await cluster.client.runs.create(threadId, "slow", { input: inputOf(name) });
    await gate.waitFor(name);
    const { server, url } = oneOf(cluster);
    const patient = new Client({ apiUrl: url, defaultHeaders: ONE_REQUEST });
    let isOver = false;
    const joining = patient.runs.join(threadId, run.run_id).finally(() => (isOver = true));
    await delay(100); // no answer tells that the request has arrived
    server.process.kill("SIGTERM");
    await cluster.restart(server);
    expect(isOver).toBe(false);
    gate.open(name);
    expect(await joining).toMatchObject({ log: whole(name) });
  });
});
