// An OpenID provider that asks for a password and, from whoever gives one, a TOTP code. It reads its settings as JSON from
// standard input, ends with it, and prints its port.
//
// settings: issuer, certificate and key (paths), client (id, secret, redirectURIs), people: by name their password, secret
// (Base32), accounts (whose agent they are) and acr (which context their code gives).
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { TOTP, Secret } from 'otpauth';
import { Provider } from 'oidc-provider';

process.stdin.setEncoding('utf8');
const lines = process.stdin[Symbol.asyncIterator]();
const settings = JSON.parse((await lines.next()).value);
lines.next().then(() => process.exit(0));

const provider = new Provider(settings.issuer, {
  clients: [{
    client_id: settings.client.id,
    client_secret: settings.client.secret,
    redirect_uris: settings.client.redirectURIs,
    grant_types: ['authorization_code'],
  }],
  acrValues: ['password', 'password-and-code'],
  claims: { openid: ['sub', 'acr', 'amr', 'helpdesk_accounts'] },
  conformIdTokenClaims: false,
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/login/${interaction.uid}` },
  cookies: { keys: ['of a test'] },
  ttl: { AccessToken: 3600, IdToken: 3600, Session: 3600, Interaction: 600, Grant: 3600 },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, helpdesk_accounts: settings.people[id].accounts }),
  }),
  // Whoever logs in agrees.
  async loadExistingGrant(context) {
    const { client, session, provider } = context.oidc;
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid');
    await grant.save();
    return grant;
  },
});
provider.proxy = true;

const others = provider.callback();
const form = `<!doctype html><form method="post"><input name="name"><input name="password" type="password"><input name="code"><button>`;

async function logIn(request, response) {
  let body = '';
  for await (const part of request) body += part;
  const given = new URLSearchParams(body);
  const person = settings.people[given.get('name')];
  const code = given.get('code');
  const isRight = person && given.get('password') === person.password
    && (!code || new TOTP({ secret: Secret.fromBase32(person.secret) }).validate({ token: code, window: 1 }) !== null);
  if (!isRight) {
    response.writeHead(403, { 'content-type': 'text/plain' });
    response.end('wrong\n');
    return;
  }
  const login = code
    ? { accountId: given.get('name'), acr: person.acr, amr: ['pwd', 'otp'], remember: false }
    : { accountId: given.get('name'), acr: 'password', amr: ['pwd'], remember: false };
  await provider.interactionFinished(request, response, { login }, { mergeWithLastSubmission: false });
}

const server = createServer({ cert: readFileSync(settings.certificate), key: readFileSync(settings.key) }, (request, response) => {
  if (!request.url.startsWith('/login/')) return others(request, response);
  if (request.method === 'POST') return logIn(request, response).catch((error) => { console.error(error); response.writeHead(500); response.end(); });
  response.writeHead(200, { 'content-type': 'text/html' });
  response.end(form);
});
server.listen(0, '0.0.0.0', () => console.log(server.address().port));
