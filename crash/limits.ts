// Thousands of requests at once to servers that share one limit, while servers are killed: exactly as many are let through
// as may be. Only of a request whose server died before it answered nobody knows.
import { setTimeout as delay } from "node:timers/promises";
import type { Random } from "../server/commands/chaos/random.ts";
import type { Stage } from "../server/commands/chaos/round.ts";
import { killWhile } from "./money.ts";
import type { Outcome, Violation } from "./report.ts";
import { onStage } from "./suite.ts";
import type { Suite } from "./suite.ts";

const HANDS = 48;
const KILL_EVERY_MS = 1500;
const LAW = "exactly as many requests are let through as may be";

interface Count {
  passed: number;
  refused: number;
  unanswered: number;
}

export function playLimits(suite: Suite, goal: number): Promise<Outcome> {
  const most = Math.floor(goal / 3);
  const environment = { HOLDFAST_LIMIT_REQUESTS_PER_MINUTE: String(most) };
  return onStage(suite, { fault: "limits", environment }, async (stage) => {
    const over = new AbortController();
    const killing = killWhile(stage, KILL_EVERY_MS, over.signal);
    const count: Count = { passed: 0, refused: 0, unanswered: 0 };
    let left = goal;
    const hand = async (random: Random): Promise<void> => {
      while (left-- > 0) await send(stage, random, count);
    };
    await Promise.all(Array.from({ length: HANDS }, () => hand(stage.random.fork())));
    over.abort();
    const kills = await killing;
    const { passed, refused, unanswered } = count;
    suite.say(
      `limits: ${goal} requests, ${kills} kills, ${passed} of ${most} passed, ${unanswered} unanswered`,
    );
    const violations: Violation[] = [];
    if (passed > most) violations.push({ law: LAW, what: `${passed} of ${most}` });
    if (passed + unanswered < most)
      violations.push({ law: LAW, what: `${passed} + ${unanswered} of ${most}` });
    if (refused === 0) violations.push({ law: "somebody is refused", what: "nobody was" });
    return { trials: goal, violations, takeovers: [], handovers: [] };
  });
}

async function send({ cluster }: Stage, random: Random, count: Count): Promise<void> {
  try {
    const response = await fetch(`${cluster.address(random)}/assistants/search`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    await response.text();
    if (response.status === 429) count.refused += 1;
    else if (response.ok) count.passed += 1;
    else throw new Error(String(response.status));
  } catch {
    count.unanswered += 1;
    await delay(random.between(0, 20));
  }
}
