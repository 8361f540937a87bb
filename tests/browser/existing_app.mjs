// The app that has its users already, in a real browser: `npm ci && npm test`. The environment may name EXISTING_APP and
// CHROMIUM. A step fails on what `support.mjs` watches for.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { breathe, browse, start, stop, watcher } from './support.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const binary = resolve(here, process.env.EXISTING_APP ?? '../../target/debug/examples/existing_app');

let work;
let shop;
let browser;
let page;
const codes = [];
const { watch, announce, step } = watcher({
  origins: () => [shop.base],
  settle: () => breathe(page),
  // The page leads elsewhere before it has read of an answer more than its status.
  left: (request) => request.url().startsWith(`${shop.base}/auth/`),
});

before(async () => {
  work = await mkdtemp(join(tmpdir(), 'existing-app-'));
  shop = await start(binary, { cwd: work, env: { PORT: '0' }, stderr: 'pipe' });
  createInterface({ input: shop.child.stderr }).on('line', (line) => codes.push(...(line.match(/\b\d{6}\b/g) ?? [])));
  browser = await browse(join(work, 'profile'), { baseURL: shop.base });
  page = await browser.newPage();
  watch(page);
});

after(async () => {
  await browser?.close();
  await stop(shop);
  await rm(work, { recursive: true, force: true });
});

const at = (path) => page.waitForURL((url) => url.pathname === path);
const button = (name) => page.getByRole('button', { name, exact: true });
const says = (text) => page.getByRole('status').filter({ hasText: text }).waitFor();
const wrongFor = (code) => String((Number(code) + 1) % 1_000_000).padStart(6, '0');

async function signIn(password) {
  await page.getByLabel('Name').fill('alice');
  await page.getByLabel('Password').fill(password);
  await button('Sign in').click();
}

async function type(code) {
  await page.getByLabel('Code').fill(code);
  await page.keyboard.press('Enter');
}

async function home() {
  await page.getByText('You are signed in. We write to alice@shop.example.').waitFor();
  assert.equal(new URL(page.url()).pathname, '/');
}

step('a stranger is led to the sign-in; a wrong password is told', async () => {
  announce(401, '/login');
  announce(404, '/favicon.ico', true);
  await page.goto('/');
  await at('/login');
  await signIn('wrong horse');
  await page.getByRole('alert').filter({ hasText: 'Name or password is wrong.' }).waitFor();
});

/** When a code was sent last: another one follows half a minute later at the earliest. */
let sentAt;

step('a right one leads to the code, which is sent at once; a wrong code is told', async () => {
  await signIn('correct horse');
  await at('/code');
  await says('Enter the code that was sent to a');
  sentAt = Date.now();
  await type(wrongFor(codes.at(-1)));
  await says('That is not the code. It can be tried 4 times more.');
  await button('Send another code').click();
  await says(/^Too many attempts\. Try again in \d minutes?\.$/);
});

step('a code that was wrong too often is void, and no other one comes at once', async () => {
  for (const left of ['3 times', '2 times', 'once']) {
    await type(wrongFor(codes.at(-1)));
    await says(`That is not the code. It can be tried ${left} more.`);
  }
  await type(wrongFor(codes.at(-1)));
  await says("That code can't be tried any more.");
  assert.ok(await page.getByLabel('Code').isHidden());
  await button('Send a new code').click();
  await says('Too many attempts');
});

step('half a minute later one does; a reload asks for it again; the right one leads on', async () => {
  await sleep(sentAt + 31_000 - Date.now());
  await button('Send a code').click();
  await says('Enter the code that was sent to a');
  await page.goto('/');
  await at('/code');
  await says('Enter the code that was sent to a');
  assert.equal(codes.length, 2);
  await type(codes.at(-1));
  await home();
});

/** The access token runs out, as far as the server is concerned. */
async function runOut() {
  const cookie = (await browser.cookies()).find(({ name }) => name === 'sAccessToken');
  const spoilt = cookie.value.endsWith('A') ? 'Q' : 'A';
  await browser.addCookies([{ ...cookie, value: cookie.value.slice(0, -1) + spoilt }]);
}

step('where the access token ran out the page refreshes it, and leads back', async () => {
  announce(401, '/auth/mfa/info');
  await runOut();
  await page.goto('/');
  await home();
});

step('signing out ends both sessions', async () => {
  await button('Sign out').click();
  await at('/login');
  await page.goto('/');
  await at('/login');
});

step('where no code can be sent yet the page says when', async () => {
  await signIn('correct horse');
  await says('Too many attempts');
  assert.ok(await page.getByLabel('Code').isHidden());
  await page.getByRole('link', { name: 'Sign in anew' }).click();
  await at('/login');
});

step('where the session is over the page leads to the sign-in', async () => {
  announce(401, '/auth/mfa/info');
  announce(401, '/auth/session/refresh');
  await runOut();
  await browser.clearCookies({ name: 'sRefreshToken' });
  await page.goto('/');
  await at('/login');
});

