// Clicks through the demo shop in a real browser, whatever features it was built with: `npm ci && npm test`. What the
// environment may name, and what every step watches for besides its own checks, is said in `shop.mjs`.

import assert from 'node:assert/strict';

import { openShop, wrongFor } from './shop.mjs';
import { stop } from './support.mjs';

const email = 'mara@example.com';
const password = 'lighthouse 7';

let base;
let browser;
let page;
let outbox;
const shop = openShop('demo', (opened) => ({ base, browser, page, outbox } = opened));
const { announce, step, settled, message, at, visit, shot, codes, codeAfter, linkAfter, enter, focused } = shop;

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
  await page.locator('#facts', { hasText: 'a code is missing' }).waitFor();
  await shot('dev');
});

/** Nothing is set up yet: where the build sends SMS as well, the person chooses. */
async function byMail() {
  if (shop.phones) await page.getByRole('button', { name: 'By e-mail' }).click();
  await page.getByLabel('Code', { exact: true }).waitFor();
}

step('the office asks an admin for a code; a wrong one does not do', async () => {
  announce(403, '/api/admin');
  await outbox.getByText('Nothing sent so far').waitFor();
  const code = await codeAfter(async () => {
    await page.getByRole('link', { name: 'Admin', exact: true }).click();
    await at('/code');
    await byMail();
    assert.ok(await page.getByRole('button', { name: 'Send it again' }).isDisabled());
  });
  assert.match(code, /^\d{6}$/);
  assert.equal(await focused(), 'code');
  // What the person typed when they signed in is shown in full.
  assert.equal(await page.locator('#address').innerText(), email);
  await shot('code');
  await enter(wrongFor(code));
  await page.getByText("That's not the code. 4 tries left.").waitFor();
  await shot('code-wrong');
  // A reload asks for the same code, not for another one.
  await page.reload();
  await page.getByLabel('Code', { exact: true }).waitFor();
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
  announce(403, '/api/settings/codes/otp-email');
  const body = {
    message: 'invalid claim',
    claimValidationErrors: [{ id: 'st-mfa', reason: { factorId: 'otp-email' } }],
  };
  await page.route('**/api/settings/codes/otp-email', (route) => route.fulfill({ status: 403, json: body }), { times: 1 });
  await codeAfter(async () => {
    // A click, for uncheck() would look at the switch again, and the page is left at once.
    await page.getByRole('switch').click();
    await page.getByRole('heading', { name: "Confirm it's you" }).waitFor();
    await settled();
  });
  const newer = await codeAfter(async () => {
    await shop.sendAgain();
    await message('A new code is on its way');
  });
  await shot('code-step-up');
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

/** The branch's admin, who gives a code each time. */
async function signInWithCode(of) {
  // What is left of a session that was ended elsewhere.
  announce(401, '/api/me', true);
  await visit('/signin?branch=public&next=/orders', of);
  await shop.fill(email, password, of);
  const code = await codeAfter(async () => {
    await of.getByRole('button', { name: 'Sign in', exact: true }).click();
    await at('/code', of);
    await settled(of);
  });
  await enter(code, of);
  await at('/orders', of);
  await settled(of);
}

const lines = () => page.locator('#sessions > li');
const active = () => page.evaluate(() => document.activeElement.textContent);

/** The page asks the shop, and is sent to the sign-in. */
async function isOut(of) {
  for (const path of ['/api/me', '/api/orders', '/auth/session/refresh']) announce(401, path, true);
  await of.goto('/orders');
  await at('/signin', of);
  await settled(of);
}

let telephone;

step('sec_s16 where one is signed in: another browser is signed out, by keyboard', async () => {
  const agent = 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Safari/604.1';
  const elsewhere = await shop.another('telephone', { userAgent: agent });
  telephone = elsewhere.pages()[0];
  await signInWithCode(telephone);
  await signInWithCode(page);
  await visit('/settings');
  await page.getByRole('link', { name: 'See them all' }).click();
  await at('/sessions');
  await settled();
  assert.equal(await lines().count(), 2);
  assert.match(await lines().first().innerText(), /Chrome on Linux\s+this browser\s+Harbour Store · signed in/);
  assert.match(await lines().last().innerText(), /Safari on iOS\s+Harbour Store · signed in .*\s+last used /);
  await shot('sessions');
  await page.locator('main').focus();
  for (let tabs = 0; tabs < 2; tabs += 1) await page.keyboard.press('Tab');
  assert.equal(await active(), 'Sign out Safari on iOS');
  await page.keyboard.press('Enter');
  await message('Signed out: Safari on iOS.');
  assert.equal(await lines().count(), 1);
  assert.equal(await active(), 'Sign out Chrome on Linux, this browser');
  assert.ok(await page.getByRole('button', { name: 'Sign out everywhere else' }).isHidden());
  await isOut(telephone);
});

step('sec_s16 everywhere else; after a while not without a proof', async () => {
  await signInWithCode(telephone);
  await visit('/sessions');
  announce(403, '/api/sessions');
  const late = (reason) => ({
    status: 403,
    json: { message: 'invalid claim', claimValidationErrors: [{ id: 'st-mfa', reason }] },
  });
  // Five minutes are a long wait: the first two answers are those that an old session gets.
  await page.route('**/api/sessions', (route) => route.fulfill(late('step_up_required')), { times: 1 });
  const others = page.getByRole('button', { name: 'Sign out everywhere else' });
  await others.click();
  await page.getByText('You signed in more than five minutes ago.').waitFor();
  assert.equal(await active(), 'Sign in again');
  await shot('sessions-again');
  assert.equal(await lines().count(), 2);
  await page.route('**/api/sessions', (route) => route.fulfill(late({ factorId: 'otp-email' })), { times: 1 });
  const code = await codeAfter(async () => {
    await others.click();
    await page.getByRole('heading', { name: "Confirm it's you" }).waitFor();
    await settled();
  });
  await enter(code);
  // What was meant is done.
  await at('/sessions');
  await message('Signed out everywhere else.');
  assert.equal(await lines().count(), 1);
  await isOut(telephone);
  await visit('/orders');
});

step('sec_s16 everywhere, here as well', async () => {
  await signInWithCode(telephone);
  await visit('/sessions');
  await page.getByRole('button', { name: 'Sign out everywhere', exact: true }).press('Enter');
  await at('/signin');
  await settled();
  assert.deepEqual(await tokens(browser), []);
  for (const tab of [page, telephone]) await isOut(tab);
  await telephone.context().close();
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
    await byMail();
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

step('a code that is too old says so, and another one is sent at once', async () => {
  const expired = {
    status: 'EXPIRED_USER_INPUT_CODE_ERROR',
    failedCodeInputAttemptCount: 1,
    maximumCodeInputAttempts: 5,
  };
  const code = await codeAfter(() => page.getByRole('button', { name: 'Send a new code' }).click());
  // Ten minutes are a long wait: the first answer is the one that a code of that age gets.
  await page.route('**/consume', (route) => route.fulfill({ json: expired }), { times: 1 });
  await enter(code);
  await page.getByText('That code is too old').waitFor();
  await page.locator('#restart:focus').waitFor();
  const newer = await codeAfter(() => page.keyboard.press('Enter'));
  await enter(newer);
  await at('/admin');
  await settled();
  await shop.signOut();
});

const friend = 'piet@example.com';
let link;

step('a link is asked for, and sent again', async () => {
  announce(401, '/api/orders');
  await visit('/orders');
  await at('/signin');
  await settled();
  const ask = page.getByRole('button', { name: 'E-mail me a link instead' });
  await ask.click();
  await page.getByText('Type the address that the link goes to.').waitFor();
  assert.equal(await focused(), 'email');
  await page.getByLabel('E-mail', { exact: true }).fill('piet at example');
  await ask.click();
  await page.getByText('Email is invalid').waitFor();
  await shot('signin-link-wrong');
  await page.getByLabel('E-mail', { exact: true }).fill(friend);
  link = await linkAfter(async () => {
    await ask.press('Enter');
    await page.getByRole('heading', { name: 'Check your e-mail' }).waitFor();
  });
  assert.equal(await focused(), 'link-heading');
  assert.equal(await page.locator('#link-address').innerText(), friend);
  link = await linkAfter(() => shop.sendAgain());
  await message('A new link is on its way');
  await shot('link-sent');
  await shot('outbox-link', outbox);
});

step('sec_o22 reading the link spends nothing', async () => {
  const url = new URL(link);
  assert.equal(url.origin + url.pathname, `${base}/auth/verify`);
  assert.deepEqual([...url.searchParams.keys()], ['preAuthSessionId', 'tenantId']);
  assert.ok(url.hash.length > 40, 'what signs in is behind the #, which servers never see');
  // Scanners: one that reads, and one that runs the page's script and clicks nothing.
  for (const method of ['HEAD', 'GET', 'GET']) assert.equal((await fetch(link, { method })).status, 200);
  const scanner = await shop.another('scanner');
  const read = scanner.pages()[0];
  const posts = [];
  scanner.on('request', (request) => request.method() === 'GET' || posts.push(request.url()));
  for (let times = 0; times < 2; times += 1) {
    await read.goto('about:blank');
    await visit(link, read);
    await read.getByRole('button', { name: 'Continue signing in' }).waitFor();
  }
  await read.waitForTimeout(500);
  assert.deepEqual(posts, []);
  assert.deepEqual(await tokens(scanner), []);
  await scanner.close();
});

/** The tokens that a browser has. */
const tokens = async (of) =>
  (await of.cookies()).filter((one) => /^s(Access|Refresh)Token$/.test(one.name) && one.value !== '');

const whoIs = (tab) => tab.evaluate(async () => (await fetch('/api/me')).json());

step('sec_o23 where it was asked for, the link signs in at once, in whatever tab', async () => {
  const tab = await browser.newPage();
  await tab.goto(link);
  await at('/orders', tab);
  await settled(tab);
  assert.equal((await whoIs(tab)).email, friend);
  assert.equal((await whoIs(page)).email, friend, 'one browser, one session');
  // It works once. By now this browser is signed in, and is told so.
  await tab.goto('about:blank');
  await visit(link, tab);
  await tab.getByText(`You are signed in as ${friend}`).waitFor();
  await tab.getByRole('button', { name: 'Continue signing in' }).click();
  await tab.getByText('This link has been used, or is too old.').waitFor();
  await shot('link-used', tab);
  assert.equal((await whoIs(tab)).email, friend);
  await tab.close();
});

step('sec_o23 in another browser the link asks first, and signs in there and nowhere else', async () => {
  await visit('/');
  await shop.signOut();
  await visit('/signin?branch=north&next=/orders');
  await page.getByLabel('E-mail', { exact: true }).fill(friend);
  link = await linkAfter(() => page.getByRole('button', { name: 'E-mail me a link instead' }).click());
  assert.equal(new URL(link).searchParams.get('tenantId'), 'north');
  const elsewhere = await shop.another('elsewhere');
  const other = elsewhere.pages()[0];
  await visit(link, other);
  await other.getByRole('heading', { name: 'Continue signing in on this device?' }).waitFor();
  assert.equal(await other.locator('#branch-name').innerText(), 'North Branch');
  assert.deepEqual(await tokens(elsewhere), []);
  await shot('link-elsewhere', other);
  await other.getByRole('button', { name: 'Continue signing in' }).press('Enter');
  await at('/', other);
  await settled(other);
  const there = await whoIs(other);
  assert.deepEqual([there.email, there.branch, there.verified], [friend, 'north', true]);
  assert.equal((await tokens(elsewhere)).length, 2);
  // Whoever asked for it stays outside, now and after asking anew.
  assert.deepEqual(await tokens(browser), []);
  assert.deepEqual(await whoIs(page), { signedIn: false });
  await page.reload();
  await settled();
  assert.deepEqual(await whoIs(page), { signedIn: false });
  await elsewhere.close();
});

step('a link with a piece missing, and one to nowhere', async () => {
  await visit(link.split('#')[0]);
  await page.getByText('This link is incomplete.').waitFor();
  await visit(link.replace('tenantId=north', 'tenantId=nowhere'));
  await page.getByText('This link has been used, or is too old.').waitFor();
  await page.getByRole('link', { name: 'Back to the sign-in' }).click();
  await at('/signin');
  await settled();
});

step('a forgotten password: a link by mail sets another one, by keyboard alone', async () => {
  await visit('/signin?branch=public');
  await page.getByRole('link', { name: 'Forgot your password?' }).focus();
  await page.keyboard.press('Enter');
  await at('/forgot');
  await settled();
  await page.getByRole('button', { name: 'E-mail me a link' }).press('Enter');
  await page.locator('#email[aria-invalid=true]').waitFor();
  assert.equal(await focused(), 'email');
  await shot('forgot');
  await page.keyboard.type(email);
  link = await linkAfter(() => page.keyboard.press('Enter'));
  await page.getByRole('heading', { name: 'Check your e-mail' }).waitFor();
  assert.equal(await focused(), 'sent-heading');
  await shot('forgot-sent');
  await visit(link);
  await settled();
  assert.equal(new URL(page.url()).searchParams.get('token'), null, 'it has no business in the history');
  await page.getByLabel('New password').focus();
  await page.keyboard.type('short');
  await page.keyboard.press('Enter');
  await page.locator('#password[aria-invalid=true]').waitFor();
  await shot('reset');
  await page.keyboard.press('Control+A');
  await page.keyboard.type('lighthouse 8');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Your password is set' }).waitFor();
  assert.equal(await focused(), 'over-heading');
  await shot('reset-done');
  await page.getByRole('link', { name: 'Sign in', exact: true }).last().press('Enter');
  await at('/signin');
  await settled();
  await shop.fill(email, password);
  await page.keyboard.press('Enter');
  await page.getByText("E-mail and password don't go together.").waitFor();
  await shop.fill(email, 'lighthouse 8');
  await page.keyboard.press('Enter');
  await at('/code');
  await settled();
  await visit('/');
  await shop.signOut();
  await visit(link);
  await page.getByLabel('New password').fill('lighthouse 9');
  await page.keyboard.press('Enter');
  await page.getByText('This link has been used, or is too old.').waitFor();
  await shot('reset-used');
});

step('the demo ends when told to', async () => {
  await outbox.close();
  await page.goto('about:blank');
  assert.equal(await stop(shop.server), 0);
});
