// Better Auth as its documentation sets it up: e-mail and password, PostgreSQL, mounted in Node's HTTP server.
// `node server.mjs PORT DATABASE_URL cache|nocache`, in a separate folder.
import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { fromNodeHeaders, toNodeHandler } from "better-auth/node";
import pg from "pg";

const [port, database, cache] = process.argv.slice(2);

const auth = betterAuth({
  baseURL: `http://127.0.0.1:${port}`,
  secret: "a secret of the benchmarks, with more than 32 bytes",
  database: new pg.Pool({ connectionString: database }),
  emailAndPassword: { enabled: true },
  session: { cookieCache: { enabled: cache === "cache", maxAge: 5 * 60 } },
  rateLimit: { enabled: false }, // the load comes from one IP address
  telemetry: { enabled: false },
});

await (await getMigrations(auth.options)).runMigrations();
const handler = toNodeHandler(auth);

createServer(async (request, response) => {
  if (request.url !== "/protected") return handler(request, response);
  const session = await auth.api.getSession({ headers: fromNodeHeaders(request.headers) });
  response.writeHead(session ? 200 : 401, { "Content-Type": "application/json" });
  response.end(
    JSON.stringify(
      session
        ? { data: "Protected data", user_id: session.user.id, session_id: session.session.id }
        : { error: "unauthorized" },
    ),
  );
}).listen(Number(port), "127.0.0.1");
