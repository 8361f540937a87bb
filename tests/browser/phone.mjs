// The phone as second factor, in the demo shop built with feature `phone`: `npm ci && npm test`, see `shop.mjs`.

import assert from 'node:assert/strict';

import { openShop, wrongFor } from './shop.mjs';

const mara = 'mara@example.com';
const nils = 'nils@example.com';
const password = 'lighthouse 7';
const number = '+36301111142';
const masked = '+***42';

let page;
let outbox;
const shop = openShop('phone', (opened) => ({ page, outbox } = opened));
const { announce, step, settled, message, at, visit, shot, codes, codeAfter, enter, fill, focused } = shop;

const way = (name) => page.getByRole('button', { name });
const sentTo = () => page.locator('#address').innerText();

/** Where the newest code went to, and how. */
async function newestCode() {
  const head = codes().first().locator('header');
  return [await head.locator('.tag').innerText(), await head.locator('.quiet').innerText()];
}

async function signUp(email, query = '') {
  await visit(`/signup${query}`);
  await fill(email, password);
  await page.getByRole('button', { name: 'Open account' }).click();
  await page.waitForURL((url) => url.pathname !== '/signup');
  await settled();
}

async function signIn(email, query = '') {
  await visit(`/signin${query}`);
  await fill(email, password);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
}

step('a phone is added in the settings: the mistakes people make', async () => {
  assert.ok(shop.phones, 'first: cargo build --features sqlite,phone --example demo');
  await signUp(mara, '?next=/settings');
  assert.ok(await page.getByRole('switch', { name: 'by SMS' }).isHidden());
  await shot('settings-no-phone');
  await page.getByRole('link', { name: 'Add a phone' }).click();
  await at('/code');
  await settled();
  const [field, send] = [page.getByLabel('Mobile number'), page.getByRole('button', { name: 'Send the code' })];
  await send.click();
  await page.getByText('Type the number of your mobile phone.').waitFor();
  assert.equal(await focused(), 'number');
  for (const wrong of ['12', '+36 30 111', '+3612345678', '+36 30 111 1142 ext 5']) {
    await field.fill(wrong);
    await send.click();
    await page.locator('#number-error', { hasText: 'Phone number is invalid' }).waitFor();
    await page.locator('#number-form [type=submit]:not([aria-disabled])').waitFor();
  }
  assert.equal(await codes().count(), 0);
  await shot('number-wrong');
});

step('a phone is added in the settings: the code by SMS', async () => {
  const code = await codeAfter(async () => {
    await page.getByLabel('Mobile number').fill('+36 (30) 111-1142');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Confirm your number' }).waitFor();
  });
  assert.deepEqual(await newestCode(), ['SMS', `to ${number}`]);
  assert.equal(await focused(), 'code');
  await shot('code-sms');
  await shot('outbox-sms', outbox);
  await enter(wrongFor(code));
  await page.getByText("That's not the code. 4 tries left.").waitFor();
  // A reload asks for the same code; another number can still be named.
  await page.reload();
  await page.getByLabel('Code', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Use another number' }).click();
  assert.equal(await focused(), 'number');
  await page.reload();
  await page.getByLabel('Code', { exact: true }).waitFor();
  await enter(code);
  await at('/settings');
  await settled();
  await page.locator('#factors li', { hasText: 'Code by SMS' }).getByText(masked).waitFor();
  assert.equal(await page.getByRole('link', { name: 'Add a phone' }).count(), 0);
});

step('who asked for it is asked at the next sign-in; the number shows in part', async () => {
  await page.getByRole('switch', { name: 'by SMS' }).check();
  await message("From now on we'll ask you");
  await shop.signOut();
  const code = await codeAfter(async () => {
    await signIn(mara, '?next=/orders');
    await page.getByRole('heading', { name: 'Check your phone' }).waitFor();
  });
  assert.deepEqual(await newestCode(), ['SMS', `to ${number}`]);
  assert.equal(await sentTo(), masked);
  const info = await page.evaluate(async () => {
    const headers = { rid: 'multifactorauth', 'st-auth-mode': 'cookie', 'fdi-version': '4.2' };
    return (await fetch('/auth/mfa/info', { method: 'PUT', headers })).json();
  });
  assert.deepEqual([info.factors.next, info.phoneNumbers['otp-phone']], [['otp-phone'], [masked]]);
  assert.ok(!(await page.content()).includes('1111142'), 'the number is nowhere in the page');
  const stored = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
  assert.ok(!stored.includes('1111142'));
  await shot('code-sms-masked');
  await enter(code);
  await at('/orders');
  await settled();
});

step('a code by SMS is sent again, when it may be', async () => {
  announce(403, '/api/settings/codes/otp-phone');
  await visit('/settings');
  const stale = {
    message: 'invalid claim',
    claimValidationErrors: [{ id: 'st-mfa', reason: { factorId: 'otp-phone' } }],
  };
  await page.route('**/api/settings/codes/otp-phone', (route) => route.fulfill({ status: 403, json: stale }), {
    times: 1,
  });
  await codeAfter(async () => {
    await page.getByRole('switch', { name: 'by SMS' }).click();
    await page.getByRole('heading', { name: "Confirm it's you" }).waitFor();
    await settled();
  });
  assert.equal(new URL(page.url()).searchParams.get('stepup'), 'otp-phone');
  const newer = await codeAfter(() => shop.sendAgain());
  await enter(newer);
  await at('/settings');
  await message('Turned off');
});

step('with both asked for, the person chooses, by keyboard', async () => {
  await page.getByRole('switch', { name: 'by SMS' }).check();
  await message("From now on we'll ask you");
  await page.getByRole('switch', { name: 'e-mail code' }).check();
  await page.getByText('With both on, you choose each time').waitFor();
  await shot('settings-both');
  // The mail address isn't confirmed by a code yet, so the phone alone is set up and asked for.
  await shop.signOut();
  const bySms = await codeAfter(async () => {
    await signIn(mara, '?next=/settings');
    await page.getByRole('heading', { name: 'Check your phone' }).waitFor();
  });
  assert.equal(await page.getByRole('button', { name: 'Choose another way' }).count(), 0);
  await enter(bySms);
  await at('/settings');
  await settled();
  const mail = await codeAfter(() => visit('/code?stepup=otp-email&next=/settings'));
  assert.deepEqual(await newestCode(), ['E-mail', `to ${mara}`]);
  await enter(mail);
  await at('/settings');
  await settled();
  await shop.signOut();
  // Now both are.
  const before = await codes().count();
  await signIn(mara, '?next=/orders');
  await at('/code');
  await settled();
  await way(`By e-mail ${mara}`).waitFor();
  await way(`By SMS ${masked}`).waitFor();
  assert.equal(await codes().count(), before, 'nothing is sent before the choice');
  await shot('choose');
  await codeAfter(async () => {
    await way('By e-mail').focus();
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Check your e-mail' }).waitFor();
  });
  assert.deepEqual(await newestCode(), ['E-mail', `to ${mara}`]);
  const code = await codeAfter(async () => {
    await page.getByRole('button', { name: 'Choose another way' }).press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.className), 'way');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Space');
    await page.getByRole('heading', { name: 'Check your phone' }).waitFor();
  });
  assert.deepEqual(await newestCode(), ['SMS', `to ${number}`]);
  assert.equal(await sentTo(), masked);
  await enter(code);
  await at('/orders');
  await settled();
});

step('an admin names a number during the sign-in; not one that is somebody else\'s', async () => {
  announce(403, '/api/admin');
  await shop.signOut();
  await signUp(nils, '?next=/dev');
  await page.getByRole('button', { name: 'Make me admin here' }).click();
  await message('You are an admin');
  await page.getByRole('link', { name: 'Admin', exact: true }).click();
  await at('/code');
  await way(`By e-mail ${nils}`).waitFor();
  await way('By SMS to a number of yours').click();
  const taken = await codeAfter(async () => {
    await page.getByLabel('Mobile number').fill(number);
    await page.getByRole('button', { name: 'Send the code' }).click();
    await page.getByLabel('Code', { exact: true }).waitFor();
  });
  await enter(taken);
  await page.locator('#flow-error', { hasText: 'ERR_CODE' }).waitFor();
  await shot('number-taken');
  await page.getByRole('button', { name: 'Choose another way' }).click();
  await way('By SMS').click();
  assert.equal(await focused(), 'number');
  await shot('number');
  const own = await codeAfter(async () => {
    await page.getByLabel('Mobile number').fill('+44 7400 123456');
    await page.keyboard.press('Enter');
  });
  assert.deepEqual(await newestCode(), ['SMS', 'to +447400123456']);
  await enter(own);
  await at('/admin');
  await settled();
  await page.getByText('Customers').waitFor();
});

step('who signed in a while ago signs in again to add a phone', async () => {
  announce(403, '/auth/signinup/code');
  await shop.signOut();
  await signUp('runa@example.com', '?next=/settings');
  await page.getByRole('link', { name: 'Add a phone' }).click();
  await at('/code');
  await settled();
  // Five minutes are a long wait: the answer is the one that an old session gets.
  const late = {
    message: 'invalid claim',
    claimValidationErrors: [{ id: 'st-mfa', reason: 'step_up_required' }],
  };
  await page.route('**/auth/signinup/code', (route) => route.fulfill({ status: 403, json: late }), { times: 1 });
  await page.getByLabel('Mobile number').fill('+36 20 222 2222');
  await page.getByRole('button', { name: 'Send the code' }).click();
  await page.getByText('You signed in more than five minutes ago').waitFor();
  await shot('sign-in-again');
  await page.getByRole('link', { name: 'Sign in again' }).click();
  await at('/signin');
  await settled();
  await fill('runa@example.com', password);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await at('/code');
  await page.getByLabel('Mobile number').waitFor();
});
