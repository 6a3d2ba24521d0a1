// Routes of budgets and of what was used. With auth they are for operators: a caller needs the permission budgets:read or
// budgets:write, unless auth has no handlers and so lets everybody do everything.
import { Hono } from "hono";
import { AccessDenied } from "../errors.ts";
import {
  changeBudget,
  createBudget,
  deleteBudget,
  getBudget,
  searchBudgets,
  searchUsage,
} from "../runs/budgets.ts";
import type { Actor } from "../runs/budgets.ts";
import type { Engine } from "../runs/engine.ts";
import { pseudonymOf } from "../storage/keys/pseudonyms.ts";
import { callerOf } from "./callers/asker.ts";
import type { Asker } from "./callers/asker.ts";
import { mayAll } from "./callers/auth.ts";
import { budgetChange, budgetCreate, budgetQuery, usageQuery } from "./budget-schemas.ts";
import { readBody } from "./edge/ingress.ts";
import { check } from "./schemas.ts";
import type { Bindings } from "./bindings.ts";

export function budgetRoutes({ database, gateway }: Pick<Engine, "database" | "gateway">): Hono<Bindings> {
  const app = new Hono<Bindings>();

  app.get("/budgets", async (context) => {
    require(context, "budgets:read");
    return context.json(await searchBudgets(database, check(budgetQuery, context.req.query())));
  });

  app.post("/budgets", async (context) => {
    require(context, "budgets:write");
    const request = check(budgetCreate, await readBody(context));
    const budget = await createBudget(database, request, await actorOf(context));
    gateway.budgetsChanged();
    return context.json(budget);
  });

  app.get("/budgets/usage", async (context) => {
    require(context, "budgets:read");
    return context.json(await searchUsage(database, check(usageQuery, context.req.query())));
  });

  app.get("/budgets/:budget", async (context) => {
    require(context, "budgets:read");
    return context.json(await getBudget(database, context.req.param("budget")));
  });

  app.patch("/budgets/:budget", async (context) => {
    require(context, "budgets:write");
    const id = context.req.param("budget");
    const { max } = check(budgetChange, await readBody(context));
    return context.json(await changeBudget(database, { id, max }, await actorOf(context)));
  });

  app.delete("/budgets/:budget", async (context) => {
    require(context, "budgets:write");
    await deleteBudget(database, context.req.param("budget"), await actorOf(context));
    gateway.budgetsChanged();
    return context.body(null, 204);
  });

  async function actorOf(context: Asker): Promise<Actor> {
    const caller = callerOf(context);
    if (!caller) return { actorKind: "caller" };
    return { actorKind: "caller", actorHash: await pseudonymOf(database, caller.user.identity) };
  }

  return app;
}

/** @throws AccessDenied */
function require(context: Asker, permission: "budgets:read" | "budgets:write"): void {
  const caller = callerOf(context);
  if (caller && !mayAll(context) && !caller.permissions.includes(permission)) throw new AccessDenied();
}
