// The Database contract on the Postgres of the suite, and what is said of one that does not let us in.
import { spawnSync } from "node:child_process";
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { selfSigned } from "../../server/http/edge/certificate.ts";
import { emptyDatabase, openTestPool } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { testDatabaseContract } from "../support/database-contract.ts";

let scratch: TestDatabase;

beforeAll(async () => {
  scratch = await emptyDatabase();
});

afterAll(() => scratch.close());

testDatabaseContract((options = {}) => openTestPool(scratch.url, options));

test.each([false, true])("what is asked of a session at once warns of nothing: %s", (pipelines) => {
  // Node.js tells of what is deprecated once in a process.
  const script = `
    import { openPostgres } from "./server/storage/postgres.ts";
    const limits = { poolSize: 1, connectTimeoutMs: 15_000, statementTimeoutMs: 15_000 };
    const database = openPostgres({ url: process.argv[1], preparedStatements: true, ...limits });
    const session = await database.session({ pipelines: ${pipelines} });
    const rows = await Promise.all([1, 2, 3, 4].map((n) => session.query("select $1::int as n", [n])));
    console.log(JSON.stringify(rows.flat()));
    await session.close();
    await database.close();`;
  const args = ["--input-type=module", "-e", script, scratch.url];
  const { stdout, stderr } = spawnSync("node", args, { encoding: "utf8", timeout: 19_000 });
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toEqual([1, 2, 3, 4].map((n) => ({ n })));
});

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
