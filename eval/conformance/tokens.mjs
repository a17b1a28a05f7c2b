// Usage: node tokens.mjs ISSUER GATE ENDPOINT
// What a gate makes of an issuer's real tokens, as MCP's authorization asks. Prints a line per check,
// `ok NAME` or `failed NAME: why`, and at last `{"token": …}`: one that is good at ENDPOINT.
import assert from 'node:assert/strict';

const [issuer, gate, endpoint] = process.argv.slice(2);
const resource = `${gate}${endpoint}`;

async function token(where, scope) {
  const answer = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${btoa('machine:machine-secret')}` },
    body: new URLSearchParams({ grant_type: 'client_credentials', resource: where, scope }),
  });
  const body = await answer.json();
  assert(body.access_token, JSON.stringify(body));
  return body.access_token;
}

function call(bearer, method, params = {}) {
  const _meta = {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientInfo': { name: 'tokens', version: '1' },
    'io.modelcontextprotocol/clientCapabilities': {},
  };
  const headers = {
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    'mcp-protocol-version': '2026-07-28',
    'mcp-method': method,
  };
  if (params.name) headers['mcp-name'] = params.name;
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  return fetch(resource, { method: 'POST', headers, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params: { ...params, _meta } }) });
}

async function refused(answer, status, error) {
  assert.equal(answer.status, status, await answer.text());
  const challenge = answer.headers.get('www-authenticate') ?? '';
  assert(challenge.startsWith('Bearer') && challenge.includes('resource_metadata='), challenge);
  assert(!error || challenge.includes(`error="${error}"`), challenge);
}

const good = await token(resource, 'mcp:call mcp:read');
const checks = {
  metadata_names_issuer_and_resource: async () => {
    const challenge = (await call()).headers.get('www-authenticate');
    const metadata = await (await fetch(challenge.match(/resource_metadata="([^"]+)"/)[1])).json();
    assert.equal(metadata.resource, resource);
    assert.deepEqual(metadata.authorization_servers, [issuer]);
  },
  no_token_is_challenged: async () => refused(await call(), 401),
  a_token_is_taken: async () => assert.equal((await call(good, 'tools/list')).status, 200),
  a_token_for_another_resource_is_not: async () => refused(await call(await token('https://other.example/mcp', 'mcp:call'), 'tools/list'), 401, 'invalid_token'),
  a_changed_token_is_not: async () => refused(await call(good.slice(0, -4) + (good.endsWith('AAAA') ? 'BBBB' : 'AAAA'), 'tools/list'), 401, 'invalid_token'),
  a_token_without_the_scope_is_told_which: async () => {
    const answer = await call(await token(resource, 'mcp:read'), 'tools/call', { name: 'test_simple_text', arguments: {} });
    await refused(answer, 403, 'insufficient_scope');
    assert(answer.headers.get('www-authenticate').includes('mcp:call'));
  },
};
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`failed ${name}: ${`${error.name}: ${error.message}`.replace(/\s+/g, ' ').slice(0, 400)}`);
  }
}
console.log(JSON.stringify({ token: good }));
