// LangChain carries the configuration of each step to what runs inside it in a trace of its own, which it makes with ids,
// times and a manager of callbacks, also where nobody traces: a tenth of what a run costs. Where nobody traces, a plain
// object carries it here. A graph that brings its own copy of LangChain keeps that copy's way.
import {
  _CONTEXT_VARIABLES_KEY as VARIABLES,
  AsyncLocalStorageProviderSingleton,
} from "@langchain/core/singletons";

type Provider = typeof AsyncLocalStorageProviderSingleton;
type RunWithConfig = Provider["runWithConfig"];

/** What stands in LangChain's storage while a step runs: a trace of langsmith's, or what is taken for one. */
interface Step {
  extra?: object;
  readonly tracingEnabled?: boolean;
  createChild?: (config: object) => unknown;
  [VARIABLES]?: unknown;
}

const CONFIG = Symbol.for("lc:child_config");
const TRACER = "langchain_tracer";

/** Lets the steps of this process's graphs be untraced where they are. Returns what takes it back. */
export function carryPlainly(): () => void {
  const provider = AsyncLocalStorageProviderSingleton;
  const traced: RunWithConfig = Object.getPrototypeOf(provider).runWithConfig;
  const storage = (): ReturnType<Provider["getInstance"]> => provider.getInstance();
  const traceOf = (config: unknown): Step =>
    traced.call(provider, config, () => storage().getStore()) as Step;

  // It has a trace's methods, so that langsmith takes it for one; only a child of it needs what a trace holds.
  const untraced: Step = Object.create(Object.getPrototypeOf(traceOf({})), {
    createChild: {
      value(this: Step, config: object) {
        const trace = traceOf({});
        return trace.createChild?.call(Object.assign(trace, this), config);
      },
    },
  });

  provider.runWithConfig = <T>(config: unknown, work: () => T, isOwn?: boolean): T => {
    const before: Step | undefined = storage().getStore();
    if (before?.tracingEnabled || isTraced(config)) return traced.call(provider, config, work, isOwn) as T;
    const variables = before?.[VARIABLES];
    const hasVariables = variables !== undefined;
    if (isOwn) return storage().run(hasVariables ? { [VARIABLES]: variables } : undefined, work);
    const step: Step = Object.create(untraced);
    Object.assign(step, { name: "<runnable_lambda>", tracingEnabled: false, extra: { [CONFIG]: config } });
    if (hasVariables) step[VARIABLES] = variables;
    return storage().run(step, work);
  };
  return () => void Reflect.deleteProperty(provider, "runWithConfig");
}

function isTraced(config: unknown): boolean {
  const callbacks: unknown = Object(config).callbacks;
  const handlers: unknown = Array.isArray(callbacks) ? callbacks : Object(callbacks).handlers;
  return Array.isArray(handlers) && handlers.some((one) => Object(one).name === TRACER);
}
