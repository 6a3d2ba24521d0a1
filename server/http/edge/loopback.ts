// A graph that makes an official client without an address means the server it runs in: `new Client()` looks here.
const ADDRESS = Symbol.for("langgraph_api:url");

/** Tells clients in this process where its server is, until the returned function is called. */
export function announceLoopback(url: string): () => void {
  const address = new URL(url);
  // Bound to every address, it is reached at the loopback one.
  if (address.hostname === "0.0.0.0") address.hostname = "127.0.0.1";
  if (address.hostname === "[::]") address.hostname = "[::1]";
  const { origin } = address;
  Reflect.set(globalThis, ADDRESS, origin);
  return () => {
    if (Reflect.get(globalThis, ADDRESS) === origin) Reflect.deleteProperty(globalThis, ADDRESS);
  };
}
