// Usage: node issuer.mjs CALLBACK_PORT      (loopback only; prints one line when it serves)
// An OpenID provider (oidc-provider) as the issuer of a gate's tokens. Whoever opens a login page is
// logged in as `judge` and consents. Clients: `code` (public, authorization code with PKCE) and
// `machine` (client credentials, secret `machine-secret`). Access tokens are JWTs for one resource.
import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';
import http from 'node:http';
import { pathToFileURL } from 'node:url';

const { default: Provider } = await import(pathToFileURL(createRequire(`${process.cwd()}/`).resolve('oidc-provider')));
const [callbackPort] = process.argv.slice(2);
const SCOPES = 'mcp:call mcp:read';

const server = http.createServer();
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const url = `http://127.0.0.1:${server.address().port}`;

const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
const provider = new Provider(url, {
  jwks: { keys: [{ ...key, use: 'sig', alg: 'ES256', kid: 'one' }] },
  clients: [
    {
      client_id: 'code',
      token_endpoint_auth_method: 'none',
      redirect_uris: [`http://127.0.0.1:${callbackPort}/callback`],
      grant_types: ['authorization_code'],
      response_types: ['code'],
      application_type: 'native',
    },
    { client_id: 'machine', client_secret: 'machine-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
  ],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  scopes: ['openid', ...SCOPES.split(' ')],
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  interactions: { url: (_, interaction) => `/agree/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({ scope: SCOPES, audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }),
      useGrantedResource: () => true,
    },
  },
});

async function agree(req, res) {
  const { prompt, params, session } = await provider.interactionDetails(req, res);
  if (prompt.name === 'login') return provider.interactionFinished(req, res, { login: { accountId: 'judge' } });
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  const { missingOIDCScope = [], missingResourceScopes = {} } = prompt.details;
  grant.addOIDCScope(missingOIDCScope.join(' '));
  for (const [resource, scopes] of Object.entries(missingResourceScopes)) grant.addResourceScope(resource, scopes.join(' '));
  return provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
}

const callback = provider.callback();
server.on('request', (req, res) => {
  // RFC 6749, section 3.3: a request without a scope gets the issuer's default.
  if (req.url.startsWith('/auth?') && !req.url.includes('scope=')) req.url += `&scope=${encodeURIComponent(`openid ${SCOPES}`)}`;
  if (!req.url.startsWith('/agree/')) return callback(req, res);
  return agree(req, res).catch((error) => res.writeHead(500).end(String(error)));
});
console.log(JSON.stringify({ url }));
