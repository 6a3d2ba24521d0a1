// With which certificate HTTPS is served, if it is.
import { readFile } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import type { Config } from "../../config.ts";
import { ConfigInvalid, messageOf } from "../../errors.ts";
import { selfSigned } from "./certificate.ts";
import type { Certificate } from "./certificate.ts";

/**
 * Undefined: plain HTTP.
 * @param maySelfSign whether one may be made where none is named
 * @throws ConfigInvalid in one sentence
 */
export async function certificateOf(
  { https, tlsCert, tlsKey, host }: Pick<Config, "https" | "tlsCert" | "tlsKey" | "host">,
  maySelfSign: boolean,
): Promise<Certificate | undefined> {
  if (tlsCert === undefined && tlsKey === undefined) {
    if (!https) return undefined;
    if (maySelfSign) return selfSigned(host);
    throw new ConfigInvalid(
      "HOLDFAST_HTTPS (--https) needs HOLDFAST_TLS_CERT and HOLDFAST_TLS_KEY; only holdfast dev makes a certificate by itself.",
    );
  }
  if (tlsCert === undefined || tlsKey === undefined)
    throw new ConfigInvalid("HOLDFAST_TLS_CERT and HOLDFAST_TLS_KEY belong together; set both or none.");
  const cert = await read("HOLDFAST_TLS_CERT", tlsCert);
  const key = await read("HOLDFAST_TLS_KEY", tlsKey);
  try {
    createSecureContext({ cert, key });
  } catch (error) {
    throw new ConfigInvalid(
      `HOLDFAST_TLS_CERT and HOLDFAST_TLS_KEY are no certificate and its key in PEM form: ${messageOf(error)}.`,
    );
  }
  return { cert, key };
}

async function read(setting: string, path: string): Promise<string> {
  return readFile(path, "utf8").catch((error: unknown) => {
    throw new ConfigInvalid(`${setting} names ${path}, which cannot be read: ${messageOf(error)}.`);
  });
}
