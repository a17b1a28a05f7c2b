// Usage: node fixture.mjs PORT [both|modern|legacy]     (loopback only; prints one line when it serves)
// An MCP server for the official conformance suite, in both eras: 2026-07-28 (stateless) and the
// revisions with a handshake up to 2025-11-25 (sessions, SSE, resumption). Written by hand on
// node:http, so that what the suite says of it, and of a gate in front of it, depends on no SDK. With
// `modern` or `legacy` it speaks that era only, which shows what a gate bridges.
import http from 'node:http';
import { randomUUID } from 'node:crypto';
import { TOOLS, RESOURCES, TEMPLATE, PROMPTS, read, complete } from './catalogue.mjs';
import * as tasks from './tasks.mjs';

const MODERN = '2026-07-28';
const LEGACY = ['2025-11-25', '2025-06-18', '2025-03-26'];
const META = 'io.modelcontextprotocol/';
const INFO = { name: 'castra-conformance-fixture', version: '1.0.0' };
const CAPABILITIES = {
  tools: { listChanged: true }, prompts: { listChanged: true }, resources: { listChanged: true, subscribe: true }, completions: {},
};
const NEEDS = { 'elicitation/create': 'elicitation', 'sampling/createMessage': 'sampling', 'roots/list': 'roots' };
const BODY_MAX = 4 << 20;
const ERA = process.argv[3] ?? 'both';

const fail = (code, message, data) => { throw { code, message, ...(data ? { data } : {}) }; };
const rpc = (id, outcome) => ({ jsonrpc: '2.0', id, ...outcome });
const note = (method, params = {}) => ({ jsonrpc: '2.0', method, params });

// What the modern era needs to say "I need input first".
class InputRequired { constructor(inputRequests, requestState) { Object.assign(this, { inputRequests, requestState }); } }

// One answer over HTTP: JSON if nothing was streamed before it, else SSE.
class Reply {
  constructor(res, { events }) { this.res = res; this.events = events; this.streaming = false; }
  open() {
    if (this.streaming) return;
    this.streaming = true;
    this.res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  }
  stream(message) { this.open(); this.write(message); }
  write(message) {
    const id = this.events?.add(message);
    if (!this.res.writableEnded) this.res.write(`${id ? `id: ${id}\n` : ''}data: ${JSON.stringify(message)}\n\n`);
  }
  finish(message, status = 200) {
    if (this.streaming) { this.write(message); this.res.end(); return; }
    json(this.res, status, message);
  }
}

function json(res, status, body, headers = {}) {
  const bytes = body === undefined ? '' : JSON.stringify(body);
  res.writeHead(status, { ...(bytes ? { 'content-type': 'application/json' } : {}), 'content-length': Buffer.byteLength(bytes), ...headers });
  res.end(bytes);
}

const subscriptions = new Set(); // modern: { id, filter, reply }
const sessions = new Map();      // legacy: id → session

function publish(method, params = {}) {
  const wants = {
    'notifications/tools/list_changed': (f) => f.toolsListChanged,
    'notifications/prompts/list_changed': (f) => f.promptsListChanged,
    'notifications/resources/list_changed': (f) => f.resourcesListChanged,
    'notifications/resources/updated': (f) => f.resourceSubscriptions?.includes(params.uri),
  }[method];
  for (const { id, filter, reply } of subscriptions) {
    if (wants(filter)) reply.stream(note(method, { ...params, _meta: { [`${META}subscriptionId`]: id } }));
  }
  for (const session of sessions.values()) {
    if (params.uri === undefined || session.watched.has(params.uri)) session.get?.write(note(method, params));
  }
}

// Methods that both eras share. `call` hides the era.
async function serve(method, params, call) {
  switch (method) {
    case 'tools/list':
      return { tools: Object.entries(TOOLS).map(([name, { description, inputSchema }]) => ({ name, description, inputSchema })) };
    case 'tools/call': {
      const tool = Object.hasOwn(TOOLS, params.name) ? TOOLS[params.name] : fail(-32602, `there is no tool ${JSON.stringify(params.name)}`);
      return (tool.task ? tasks.dispatch(call, tool, params.arguments ?? {}) : tool.run(call, params.arguments ?? {}));
    }
    case 'resources/list':
      return { resources: Object.entries(RESOURCES).map(([uri, { name, description, mimeType }]) => ({ uri, name, description, mimeType })) };
    case 'resources/templates/list':
      return { resourceTemplates: [TEMPLATE] };
    case 'resources/read':
      return read(params.uri) ?? fail(call.modern ? -32602 : -32002, 'resource not found', { uri: params.uri });
    case 'prompts/list':
      return { prompts: Object.entries(PROMPTS).map(([name, p]) => ({ name, description: p.description, arguments: p.arguments })) };
    case 'prompts/get': {
      const prompt = Object.hasOwn(PROMPTS, params.name) ? PROMPTS[params.name] : fail(-32602, `there is no prompt ${JSON.stringify(params.name)}`);
      const missing = prompt.arguments.find((a) => params.arguments?.[a.name] === undefined);
      if (missing) fail(-32602, `the argument ${missing.name} is missing`);
      return prompt.get(call, params.arguments ?? {});
    }
    case 'completion/complete':
      return complete(params.argument);
    default:
      return tasks.serve(method, params, call) ?? fail(-32601, `there is no method ${method}`);
  }
}

const CACHEABLE = ['tools/list', 'resources/list', 'resources/templates/list', 'resources/read', 'prompts/list', 'server/discover'];

// What a request of 2026-07-28 must carry, checked against its headers.
function checkModern(headers, message) {
  if (message.method === 'initialize') fail(-32601, 'there is no method initialize');
  const meta = message.params?._meta ?? fail(-32602, 'params._meta is required');
  const version = meta[`${META}protocolVersion`];
  if (typeof version !== 'string') fail(-32602, '_meta has no protocolVersion');
  if (typeof meta[`${META}clientCapabilities`] !== 'object') fail(-32602, '_meta has no clientCapabilities');
  const header = (name, expected) => {
    if ((headers[name] ?? '').trim() !== expected) fail(-32020, `the header ${name} says ${JSON.stringify(headers[name])}, the body ${JSON.stringify(expected)}`);
  };
  header('mcp-protocol-version', version);
  if (version !== MODERN) fail(-32022, 'this revision is not spoken here', { supported: [MODERN], requested: version });
  header('mcp-method', message.method);
  const name = named(message);
  if (name !== undefined && decoded(headers['mcp-name']) !== name) fail(-32020, `the header mcp-name says ${JSON.stringify(headers['mcp-name'])}, the body ${JSON.stringify(name)}`);
  if (message.method === 'tools/call') checkParameters(headers, message.params);
}

// What the header Mcp-Name repeats.
function named({ method, params }) {
  if (/^tasks\/(get|update|cancel)$/.test(method)) return params.taskId;
  return { 'tools/call': params.name, 'prompts/get': params.name, 'resources/read': params.uri }[method];
}

function checkParameters(headers, { name, arguments: args = {} }) {
  const properties = (Object.hasOwn(TOOLS, name) && TOOLS[name].inputSchema.properties) || {};
  for (const [key, { 'x-mcp-header': suffix }] of Object.entries(properties)) {
    if (!suffix || args[key] === undefined) continue;
    const header = `mcp-param-${suffix.toLowerCase()}`;
    if (decoded(headers[header]) !== String(args[key])) fail(-32020, `the header ${header} says ${JSON.stringify(headers[header])}, the body ${JSON.stringify(args[key])}`);
  }
}

function decoded(value) {
  const wrapped = /^=\?base64\?(.*)\?=$/.exec(value?.trim() ?? '');
  if (!wrapped) return value?.trim();
  // Buffer forgives what is not base64, so only what encodes back to itself is good.
  const bytes = Buffer.from(wrapped[1], 'base64');
  return bytes.toString('base64') === wrapped[1] ? bytes.toString() : fail(-32020, 'a header is not base64');
}

function modernCall(message, reply) {
  const meta = message.params._meta;
  const { inputResponses, requestState } = message.params;
  const capabilities = meta[`${META}clientCapabilities`];
  const declares = (method) => capabilities[NEEDS[method]] !== undefined;
  const isAnswer = (a) => typeof a === 'object' && a !== null;
  let asked = 0;
  return {
    modern: true, declares, publish, tasks: capabilities.extensions?.[tasks.TASKS] !== undefined, state: requestState, progressToken: meta.progressToken, hangUp() {},
    notify: (method, params) => reply.stream(note(method, params)),
    log: (data) => { if (meta[`${META}logLevel`]) reply.stream(note('notifications/message', { level: 'info', logger: 'fixture', data })); },
    progress: (progress, total) => { if (meta.progressToken !== undefined) reply.stream(note('notifications/progress', { progressToken: meta.progressToken, progress, total })); },
    async input(requests, state) {
      const missing = Object.values(requests).map((r) => r.method).filter((m) => !declares(m));
      if (missing.length) fail(-32021, 'the client lacks a capability', { requiredCapabilities: Object.fromEntries(missing.map((m) => [NEEDS[m], {}])) });
      const keys = Object.keys(requests);
      if (asked++ === 0 && keys.every((key) => isAnswer(inputResponses?.[key]))) return inputResponses;
      throw new InputRequired(requests, state);
    },
  };
}

async function modern(req, res, message) {
  const reply = new Reply(res, {});
  const status = (code) => ({ [-32601]: 404, [-32602]: 400, [-32020]: 400, [-32021]: 400, [-32022]: 400 })[code] ?? 200;
  try { checkModern(req.headers, message); } catch (e) { return reply.finish(rpc(message.id, { error: e }), status(e.code)); }
  if (message.method === 'subscriptions/listen') return listen(res, message, reply);
  try {
    const result = message.method === 'server/discover'
      ? { supportedVersions: [MODERN], capabilities: { ...CAPABILITIES, extensions: { [tasks.TASKS]: {} } }, instructions: 'A server for the conformance suite.' }
      : await serve(message.method, message.params, modernCall(message, reply));
    finish({ resultType: 'complete', ...result, ...(CACHEABLE.includes(message.method) ? { ttlMs: 0, cacheScope: 'private' } : {}) });
  } catch (e) {
    if (e instanceof InputRequired) finish({ resultType: 'input_required', inputRequests: e.inputRequests, ...(e.requestState ? { requestState: e.requestState } : {}) });
    // -32602 of a handler (unknown tool, bad state) is an answer to a good request.
    else reply.finish(rpc(message.id, { error: problem(e) }), e.code === -32602 ? 200 : status(e.code));
  }
  function finish(result) { reply.finish(rpc(message.id, { result: { ...result, _meta: { [`${META}serverInfo`]: INFO } } })); }
}

function listen(res, message, reply) {
  const filter = message.params.notifications ?? {};
  const subscription = { id: message.id, filter, reply };
  reply.stream(note('notifications/subscriptions/acknowledged', { notifications: filter, _meta: { [`${META}subscriptionId`]: message.id } }));
  subscriptions.add(subscription);
  res.on('close', () => subscriptions.delete(subscription));
}

// What was streamed, so that a client can come back for it with Last-Event-ID.
class Events {
  constructor() { this.log = []; }
  add(message, stream) { this.log.push({ message, stream }); return String(this.log.length); }
}

function initialize(message) {
  const asked = message.params?.protocolVersion;
  const session = {
    id: randomUUID(), version: LEGACY.includes(asked) ? asked : LEGACY[0], capabilities: message.params?.capabilities ?? {},
    watched: new Set(), waiting: new Map(), get: undefined, events: new Events(), late: new Map(), asked: 0,
  };
  sessions.set(session.id, session);
  const result = { protocolVersion: session.version, capabilities: { ...CAPABILITIES, logging: {} }, serverInfo: INFO, instructions: 'A server for the conformance suite.' };
  return { session, result };
}

function legacyCall(session, message, reply) {
  const declares = (method) => session.capabilities[NEEDS[method]] !== undefined;
  const token = message.params?._meta?.progressToken;
  return {
    modern: false, declares, publish, state: undefined, progressToken: token,
    notify: (method, params) => reply.stream(note(method, params)),
    log: (data) => reply.stream(note('notifications/message', { level: 'info', logger: 'fixture', data })),
    progress: (progress, total) => { if (token !== undefined) reply.stream(note('notifications/progress', { progressToken: token, progress, total })); },
    hangUp: () => reply.hangUp(),
    async input(requests) {
      const asking = Object.entries(requests).map(async ([key, { method, params }]) => {
        if (!declares(method)) fail(-32602, `the client does not support ${NEEDS[method]}`);
        const id = `fixture-${session.asked++}`;
        const answered = new Promise((resolve, reject) => session.waiting.set(id, { resolve, reject }));
        reply.stream({ jsonrpc: '2.0', id, method, params });
        return [key, await answered];
      });
      return Object.fromEntries(await Promise.all(asking));
    },
  };
}

// An answer of the session era: a priming event first, and whatever comes after a hang-up waits for a GET.
class SessionReply extends Reply {
  constructor(res, session) {
    super(res, {});
    this.session = session;
  }
  open() {
    if (this.streaming) return;
    super.open();
    if (this.session.version === '2025-11-25') this.res.write(`id: ${this.session.events.add(undefined, this)}\nretry: 100\ndata: \n\n`);
  }
  write(message) {
    const id = this.session.events.add(message, this);
    const out = this.resumed ?? this.res;
    if (!out.writableEnded) out.write(`id: ${id}\ndata: ${JSON.stringify(message)}\n\n`);
    if (this.resumed && message.id !== undefined && !message.method) this.resumed.end();
  }
  hangUp() { this.open(); this.res.end(); }
}

async function legacy(req, res, message) {
  if (message.method === 'initialize') {
    const { session, result } = initialize(message);
    return json(res, 200, rpc(message.id, { result }), { 'mcp-session-id': session.id });
  }
  const session = known(req, res);
  if (!session) return undefined;
  if (message.id === undefined || message.method === undefined) {
    settle(session, message);
    return json(res, 202);
  }
  const reply = new SessionReply(res, session);
  try {
    const local = {
      ping: () => ({}), 'logging/setLevel': () => ({}),
      'resources/subscribe': () => { session.watched.add(message.params.uri); return {}; },
      'resources/unsubscribe': () => { session.watched.delete(message.params.uri); return {}; },
    }[message.method];
    const result = local ? local() : await serve(message.method, message.params ?? {}, legacyCall(session, message, reply));
    reply.finish(rpc(message.id, { result }));
  } catch (e) {
    reply.finish(rpc(message.id, { error: problem(e) }));
  }
  return undefined;
}

function known(req, res) {
  const id = req.headers['mcp-session-id'];
  const version = req.headers['mcp-protocol-version'];
  if (id === undefined) { json(res, 400, rpc(null, { error: { code: -32600, message: 'the header Mcp-Session-Id is missing' } })); return undefined; }
  if (!sessions.has(id)) { json(res, 404, rpc(null, { error: { code: -32001, message: 'session not found' } })); return undefined; }
  if (version !== undefined && !LEGACY.includes(version)) { json(res, 400, rpc(null, { error: { code: -32600, message: 'this revision is not spoken here' } })); return undefined; }
  return sessions.get(id);
}

// A client's answer to something that a tool asked.
function settle(session, message) {
  const waiting = message.method === undefined ? session.waiting.get(message.id) : undefined;
  if (!waiting) return;
  session.waiting.delete(message.id);
  if (message.error) waiting.reject({ code: -32603, message: `the client refused: ${message.error.message}` });
  else waiting.resolve(message.result);
}

function get(req, res) {
  const session = known(req, res);
  if (!session) return;
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  res.flushHeaders();
  const last = Number(req.headers['last-event-id']);
  const stream = Number.isInteger(last) ? session.events.log[last - 1]?.stream : undefined;
  if (stream) {
    stream.resumed = res;
    session.events.log.forEach((event, i) => {
      if (i >= last && event.stream === stream) res.write(`id: ${i + 1}\ndata: ${JSON.stringify(event.message)}\n\n`);
    });
    return;
  }
  session.get = new Reply(res, {});
  session.get.streaming = true;
  res.on('close', () => { session.get = undefined; });
}

const problem = (e) => (typeof e?.code === 'number' ? { code: e.code, message: e.message, ...(e.data ? { data: e.data } : {}) } : { code: -32603, message: String(e?.message ?? e) });
const isLocal = (host) => /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/.test(host ?? '');
const isLocalOrigin = (origin) => origin === undefined || isLocal(origin.replace(/^https?:\/\//, ''));

async function body(req) {
  const chunks = [];
  let size = 0;
  for await (const chunk of req) {
    size += chunk.length;
    if (size > BODY_MAX) fail(-32600, 'the body is too large');
    chunks.push(chunk);
  }
  try { return JSON.parse(Buffer.concat(chunks)); } catch { return fail(-32700, 'the body is not JSON'); }
}

const isModern = (req, message) => {
  if (ERA !== 'both') return ERA === 'modern';
  const version = req.headers['mcp-protocol-version'];
  const inBody = message.params?._meta?.[`${META}protocolVersion`];
  return inBody !== undefined || (version !== undefined && !LEGACY.includes(version) && message.method !== 'initialize');
};

const server = http.createServer(async (req, res) => {
  try {
    if (!isLocal(req.headers.host) || !isLocalOrigin(req.headers.origin)) return json(res, 403, rpc(null, { error: { code: -32600, message: 'foreign Host or Origin' } }));
    if (req.method !== 'POST' && ERA === 'modern') return json(res, 405, undefined, { allow: 'POST' });
    if (req.method === 'GET') return get(req, res);
    if (req.method === 'DELETE') {
      const session = known(req, res);
      if (session) { sessions.delete(session.id); session.get?.res.end(); json(res, 204); }
      return undefined;
    }
    if (req.method !== 'POST') return json(res, 405, undefined, { allow: 'GET, POST, DELETE' });
    const message = await body(req);
    if (Array.isArray(message) || message?.jsonrpc !== '2.0') fail(-32600, 'one JSON-RPC 2.0 message is expected');
    if (!isModern(req, message)) return await legacy(req, res, message);
    if (message.id === undefined) return json(res, 202);
    return await modern(req, res, message);
  } catch (e) {
    return res.headersSent ? res.end() : json(res, 400, rpc(null, { error: problem(e) }));
  }
});

server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}/mcp` })));
