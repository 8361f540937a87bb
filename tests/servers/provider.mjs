// A provider of third-party sign-in on loopback: oidc-provider, as OpenID Connect and as plain OAuth 2.
//
//   node provider.mjs                        http://127.0.0.1:9090, one client, for a browser
//   node provider.mjs '{"port":0,...}'       for the tests: prints a line of JSON for each request
//
// Settings: port; clients (as oidc-provider has them); accounts (claims by subject; PUT /accounts/<subject> changes
// one); inIdToken (claims of the user go into the id_token, not only into the user info); ttl (seconds, by kind of
// token); plain (knows no PKCE). Whoever comes is signed in as `login_hint` says, or as the first account, and agrees to
// everything.
// As OAuth 2 it is asked without the scope `openid`: no id_token then, and GET /user says who it is.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const settings = JSON.parse(process.argv[2] ?? '{}');
const forPeople = process.argv[2] === undefined;
const say = (event) => { if (!forPeople) console.log(JSON.stringify(event)); };
const accounts = settings.accounts ?? { alice: { email: 'alice@shop.example', email_verified: true } };
const clients = settings.clients ?? [{
  client_id: 'testbed',
  client_secret: 'testbed-secret',
  redirect_uris: ['http://localhost:3000/auth/callback/loopback'],
}];

const server = createServer();
await new Promise((done) => server.listen(settings.port ?? 9090, '127.0.0.1', done));
const { port } = server.address();
const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: clients.map((client) => ({ response_types: ['code'], grant_types: ['authorization_code'], ...client })),
  jwks: { keys: [{ ...key, kid: 'one', use: 'sig', alg: 'RS256' }] },
  cookies: { keys: [key.d] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  scopes: ['openid', 'email', 'profile'],
  conformIdTokenClaims: !settings.inIdToken,
  features: { devInteractions: { enabled: false } },
  pkce: { required: () => false },
  ttl: { AccessToken: 300, AuthorizationCode: 60, IdToken: 300, Grant: 300, Interaction: 300, Session: 300, ...settings.ttl },
  findAccount: (_, id) => accounts[id] && { accountId: id, claims: () => ({ sub: id, ...accounts[id] }) },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({
      clientId: ctx.oidc.client.clientId,
      accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope('openid email profile');
    await grant.save();
    return grant;
  },
});

const body = async (request) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString());
};

const json = (response, status, value) => {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
};

const listener = provider.callback();
server.on('request', async (request, response) => {
  const { pathname } = new URL(request.url, provider.issuer);
  say({ event: 'request', method: request.method, path: pathname });
  if (pathname.startsWith('/interaction/')) {
    const { params } = await provider.interactionDetails(request, response);
    const accountId = params.login_hint ?? Object.keys(accounts)[0];
    if (accounts[accountId]) await provider.interactionFinished(request, response, { login: { accountId } });
    else await provider.interactionFinished(request, response, { error: 'access_denied' });
  } else if (pathname.startsWith('/accounts/') && request.method === 'PUT') {
    accounts[pathname.slice('/accounts/'.length)] = await body(request);
    json(response, 200, {});
  } else if (pathname === '/user') {
    const token = await provider.AccessToken.find((request.headers.authorization ?? '').replace('Bearer ', ''));
    if (token) json(response, 200, { id: token.accountId, ...accounts[token.accountId] });
    else json(response, 401, { error: 'invalid_token' });
  } else if (settings.plain && pathname === '/.well-known/openid-configuration') {
    const write = response.end.bind(response);
    response.end = (text) => {
      const { code_challenge_methods_supported: _, ...rest } = JSON.parse(text);
      const answer = JSON.stringify(rest);
      response.setHeader('content-length', Buffer.byteLength(answer));
      return write(answer);
    };
    listener(request, response);
  } else listener(request, response);
});

if (forPeople) console.log(`sign-in by ${provider.issuer}: client "testbed", secret "testbed-secret"`);
else say({ port });
// It ends with whoever started it.
if (!forPeople) process.stdin.on('end', () => process.exit()).resume();
