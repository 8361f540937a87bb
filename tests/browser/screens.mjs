// The screens of supertokens-auth-react, as npm has them, in a real browser against the testbed: `npm ci && npm test`.
// The environment may name TESTBED, CHROMIUM and COUNTS, as for `sdk.mjs`.
//
// Each step names every request that it may cause, with the status of its answer, and how often: a screen that goes in
// circles shows up in the step where it does. Besides, a step fails on what `support.mjs` watches for.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, before, describe } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { startProvider } from './sdk/provider.mjs';
import { website, wire } from './sdk/servers.mjs';
import { assertCounted, breathe, browse, start, stop, watcher } from './support.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const binary = resolve(here, process.env.TESTBED ?? '../../target/debug/examples/testbed');
const email = 'mara@example.com';
const guest = 'nils@example.com';
const password = 'lighthouse 7';

const SIGN_UP = 'POST /auth/signup';
const SIGN_IN = 'POST /auth/signin';
const SIGN_OUT = 'POST /auth/signout';
const REFRESH = 'POST /auth/session/refresh';
const EXISTS = 'GET /auth/emailpassword/email/exists';
const CODE_EXISTS = 'GET /auth/passwordless/email/exists';
const ASK_RESET = 'POST /auth/user/password/reset/token';
const RESET = 'POST /auth/user/password/reset';
const ASK_VERIFICATION = 'POST /auth/user/email/verify/token';
const VERIFY = 'POST /auth/user/email/verify';
const IS_VERIFIED = 'GET /auth/user/email/verify';
const LOGIN_METHODS = 'GET /auth/loginmethods';
const WHERE_TO = 'GET /auth/authorisationurl';
const THIRD_PARTY = 'POST /auth/signinup';
const FACTORS = 'PUT /auth/mfa/info';
const SEND_CODE = 'POST /auth/signinup/code';
const CHECK_CODE = 'POST /auth/signinup/code/consume';
/** Needs every factor. */
const FULL = 'GET /api/me';

describe('screens in cookie mode', () => story('cookie'));
describe('screens in header mode', () => story('header'));

function story(mode) {
  let work;
  let site;
  let api;
  let testbed;
  let provider;
  let browser;
  let page;
  let settings;
  const watched = watcher({
    origins: () => [site.origin, api.origin, provider?.origin],
    settle: async () => {
      for (const open of browser.pages()) await breathe(open);
    },
    // What a screen asked for when it led elsewhere; the wire has counted it.
    left: (request) => request.url().startsWith(api.origin),
  });

  before(async () => {
    work = await mkdtemp(join(tmpdir(), 'screens-'));
    site = await website({ html: 'screens.html', script: 'screens.jsx', settings: () => settings });
    api = await wire(() => testbed.base);
    browser = await browse(join(work, 'profile'), { baseURL: site.origin });
    browser.on('page', watched.watch);
    page = await browser.newPage();
    await browser.pages()[0].close();
  });

  after(async () => {
    await browser?.close();
    await stop(testbed);
    provider?.close();
    await api?.close();
    await site?.close();
    await rm(work, { recursive: true, force: true });
  });

  /** An app with these recipes, and a testbed with nobody in it; a browser that was never there. */
  async function begin(recipes, env, more = {}) {
    await page.goto('about:blank');
    await stop(testbed);
    testbed = await start(binary, {
      cwd: work,
      env: {
        PORT: '0',
        API_ORIGIN: api.origin,
        WEBSITE_ORIGIN: site.origin,
        MFA_POLICY: 'nobody',
        LIMITS: 'off',
        TEST_HOOKS: '1',
        RUST_LOG: process.env.RUST_LOG ?? 'warn',
        ...env,
      },
    });
    await browser.clearCookies();
    settings = { api: api.origin, mode, recipes, ...more };
    await page.goto('/settings.js');
    await page.evaluate(() => localStorage.clear());
  }

  function step(name, requests, work) {
    watched.step(`${mode}: ${name}`, async () => {
      api.answers.length = 0;
      for (const what of Object.keys(requests)) {
        const [, path, status] = what.split(' ');
        if (Number(status) >= 400) watched.announce(Number(status), path, requests[what][0] === 0);
      }
      await work();
      for (const open of browser.pages()) await breathe(open);
      await assertCounted(api.answers, requests);
    });
  }

  /** Asks the testbed itself, past the browser and its wire. */
  async function ask(path) {
    const response = await fetch(testbed.base + path);
    assert.equal(response.status, 200);
    return response.json();
  }

  /** Waits for an answer that no screen shows. */
  async function answered(what) {
    const there = ({ method, path, status }) => `${method} ${path} ${status}` === what;
    for (let tenths = 0; !api.answers.some(there); tenths += 1) {
      assert.ok(tenths < 100, `${what} within ten seconds`);
      await sleep(100);
    }
  }

  const sentTo = (contact) => ask(`/test/otp?contact=${encodeURIComponent(contact)}`);

  async function sentLink(contact, path) {
    const { linkUrl } = await sentTo(contact);
    assert.ok(linkUrl.startsWith(`${site.origin}/auth/${path}?`), linkUrl);
    return linkUrl;
  }

  async function sentCode(contact) {
    const { userInputCode } = await sentTo(contact);
    assert.match(userInputCode, /^\d{6}$/);
    return userInputCode;
  }

  const field = (id) => page.locator(`input[name="${id}"]`);
  const button = (name, exact = true) => page.getByRole('button', { name, exact });
  const at = (path) => page.waitForURL((url) => url.pathname.replace(/\/$/, '') === path);
  const shows = (text) => page.getByText(text).first().waitFor();

  /** Behind every screen. */
  async function home() {
    await at('');
    await page.getByRole('heading', { name: 'Home' }).waitFor();
    await button('Ask').click();
    await page.locator('#answer', { hasText: '200' }).waitFor();
  }

  async function fill(values) {
    for (const [id, value] of Object.entries(values)) await field(id).fill(value);
  }

  async function signUp(email) {
    await page.goto('/auth/?show=signup');
    await fill({ email, password });
    await button('SIGN UP').click();
  }

  async function enterCode(code) {
    await field('userInputCode').fill(code);
    await button('CONTINUE').click();
  }

  async function signOut() {
    await button('Sign out').click();
    await at('/auth');
  }

  step('nobody is signed in: the sign-in screen', { [`${REFRESH} 401`]: 1 }, async () => {
    await begin(['emailpassword'], {});
    await page.goto('/');
    await at('/auth');
    await button('SIGN IN').waitFor();
  });

  const signedUp = { [`${EXISTS} 200`]: 1, [`${SIGN_UP} 200`]: 1, [`${FULL} 200`]: 1 };
  step('sign-up, with the mistakes people make', signedUp, async () => {
    await page.getByText('Sign Up', { exact: true }).click();
    await button('SIGN UP').click();
    await shows('Field is not optional');
    await fill({ email, password: 'short' });
    await button('SIGN UP').click();
    await shows('Password must contain at least 8 characters');
    await field('password').fill(password);
    await button('SIGN UP').click();
    await home();
  });

  step('a reload keeps the session; sign-out ends it', { [`${SIGN_OUT} 200`]: 1, [`${FULL} 200`]: 1 }, async () => {
    await page.reload();
    await home();
    await signOut();
    await page.goto('/');
    await at('/auth');
  });

  step('an address that is taken', { [`${EXISTS} 200`]: 1, [`${SIGN_UP} 200`]: 1 }, async () => {
    await page.getByText('Sign Up', { exact: true }).click();
    await fill({ email, password });
    await button('SIGN UP').click();
    await shows('This e-mail address is taken. Sign in instead.');
  });

  step('sign-in, first with a wrong password', { [`${SIGN_IN} 200`]: 2, [`${FULL} 200`]: 1 }, async () => {
    await page.getByText('Sign In', { exact: true }).click();
    await fill({ email, password: 'lighthouse 8' });
    await button('SIGN IN').click();
    await shows('Incorrect email and password combination');
    await field('password').fill(password);
    await button('SIGN IN').click();
    await home();
  });

  let link;

  step(
    'a forgotten password: the link sets another one, once',
    {
      [`${SIGN_OUT} 200`]: 1,
      [`${ASK_RESET} 200`]: 1,
      [`${RESET} 200`]: 2,
      [`${SIGN_IN} 200`]: 2,
      [`${FULL} 200`]: 1,
    },
    async () => {
      await signOut();
      await page.getByText('Forgot password?').click();
      await at('/auth/reset-password');
      await field('email').fill(email);
      await button('Email me').click();
      await shows('A password reset email has been sent');
      link = await sentLink(email, 'reset-password');
      const texts = {
        'lighthouse 8': 'Your password has been updated successfully',
        'lighthouse 9': 'Invalid password reset token',
      };
      for (const [chosen, text] of Object.entries(texts)) {
        await page.goto(link);
        await fill({ password: chosen, 'confirm-password': chosen });
        await button('CHANGE PASSWORD').click();
        await shows(text);
      }
      await page.goto('/auth');
      await fill({ email, password });
      await button('SIGN IN').click();
      await shows('Incorrect email and password combination');
      await field('password').fill('lighthouse 8');
      await button('SIGN IN').click();
      await home();
    },
  );

  step(
    'a reset ends the sessions that there are',
    { [`${ASK_RESET} 200`]: 1, [`${RESET} 200`]: 1, [`${FULL} 401`]: 1, [`${REFRESH} 401`]: 1 },
    async () => {
      const other = await browser.newPage();
      await other.goto('/auth/reset-password');
      await other.locator('input[name="email"]').fill(email);
      await other.getByRole('button', { name: 'Email me' }).click();
      await other.getByText('A password reset email has been sent').waitFor();
      await other.goto(await sentLink(email, 'reset-password'));
      for (const id of ['password', 'confirm-password']) await other.locator(`input[name="${id}"]`).fill(password);
      await other.getByRole('button', { name: 'CHANGE PASSWORD' }).click();
      await other.getByText('Your password has been updated successfully').waitFor();
      await other.close();
      await button('Ask').click();
      await at('/auth');
    },
  );

  step(
    'e-mail verification: a screen that sends the link, until it is opened',
    {
      [`${REFRESH} 401`]: 1,
      [`${EXISTS} 200`]: 1,
      [`${SIGN_UP} 200`]: 1,
      [`${ASK_VERIFICATION} 200`]: 2,
      [`${IS_VERIFIED} 200`]: [1, 2],
      [`${VERIFY} 200`]: 1,
      [`${FULL} 200`]: 1,
    },
    async () => {
      await begin(['emailpassword', 'emailverification'], { EMAIL_VERIFICATION: 'required' });
      await signUp(email);
      await at('/auth/verify-email');
      await shows('Please click on the link');
      await answered(`${ASK_VERIFICATION} 200`);
      link = await sentLink(email, 'verify-email');
      // No way around it.
      await page.goto('/');
      await at('/auth/verify-email');
      await shows('Please click on the link');
      await page.goto(link);
      await shows('Email verification successful!');
      await button('CONTINUE').click();
      await home();
    },
  );

  step(
    'the link in another browser asks first; whoever made the account without the mailbox is out',
    {
      [`${SIGN_OUT} 200`]: 1,
      [`${EXISTS} 200`]: 1,
      [`${SIGN_UP} 200`]: 1,
      [`${ASK_VERIFICATION} 200`]: 1,
      [`${IS_VERIFIED} 200`]: 1,
      [`${IS_VERIFIED} 401`]: 1,
      // The other browser's first visit, and the end of the session in this one.
      [`${REFRESH} 401`]: 2,
      [`${VERIFY} 200`]: 2,
      [`${SIGN_IN} 200`]: 1,
    },
    async () => {
      await signOut();
      await signUp(guest);
      await shows('Please click on the link');
      await answered(`${ASK_VERIFICATION} 200`);
      link = await sentLink(guest, 'verify-email');
      const elsewhere = await browse(join(work, 'elsewhere'), {});
      elsewhere.on('page', watched.watch);
      const other = await elsewhere.newPage();
      await other.goto(link);
      await other.getByRole('button', { name: 'CONTINUE' }).click();
      await other.getByText('Email verification successful!').waitFor();
      await elsewhere.close();
      await page.goto('/');
      await at('/auth');
      await button('SIGN IN').waitFor();
      await page.goto(link);
      await button('CONTINUE').click();
      await shows('The email verification link has expired');
      await page.goto('/auth');
      await fill({ email: guest, password });
      await button('SIGN IN').click();
      await shows('Incorrect email and password combination');
    },
  );

  step(
    'third party, offered by the tenant: there and back, once without an address',
    {
      [`${REFRESH} 401`]: 1,
      // Each page that may show how to sign in asks once.
      [`${LOGIN_METHODS} 200`]: [4, 6],
      [`${WHERE_TO} 200`]: 2,
      [`${THIRD_PARTY} 200`]: 2,
      [`${FULL} 200`]: 1,
    },
    async () => {
      provider = await startProvider(site.origin);
      await begin(
        ['emailpassword', 'thirdparty'],
        {
          FIRST_FACTORS: 'emailpassword,thirdparty',
          PROVIDERS: provider.setting,
        },
        { dynamic: true },
      );
      await page.goto('/auth/');
      await button('SIGN IN').waitFor();
      await page.getByText('Continue with').click();
      await shows('Could not retrieve email. Please try a different method.');
      await provider.account({ email, email_verified: true });
      await page.getByText('Continue with').click();
      await home();
      const { user } = await ask(`/test/users/${await page.locator('#user').innerText()}`);
      const [login] = user.loginMethods;
      assert.deepEqual([login.recipeId, login.email, login.verified], ['thirdparty', email, true]);
      assert.deepEqual(user.thirdParty, [{ id: 'loopback', userId: 'mara' }]);
    },
  );

  step(
    'third party or a code by e-mail: first a wrong code, then the right one',
    {
      [`${REFRESH} 401`]: 1,
      [`${SEND_CODE} 200`]: 1,
      [`${CHECK_CODE} 200`]: 2,
      [`${FULL} 200`]: 1,
    },
    async () => {
      await begin(['thirdparty', 'passwordless'], {
        FIRST_FACTORS: 'thirdparty,otp-email,otp-phone',
        PROVIDERS: provider.setting,
      });
      await page.goto('/');
      await at('/auth');
      await page.getByText('Continue with').waitFor();
      await page.locator('input').first().fill(email);
      await button('CONTINUE').click();
      await shows('Enter OTP');
      await enterCode(wrongFor(await sentCode(email)));
      await shows('Invalid OTP');
      await enterCode(await sentCode(email));
      await home();
    },
  );

  step(
    'a password or a code on one screen, which asks everybody the same: no address is known to it',
    {
      [`${REFRESH} 401`]: 1,
      [`${EXISTS} 200`]: 4,
      [`${CODE_EXISTS} 200`]: 3,
      [`${SEND_CODE} 200`]: 2,
      [`${CHECK_CODE} 200`]: 2,
      [`${SIGN_UP} 200`]: 1,
      [`${SIGN_IN} 200`]: 2,
      [`${SIGN_OUT} 200`]: 3,
      [`${FULL} 200`]: 4,
    },
    async () => {
      await begin(['emailpassword', 'passwordless'], { FIRST_FACTORS: 'emailpassword,otp-email,otp-phone' });
      await page.goto('/');
      await at('/auth');
      /** Somebody who is new, and then the same one again. */
      for (const _ of ['up', 'in']) {
        await field('email').fill(email);
        await button('CONTINUE').click();
        await field('password').waitFor();
        await page.getByText('Continue with passwordless').click();
        await shows('Enter OTP');
        await enterCode(await sentCode(email));
        await home();
        await signOut();
      }
      await page.getByText('Sign Up', { exact: true }).click();
      await fill({ email: guest, password });
      await button('SIGN UP').click();
      await home();
      await signOut();
      await field('email').fill(guest);
      await button('CONTINUE').click();
      await field('password').fill('lighthouse 8');
      await button('CONTINUE').click();
      await shows('Incorrect email and password combination');
      await field('password').fill(password);
      await button('CONTINUE').click();
      await home();
    },
  );

  step(
    'a second factor: chosen among two, sent without a question, typed',
    {
      [`${REFRESH} 401`]: 1,
      [`${EXISTS} 200`]: 1,
      [`${SIGN_UP} 200`]: 1,
      [`${FACTORS} 200`]: 2,
      [`${SEND_CODE} 200`]: 1,
      [`${CHECK_CODE} 200`]: 2,
      [`${FULL} 200`]: 1,
    },
    async () => {
      await begin(
        ['emailpassword', 'passwordless', 'multifactorauth'],
        { MFA_REQUIREMENTS: '[{"oneOf":["otp-email","otp-phone"]}]' },
        { firstFactors: ['emailpassword'] },
      );
      await signUp(email);
      await at('/auth/mfa');
      await shows('Please select a factor');
      // No way around it.
      await page.goto('/');
      await at('/auth/mfa');
      await page.getByText('SMS based OTP').waitFor();
      await page.getByText('Email based OTP').click();
      await at('/auth/mfa/otp-email');
      await shows('OTP was sent');
      await enterCode(wrongFor(await sentCode(email)));
      await shows('Invalid OTP');
      await enterCode(await sentCode(email));
      await home();
    },
  );

  step(
    'at the next sign-in the factor that is there is asked for at once',
    {
      [`${SIGN_OUT} 200`]: 1,
      [`${SIGN_IN} 200`]: 1,
      [`${FACTORS} 200`]: [1, 2],
      [`${SEND_CODE} 200`]: 1,
      [`${CHECK_CODE} 200`]: 1,
      [`${FULL} 200`]: 1,
    },
    async () => {
      await signOut();
      await fill({ email, password });
      await button('SIGN IN').click();
      await at('/auth/mfa/otp-email');
      await shows('OTP was sent');
      await enterCode(await sentCode(email));
      await home();
    },
  );

  step('the testbed ends when told to', {}, async () => {
    assert.equal(await stop(testbed), 0);
  });
}

const wrongFor = (code) => String((Number(code) + 1) % 1_000_000).padStart(6, '0');
