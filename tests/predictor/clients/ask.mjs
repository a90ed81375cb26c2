// Posts files with Node's fetch, all at once.
import { readFile } from "node:fs/promises";

const [url, ...names] = process.argv.slice(2);
const headers = { "content-type": "application/json" };
const answers = names.map(async (name) => {
  const response = await fetch(url, { method: "POST", headers, body: await readFile(name) });
  return `${response.status} ${await response.text()}`;
});
for (const answer of answers) console.log(await answer);
