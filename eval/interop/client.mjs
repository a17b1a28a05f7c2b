// Usage: node client.mjs SDK ERA URL TOKEN SERVER FOLDER
// Drives one MCP server through a gate with the official TypeScript SDK: SDK is `ts1` (the v1 line) or
// `ts2` (the v2 line), ERA a protocol revision. Prints a line per check: `ok NAME` or `failed NAME: why`.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import path from 'node:path';

const [sdk, era, url, token, server, folder] = process.argv.slice(2);
// The packages stand in the working folder, not beside this file.
const installed = createRequire(pathToFileURL(path.join(process.cwd(), 'package.json')));
const load = (name) => import(pathToFileURL(installed.resolve(name)));

const CAPABILITIES = { elicitation: { form: {} }, sampling: {}, roots: {} };
const ANSWERS = {
  'elicitation/create': () => ({ action: 'accept', content: { name: 'Marcus Tullius Cicero' } }),
  'sampling/createMessage': () => ({ role: 'assistant', model: 'none', stopReason: 'endTurn', content: { type: 'text', text: 'Civis romanus sum' } }),
  'roots/list': () => ({ roots: [{ uri: 'file:///forum', name: 'forum' }] }),
};

async function v1() {
  const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
  const { StreamableHTTPClientTransport } = await load('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const types = await load('@modelcontextprotocol/sdk/types.js');
  const client = new Client({ name: 'interop-ts1', version: '1.0.0' }, { capabilities: CAPABILITIES });
  client.setRequestHandler(types.ElicitRequestSchema, ANSWERS['elicitation/create']);
  client.setRequestHandler(types.CreateMessageRequestSchema, ANSWERS['sampling/createMessage']);
  client.setRequestHandler(types.ListRootsRequestSchema, ANSWERS['roots/list']);
  await client.connect(transport(StreamableHTTPClientTransport));
  const call = (name, args, options) => client.callTool({ name, arguments: args }, undefined, options);
  return { client, call };
}

async function v2() {
  const { Client, StreamableHTTPClientTransport } = await load('@modelcontextprotocol/client');
  const mode = era === '2026-07-28' ? { pin: era } : 'legacy';
  const client = new Client({ name: 'interop-ts2', version: '1.0.0' }, { capabilities: CAPABILITIES, versionNegotiation: { mode } });
  for (const [method, answer] of Object.entries(ANSWERS)) client.setRequestHandler(method, answer);
  await client.connect(transport(StreamableHTTPClientTransport));
  const call = (name, args, options) => client.callTool({ name, arguments: args }, options);
  return { client, call };
}

const transport = (Transport) => new Transport(new URL(url), { requestInit: { headers: { authorization: `Bearer ${token}` } } });
const text = (result) => result.content.filter((c) => c.type === 'text').map((c) => c.text).join('\n');
const must = (condition, what) => { if (!condition) throw new Error(what); };
const names = (list) => list.map((item) => item.name);

const CHECKS = {
  everything: {
    'tools/list': async ({ client }) => must(names((await client.listTools()).tools).includes('echo'), 'no tool echo'),
    'tools/call': async ({ call }) => must(text(await call('echo', { message: 'ave' })).includes('ave'), 'no echo'),
    'structured content': async ({ call }) => must((await call('get-structured-content', { location: 'New York' })).structuredContent?.temperature !== undefined, 'no structured content'),
    'image content': async ({ call }) => must((await call('get-tiny-image', {})).content.some((c) => c.type === 'image'), 'no image'),
    progress: async ({ call }) => {
      let seen = 0;
      await call('trigger-long-running-operation', { duration: 1, steps: 4 }, { onprogress: () => { seen += 1; } });
      must(seen >= 3, `${seen} reports of progress`);
    },
    cancellation: async ({ call }) => {
      const stop = new AbortController();
      setTimeout(() => stop.abort('enough'), 300);
      const started = Date.now();
      await call('trigger-long-running-operation', { duration: 30, steps: 3 }, { signal: stop.signal }).then(() => { throw new Error('it was answered'); }, () => {});
      must(Date.now() - started < 5000, 'it went on');
    },
    'resources/list': async ({ client }) => must((await client.listResources()).resources.length > 0, 'no resources'),
    'resources/read': async ({ client }) => must((await client.readResource({ uri: 'demo://resource/dynamic/text/1' })).contents.length === 1, 'no contents'),
    'resources/templates/list': async ({ client }) => must((await client.listResourceTemplates()).resourceTemplates.length > 0, 'no templates'),
    'prompts/list': async ({ client }) => must(names((await client.listPrompts()).prompts).includes('args-prompt'), 'no prompt'),
    'prompts/get': async ({ client }) => must(JSON.stringify(await client.getPrompt({ name: 'args-prompt', arguments: { city: 'Roma' } })).includes('Roma'), 'no city'),
    'completion/complete': async ({ client }) => must((await client.complete({ ref: { type: 'ref/prompt', name: 'completable-prompt' }, argument: { name: 'department', value: 'E' } })).completion.values.length > 0, 'no completions'),
    elicitation: async ({ call }) => must(text(await call('trigger-elicitation-request', {})).includes('Cicero'), 'the answer did not arrive'),
    sampling: async ({ call }) => must(text(await call('trigger-sampling-request', { prompt: 'Quis es?', maxTokens: 10 })).includes('Civis romanus sum'), 'the answer did not arrive'),
    'unknown tool': async ({ call }) => must(await call('no-such-tool', {}).then((r) => r.isError, () => true), 'it was answered'),
  },
  filesystem: {
    'tools/list': async ({ client }) => must(names((await client.listTools()).tools).includes('read_text_file'), 'no tool'),
    write: async ({ call }) => must(!(await call('write_file', { path: path.join(folder, `${sdk}-${era}.txt`), content: 'salve' })).isError, 'not written'),
    read: async ({ call }) => must(text(await call('read_text_file', { path: path.join(folder, `${sdk}-${era}.txt`) })).includes('salve'), 'not read'),
    'outside the folder': async ({ call }) => must((await call('read_text_file', { path: '/etc/hostname' })).isError, 'it was read'),
  },
  memory: {
    write: async ({ call }) => must(!(await call('create_entities', { entities: [{ name: `${sdk}-${era}`, entityType: 'client', observations: ['it was here'] }] })).isError, 'not written'),
    read: async ({ call }) => must(text(await call('read_graph', {})).includes(`${sdk}-${era}`), 'not read'),
  },
  git: {
    'tools/list': async ({ client }) => must(names((await client.listTools()).tools).includes('git_status'), 'no tool'),
    status: async ({ call }) => must(text(await call('git_status', { repo_path: folder })).includes('main'), 'no branch'),
  },
  time: {
    now: async ({ call }) => must(text(await call('get_current_time', { timezone: 'UTC' })).includes('UTC'), 'no time'),
  },
};

const connected = await { ts1: v1, ts2: v2 }[sdk]().catch((e) => { console.log(`failed connect: ${e.message}`); process.exit(1); });
console.log('ok connect');
for (const [name, check] of Object.entries(CHECKS[server])) {
  try {
    await check(connected);
    console.log(`ok ${name}`);
  } catch (e) {
    console.log(`failed ${name}: ${String(e?.message ?? e).split('\n')[0]}`);
  }
}
await connected.client.close().catch(() => {});
process.exit(0);
