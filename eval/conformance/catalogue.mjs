// What the fixture offers: the tools, resources, prompts and completions that the official MCP
// conformance suite asks a server under test to have. Each `run` gets a call (see fixture.mjs) that
// hides the era: `notify`, `log`, `progress`, `input`, `state`, `declares`.
import { createHmac, timingSafeEqual } from 'node:crypto';

export const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==';
// 44 bytes of header and no samples: the shortest WAV there is.
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=';

const text = (words) => ({ content: [{ type: 'text', text: words }] });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const object = (properties = {}, required = []) => ({ type: 'object', properties, ...(required.length ? { required } : {}) });
const elicit = (message, properties, required = Object.keys(properties)) =>
  ({ method: 'elicitation/create', params: { message, requestedSchema: object(properties, required) } });
const sample = (words, maxTokens = 100) =>
  ({ method: 'sampling/createMessage', params: { messages: [{ role: 'user', content: { type: 'text', text: words } }], maxTokens } });
const roots = { method: 'roots/list', params: {} };

// The state that a client carries between rounds: sealed, so that a changed one is noticed.
const KEY = 'fixture';
const seal = (words) => `${words}.${createHmac('sha256', KEY).update(words).digest('base64url')}`;
const unseal = (state) => {
  const [words, mac] = String(state).split('.', 2);
  const good = Buffer.from(seal(words));
  const given = Buffer.from(String(state));
  if (!mac || good.length !== given.length || !timingSafeEqual(good, given)) throw { code: -32602, message: 'requestState was tampered with' };
  return words;
};

const answer = (a) => `action=${a.action}, content=${JSON.stringify(a.content ?? {})}`;

const SCHEMA_2020_12 = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: { address: { $anchor: 'addressDef', type: 'object', properties: { street: { type: 'string' }, city: { type: 'string' } } } },
  properties: {
    name: { type: 'string' }, address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] }, phone: { type: 'string' }, email: { type: 'string' },
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
};

const tool = (description, run, inputSchema = object()) => ({ description, inputSchema, run });

export const TOOLS = {
  test_simple_text: tool('Returns text', () => text('This is a simple text response for testing.')),
  test_image_content: tool('Returns an image', () => ({ content: [{ type: 'image', data: PNG, mimeType: 'image/png' }] })),
  test_audio_content: tool('Returns audio', () => ({ content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] })),
  test_embedded_resource: tool('Returns an embedded resource', () => ({
    content: [{ type: 'resource', resource: { uri: 'test://embedded-resource', mimeType: 'text/plain', text: 'This is an embedded resource content.' } }],
  })),
  test_multiple_content_types: tool('Returns several kinds of content', () => ({
    content: [
      { type: 'text', text: 'Multiple content types test:' },
      { type: 'image', data: PNG, mimeType: 'image/png' },
      { type: 'resource', resource: { uri: 'test://mixed-content-resource', mimeType: 'application/json', text: '{"test":"data","value":123}' } },
    ],
  })),
  test_tool_with_logging: tool('Logs while it runs', async (call) => {
    call.log('Tool execution started');
    await pause(50);
    call.log('Tool processing data');
    await pause(50);
    call.log('Tool execution completed');
    return text('Logged three times.');
  }),
  test_logging_tool: tool('Logs once, where the caller asked for logs', (call) => {
    call.log('A log message');
    return text('Logged if asked to.');
  }),
  test_error_handling: tool('Always fails', () => ({ isError: true, ...text('This tool intentionally returns an error for testing') })),
  test_tool_with_progress: tool('Reports progress', async (call) => {
    for (const progress of [0, 50, 100]) {
      call.progress(progress, 100);
      if (progress < 100) await pause(50);
    }
    return text('Done in three steps.');
  }),
  test_sampling: tool('Asks the client\'s model', async (call, { prompt }) => {
    const { reply } = await call.input({ reply: sample(prompt) });
    return text(`LLM response: ${reply.content?.text ?? JSON.stringify(reply.content)}`);
  }, object({ prompt: { type: 'string', description: 'What to ask' } }, ['prompt'])),
  test_elicitation: tool('Asks the person', async (call, { message }) => {
    const { user } = await call.input({
      user: elicit(message, { username: { type: 'string', description: "User's response" }, email: { type: 'string', description: "User's email address" } }),
    });
    return text(`User response: ${answer(user)}`);
  }, object({ message: { type: 'string', description: 'What to show' } }, ['message'])),
  test_elicitation_sep1034_defaults: tool('Asks with defaults', async (call) => {
    const { form } = await call.input({ form: elicit('Please fill in', {
      name: { type: 'string', default: 'John Doe' }, age: { type: 'integer', default: 30 }, score: { type: 'number', default: 95.5 },
      status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' }, verified: { type: 'boolean', default: true },
    }, []) });
    return text(`Elicitation completed: ${answer(form)}`);
  }),
  test_elicitation_sep1330_enums: tool('Asks with every kind of choice', async (call) => {
    const titled = (words) => ['First', 'Second', 'Third'].map((n, i) => ({ const: `value${i + 1}`, title: `${n} ${words}` }));
    const { form } = await call.input({ form: elicit('Please choose', {
      untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
      titledSingle: { type: 'string', oneOf: titled('Option') },
      legacyEnum: { type: 'string', enum: ['opt1', 'opt2', 'opt3'], enumNames: ['Option One', 'Option Two', 'Option Three'] },
      untitledMulti: { type: 'array', items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
      titledMulti: { type: 'array', items: { anyOf: titled('Choice') } },
    }, []) });
    return text(`Elicitation completed: ${answer(form)}`);
  }),
  test_reconnection: tool('Closes its stream half way and answers on the next one', async (call) => {
    call.hangUp();
    await pause(100);
    return text('Answered after the reconnection.');
  }),
  json_schema_2020_12_tool: tool('Tool with JSON Schema 2020-12 features', () => text('ok'), SCHEMA_2020_12),
  test_header_parameter: tool('Has a parameter that is mirrored in a header', (call, { region }) => text(`region ${region}`),
    object({ region: { type: 'string', description: 'Where', 'x-mcp-header': 'Region' } }, ['region'])),
  test_missing_capability: tool('Needs the client\'s model', async (call) => {
    await call.input({ reply: sample('Are you there?') });
    return text('ok');
  }),
  test_streaming_elicitation: tool('Reports on a stream, then asks the person', async (call) => {
    call.notify('notifications/progress', { progressToken: call.progressToken ?? 'stream', progress: 1, total: 2 });
    await call.input({ user: elicit('Please confirm', { ok: { type: 'boolean' } }) });
    return text('ok');
  }),
  test_trigger_tool_change: tool('Says that the tools changed', (call) => { call.publish('notifications/tools/list_changed'); return text('ok'); }),
  test_trigger_prompt_change: tool('Says that the prompts changed', (call) => { call.publish('notifications/prompts/list_changed'); return text('ok'); }),
  test_trigger_resource_update: tool('Says that a resource changed', (call, { uri }) => { call.publish('notifications/resources/updated', { uri }); return text('ok'); },
    object({ uri: { type: 'string', description: 'Which' } }, ['uri'])),
  test_input_required_result_elicitation: tool('Asks for a name', async (call) => {
    const { user_name: who } = await call.input({ user_name: elicit('What is your name?', { name: { type: 'string' } }) });
    return text(`Hello, ${who.content?.name}!`);
  }),
  test_input_required_result_sampling: tool('Asks for a capital', async (call) => {
    const { capital_question: reply } = await call.input({ capital_question: sample('What is the capital of France?') });
    return text(`The model says: ${reply.content?.text}`);
  }),
  test_input_required_result_list_roots: tool('Asks for the roots', async (call) => {
    const { client_roots: list } = await call.input({ client_roots: roots });
    return text(`Roots: ${list.roots.map((r) => r.uri).join(', ')}`);
  }),
  test_input_required_result_request_state: tool('Carries state', async (call) => {
    await call.input({ confirm: elicit('Please confirm', { ok: { type: 'boolean' } }) }, seal('confirming'));
    return text(call.state === undefined || unseal(call.state) === 'confirming' ? 'state-ok' : 'state-wrong');
  }),
  test_input_required_result_multiple_inputs: tool('Asks for three things at once', async (call) => {
    const got = await call.input({
      user_name: elicit('What is your name?', { name: { type: 'string' } }), greeting: sample('Generate a greeting', 50), client_roots: roots,
    }, seal('three'));
    return text(`${got.greeting.content?.text} ${got.user_name.content?.name}, ${got.client_roots.roots.length} root(s)`);
  }),
  test_input_required_result_multi_round: tool('Asks twice', async (call) => {
    const step1 = { step1: elicit('Step 1: What is your name?', { name: { type: 'string' } }) };
    const step2 = { step2: elicit('Step 2: What is your favorite color?', { color: { type: 'string' } }) };
    const before = call.state === undefined ? undefined : unseal(call.state);
    if (before?.startsWith('second:')) {
      const { step2: color } = await call.input(step2, call.state);
      return text(`${before.slice(7)} likes ${color.content?.color}`);
    }
    const { step1: who } = await call.input(step1, seal('first'));
    const { step2: color } = await call.input(step2, seal(`second:${who.content?.name}`));
    return text(`${who.content?.name} likes ${color.content?.color}`);
  }),
  test_input_required_result_tampered_state: tool('Refuses state that was changed', async (call) => {
    if (call.state !== undefined) unseal(call.state);
    await call.input({ confirm: elicit('Please confirm', { ok: { type: 'boolean' } }) }, seal('untouched'));
    return text('ok');
  }),
  test_input_required_result_capabilities: tool('Asks only for what the client can give', async (call) => {
    const all = { ask: elicit('Please confirm', { ok: { type: 'boolean' } }), model: sample('Say something') };
    const wanted = Object.entries(all).filter(([, { method }]) => call.declares(method));
    await call.input(Object.fromEntries(wanted));
    return text('ok');
  }),
};

// Tools that may become tasks (tasks.mjs).
Object.assign(TOOLS, {
  greet: tool('Greets at once', (call, { name }) => text(`Hello, ${name}!`), object({ name: { type: 'string', description: 'Whom' } }, ['name'])),
  slow_compute: { task: 'optional', ...tool('Takes its time', async (call, { seconds = 0 }) => {
    await pause(seconds * 1000);
    return text(`Computed for ${seconds} s.`);
  }, object({ seconds: { type: 'number', description: 'How long' } })) },
  failing_job: { task: 'required', ...tool('Fails after a second', async () => {
    await pause(1000);
    return { isError: true, ...text('The job failed.') };
  }) },
  protocol_error_job: { task: 'optional', ...tool('Breaks', async () => {
    await pause(100);
    throw { code: -32603, message: 'the job broke' };
  }) },
  confirm_delete: { task: 'optional', ...tool('Asks before it deletes', async (call, { filename = 'it' }) => {
    const { sure } = await call.input({ sure: elicit(`Delete ${filename}?`, { confirm: { type: 'boolean' } }) });
    return text(`${filename}: ${answer(sure)}`);
  }, object({ filename: { type: 'string', description: 'What' } })) },
  multi_input: { task: 'optional', ...tool('Asks two things at once', async (call) => {
    const { first, second } = await call.input({
      first: elicit('What is your name?', { name: { type: 'string' } }), second: elicit('What is your age?', { age: { type: 'number' } }),
    });
    return text(`${answer(first)}; ${answer(second)}`);
  }) },
  test_tool_with_task: {
    task: 'required',
    ...tool('Asks first, then becomes a task', (call, args, { user_name: who }) => text(`Task for ${who.content?.name}`)),
    before: (call) => call.input({ user_name: elicit('What is your name?', { name: { type: 'string' } }) }, seal('before the task')),
  },
});

const contents = (uri, mimeType, rest) => ({ contents: [{ uri, mimeType, ...rest }] });

export const RESOURCES = {
  'test://static-text': { name: 'Static text', description: 'A text', mimeType: 'text/plain', read: (uri) => contents(uri, 'text/plain', { text: 'This is the content of the static text resource.' }) },
  'test://static-binary': { name: 'Static binary', description: 'A picture', mimeType: 'image/png', read: (uri) => contents(uri, 'image/png', { blob: PNG }) },
  'test://watched-resource': { name: 'Watched resource', description: 'One to subscribe to', mimeType: 'text/plain', read: (uri) => contents(uri, 'text/plain', { text: 'Watched content.' }) },
};

export const TEMPLATE = { uriTemplate: 'test://template/{id}/data', name: 'Template', description: 'Data by id', mimeType: 'application/json' };

export function read(uri) {
  if (RESOURCES[uri]) return RESOURCES[uri].read(uri);
  const id = /^test:\/\/template\/([^/]+)\/data$/.exec(uri)?.[1];
  if (id) return contents(uri, 'application/json', { text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }) });
  return undefined;
}

const user = (...parts) => ({ messages: parts.map((content) => ({ role: 'user', content })) });
const argument = (name, description) => ({ name, description, required: true });

export const PROMPTS = {
  test_simple_prompt: { description: 'A prompt', arguments: [], get: () => user({ type: 'text', text: 'This is a simple prompt for testing.' }) },
  test_prompt_with_arguments: {
    description: 'A prompt with arguments', arguments: [argument('arg1', 'First test argument'), argument('arg2', 'Second test argument')],
    get: (call, { arg1, arg2 }) => user({ type: 'text', text: `Prompt with arguments: arg1='${arg1}', arg2='${arg2}'` }),
  },
  test_prompt_with_embedded_resource: {
    description: 'A prompt with a resource', arguments: [argument('resourceUri', 'URI of the resource to embed')],
    get: (call, { resourceUri }) => user(
      { type: 'resource', resource: { uri: resourceUri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' } },
      { type: 'text', text: 'Please process the embedded resource above.' }),
  },
  test_prompt_with_image: {
    description: 'A prompt with a picture', arguments: [],
    get: () => user({ type: 'image', data: PNG, mimeType: 'image/png' }, { type: 'text', text: 'Please analyze the image above.' }),
  },
  test_input_required_result_prompt: {
    description: 'A prompt that asks the person', arguments: [],
    get: async (call) => {
      const { user_context: got } = await call.input({ user_context: elicit('What context should the prompt use?', { context: { type: 'string' } }) });
      return user({ type: 'text', text: `Context: ${got.content?.context}` });
    },
  },
};

export function complete({ value = '' } = {}) {
  const values = ['paris', 'park', 'party'].filter((v) => v.startsWith(value));
  return { completion: { values, total: values.length, hasMore: false } };
}
