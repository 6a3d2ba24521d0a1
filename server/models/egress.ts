// Connections to addresses that came from a client. None reaches anything but the public internet, unless the operator
// opened it: the check is made on the address that is being connected to, so no redirect, no DNS answer and no way of
// writing an address gets around it.
import { lookup as lookUp } from "node:dns";
import type { LookupAddress } from "node:dns";
import ipaddr from "ipaddr.js";
import { Agent, buildConnector, fetch } from "undici";
import { deadline } from "../clock.ts";
import { ConfigInvalid, WebhookRefused } from "../errors.ts";
import type { Egress } from "../services.ts";

export interface EgressOptions {
  /** CIDRs, addresses and host names (`*.` for all below one) that may be reached although they are not public. */
  readonly allow?: readonly string[];
  /** Only https to the public internet; what `allow` names may still be plain. */
  readonly isHttpsOnly?: boolean;
  /** How names become addresses: the system's resolver. */
  readonly resolve?: Resolve;
}

type Resolve = (
  host: string,
  options: { all: true; family?: number; hints?: number },
  done: (error: Error | null, addresses: LookupAddress[]) => void,
) => void;

interface Policy {
  readonly isHttpsOnly: boolean;
  readonly isHostOpen: (host: string) => boolean;
  readonly isAddressOpen: (address: string) => boolean;
}

interface LookupQuery {
  readonly all?: boolean;
  readonly family?: number;
  readonly hints?: number;
}
type Callback = (error: Error | null, address: string | LookupAddress[], family?: number) => void;

const MAX_ANSWER_BYTES = 64 * 1024;
// Globally routed, yet a cloud's own: Azure answers its virtual machines there.
const NOT_PUBLIC = [ipaddr.parseCIDR("168.63.129.16/32")];
// What IPv6 calls global unicast; everything else is special, whatever name it gets later.
const GLOBAL_IPV6 = ipaddr.parseCIDR("2000::/3");

/** @throws ConfigInvalid when an entry of `allow` is neither a CIDR, an address nor a host name */
export function openEgress(options: EgressOptions = {}): Egress {
  const policy = policyOf(options);
  const agent = new Agent({
    connect: guarded(policy, options.resolve ?? lookUp),
    maxOrigins: 1000,
    pipelining: 0,
  });
  return {
    assertPublicUrl: (url) => void parse(url, policy),
    send: async (url, request) => {
      const { maxBytes = MAX_ANSWER_BYTES, timeoutMs, signal, mayRedirect = false, ...rest } = request;
      const until = deadline(timeoutMs, signal);
      const redirect = mayRedirect ? "manual" : "error";
      const init = { ...rest, redirect, dispatcher: agent, signal: until } as const;
      const response = await fetch(parse(url, policy), init).catch(rethrowCause);
      return {
        status: response.status,
        body: await readAtMost(maxBytes, response.body),
        contentType: response.headers.get("content-type") ?? undefined,
        location: response.headers.get("location") ?? undefined,
      };
    },
    close: () => agent.destroy(),
  };
}

function parse(text: string, policy: Policy): URL {
  const url = URL.parse(text);
  if (!url || (url.protocol !== "http:" && url.protocol !== "https:"))
    throw new WebhookRefused("A webhook must be an http or https URL, or a path that begins with one slash.");
  if (url.username || url.password)
    throw new WebhookRefused(
      "A webhook URL must not hold a user name or password; webhooks are signed instead.",
    );
  const host = hostOf(url.hostname);
  const isOpen = policy.isHostOpen(host) || (ipaddr.isValid(host) && policy.isAddressOpen(host));
  if (isOpen) return url;
  if (/(^|\.)localhost\.?$/.test(host) || (ipaddr.isValid(host) && !isPublic(host))) throw refused(host);
  if (policy.isHttpsOnly && url.protocol !== "https:")
    throw new WebhookRefused(`A webhook to ${host} must use https on this server.`);
  return url;
}

/** Connects like undici does, to addresses that the policy lets through. */
function guarded(policy: Policy, resolve: Resolve): buildConnector.connector {
  const mayConnect = (address: string): boolean => policy.isAddressOpen(address) || isPublic(address);
  const lookup = (host: string, options: LookupQuery, done: Callback): void => {
    resolve(host, { ...options, all: true }, (error, addresses) => {
      if (error) return done(error, []);
      // One private address among public ones is how a name gets around a check of the first.
      const isFine = policy.isHostOpen(hostOf(host)) || addresses.every(({ address }) => mayConnect(address));
      const [first] = addresses;
      if (!isFine || !first) return done(refused(host), []);
      return options.all ? done(null, addresses) : done(null, first.address, first.family);
    });
  };
  const connect = buildConnector({ lookup: lookup as never, timeout: 10_000 }); // undici's type lacks `all`
  return (options, callback) => {
    const host = hostOf(options.hostname);
    // An address is connected to without a look-up.
    if (ipaddr.isValid(host) && !mayConnect(host) && !policy.isHostOpen(host)) callback(refused(host), null);
    else connect(options, callback);
  };
}

function policyOf({ allow = [], isHttpsOnly = false }: EgressOptions): Policy {
  const ranges: [ipaddr.IPv4 | ipaddr.IPv6, number][] = [];
  const hosts: string[] = [];
  for (const entry of allow.map((one) => one.trim()).filter(Boolean)) {
    const bare = hostOf(entry);
    if (ipaddr.isValidCIDR(entry)) ranges.push(ipaddr.parseCIDR(entry));
    else if (ipaddr.isValid(bare)) ranges.push(single(bare));
    else if (/^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$/.test(bare) && !/^[\d.]+$/.test(bare)) hosts.push(bare);
    else
      throw new ConfigInvalid(
        `HOLDFAST_EGRESS_ALLOW holds ${entry}, which is no CIDR, address or host name.`,
      );
  }
  return {
    isHttpsOnly,
    isHostOpen: (host) =>
      hosts.some((one) => (one.startsWith("*.") ? host.endsWith(one.slice(1)) : one === host)),
    isAddressOpen: (address) => isWithin(address, ranges),
  };
}

function isPublic(address: string): boolean {
  const parsed = ipaddr.process(address);
  if (parsed.range() !== "unicast" || isWithin(address, NOT_PUBLIC)) return false;
  return parsed.kind() === "ipv4" || isWithin(address, [GLOBAL_IPV6]);
}

function isWithin(address: string, ranges: readonly [ipaddr.IPv4 | ipaddr.IPv6, number][]): boolean {
  const parsed = ipaddr.process(address);
  return ranges.some(([base, bits]) => parsed.kind() === base.kind() && parsed.match(base, bits));
}

function single(address: string): [ipaddr.IPv4 | ipaddr.IPv6, number] {
  const parsed = ipaddr.process(address);
  return [parsed, parsed.kind() === "ipv4" ? 32 : 128];
}

/** Without brackets, the dot of the root, or capitals. */
const hostOf = (host: string): string =>
  host
    .replace(/^\[|\]$/g, "")
    .replace(/\.$/, "")
    .toLowerCase();

const refused = (host: string): WebhookRefused =>
  new WebhookRefused(
    `${host} is not a public address. To allow it, the operator adds it to HOLDFAST_EGRESS_ALLOW.`,
  );

/** fetch() hides every reason behind "fetch failed". */
function rethrowCause(error: unknown): never {
  throw error instanceof TypeError && error.cause instanceof Error ? error.cause : error;
}

/** The beginning of an answer; what is longer is not read, and its connection is given up. */
async function readAtMost(maxBytes: number, body: ReadableStream<Uint8Array> | null): Promise<string> {
  if (maxBytes === 0) {
    await body?.cancel().catch(() => undefined); // it may have broken off already
    return "";
  }
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body ?? []) {
    parts.push(part.subarray(0, maxBytes - size));
    size += part.length;
    if (size >= maxBytes) break;
  }
  return Buffer.concat(parts).toString("utf8");
}
