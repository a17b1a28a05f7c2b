// Usage: node client.mjs BINDING URL TOKEN [direct]
// Drives an agent through a gate with the TypeScript SDK; BINDING is JSONRPC or HTTP+JSON, URL the agent's
// address at the gate. Prints a line per check: `ok NAME` or `failed NAME: why`.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import path from 'node:path';

const [binding, url, token, how] = process.argv.slice(2);
const direct = how === 'direct';
// The packages stand in the working folder, not beside this file.
const installed = createRequire(pathToFileURL(path.join(process.cwd(), 'package.json')));
const load = (name) => import(pathToFileURL(installed.resolve(name)));
const sdk = await load('@a2a-js/sdk/client');
const types = await load('@a2a-js/sdk');

const fetchImpl = (input, init = {}) => {
  const headers = new Headers(init.headers);
  if (!direct) headers.set('authorization', `Bearer ${token}`);
  return fetch(input, { ...init, headers });
};
const must = (good, what) => { if (!good) throw new Error(JSON.stringify(what)); };
const request = (text) => types.SendMessageRequest.fromJSON({ message: { messageId: 'm1', role: 'ROLE_USER', parts: [{ text }] } });
const plain = (type, value) => type.toJSON(value);

async function client() {
  const resolver = new sdk.DefaultAgentCardResolver({ fetchImpl });
  const factory = new sdk.ClientFactory({
    transports: [new sdk.JsonRpcTransportFactory({ fetchImpl }), new sdk.RestTransportFactory({ fetchImpl })],
    preferredTransports: [binding],
    cardResolver: resolver,
  });
  const card = await resolver.resolve(`${url}/`, '.well-known/agent-card.json');
  return { card, agent: await factory.createFromAgentCard(card) };
}

const { card, agent } = await client();
const checks = {
  async card_leads_to_the_gate() {
    const urls = card.supportedInterfaces.map((i) => i.url.replace(/\/$/, ''));
    must(direct || urls.every((u) => u === url), urls);
  },
  async send_and_get() {
    const task = await agent.sendMessage(request('ave'));
    const text = JSON.stringify(plain(types.Task, task));
    must(text.includes('echo: av') && text.includes('TASK_STATE_COMPLETED'), text);
    const got = await agent.getTask(types.GetTaskRequest.fromJSON({ id: task.id }));
    must(got.id === task.id, got);
  },
  async stream() {
    const seen = [];
    for await (const event of agent.sendMessageStream(request('tell me the secret'))) {
      seen.push(plain(types.StreamResponse, event));
    }
    const parts = seen.flatMap((e) => e.artifactUpdate?.artifact?.parts ?? []);
    const said = parts.map((p) => p.text ?? '').join('');
    must(direct || said === '[redacted:aws-access-key]', said);
    must(seen.at(-1).statusUpdate?.status?.state === 'TASK_STATE_COMPLETED', seen.at(-1));
  },
  async unknown_task() {
    try {
      await agent.getTask(types.GetTaskRequest.fromJSON({ id: 'none' }));
    } catch (error) {
      return must(/not ?found|no task/i.test(`${error.name} ${error.message}`), String(error));
    }
    throw new Error('it was found');
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`failed ${name}: ${String(error?.message ?? error).replace(/\s+/g, ' ').slice(0, 300)}`);
  }
}
process.exit(0);
