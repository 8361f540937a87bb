// The two servers of the test's own: the website, and a wire before the API that counts what passes and can hold it up.

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { Agent, createServer, request } from 'node:http';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const file = (name) => fileURLToPath(new URL(name, import.meta.url));

async function listen(handler) {
  const server = createServer(handler);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  };
  return { origin: `http://localhost:${server.address().port}`, close };
}

/**
 * A page at every address that isn't a file of its, with the SDK as npm installed it. `settings()` is what the page
 * finds as `settings`.
 */
export async function website({ html = 'index.html', script = 'page.js', settings = () => ({}) } = {}) {
  const { outputFiles } = await build({
    entryPoints: [file(script)],
    bundle: true,
    format: 'iife',
    target: 'es2022',
    jsx: 'automatic',
    define: { global: 'globalThis', 'process.env.NODE_ENV': '"production"' },
    write: false,
    logLevel: 'warning',
  });
  const page = await readFile(file(html));
  const text = 'text/javascript; charset=utf-8';
  const files = {
    '/page.js': () => outputFiles[0].contents,
    '/settings.js': () => `window.settings = ${JSON.stringify(settings())};`,
  };
  return listen((request, response) => {
    const script = files[new URL(request.url, 'http://localhost').pathname];
    response.writeHead(200, { 'content-type': script ? text : 'text/html; charset=utf-8' });
    response.end(script?.() ?? page);
  });
}

/**
 * Passes every request on to `upstream()`, unchanged, and the answer back. `answers` are those that arrived since it was
 * last emptied: `{method, path, status, headers}`.
 */
export async function wire(upstream) {
  const answers = [];
  const holds = [];
  const agent = new Agent({ keepAlive: false });

  async function held(when, { method, path }) {
    const at = holds.findIndex((hold) => hold.when === when && hold.method === method && hold.path === path);
    if (at < 0) return;
    const [hold] = holds.splice(at, 1);
    hold.reach();
    await hold.released;
  }

  const { origin, close } = await listen(async (incoming, outgoing) => {
    const { method, url, rawHeaders } = incoming;
    const path = new URL(url, 'http://localhost').pathname;
    await held('request', { method, path });
    const { hostname, port } = new URL(upstream());
    const onward = request({ agent, hostname, port, method, path: url, headers: rawHeaders });
    incoming.pipe(onward);
    try {
      const [answer] = await once(onward, 'response');
      await held('answer', { method, path });
      answers.push({ method, path, status: answer.statusCode, headers: answer.headers });
      outgoing.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(outgoing);
    } catch (error) {
      answers.push({ method, path, status: error.code, headers: {} });
      outgoing.destroy(error);
    }
  });

  /** The next such request, or its answer, stays on the wire. `reached` says that it is there. */
  function hold(when, method, path) {
    let reach;
    let release;
    const reached = new Promise((resolve) => (reach = resolve));
    const released = new Promise((resolve) => (release = resolve));
    holds.push({ when, method, path, reach, released });
    return { reached, release };
  }

  return { origin, close, answers, hold };
}
