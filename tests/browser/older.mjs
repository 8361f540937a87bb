// An SDK of a time when recipes were combined (supertokens-web-js 0.10, FDI 1.17 to 1.19), as npm has it, in a real
// browser against the testbed: ThirdPartyEmailPassword and ThirdPartyPasswordless. `npm ci && npm test`; the environment
// may name TESTBED, CHROMIUM and COUNTS, as for `sdk.mjs`, whose steps these are like.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, before, describe } from 'node:test';
import { fileURLToPath } from 'node:url';

import { startProvider } from './sdk/provider.mjs';
import { website, wire } from './sdk/servers.mjs';
import { assertCounted, breathe, browse, start, stop, watcher } from './support.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const binary = resolve(here, process.env.TESTBED ?? '../../target/debug/examples/testbed');
const [email, guest, password] = ['mara@example.com', 'nils@example.com', 'lighthouse 7'];

const SIGN_UP = 'POST /auth/signup';
const SIGN_IN = 'POST /auth/signin';
const SIGN_OUT = 'POST /auth/signout';
const REFRESH = 'POST /auth/session/refresh';
const EXISTS = 'GET /auth/signup/email/exists';
const ASK_RESET = 'POST /auth/user/password/reset/token';
const RESET = 'POST /auth/user/password/reset';
const WHERE_TO = 'GET /auth/authorisationurl';
const THIRD_PARTY = 'POST /auth/signinup';
const SEND_CODE = 'POST /auth/signinup/code';
const SEND_AGAIN = 'POST /auth/signinup/code/resend';
const CHECK_CODE = 'POST /auth/signinup/code/consume';
const FULL = 'GET /api/me';

describe('an older SDK in cookie mode', () => story('cookie'));
describe('an older SDK in header mode', () => story('header'));

function story(mode) {
  let work;
  let site;
  let api;
  let testbed;
  let provider;
  let browser;
  let page;
  const watched = watcher({
    origins: () => [site.origin, api.origin, provider.origin],
    settle: () => breathe(page),
    left: (request) => request.url().startsWith(api.origin),
  });

  before(async () => {
    work = await mkdtemp(join(tmpdir(), 'older-'));
    site = await website({ html: 'screens.html', script: 'older.js', settings: () => ({ api: api.origin, mode }) });
    api = await wire(() => testbed.base);
    provider = await startProvider(site.origin);
    await provider.account({ email, email_verified: true });
    testbed = await start(binary, {
      cwd: work,
      env: {
        PORT: '0',
        API_ORIGIN: api.origin,
        WEBSITE_ORIGIN: site.origin,
        FIRST_FACTORS: 'emailpassword,thirdparty,otp-email',
        PROVIDERS: provider.setting,
        MFA_POLICY: 'nobody',
        LIMITS: 'off',
        TEST_HOOKS: '1',
        RUST_LOG: process.env.RUST_LOG ?? 'warn',
      },
    });
    browser = await browse(join(work, 'profile'), { baseURL: site.origin });
    browser.on('page', watched.watch);
    page = await browser.newPage();
    await browser.pages()[0].close();
    await page.goto('/');
  });

  after(async () => {
    await browser?.close();
    await stop(testbed);
    provider?.close();
    await api?.close();
    await site?.close();
    await rm(work, { recursive: true, force: true });
  });

  function step(name, requests, work) {
    watched.step(`older, ${mode}: ${name}`, async () => {
      api.answers.length = 0;
      for (const what of Object.keys(requests)) {
        const [, path, status] = what.split(' ');
        if (Number(status) >= 400) watched.announce(Number(status), path);
      }
      await work();
      await breathe(page);
      await assertCounted(api.answers, requests);
    });
  }

  const on = (name, ...args) => page.evaluate(([name, args]) => window.sdk[name](...args), [name, args]);
  const factors = async () => Object.keys((await on('payload'))['st-mfa'].c);

  async function sentTo(contact) {
    const answer = await fetch(`${testbed.base}/test/otp?contact=${encodeURIComponent(contact)}`);
    assert.equal(answer.status, 200);
    return answer.json();
  }

  /** In, by one login method of this recipe; and the session is good for everything that a session is good for. */
  async function isIn(answer, recipeId, factor) {
    assert.equal(answer.status, 'OK');
    assert.deepEqual(
      answer.user.loginMethods.map((one) => one.recipeId),
      [recipeId],
    );
    assert.deepEqual(await factors(), [factor]);
    assert.equal((await on('call', '/api/me')).status, 200);
    assert.equal(await on('refresh'), true);
  }

  step(
    'sign-up and sign-in by password',
    {
      [`${REFRESH} 401`]: 1,
      [`${EXISTS} 200`]: 1,
      [`${SIGN_UP} 200`]: 2,
      [`${SIGN_IN} 200`]: 2,
      [`${FULL} 200`]: 2,
      [`${REFRESH} 200`]: 2,
      [`${SIGN_OUT} 200`]: 2,
    },
    async () => {
      assert.deepEqual(await on('isTaken', email), { status: 'OK', doesExist: false });
      await isIn(await on('signUp', email, password), 'emailpassword', 'emailpassword');
      await on('signOut');
      assert.equal(await on('exists'), false);
      const taken = await on('signUp', email, password);
      assert.deepEqual([taken.status, taken.formFields[0].id], ['FIELD_ERROR', 'email']);
      assert.deepEqual(await on('signIn', email, 'lighthouse 8'), { status: 'WRONG_CREDENTIALS_ERROR' });
      await isIn(await on('signIn', email, password), 'emailpassword', 'emailpassword');
      await on('signOut');
    },
  );

  step('a password set anew', { [`${ASK_RESET} 200`]: 1, [`${RESET} 200`]: 2, [`${SIGN_IN} 200`]: 1 }, async () => {
    assert.deepEqual(await on('askReset', email), { status: 'OK' });
    await page.goto((await sentTo(email)).linkUrl);
    assert.deepEqual(await on('reset', 'lighthouse 9'), { status: 'OK' });
    assert.deepEqual(await on('reset', 'lighthouse 9'), { status: 'RESET_PASSWORD_INVALID_TOKEN_ERROR' });
    assert.deepEqual(await on('signIn', email, password), { status: 'WRONG_CREDENTIALS_ERROR' });
  });

  step(
    'a third party, by either name',
    {
      [`${WHERE_TO} 200`]: 2,
      [`${THIRD_PARTY} 200`]: 2,
      [`${FULL} 200`]: 2,
      [`${REFRESH} 200`]: 2,
      [`${SIGN_OUT} 200`]: 2,
    },
    async () => {
      for (const [combined, created] of Object.entries({ emailpassword: true, passwordless: false })) {
        await page.goto(await on('whereTo', combined));
        await page.waitForURL((url) => url.pathname === '/auth/callback/loopback');
        const answer = await on('comeBack', combined);
        assert.equal(answer.createdNewRecipeUser, created);
        await isIn(answer, 'thirdparty', 'thirdparty');
        await on('signOut');
        await page.goto('/');
      }
    },
  );

  step(
    'a code by e-mail',
    {
      [`${EXISTS} 200`]: 1,
      [`${SEND_CODE} 200`]: 1,
      [`${SEND_AGAIN} 200`]: 1,
      [`${CHECK_CODE} 200`]: 2,
      [`${FULL} 200`]: 1,
      [`${REFRESH} 200`]: 1,
      [`${SIGN_OUT} 200`]: 1,
    },
    async () => {
      assert.deepEqual(await on('hasCodes', guest), { status: 'OK', doesExist: false });
      assert.equal((await on('createCode', guest)).status, 'OK');
      assert.deepEqual(await on('resendCode'), { status: 'OK' });
      const { userInputCode: code, count } = await sentTo(guest);
      assert.equal(count, 2);
      const wrong = String((Number(code) + 1) % 1_000_000).padStart(6, '0');
      assert.equal((await on('consumeCode', wrong)).status, 'INCORRECT_USER_INPUT_CODE_ERROR');
      const answer = await on('consumeCode', code);
      assert.equal(answer.createdNewRecipeUser, true);
      await isIn(answer, 'passwordless', 'otp-email');
      await on('signOut');
    },
  );
}
