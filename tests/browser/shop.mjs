// The demo shop in a browser, for the files that tell its stories. The environment may name
//   DEMO      the server's binary, seen from here      ../../target/debug/examples/demo
//   PORT      its port                                 0, one that is free
//   CHROMIUM  the browser                              /usr/bin/chromium
// The shop finds an empty database (DEMO_DB) in a new directory. Screenshots of every page, in both colour schemes and at
// desk and phone width, are left in shots/STORY.
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
const desk = { width: 1200, height: 800 };
const phone = { width: 360, height: 740 };

/**
 * Starts the shop and a browser before the file's steps, and ends them after. `page` and `outbox` are its two tabs;
 * `opened` is told once they are there.
 */
export function openShop(story, opened) {
  const shots = join(here, 'shots', story);
  const shop = {};
  const browsers = [];
  let work;
  const { watch, announce, step } = watcher({ origins: () => [shop.base], settle: () => breathe(shop.page) });

  before(async () => {
    await rm(shots, { recursive: true, force: true });
    await mkdir(shots, { recursive: true });
    work = await mkdtemp(join(tmpdir(), 'demo-'));
    const binary = resolve(here, process.env.DEMO ?? '../../target/debug/examples/demo');
    const env = { PORT: process.env.PORT ?? '0', DEMO_DB: join(work, 'demo.db') };
    shop.server = await start(binary, { cwd: work, env });
    shop.base = shop.server.base;
    shop.browser = await another('profile');
    shop.page = shop.browser.pages()[0] ?? (await shop.browser.newPage());
    shop.outbox = await shop.browser.newPage();
    await shop.outbox.goto('/dev/outbox');
    shop.phones = (await (await fetch(`${shop.base}/api/shop`)).json()).phone;
    opened(shop);
  });

  after(async () => {
    for (const browser of browsers) await browser.close();
    await stop(shop.server);
    await rm(work, { recursive: true, force: true });
  });

  /** A browser that shares nothing with the others but what `profile` names. */
  async function another(profile, options = {}) {
    const browser = await browse(join(work, profile), { baseURL: shop.base, viewport: desk, ...options });
    browsers.push(browser);
    browser.on('page', watch);
    for (const open of browser.pages()) watch(open);
    return browser;
  }

  /** The page's script has done its first work. */
  const settled = (of = shop.page) => of.locator('main[aria-busy=false]').waitFor();
  const message = (text) => shop.page.locator('#message', { hasText: text }).waitFor();
  const at = (path, of = shop.page) => of.waitForURL((url) => url.pathname === path);

  async function visit(path, of = shop.page) {
    await of.goto(path);
    await settled(of);
  }

  async function shot(name, of = shop.page) {
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

  /** The outbox's messages that carry a code, and those that carry a link; notices carry neither. */
  const codes = () => shop.outbox.locator('#mails > li:has(.digits)');
  const links = () => shop.outbox.locator('#mails > li:has(a.button)');

  /** Does what sends a message of that kind, and returns it once it shows in the outbox's tab. */
  async function newest(messages, trigger) {
    const seen = await messages.count();
    await trigger();
    for (let tenths = 0; (await messages.count()) === seen; tenths += 1) {
      assert.ok(tenths < 100, 'it is sent within ten seconds');
      await shop.page.waitForTimeout(100);
    }
    return messages.first();
  }

  const codeAfter = async (trigger) => (await newest(codes(), trigger)).locator('.digits').innerText();
  const linkAfter = async (trigger) => (await newest(links(), trigger)).locator('a.button').getAttribute('href');

  async function enter(code, of = shop.page) {
    await of.getByLabel('Code', { exact: true }).fill(code);
    await of.getByRole('button', { name: 'Confirm' }).click();
  }

  async function fill(email, password, of = shop.page) {
    await of.getByLabel('E-mail', { exact: true }).fill(email);
    await of.getByLabel('Password').fill(password);
  }

  async function signOut() {
    await shop.page.getByRole('button', { name: 'Sign out' }).click();
    await shop.page.locator('#who').getByRole('link', { name: 'Sign in' }).waitFor();
    await settled();
  }

  const focused = (of = shop.page) => of.evaluate(() => document.activeElement.id);

  /** Waits until a message may be sent again, and sends it, by keyboard; the time that is left shows meanwhile. */
  async function sendAgain() {
    const again = shop.page.getByRole('button', { name: 'Send it again' });
    const countdown = shop.page.locator('#countdown');
    const requests = [];
    const note = (request) => requests.push(new URL(request.url()).pathname);
    shop.page.on('request', note);
    const seconds = async () => Number((await countdown.innerText()).match(/^in (\d+) s$/)[1]);
    const before = await seconds();
    assert.ok(before > 5 && before <= 15, `${before} s are left`);
    assert.match(await shop.page.locator('#resend-status').innerText(), /again in \d+ seconds/);
    await again.focus();
    assert.equal(await focused(), 'resend', 'it is within reach though it is shut');
    assert.ok(await again.isDisabled());
    await shop.page.keyboard.press('Enter');
    await shop.page.waitForTimeout(2000);
    assert.ok((await seconds()) < before, 'it counts down');
    assert.deepEqual(requests, [], 'while it is shut nothing is sent');
    await shop.page.locator('#resend:not([aria-disabled])').waitFor({ timeout: 20_000 });
    assert.equal(await countdown.innerText(), '');
    assert.match(await shop.page.locator('#resend-status').innerText(), /again now/);
    await shop.page.keyboard.press('Enter');
    await countdown.filter({ hasText: 'in 15 s' }).waitFor();
    shop.page.off('request', note);
    assert.deepEqual(
      requests.filter((path) => path.startsWith('/auth/')),
      ['/auth/signinup/code/resend'],
    );
  }

  return Object.assign(shop, {
    announce,
    step,
    another,
    settled,
    message,
    at,
    visit,
    shot,
    codes,
    links,
    newest,
    codeAfter,
    linkAfter,
    enter,
    fill,
    signOut,
    focused,
    sendAgain,
  });
}

export const wrongFor = (code) => String((Number(code) + 1) % 1_000_000).padStart(6, '0');
