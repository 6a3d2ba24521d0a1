// A certificate for development that nobody has to make: signed by itself, for this machine alone, and gone with the
// process. Its form is that of RFC 5280; the signature is made by node:crypto.
import { generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { isIP } from "node:net";
import { now } from "../../clock.ts";

/** PEM texts. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

const DAY_MS = 86_400_000;
// Browsers take none that is valid for longer than 398 days.
const VALID_DAYS = 90;
const HOSTS = ["localhost", "127.0.0.1", "::1"];

const [INTEGER, BITS, OCTETS, OID, TEXT, TIME, SEQUENCE, SET] = [
  0x02, 0x03, 0x04, 0x06, 0x0c, 0x18, 0x30, 0x31,
];
const IDS = {
  ecdsaWithSha256: "2a8648ce3d040302",
  commonName: "550403",
  keyUsage: "551d0f",
  subjectAltName: "551d11",
  basicConstraints: "551d13",
  extendedKeyUsage: "551d25",
  serverAuth: "2b06010505070301",
} as const;

/** @param host where the server listens, if it is another name or address than those of this machine */
export function selfSigned(host: string): Certificate {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const algorithm = der(SEQUENCE, id("ecdsaWithSha256"));
  const name = der(
    SEQUENCE,
    der(SET, der(SEQUENCE, id("commonName"), der(TEXT, "Holdfast for development"))),
  );
  const serial = randomBytes(16);
  serial.writeUInt8((serial.readUInt8() & 0x7f) | 0x40); // positive
  const body = der(
    SEQUENCE,
    der(0xa0, der(INTEGER, [2])), // version 3
    der(INTEGER, serial),
    algorithm,
    name,
    der(SEQUENCE, der(TIME, timeOf(now() - DAY_MS)), der(TIME, timeOf(now() + VALID_DAYS * DAY_MS))),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, der(SEQUENCE, ...extensionsFor(new Set([...HOSTS, host])))),
  );
  const signature = sign("sha256", body, privateKey);
  const whole = der(SEQUENCE, body, algorithm, der(BITS, [0], signature));
  const lines = whole.toString("base64").match(/.{1,64}/g) ?? [];
  return {
    cert: ["-----BEGIN CERTIFICATE-----", ...lines, "-----END CERTIFICATE-----", ""].join("\n"),
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}

function extensionsFor(hosts: ReadonlySet<string>): Buffer[] {
  const names = [...hosts].map((host) => (isIP(host) ? der(0x87, addressOf(host)) : der(0x82, host)));
  const critical = der(0x01, [0xff]);
  const digitalSignature = der(BITS, [7, 0x80]);
  return [
    der(SEQUENCE, id("basicConstraints"), critical, der(OCTETS, der(SEQUENCE))), // no authority
    der(SEQUENCE, id("keyUsage"), critical, der(OCTETS, digitalSignature)),
    der(SEQUENCE, id("extendedKeyUsage"), der(OCTETS, der(SEQUENCE, id("serverAuth")))),
    der(SEQUENCE, id("subjectAltName"), der(OCTETS, der(SEQUENCE, ...names))),
  ];
}

type Part = Buffer | string | readonly number[];

/** A tag, a length, and what stands in it. */
function der(tag: number, ...parts: Part[]): Buffer {
  const body = Buffer.concat(
    parts.map((part) => (typeof part === "string" ? Buffer.from(part) : Buffer.from(part))),
  );
  const { length } = body;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), body]);
}

const id = (name: keyof typeof IDS): Buffer => der(OID, Buffer.from(IDS[name], "hex"));

/** YYYYMMDDHHMMSSZ */
const timeOf = (ms: number): string => `${new Date(ms).toISOString().replaceAll(/[-:T]|\..*/g, "")}Z`;

/** The 4 or 16 bytes of an address. */
function addressOf(host: string): number[] {
  if (isIP(host) === 4) return host.split(".").map(Number);
  const [left = "", right] = host.split("::");
  const [head, tail] = [wordsOf(left), wordsOf(right ?? "")];
  const gap = right === undefined ? [] : Array<number>(8 - head.length - tail.length).fill(0);
  return [...head, ...gap, ...tail].flatMap((word) => [word >> 8, word & 0xff]);
}

const wordsOf = (text: string): number[] =>
  text === "" ? [] : text.split(":").map((word) => parseInt(word, 16));
