// The address that a request counts for. What a request says of itself is believed only as far as it passed through
// proxies that the operator named.
import type { IncomingHttpHeaders } from "node:http";
import ipaddr from "ipaddr.js";
import { ConfigInvalid } from "../../errors.ts";

/** What of a request says where it comes from. */
interface Source {
  readonly headers: IncomingHttpHeaders;
  readonly socket: { readonly remoteAddress?: string | undefined };
}

type Address = ipaddr.IPv4 | ipaddr.IPv6;
type Network = readonly [Address, number];

// Whoever has an address of IPv6 has 2^64 of them.
const OWN_BITS = 64;

/**
 * @param proxies networks and addresses that may say for whom they ask
 * @throws ConfigInvalid for one that is neither
 */
export function addressReader(proxies: readonly string[]): (source: Source) => string {
  const networks = proxies.map(networkOf);
  const isProxy = (address: Address): boolean => isWithin(networks, address);
  return ({ socket, headers }) => {
    let caller = parse(socket.remoteAddress);
    if (networks.length === 0 || !caller) return told(caller);
    // Each proxy adds on the right whom it was asked by; what stands left of an address that is no proxy, that one made up.
    const named = [headers["x-forwarded-for"] ?? []].flat().join(",").split(",");
    while (isProxy(caller)) {
      const next = parse(named.pop());
      if (!next) break;
      caller = next;
    }
    return told(caller);
  };
}

/** Tells the host that a client asked for: a proxy may ask for another one. @throws ConfigInvalid as above */
export function hostReader(proxies: readonly string[]): (source: Source) => string | undefined {
  const networks = proxies.map(networkOf);
  return ({ socket, headers }) => {
    const from = parse(socket.remoteAddress);
    const said = [headers["x-forwarded-host"] ?? []].flat().at(-1);
    return from && said !== undefined && isWithin(networks, from) ? said : headers.host;
  };
}

const isWithin = (networks: readonly Network[], address: Address): boolean =>
  networks.some(([network, bits]) => address.kind() === network.kind() && address.match(network, bits));

function networkOf(text: string): Network {
  try {
    if (text.includes("/")) return ipaddr.parseCIDR(text);
    const address = ipaddr.process(text);
    return [address, address.kind() === "ipv4" ? 32 : 128];
  } catch {
    throw new ConfigInvalid(
      `HOLDFAST_TRUSTED_PROXIES: ${text} is neither a network (10.0.0.0/8) nor an address.`,
    );
  }
}

/** Some proxies add the port. IPv4 inside IPv6 is IPv4. */
function parse(text = ""): Address | undefined {
  const bare = text.trim().replace(/^\[(.*)\](:\d+)?$|^([\d.]+):\d+$/, "$1$3");
  return ipaddr.isValid(bare) ? ipaddr.process(bare) : undefined;
}

/** Undefined: the connection is gone already. */
function told(address: Address | undefined): string {
  if (address?.kind() !== "ipv6") return address?.toString() ?? "gone";
  return ipaddr.IPv6.networkAddressFromCIDR(`${address.toNormalizedString()}/${OWN_BITS}`).toString();
}
