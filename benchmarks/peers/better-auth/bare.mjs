// The baseline for Better Auth: the same route and body with Node's HTTP server and nothing else.
// `node bare.mjs PORT`
import { createServer } from "node:http";

const body = { data: "Protected data", user_id: "u".repeat(32), session_id: "s".repeat(32) };

createServer((request, response) => {
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body));
}).listen(Number(process.argv[2]), "127.0.0.1");
