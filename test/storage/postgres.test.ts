// The Database contract on the Postgres of the suite, and what is said of one that does not let us in.
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { selfSigned } from "../../server/http/certificate.ts";
import { emptyDatabase, openTestPool } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { testDatabaseContract } from "../support/database-contract.ts";

let scratch: TestDatabase;

beforeAll(async () => {
  scratch = await emptyDatabase();
});

afterAll(() => scratch.close());

testDatabaseContract((options = {}) => openTestPool(scratch.url, options));

const withCertificate = (socket: Socket): void => {
  socket.write("S");
  new TLSSocket(socket, { isServer: true, ...selfSigned("other.example") }).on("error", () => undefined);
};
const withoutTls = (socket: Socket): void => void socket.write("N");
/** What PgBouncer says to settings of a connection, in the form of PostgreSQL. */
const asPooler = (socket: Socket): void => {
  const fields = "SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: statement_timeout\0\0";
  const head = Buffer.from("E\0\0\0\0");
  head.writeUInt32BE(fields.length + 4, 1);
  socket.end(Buffer.concat([head, Buffer.from(fields)]));
};

test.each([
  ["?sslmode=verify-full", withCertificate, /could not be secured: .*certificate.* sslrootcert/],
  ["?sslmode=verify-full", withoutTls, /could not be secured: .*support SSL.* sslmode/],
  ["?sslmode=verify-full&sslrootcert=/nowhere.crt", withoutTls, /secured: .*nowhere.crt.* sslrootcert/],
  ["", asPooler, /leads to a pooler: .* HOLDFAST_POOLER=on/],
])("whoever connects with %j is told what to change", async (query, answer, sentence) => {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => answer(socket));
  });
  await new Promise<void>((listens) => server.listen(0, "127.0.0.1", listens));
  const { port } = server.address() as AddressInfo;
  const database = openTestPool(`postgresql://me@localhost:${port}/mine${query}`, {});
  await expect(database.query("/* one */ select 1", [])).rejects.toThrow(sentence);
  await database.close();
  server.close();
});
