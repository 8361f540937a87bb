// What the browser tests have in common: a server of ours, a browser, and steps in which nothing unannounced may go
// wrong.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

import { chromium } from 'playwright-core';

/** Starts a server; the first line it prints names its address. Its `stderr` is this program's unless it is asked for. */
export async function start(binary, { cwd, env, stderr = 'inherit' }) {
  const child = spawn(binary, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', stderr] });
  const lines = createInterface({ input: child.stdout });
  const gone = once(child, 'exit').then(([code]) => {
    throw new Error(`${binary} ended with ${code} before it was ready`);
  });
  gone.catch(() => {});
  const [line] = await Promise.race([once(lines, 'line'), gone]);
  const [base] = line.match(/http:\/\/127\.0\.0\.1:\d+/) ?? [];
  assert.ok(base, line);
  return { child, base };
}

/** Ends it, if it hasn't ended; its exit code. */
export async function stop(server) {
  if (!server) return undefined;
  const { child } = server;
  if (child.exitCode === null && child.signalCode === null) {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }
  return child.exitCode;
}

/** The browser, with a profile of its own. */
export async function browse(profile, options) {
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
    ...options,
  });
  browser.setDefaultTimeout(10_000);
  return browser;
}

/**
 * Watches pages, in steps. A step fails on: a console error, an uncaught error, a failed request, a request to an origin
 * that isn't among `origins()`, an error status that the step didn't announce. `settle` waits until what a step began
 * has been seen; `left` says of a request that it may end with its page.
 */
export function watcher({ origins, settle, left = () => false }) {
  const faults = [];
  let announced = [];
  let unbroken = true;

  function watch(page) {
    const path = (url) => new URL(url).pathname;
    const known = (status, url) => announced.find((one) => one.status === status && one.path === path(url));
    page.on('pageerror', (error) => faults.push(`uncaught: ${error.stack}`));
    page.on('console', (message) => {
      if (message.type() !== 'error') return;
      const status = message.text().match(/^Failed to load resource: the server responded with a status of (\d+)/)?.[1];
      if (!status || !known(Number(status), message.location().url)) faults.push(`console: ${message.text()}`);
    });
    page.on('request', (request) => {
      if (!origins().includes(new URL(request.url()).origin)) faults.push(`foreign request: ${request.url()}`);
    });
    page.on('requestfailed', (request) => {
      const why = request.failure()?.errorText;
      if (why !== 'net::ERR_ABORTED' || !left(request)) faults.push(`failed: ${request.url()} ${why}`);
    });
    page.on('response', (response) => {
      if (response.status() < 400) return;
      const expected = known(response.status(), response.url());
      if (expected) expected.seen += 1;
      else faults.push(`${response.status()}: ${response.request().method()} ${response.url()}`);
    });
  }

  /** In this step an error status will be answered; or may be. */
  function announce(status, path, maybe = false) {
    announced.push({ status, path, maybe, seen: 0 });
  }

  /** A step: what it announces has to happen, and nothing else may go wrong. After a failed one there is none. */
  function step(name, work) {
    test(name, { timeout: 120_000 }, async () => {
      assert.ok(unbroken, 'an earlier step failed');
      unbroken = false;
      announced = [];
      await work().catch((error) => {
        if (faults.length > 0) error.message += `\nBefore that: ${faults.join('\n')}`;
        throw error;
      });
      await settle();
      const missing = announced.filter((one) => one.seen === 0 && !one.maybe);
      assert.deepEqual({ faults, missing }, { faults: [], missing: [] });
      unbroken = true;
    });
  }

  return { watch, announce, step };
}

/** Lets what a page has just begun come to be seen. */
export const breathe = (page) => page.evaluate(() => new Promise((done) => setTimeout(done, 50)));

/**
 * Compares what passed on the wire with what may pass, and waits up to five seconds for what is still under way. It
 * says how often (a number), or at least and at most how often; `POST /auth/signin 200` is a key. Each request may have
 * one preflight.
 */
export async function assertCounted(answers, requests) {
  for (const end = Date.now() + 5000; ; await new Promise((done) => setTimeout(done, 50))) {
    try {
      return compareCounts(answers, requests);
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}

function compareCounts(answers, requests) {
  const seen = {};
  for (const { method, path, status } of answers) {
    const what = `${method} ${path} ${status}`;
    seen[what] = (seen[what] ?? 0) + 1;
  }
  const preflights = Object.keys(seen).filter((what) => what.startsWith('OPTIONS '));
  const others = answers.filter(({ method }) => method !== 'OPTIONS');
  assert.ok(answers.length <= 2 * others.length, 'at most one preflight each');
  assert.deepEqual(
    preflights.filter((what) => !what.endsWith(' 200')),
    [],
  );
  for (const what of preflights) delete seen[what];
  if (process.env.COUNTS === '1') console.log(JSON.stringify(seen));
  const fits = {};
  for (const [what, wanted] of Object.entries(requests)) {
    const [least, most] = Array.isArray(wanted) ? wanted : [wanted, wanted];
    const count = seen[what] ?? 0;
    fits[what] = count >= least && count <= most ? count : wanted;
  }
  for (const [what, count] of Object.entries(fits)) if (count === 0) delete fits[what];
  assert.deepEqual(seen, fits, 'requests that the step caused');
}
