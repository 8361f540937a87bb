// Clicks through the demo shop in a real browser: `npm ci && npm test`. The environment may name
//   DEMO      the server's binary, seen from here      ../../target/debug/examples/demo
//   PORT      its port                                 0, one that is free
//   CHROMIUM  the browser                              /usr/bin/chromium
// It finds an empty database (DEMO_DB) in a new directory. Screenshots of every page, in both colour schemes and at
// desk and phone width, are left in shots/.
//
// Besides what each step checks, a step fails on: a console error (a CSP violation is one), an uncaught error, a failed
// request, a request to another origin, an error status that the step didn't announce, a page wider than its window.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';

import { breathe, browse, start, stop, watcher } from './support.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const shots = join(here, 'shots');
const desk = { width: 1200, height: 800 };
const phone = { width: 360, height: 740 };
const email = 'mara@example.com';
const password = 'lighthouse 7';

let server;
let work;
let base;
let browser;
let page;
let outbox;

const { watch, announce, step } = watcher({ origins: () => [base], settle: () => breathe(page) });

before(async () => {
  await rm(shots, { recursive: true, force: true });
  await mkdir(shots);
  work = await mkdtemp(join(tmpdir(), 'demo-'));
  const binary = resolve(here, process.env.DEMO ?? '../../target/debug/examples/demo');
  server = await start(binary, { cwd: work, env: { PORT: process.env.PORT ?? '0', DEMO_DB: join(work, 'demo.db') } });
  base = server.base;
  browser = await browse(join(work, 'profile'), { baseURL: base, viewport: desk });
  browser.on('page', watch);
  for (const open of browser.pages()) watch(open);
  page = browser.pages()[0] ?? (await browser.newPage());
});

after(async () => {
  await browser?.close();
  await stop(server);
  await rm(work, { recursive: true, force: true });
});

async function visit(path) {
  await page.goto(path);
  await settled();
}

/** The page's script has done its first work. */
const settled = () => page.locator('main[aria-busy=false]').waitFor();
const message = (text) => page.locator('#message', { hasText: text }).waitFor();
const at = (path) => page.waitForURL((url) => url.pathname === path);

async function shot(name, of = page) {
  for (const [size, viewport] of Object.entries({ desk, phone })) {
    await of.setViewportSize(viewport);
    for (const colorScheme of ['light', 'dark']) {
      await of.emulateMedia({ colorScheme });
      await of.screenshot({
        path: join(shots, `${name}-${size}-${colorScheme}.png`),
        fullPage: true,
        animations: 'disabled',
      });
    }
    const wide = await of.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(wide <= 0, `${name} is ${wide}px wider than its window (${size})`);
  }
  await of.emulateMedia({ colorScheme: 'light' });
  await of.setViewportSize(desk);
}

/** The outbox's messages that carry a code; notices don't. */
const codes = () => outbox.locator('#mails > li:has(.digits)');

/** Does what sends a code and returns that code, read in the outbox's tab. A send may be refused for coming too early. */
async function codeAfter(trigger) {
  const mails = codes();
  const seen = await mails.count();
  await trigger();
  for (let seconds = 0; (await mails.count()) === seen; seconds += 1) {
    assert.ok(seconds < 60, 'a code is sent within a minute');
    const retry = page.locator('#restart');
    if (await retry.isVisible()) await retry.click();
    await page.waitForTimeout(1000);
  }
  return mails.first().locator('.digits').innerText();
}

async function enter(code) {
  await page.getByLabel('Code').fill(code);
  await page.getByRole('button', { name: 'Confirm' }).click();
}

const wrongFor = (code) => String((Number(code) + 1) % 1_000_000).padStart(6, '0');

step('the shop window, and its other branch', async () => {
  await visit('/');
  assert.equal(await page.locator('.item').count(), 6);
  await shot('shop');
  await page.getByRole('link', { name: 'North Branch' }).click();
  await page.getByRole('heading', { name: 'North Branch', level: 1 }).waitFor();
  await settled();
  assert.equal(
    await page.getByRole('link', { name: 'North Branch', exact: true }).first().getAttribute('aria-current'),
    'true',
  );
  await shot('shop-north');
});

step('a page for members leads to the sign-in', async () => {
  announce(401, '/api/orders');
  await visit('/orders');
  await at('/signin');
  await settled();
  assert.equal(new URL(page.url()).searchParams.get('next'), '/orders');
  await shot('signin');
});

step('sign-up, with the mistakes people make', async () => {
  await page.getByRole('link', { name: 'Open an account' }).click();
  await at('/signup');
  await settled();
  const submit = page.getByRole('button', { name: 'Open account' });
  await submit.click();
  await page.locator('#email[aria-invalid=true]').waitFor();
  assert.notEqual(await page.locator('#password-error').innerText(), '');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'email');
  await page.getByLabel('E-mail').fill(email);
  await page.getByLabel('Password').fill('short');
  await submit.click();
  await page.locator('#password[aria-invalid=true]').waitFor();
  await page.locator('#email:not([aria-invalid])').waitFor();
  await shot('signup-errors');
  await page.getByLabel('Password').fill(password);
  await submit.click();
  await at('/orders');
  await settled();
  await page.getByText('No orders yet').waitFor();
});

step('an order', async () => {
  await visit('/');
  await page.getByRole('link', { name: 'Order Enamel mug' }).click();
  await at('/orders');
  await settled();
  await page.getByLabel('Quantity').fill('2');
  assert.match(await page.locator('#total').innerText(), /24\.00/);
  await page.getByRole('button', { name: 'Place order' }).click();
  await message('Ordered: 2 × Enamel mug');
  await shot('orders');
  announce(400, '/api/orders');
  await page.getByLabel('Quantity').fill('0');
  await page.getByRole('button', { name: 'Place order' }).click();
  await page.locator('#order-error:not(:empty)').waitFor();
});

step('the office is shut for customers', async () => {
  announce(403, '/api/admin');
  await page.getByRole('link', { name: 'Admin' }).click();
  await page.getByRole('heading', { name: "For this branch's admins" }).waitFor();
  await shot('admin-refused');
});

step('the developer tools hand out the role', async () => {
  await page.getByRole('link', { name: 'Dev', exact: true }).click();
  await at('/dev');
  await page.getByRole('button', { name: 'Make me admin here' }).click();
  await message('You are an admin');
  await page.locator('#facts', { hasText: 'an e-mail code is missing' }).waitFor();
  await shot('dev');
});

step('the office asks an admin for a code; a wrong one does not do', async () => {
  announce(403, '/api/admin');
  outbox = await browser.newPage();
  await outbox.goto('/dev/outbox');
  await outbox.getByText('Nothing sent so far').waitFor();
  const code = await codeAfter(async () => {
    await page.getByRole('link', { name: 'Admin', exact: true }).click();
    await at('/code');
    await page.getByLabel('Code').waitFor();
    assert.ok(await page.getByRole('button', { name: 'Send it again' }).isDisabled());
  });
  assert.match(code, /^\d{6}$/);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'code');
  assert.match(await page.locator('#address').innerText(), /@|•|\*/);
  await shot('code');
  await enter(wrongFor(code));
  await page.getByText("That's not the code. 4 tries left.").waitFor();
  await shot('code-wrong');
  // A reload asks for the same code, not for another one.
  await page.reload();
  await page.getByLabel('Code').waitFor();
  await shot('outbox', outbox);
  assert.equal(await codes().count(), 1);
  await enter(`${code.slice(0, 3)} ${code.slice(3)}`);
  await at('/admin');
  await settled();
  await page.getByRole('cell', { name: email }).waitFor();
  await shot('admin');
});

step('settings: the code for oneself, on and off', async () => {
  await page.getByRole('link', { name: 'Settings' }).click();
  await at('/settings');
  await settled();
  const toggle = page.getByRole('switch', { name: 'Ask me for an e-mail code when I sign in' });
  await toggle.check();
  await message("From now on we'll ask you");
  await shot('settings');
  await toggle.uncheck();
  await message('Turned off');
  await toggle.check();
  await message("From now on we'll ask you");
  await visit('/settings');
  assert.ok(await toggle.isChecked());
});

step('turning it off with an old code takes a new one, and one can ask for it again', async () => {
  // Five minutes are a long wait: the first answer is the one a stale code gets.
  announce(403, '/api/settings/email-code');
  const body = {
    message: 'invalid claim',
    claimValidationErrors: [{ id: 'st-mfa', reason: { factorId: 'otp-email' } }],
  };
  await page.route('**/api/settings/email-code', (route) => route.fulfill({ status: 403, json: body }), { times: 1 });
  await codeAfter(async () => {
    // A click, for uncheck() would look at the switch again, and the page is left at once.
    await page.getByRole('switch').click();
    await page.getByRole('heading', { name: "Confirm it's you" }).waitFor();
    await settled();
  });
  await shot('code-step-up');
  const newer = await codeAfter(async () => {
    const sent = page.locator('#message', { hasText: 'A new code is on its way' });
    for (let tries = 0; !(await sent.isVisible()); tries += 1) {
      assert.ok(tries < 5, 'a code can be sent again');
      await page.locator('#resend:enabled').waitFor({ timeout: 60_000 });
      await page.getByRole('button', { name: 'Send it again' }).click();
      await page.waitForTimeout(500);
    }
  });
  await enter(newer);
  await at('/settings');
  await message('Turned off');
  assert.equal(await page.getByRole('switch').isChecked(), false);
});

step('an old access token is renewed unseen, and once for all tabs', async () => {
  const paths = ['/api/me', '/api/orders', '/api/settings'];
  for (const path of paths) announce(401, path);
  announce(401, '/api/shop', true);
  let renewals = 0;
  const count = (request) => (renewals += request.url().endsWith('/auth/session/refresh') ? 1 : 0);
  browser.on('request', count);

  await spoilAccessToken();
  await visit('/orders');
  await page.getByText('2 × Enamel mug').waitFor();
  assert.equal(renewals, 1);

  await spoilAccessToken();
  const callAll = async (paths) => {
    const { call } = await import('/http.js');
    const answers = await Promise.all(paths.map((path) => call('GET', path)));
    return answers.map((one) => one.status);
  };
  const statuses = await Promise.all([page, outbox].map((tab) => tab.evaluate(callAll, paths)));
  assert.deepEqual(statuses.flat(), Array(6).fill(200));
  assert.equal(renewals, 2);
  browser.off('request', count);
});

/** Changes a letter in the access token's signature. */
async function spoilAccessToken() {
  const [cookie] = (await browser.cookies()).filter((one) => one.name === 'sAccessToken');
  assert.ok(cookie.httpOnly);
  const spot = cookie.value.length - 20;
  const other = cookie.value[spot] === 'A' ? 'B' : 'A';
  await browser.addCookies([{ ...cookie, value: cookie.value.slice(0, spot) + other + cookie.value.slice(spot + 1) }]);
}

step('a shop that cannot answer says so and keeps the session', async () => {
  announce(503, '/api/orders');
  await page.route('**/api/orders', (route) => route.fulfill({ status: 503, json: {} }), { times: 1 });
  await visit('/orders');
  await message("The shop can't answer just now");
  await visit('/orders');
  await page.getByText('2 × Enamel mug').waitFor();
});

step('`next` never leaves the shop', async () => {
  const targets = await page.evaluate(async () => {
    const { nextUrl } = await import('/http.js');
    const tries = [
      '/orders?item=mug',
      '//evil.example/',
      '/\\evil.example',
      '/.//evil.example/',
      'https://evil.example/',
      'javascript:alert(1)',
      'http://[',
      '',
    ];
    return tries.map((wanted) => {
      history.replaceState(null, '', `/orders?next=${encodeURIComponent(wanted)}`);
      return nextUrl();
    });
  });
  assert.equal(targets[0], `${base}/orders?item=mug`);
  for (const url of targets) assert.equal(new URL(url).origin, base);
});

step('sign-out, and sign-in by keyboard alone', async () => {
  await visit('/');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('link', { name: 'Sign in' }).first().waitFor();
  await settled();
  await visit('/signin?next=/admin');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to content');
  await shot('skip-link');
  for (let tabs = 0; (await page.evaluate(() => document.activeElement.id)) !== 'email'; tabs += 1) {
    assert.ok(tabs < 25, 'the form is within reach');
    await page.keyboard.press('Tab');
    assert.notEqual(
      await page.evaluate(
        () =>
          getComputedStyle(document.activeElement).outlineStyle +
          getComputedStyle(document.activeElement.nextElementSibling ?? document.body).outlineStyle,
      ),
      'nonenone',
    );
  }
  await page.keyboard.type(email);
  await page.keyboard.press('Tab');
  await page.keyboard.type('not the password 1');
  await page.keyboard.press('Enter');
  await page.getByText("E-mail and password don't go together.").waitFor();
  await shot('signin-wrong');
  await page.keyboard.press('Control+A');
  await page.keyboard.type(password);
  const code = await codeAfter(async () => {
    await page.keyboard.press('Enter');
    await at('/code');
    await settled();
  });
  await page.locator('#code:focus').waitFor();
  await page.keyboard.type(code);
  await page.keyboard.press('Enter');
  await at('/admin');
  await page.getByRole('cell', { name: email }).waitFor();
});

step('the other branch is another sign-in', async () => {
  await visit('/');
  await page.getByRole('link', { name: 'North Branch' }).click();
  await at('/signin');
  await message(`You are signed in as ${email} at Harbour Store`);
  await shot('switch-branch');
  await page.getByRole('link', { name: 'Open an account' }).click();
  await at('/signup');
  await settled();
  assert.ok(await page.getByRole('radio', { name: 'North Branch' }).isChecked());
  await page.getByLabel('E-mail').fill(email);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Open account' }).click();
  await at('/');
  await page.getByRole('heading', { name: 'North Branch', level: 1 }).waitFor();
  await settled();
  await shot('shop-signed-in');
  await visit('/orders');
  await page.getByText('No orders yet').waitFor();
  await shot('orders-none');
  await visit('/dev');
  assert.match(await page.locator('#facts').innerText(), /customer/);
});

step('sign-out ends it', async () => {
  announce(401, '/api/orders');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await at('/');
  await settled();
  await visit('/orders');
  await at('/signin');
  await settled();
  const left = (await browser.cookies()).filter((one) => /^s(Access|Refresh)Token$/.test(one.name) && one.value !== '');
  assert.deepEqual(left, []);
});

step('a code that was guessed at too often is over', async () => {
  announce(403, '/api/admin');
  const guest = 'nils@example.com';
  await visit('/signup?branch=north&next=/dev');
  await page.getByLabel('E-mail').fill(guest);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Open account' }).click();
  await at('/dev');
  await page.getByRole('button', { name: 'Make me admin here' }).click();
  await message('You are an admin');
  const code = await codeAfter(async () => {
    await page.getByRole('link', { name: 'Admin', exact: true }).click();
    await at('/code');
    await page.getByLabel('Code').waitFor();
  });
  for (const left of ['4 tries', '3 tries', '2 tries', '1 try']) {
    await enter(wrongFor(code));
    await page.getByText(`${left} left`).waitFor();
  }
  await enter(wrongFor(code));
  await page.getByText('That code has had its day').waitFor();
  await page.locator('#restart:focus').waitFor();
  await shot('code-over');
});

step('the demo ends when told to', async () => {
  await outbox.close();
  await page.goto('about:blank');
  assert.equal(await stop(server), 0);
});
