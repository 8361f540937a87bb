// supertokens-web-js, as npm has it, in a real browser against the testbed (on SQLite): `npm ci && npm test`. The
// environment may name
//   TESTBED   the server's binary, seen from here      ../../target/debug/examples/testbed
//   CHROMIUM  the browser                              /usr/bin/chromium
//   COUNTS    1 prints the requests of each step
// Website and API are two origins of one site. The same story is told in cookie mode and in header mode.
//
// Each step names every request that it may cause, with the status of its answer, and how often; requests are counted on
// the wire between browser and API. A step fails on any other request, so an answer that sends the SDK in circles shows
// up in the step where it is given; besides, it fails on what `support.mjs` watches for.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, before, describe } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { website, wire } from './sdk/servers.mjs';
import { assertCounted, breathe, browse, start, stop, watcher } from './support.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const binary = resolve(here, process.env.TESTBED ?? '../../target/debug/examples/testbed');
const email = 'mara@example.com';
const password = 'lighthouse 7';
const phone = '+36301111142';
/** An access token's life where one is waited for, in seconds. */
const short = 4;

const SIGN_UP = 'POST /auth/signup';
const SIGN_IN = 'POST /auth/signin';
const SIGN_OUT = 'POST /auth/signout';
const REFRESH = 'POST /auth/session/refresh';
const FACTORS = 'PUT /auth/mfa/info';
const SEND_CODE = 'POST /auth/signinup/code';
const SEND_AGAIN = 'POST /auth/signinup/code/resend';
const CHECK_CODE = 'POST /auth/signinup/code/consume';
/** Needs every factor. */
const FULL = 'GET /api/me';
/** Needs a session. */
const HALF = 'GET /api/half';
const PUBLIC = 'GET /api/public';

describe('cookie mode', () => story('cookie'));
describe('header mode', () => story('header'));

function story(mode) {
  let work;
  let site;
  let api;
  let testbed;
  let browser;
  let page;
  let other;
  let elsewhere;

  const {
    watch,
    announce,
    step: watched,
  } = watcher({
    origins: () => [site.origin, api.origin],
    settle: async () => {
      for (const open of browser.pages()) await breathe(open);
    },
    // The SDK doesn't read these to their end; the wire has counted them.
    left: (request) => request.url() === `${api.origin}/auth/session/refresh`,
  });

  before(async () => {
    work = await mkdtemp(join(tmpdir(), 'sdk-'));
    site = await website();
    api = await wire(() => testbed.base);
    testbed = await serve({});
    browser = await browse(join(work, 'profile'), {});
    browser.on('page', watch);
    page = await open();
    await browser.pages()[0].close();
  });

  after(async () => {
    await elsewhere?.close();
    await browser?.close();
    await stop(testbed);
    await api?.close();
    await site?.close();
    await rm(work, { recursive: true, force: true });
  });

  /** The testbed; a later one finds the sessions of an earlier one in its store. */
  const serve = (more) =>
    start(binary, {
      cwd: work,
      env: {
        PORT: '0',
        API_ORIGIN: api.origin,
        WEBSITE_ORIGIN: site.origin,
        STORE: `sqlite:${join(work, 'testbed.db')}`,
        MFA_REQUIREMENTS: '["otp-email"]',
        LIMITS: 'off',
        TEST_HOOKS: '1',
        RUST_LOG: process.env.RUST_LOG ?? 'warn',
        ...more,
      },
    });

  const withLinks = {
    PASSWORDLESS: 'EMAIL_OR_PHONE,USER_INPUT_CODE_AND_MAGIC_LINK',
    FIRST_FACTORS: 'emailpassword,link-email,link-phone',
  };

  async function restart(more) {
    assert.equal(await stop(testbed), 0);
    testbed = await serve(more);
  }

  /** The page in a new tab; or the one that a link leads to. */
  async function open(link = `${site.origin}/`, where = browser) {
    const [opened, url] = [await where.newPage(), new URL(link)];
    url.searchParams.set('api', api.origin);
    url.searchParams.set('mode', mode);
    await opened.goto(url.href);
    return opened;
  }

  /** A step, and the requests that it may cause: how often, or at least and at most how often. */
  function step(name, requests, work) {
    watched(`${mode}: ${name}`, async () => {
      api.answers.length = 0;
      for (const what of Object.keys(requests)) {
        const [, path, status] = what.split(' ');
        if (Number(status) >= 400) announce(Number(status), path, requests[what][0] === 0);
      }
      await work();
      for (const open of browser.pages()) await breathe(open);
      await assertCounted(api.answers, requests);
    });
  }

  const answersTo = (what) => api.answers.filter(({ method, path }) => `${method} ${path}` === what);
  const on = (tab, name, ...args) => tab.evaluate(([name, args]) => window.sdk[name](...args), [name, args]);
  const call = (tab, what) => on(tab, 'call', what.split(' ')[1]);
  const status = async (tab, what) => (await call(tab, what)).status;

  /** Asks the testbed itself, past the browser and its wire. */
  async function ask(method, path, { body, headers } = {}) {
    const response = await fetch(testbed.base + path, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      body: body && JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  }

  /** The last message to a contact, which has been sent by now. */
  async function sentTo(contact) {
    const { status, body } = await ask('GET', `/test/otp?contact=${contact}`);
    assert.equal(status, 200);
    return body;
  }

  async function sentCode(contact = email) {
    const { userInputCode } = await sentTo(contact);
    assert.match(userInputCode, /^\d{6}$/);
    return userInputCode;
  }

  async function sentLink(contact) {
    const { userInputCode, linkUrl } = await sentTo(contact);
    assert.equal(userInputCode, null);
    assert.ok(linkUrl.startsWith(`${site.origin}/auth/verify?preAuthSessionId=`), linkUrl);
    return linkUrl;
  }

  async function codeFor(tab) {
    assert.equal((await on(tab, 'createCode', email)).status, 'OK');
    return sentCode();
  }

  /** Signed in by password alone. */
  async function signIn(tab) {
    assert.equal((await on(tab, 'signIn', email, password)).status, 'OK');
    assert.equal((await on(tab, 'payload'))['st-mfa'].v, false);
  }

  const names = mode === 'cookie' ? ['sAccessToken', 'sRefreshToken'] : ['st-access-token', 'st-refresh-token'];

  /** The tokens that the browser has, wherever it keeps them. */
  async function tokens() {
    const cookies = await browser.cookies([api.origin, `${api.origin}/auth/session/refresh`]);
    return names.map((name) => {
      const [cookie, ...more] = cookies.filter((one) => one.name === name && one.value !== '');
      assert.ok(cookie && more.length === 0, `one ${name}`);
      assert.equal(cookie.httpOnly, mode === 'cookie');
      return cookie;
    });
  }

  const cookiesLeft = async () => (await browser.cookies()).filter(({ value }) => value !== '').map(({ name }) => name);

  /** Waits until the access token has run out, by what its front token says. */
  async function expiry() {
    const ends = await page.evaluate(() => {
      const front = document.cookie.split('; ').find((one) => one.startsWith('sFrontToken='));
      return JSON.parse(atob(front.slice(front.indexOf('=') + 1))).ate;
    });
    await sleep(Math.max(0, ends - Date.now()) + 20);
  }

  /** Changes a letter in the access token's signature: the server asks for a refresh, as it does for an old one. */
  async function spoilAccessToken() {
    const [cookie] = await tokens();
    const spot = cookie.value.length - 20;
    const letter = cookie.value[spot] === 'A' ? 'B' : 'A';
    const value = cookie.value.slice(0, spot) + letter + cookie.value.slice(spot + 1);
    await browser.addCookies([{ ...cookie, value }]);
  }

  step(
    'a first visit: no session, and no second question about it',
    { [`${REFRESH} 401`]: 1, [`${PUBLIC} 200`]: 1, [`${FULL} 401`]: 1 },
    async () => {
      assert.equal(await on(page, 'exists'), false);
      const [answer] = answersTo(REFRESH);
      assert.deepEqual([answer.status, answer.headers['front-token']], [401, 'remove']);
      assert.equal(await on(page, 'exists'), false);
      assert.deepEqual(await call(page, PUBLIC), { status: 200, body: { userId: null } });
      assert.equal(await status(page, FULL), 401);
      await page.reload();
      assert.equal(await on(page, 'exists'), false);
    },
  );

  step('sign-up by password', { [`${SIGN_UP} 200`]: 1 }, async () => {
    await on(page, 'events');
    const signedUp = await on(page, 'signUp', email, password);
    assert.equal(signedUp.status, 'OK');
    assert.deepEqual(signedUp.user.emails, [email]);
    assert.equal(await on(page, 'exists'), true);
    const payload = await on(page, 'payload');
    assert.equal(payload.sub, signedUp.user.id);
    assert.deepEqual([Object.keys(payload['st-mfa'].c), payload['st-mfa'].v], [['emailpassword'], false]);
    assert.ok((await on(page, 'events')).includes('SESSION_CREATED'));
    // What travelled, and how.
    const [{ headers }] = answersTo(SIGN_UP);
    const inHeaders = [headers['st-access-token'], headers['st-refresh-token']].filter(Boolean).length;
    const inCookies = (headers['set-cookie'] ?? []).filter((one) => /^s(Access|Refresh)Token=./.test(one)).length;
    assert.deepEqual([inHeaders, inCookies], mode === 'cookie' ? [0, 2] : [2, 0]);
    await tokens();
  });

  step('the guard says what is missing', { [`${FULL} 403`]: 1, [`${HALF} 200`]: 1 }, async () => {
    const refused = await call(page, FULL);
    assert.equal(refused.status, 403);
    assert.equal(refused.body.message, 'invalid claim');
    assert.deepEqual(
      refused.body.claimValidationErrors.map(({ id }) => id),
      ['st-mfa'],
    );
    assert.deepEqual(await on(page, 'events'), ['API_INVALID_CLAIM']);
    assert.deepEqual(
      (await on(page, 'invalidClaims')).map(({ id }) => id),
      ['st-mfa'],
    );
    assert.equal(await status(page, HALF), 200);
  });

  step(
    'the second factor: what is next, a wrong code, the right one',
    { [`${FACTORS} 200`]: 1, [`${SEND_CODE} 200`]: 1, [`${CHECK_CODE} 200`]: 2, [`${FULL} 200`]: 2 },
    async () => {
      const info = await on(page, 'factors');
      assert.deepEqual([info.status, info.factors.next], ['OK', ['otp-email']]);
      // The prebuilt screens send to the first address of this list.
      const sent = await on(page, 'createCode', info.emails['otp-email'][0]);
      assert.deepEqual([sent.status, sent.flowType], ['OK', 'USER_INPUT_CODE']);
      const code = await sentCode();
      const wrong = await on(page, 'consumeCode', String((Number(code) + 1) % 1_000_000).padStart(6, '0'));
      assert.deepEqual(wrong, {
        status: 'INCORRECT_USER_INPUT_CODE_ERROR',
        failedCodeInputAttemptCount: 1,
        maximumCodeInputAttempts: 5,
      });
      await on(page, 'events');
      assert.equal((await on(page, 'consumeCode', code)).status, 'OK');
      assert.deepEqual(await on(page, 'events'), ['ACCESS_TOKEN_PAYLOAD_UPDATED']);
      const claim = (await on(page, 'payload'))['st-mfa'];
      assert.deepEqual([Object.keys(claim.c).sort(), claim.v], [['emailpassword', 'otp-email'], true]);
      assert.deepEqual(await on(page, 'invalidClaims'), []);
      const me = await call(page, FULL);
      assert.equal(me.status, 200);
      assert.deepEqual(me.body.claim, claim);
      await page.reload();
      assert.equal(await on(page, 'exists'), true);
      assert.equal(await status(page, FULL), 200);
    },
  );

  step(
    'the server starts anew; from here on tokens are short-lived',
    { [`${FULL} 200`]: 2, [`${REFRESH} 200`]: 1 },
    async () => {
      await restart({ ACCESS_TOKEN_TTL: String(short) });
      assert.equal(await status(page, FULL), 200);
      const before = await tokens();
      assert.equal(await on(page, 'refresh'), true);
      const after = await tokens();
      assert.ok(
        before.every((token, at) => token.value !== after[at].value),
        'both tokens are new',
      );
      assert.equal(await status(page, FULL), 200);
    },
  );

  step(
    'a call after the access token has run out',
    { [`${FULL} 401`]: 1, [`${REFRESH} 200`]: 1, [`${FULL} 200`]: 1 },
    async () => {
      await on(page, 'events');
      await expiry();
      assert.equal(await status(page, FULL), 200);
      assert.ok((await on(page, 'events')).includes('REFRESH_SESSION'));
    },
  );

  step(
    'ten calls at once after that: one refresh',
    { [`${FULL} 401`]: [1, 10], [`${REFRESH} 200`]: 1, [`${FULL} 200`]: 10 },
    async () => {
      await expiry();
      const statuses = await page.evaluate(async () => {
        const { call, callByXhr } = window.sdk;
        const calls = [call, callByXhr, call, callByXhr, call, callByXhr, call, callByXhr, call, callByXhr];
        return (await Promise.all(calls.map((one) => one('/api/me')))).map(({ status }) => status);
      });
      assert.deepEqual(statuses, Array(10).fill(200));
      assert.equal(await on(page, 'exists'), true);
    },
  );

  step(
    'two tabs at once after that: one refresh for both',
    { [`${FULL} 401`]: [1, 6], [`${REFRESH} 200`]: 1, [`${FULL} 200`]: 6 },
    async () => {
      other = await open();
      await expiry();
      const three = (tab) => tab.evaluate(() => Promise.all([1, 2, 3].map(() => window.sdk.call('/api/me'))));
      const answers = (await Promise.all([three(page), three(other)])).flat();
      assert.deepEqual(
        answers.map(({ status }) => status),
        Array(6).fill(200),
      );
      for (const tab of [page, other]) assert.equal(await on(tab, 'exists'), true);
    },
  );

  step(
    'another sign-in, with the usual lifetime',
    { [`${SIGN_OUT} 200`]: 1, [`${SIGN_IN} 200`]: 1, [`${FULL} 403`]: 2 },
    async () => {
      await restart({});
      await on(page, 'signOut');
      for (const tab of [page, other]) assert.equal(await on(tab, 'exists'), false);
      await signIn(page);
      for (const tab of [page, other]) assert.equal(await status(tab, FULL), 403);
    },
  );

  /** Both tabs work, neither was signed out, and what the browser holds can be refreshed. */
  async function bothWork() {
    for (const tab of [page, other]) {
      assert.equal(await on(tab, 'exists'), true);
      assert.equal(await status(tab, FULL), 200);
    }
    for (const tab of [other, page]) assert.equal(await on(tab, 'refresh'), true);
    for (const tab of [page, other]) {
      assert.equal(await status(tab, FULL), 200);
      const events = await on(tab, 'events');
      assert.deepEqual(
        events.filter((event) => /UNAUTHORISED|SIGN_OUT/.test(event)),
        [],
      );
    }
  }

  async function anotherSignIn() {
    await on(page, 'signOut');
    await signIn(page);
    for (const tab of [page, other]) await on(tab, 'events');
  }

  const both = { [`${FULL} 200`]: 4 };
  const again = { [`${SIGN_OUT} 200`]: 1, [`${SIGN_IN} 200`]: 1 };
  const sent = { [`${SEND_CODE} 200`]: 1, [`${CHECK_CODE} 200`]: 1 };

  step(
    'one tab is about to hear that its code was right, the other one refreshes: later, it is told',
    { ...sent, ...both, [`${HALF} 401`]: 1, [`${REFRESH} 409`]: 2, [`${REFRESH} 200`]: 2 },
    async () => {
      for (const tab of [page, other]) await on(tab, 'events');
      const code = await codeFor(page);
      const hold = api.hold('answer', ...CHECK_CODE.split(' '));
      const consumed = on(page, 'consumeCode', code);
      await hold.reached;
      assert.equal(await on(other, 'refresh'), 409);
      await spoilAccessToken();
      assert.equal(await status(other, HALF), 409);
      for (const tab of [page, other]) assert.equal(await on(tab, 'exists'), true);
      hold.release();
      assert.equal((await consumed).status, 'OK');
      await bothWork();
    },
  );

  step(
    'one tab is about to send its code, the other one refreshes first',
    { ...again, ...sent, ...both, [`${CHECK_CODE} 401`]: 1, [`${REFRESH} 200`]: 3 },
    async () => {
      await anotherSignIn();
      const code = await codeFor(page);
      const hold = api.hold('request', ...CHECK_CODE.split(' '));
      const consumed = on(page, 'consumeCode', code);
      await hold.reached;
      assert.equal(await on(other, 'refresh'), true);
      hold.release();
      assert.equal((await consumed).status, 'OK');
      await bothWork();
    },
  );

  step(
    'one tab sends its code while the other one waits for new tokens',
    { ...again, ...sent, ...both, [`${CHECK_CODE} 401`]: 1, [`${REFRESH} 200`]: 3 },
    async () => {
      await anotherSignIn();
      const code = await codeFor(page);
      const hold = api.hold('answer', ...REFRESH.split(' '));
      const refreshed = on(other, 'refresh');
      await hold.reached;
      const consumed = on(page, 'consumeCode', code);
      while (answersTo(CHECK_CODE).length === 0) await sleep(10);
      hold.release();
      assert.equal(await refreshed, true);
      assert.equal((await consumed).status, 'OK');
      await bothWork();
    },
  );

  step(
    'one tab sends its code while the other one calls and refreshes, in whatever order',
    {
      ...again,
      [`${SEND_CODE} 200`]: 1,
      [`${CHECK_CODE} 200`]: 1,
      [`${CHECK_CODE} 401`]: [0, 3],
      [`${HALF} 200`]: 3,
      [`${REFRESH} 200`]: [2, 5],
      [`${REFRESH} 409`]: [0, 3],
      ...both,
    },
    async () => {
      await anotherSignIn();
      const code = await codeFor(page);
      const [consumed, calls] = await Promise.all([
        on(page, 'consumeCode', code),
        other.evaluate(async () => {
          const statuses = [];
          for (let times = 0; times < 3; times += 1) {
            const [called] = await Promise.all([window.sdk.call('/api/half'), window.sdk.refresh()]);
            statuses.push(called.status);
          }
          return statuses;
        }),
      ]);
      assert.equal(consumed.status, 'OK');
      assert.deepEqual(calls, [200, 200, 200]);
      await bothWork();
    },
  );

  step(
    'ended from elsewhere: the tabs hear of it, and ask no more',
    { [`${FULL} 401`]: 2, [`${PUBLIC} 200`]: 2, [`${REFRESH} 401`]: 1 },
    async () => {
      assert.equal((await ask('POST', '/test/sessions/revoke', { body: { user: email } })).status, 200);
      assert.equal(await status(page, FULL), 401);
      assert.equal(answersTo(REFRESH)[0].headers['front-token'], 'remove');
      assert.deepEqual(await on(page, 'events'), ['UNAUTHORISED']);
      assert.deepEqual(await cookiesLeft(), ['st-last-access-token-update']);
      assert.equal(await on(page, 'exists'), false);
      assert.equal(await on(other, 'exists'), false);
      assert.equal(await status(other, FULL), 401);
      for (const tab of [page, other]) {
        assert.deepEqual(await call(tab, PUBLIC), { status: 200, body: { userId: null } });
      }
    },
  );

  step(
    'sign-out: nothing is left, here or there',
    { [`${SIGN_IN} 200`]: 1, ...sent, [`${FULL} 200`]: 1, [`${SIGN_OUT} 200`]: 1, [`${FULL} 401`]: 1 },
    async () => {
      await signIn(page);
      assert.equal((await on(page, 'consumeCode', await codeFor(page))).status, 'OK');
      assert.equal(await status(page, FULL), 200);
      const held = (await tokens()).map(({ value }) => value);
      await on(page, 'events');
      await on(page, 'signOut');
      assert.deepEqual(await on(page, 'events'), ['SIGN_OUT']);
      for (const tab of [page, other]) assert.equal(await on(tab, 'exists'), false);
      assert.equal(await status(page, FULL), 401);

      assert.deepEqual(await cookiesLeft(), ['st-last-access-token-update']);
      const stored = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
      for (const token of held) assert.ok(!stored.includes(token));

      const [access, refresh] = held.map((value, at) =>
        mode === 'cookie'
          ? { cookie: `${names[at]}=${value}`, rid: 'session', 'st-auth-mode': mode }
          : { authorization: `Bearer ${value}`, rid: 'session', 'st-auth-mode': mode },
      );
      assert.equal((await ask('GET', '/api/half', { headers: access })).status, 401);
      assert.equal((await ask('POST', '/auth/session/refresh', { headers: refresh })).status, 401);
      assert.deepEqual((await ask('GET', `/test/users/${email}`)).body.sessions, []);
    },
  );

  step(
    'a phone as second factor: the number is asked for, once',
    {
      [`${SIGN_IN} 200`]: 2,
      [`${FACTORS} 200`]: 2,
      [`${SEND_CODE} 200`]: 3,
      [`${CHECK_CODE} 200`]: 2,
      [`${FULL} 403`]: 1,
      [`${FULL} 200`]: 2,
      [`${SIGN_OUT} 200`]: 1,
    },
    async () => {
      await restart({ ...withLinks, MFA_REQUIREMENTS: '["otp-phone"]' });
      await signIn(page);
      assert.equal(await status(page, FULL), 403);
      const first = await on(page, 'factors');
      assert.deepEqual([first.factors.next, first.phoneNumbers['otp-phone']], [['otp-phone'], []]);
      const wrong = await page.evaluate(() => window.sdk.createCode('+36 30 111').catch((error) => error.message));
      assert.equal(wrong, 'Phone number is invalid');
      // Within a session it is a code, though links are on.
      const sent = await on(page, 'createCode', '+36 (30) 111-1142');
      assert.deepEqual([sent.status, sent.flowType], ['OK', 'USER_INPUT_CODE']);
      assert.equal((await on(page, 'consumeCode', await sentCode(phone))).status, 'OK');
      assert.deepEqual(Object.keys((await on(page, 'payload'))['st-mfa'].c).sort(), ['emailpassword', 'otp-phone']);
      assert.equal(await status(page, FULL), 200);

      await on(page, 'signOut');
      await signIn(page);
      const later = await on(page, 'factors');
      assert.deepEqual(later.phoneNumbers['otp-phone'], ['+***42']);
      assert.equal((await on(page, 'createCode', later.phoneNumbers['otp-phone'][0])).status, 'OK');
      assert.equal((await on(page, 'consumeCode', await sentCode(phone))).status, 'OK');
      assert.equal(await status(page, FULL), 200);
    },
  );

  const guest = 'nils@example.com';

  step(
    'sec_o23 a link, in the browser that asked for it; the one sent again as well',
    {
      [`${SIGN_OUT} 200`]: 1,
      [`${SEND_CODE} 200`]: 1,
      [`${SEND_AGAIN} 200`]: 1,
      [`${CHECK_CODE} 200`]: 2,
      [`${FULL} 200`]: 2,
    },
    async () => {
      await restart({ ...withLinks, MFA_REQUIREMENTS: undefined, MFA_POLICY: 'nobody' });
      await on(page, 'signOut');
      const asked = await on(page, 'createCode', guest, false);
      assert.deepEqual([asked.status, asked.flowType], ['OK', 'MAGIC_LINK']);
      const first = await sentLink(guest);
      assert.equal((await on(page, 'resendCode')).status, 'OK');
      const second = await sentLink(guest);
      assert.notEqual(first, second);
      const tab = await open(second);
      const signedIn = await on(tab, 'consumeLink');
      assert.deepEqual([signedIn.status, signedIn.user.emails], ['OK', [guest]]);
      for (const one of [tab, page]) assert.equal(await status(one, FULL), 200);
      assert.deepEqual(Object.keys((await on(page, 'payload'))['st-mfa'].c), ['link-email']);
      await tokens();
      await tab.close();
      // One flow signs in once, by whichever of its links.
      const late = await open(first);
      assert.equal((await on(late, 'consumeLink')).status, 'RESTART_FLOW_ERROR');
      assert.equal(await on(late, 'exists'), true);
      await late.close();
    },
  );

  step(
    'sec_o22_o23 a link by SMS, in another browser: opening it spends nothing, and the session is made there',
    {
      [`${SIGN_OUT} 200`]: 1,
      [`${SEND_CODE} 200`]: 1,
      // What a browser asks at its first visit.
      [`${REFRESH} 401`]: 1,
      [`${CHECK_CODE} 200`]: 2,
      [`${FULL} 200`]: 1,
      [`${FULL} 401`]: 1,
    },
    async () => {
      await on(page, 'signOut');
      const asked = await on(page, 'createCode', '+36 20 222 2222', false);
      assert.deepEqual([asked.status, asked.flowType], ['OK', 'MAGIC_LINK']);
      const link = await sentLink('+36202222222');
      elsewhere = await browse(join(work, 'elsewhere'), {});
      elsewhere.on('page', watch);
      for (let times = 0; times < 2; times += 1) await (await open(link, elsewhere)).close();
      assert.deepEqual(answersTo(CHECK_CODE), []);
      const tab = await open(link, elsewhere);
      const signedIn = await on(tab, 'consumeLink');
      assert.deepEqual([signedIn.status, signedIn.user.phoneNumbers], ['OK', ['+36202222222']]);
      assert.equal(await status(tab, FULL), 200);
      // Whoever asked for it is as they were, and can't spend it after.
      for (const one of [page, other]) assert.equal(await on(one, 'exists'), false);
      assert.equal(await status(page, FULL), 401);
      const late = await open(link);
      assert.equal((await on(late, 'consumeLink')).status, 'RESTART_FLOW_ERROR');
      assert.equal(await on(late, 'exists'), false);
      assert.deepEqual(await cookiesLeft(), ['st-last-access-token-update']);
      await late.close();
      await elsewhere.close();
    },
  );

  step('the testbed ends when told to', {}, async () => {
    assert.equal(await stop(testbed), 0);
  });
}
