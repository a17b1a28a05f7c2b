// Usage: node client.mjs GATE TOKEN SDK ROUTE
//
// Drives a model route through a gate with an official TypeScript SDK: `openai` (chat completions and
// responses) or `anthropic` (messages). What the model says is in rules.json. Prints a line per
// check: `ok NAME` or `failed NAME: why`.
import assert from 'node:assert/strict';

const [gate, token, sdk, route] = process.argv.slice(2);
const HELLO = 'Salve from the model.';
const WEATHER = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const ROCKETS = { type: 'object', properties: { count: { type: 'integer' } } };
const TOOLS = [['get_weather', WEATHER], ['launch_rockets', ROCKETS]];

const said = (words) => [{ role: 'user', content: words }];

function masked(text) {
  assert(!text.includes('AKIA'), `the key came through: ${text}`);
  assert(text.includes('[redacted:') && text.endsWith('keep it.'), text);
}

function refused(text) {
  assert(/launch_rockets/.test(text) && /refused/i.test(text), `no refusal in ${text}`);
}

async function withOpenai(load) {
  const OpenAI = await load('openai');
  const client = new OpenAI({ baseURL: `${gate}/v1`, apiKey: token, maxRetries: 0, timeout: 30_000 });
  const tools = TOOLS.map(([name, parameters]) => ({ type: 'function', function: { name, parameters } }));
  const flat = TOOLS.map(([name, parameters]) => ({ type: 'function', name, parameters, strict: false }));

  const create = (words, more = {}) => client.chat.completions.create({ model: route, messages: said(words), ...more });
  // The SDK's own assembler of streams judges their form.
  const streamed = (words, more = {}) => client.chat.completions.stream({ model: route, messages: said(words), ...more }).finalChatCompletion();
  const respond = (words, more = {}) => client.responses.create({ model: route, input: words, store: false, ...more });
  const respondStreamed = (words, more = {}) => client.responses.stream({ model: route, input: words, store: false, ...more }).finalResponse();

  const checks = {};
  for (const [way, ask] of [['', create], ['_streamed', streamed]]) {
    checks[`plain${way}`] = async () => {
      const { choices: [choice] } = await ask('say hello');
      assert.equal(choice.message.content, HELLO);
      assert.equal(choice.finish_reason, 'stop');
    };
    checks[`key${way}`] = async () => masked((await ask('tell me the key')).choices[0].message.content);
    checks[`call${way}`] = async () => {
      const { choices: [choice] } = await ask('call the weather tool', { tools });
      assert.equal(choice.finish_reason, 'tool_calls');
      assert.equal(choice.message.tool_calls[0].function.name, 'get_weather');
      assert.deepEqual(JSON.parse(choice.message.tool_calls[0].function.arguments), { city: 'Oslo' });
    };
    checks[`call_refused${way}`] = async () => {
      const { choices: [choice] } = await ask('call the rockets tool', { tools });
      assert.equal(choice.finish_reason, 'stop');
      assert.equal(choice.message.tool_calls?.length ?? 0, 0);
      refused(choice.message.content);
    };
  }
  const calls = (response) => response.output.filter((item) => item.type === 'function_call');
  for (const [way, ask] of [['', respond], ['_streamed', respondStreamed]]) {
    checks[`response${way}`] = async () => assert.equal((await ask('say hello')).output_text, HELLO);
    checks[`response_key${way}`] = async () => masked((await ask('tell me the key')).output_text);
    checks[`response_call${way}`] = async () => {
      const [call] = calls(await ask('call the weather tool', { tools: flat }));
      assert.equal(call.name, 'get_weather');
      assert.deepEqual(JSON.parse(call.arguments), { city: 'Oslo' });
    };
    checks[`response_call_refused${way}`] = async () => {
      const response = await ask('call the rockets tool', { tools: flat });
      assert.equal(calls(response).length, 0);
      refused(response.output_text);
    };
  }
  checks.taken_back = async () => {
    const stream = await create('say hello', { stream: true });
    for await (const _ of stream) break;
    assert.equal((await create('say hello')).choices[0].message.content, HELLO);
  };
  checks.unknown_route = () =>
    assert.rejects(client.chat.completions.create({ model: 'no-such-model', messages: said('ave') }), OpenAI.NotFoundError);
  checks.wrong_token = () =>
    assert.rejects(new OpenAI({ baseURL: `${gate}/v1`, apiKey: 'wrong', maxRetries: 0 }).models.list(), OpenAI.AuthenticationError);
  return checks;
}

async function withAnthropic(load) {
  const Anthropic = await load('@anthropic-ai/sdk');
  const client = new Anthropic({ baseURL: gate, apiKey: token, maxRetries: 0, timeout: 30_000 });
  const tools = TOOLS.map(([name, input_schema]) => ({ name, description: name, input_schema }));
  const body = (words, more) => ({ model: route, max_tokens: 100, messages: said(words), ...more });
  const create = (words, more = {}) => client.messages.create(body(words, more));
  const streamed = (words, more = {}) => client.messages.stream(body(words, more)).finalMessage();
  const text = (message) => message.content.filter((b) => b.type === 'text').map((b) => b.text).join('');
  const calls = (message) => message.content.filter((b) => b.type === 'tool_use').map((b) => [b.name, b.input]);

  const checks = {};
  for (const [way, ask] of [['', create], ['_streamed', streamed]]) {
    checks[`message${way}`] = async () => {
      const message = await ask('say hello');
      assert.equal(text(message), HELLO);
      assert.equal(message.stop_reason, 'end_turn');
    };
    checks[`message_key${way}`] = async () => masked(text(await ask('tell me the key')));
    checks[`message_call${way}`] = async () => {
      const message = await ask('call the weather tool', { tools });
      assert.deepEqual(calls(message), [['get_weather', { city: 'Oslo' }]]);
      assert.equal(message.stop_reason, 'tool_use');
    };
    checks[`message_call_refused${way}`] = async () => {
      const message = await ask('call the rockets tool', { tools });
      assert.deepEqual(calls(message), []);
      refused(text(message));
    };
  }
  checks.unknown_route = () => assert.rejects(client.messages.create({ ...body('ave'), model: 'no-such-model' }), Anthropic.NotFoundError);
  return checks;
}

// The packages stand in the folder that this runs in.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const require = createRequire(`${process.cwd()}/`);
const load = async (name) => (await import(pathToFileURL(require.resolve(name)))).default;

const checks = await { openai: withOpenai, anthropic: withAnthropic }[sdk](load);
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`failed ${name}: ${`${error.name}: ${error.message}`.replace(/\s+/g, ' ').slice(0, 600)}`);
  }
}
