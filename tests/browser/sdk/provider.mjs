// A provider of third-party sign-in on loopback, `tests/servers/provider.mjs`.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/**
 * Starts it for a website. It has one user, Mara, without any claims until `account` says some. `setting` is the
 * testbed's PROVIDERS.
 */
export async function startProvider(website) {
  const file = fileURLToPath(new URL('../../servers/provider.mjs', import.meta.url));
  const secret = randomBytes(24).toString('hex');
  const settings = {
    port: 0,
    clients: [
      { client_id: 'testbed', client_secret: secret, redirect_uris: [`${website}/auth/callback/loopback`] },
    ],
    accounts: { mara: {} },
  };
  const child = spawn(process.execPath, [file, JSON.stringify(settings)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const gone = once(child, 'exit').then(() => {
    throw new Error('the provider did not start: npm --prefix ../servers ci');
  });
  gone.catch(() => {});
  const [line] = await Promise.race([once(createInterface({ input: child.stdout }), 'line'), gone]);
  const origin = `http://127.0.0.1:${JSON.parse(line).port}`;
  const setting = JSON.stringify([{ id: 'loopback', issuer: origin, clientId: 'testbed', clientSecret: secret }]);
  const account = (claims) => fetch(`${origin}/accounts/mara`, { method: 'PUT', body: JSON.stringify(claims) });
  const close = () => child.kill();
  return { origin, setting, account, close };
}
