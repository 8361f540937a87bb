// Speaks with the auth API and the shop's own API, same origin, sessions in cookies.

const MFA_CLAIM = 'st-mfa';
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

/** What went wrong, in words for the person; `wait` is in seconds, 0 if the server named none. */
export class Problem extends Error {
  constructor(message, wait = 0) {
    super(message);
    this.wait = wait;
  }
}

/** Leaves the page. The promise never settles, so nothing after it runs. */
export function go(url) {
  location.assign(url);
  return new Promise(() => {});
}

/** Where the person wanted to go. Only this origin counts, and always as a whole URL: a path may start with `//`. */
export function nextUrl(wanted = new URLSearchParams(location.search).get('next') ?? '/') {
  const url = URL.canParse(wanted, location.origin) ? new URL(wanted, location.origin) : new URL('/', location.origin);
  return url.origin === location.origin ? url.href : new URL('/', location.origin).href;
}

/** `path` with the page we are on as `next`. */
export function withNext(path, next = location.pathname + location.search) {
  return `${path}${path.includes('?') ? '&' : '?'}next=${encodeURIComponent(next)}`;
}

/**
 * Calls the server and deals with what every page treats alike: an old access token is renewed and the call made once
 * more, no session leads to /signin, a missing code to /code, and failures become a `Problem`.
 * A page that wants to see a 401 or 403 itself lists it in `keep`.
 */
export async function call(method, path, body, { keep = [] } = {}) {
  const seen = lastRenewal();
  let answer = await send(method, path, body);
  if (answer.status === 401 && answer.body.message === 'try refresh token' && (await renew(seen))) {
    answer = await send(method, path, body);
  }
  const { status, wait } = answer;
  const text = answer.body.message;
  if (status === 200 && answer.body.status === 'GENERAL_ERROR') throw new Problem(text ?? 'That did not work.', wait);
  if (status < 400 || keep.includes(status)) return answer;
  if (status === 401) return go(withNext('/signin'));
  if (status === 403 && wantsCode(answer.body)) return toCode(answer.body);
  if (status === 403) throw new Problem('Your account may not do that.');
  const seconds = wait === 1 ? '1 second' : `${wait || 30} seconds`;
  if (status === 429) throw new Problem(`That was a bit much. Try again in ${seconds}.`, wait);
  if (status === 503) throw new Problem("The shop can't answer just now. Try again in a moment.", wait);
  if (status >= 500) throw new Problem('Something broke on our side. Try again later.');
  throw new Problem(text ?? 'The shop did not understand that.');
}

/** Whether a 403 asks for factors and nothing else: no code makes up for a missing role. */
export function wantsCode(body) {
  const missing = body.claimValidationErrors ?? [];
  return missing.length > 0 && missing.every((one) => one.id === MFA_CLAIM);
}

/** How often in a row the server sent this tab to /code; more than once means that a code doesn't help. */
export const rounds = {
  count: () => Number(sessionStorage.getItem('rounds') ?? 0),
  add: () => sessionStorage.setItem('rounds', String(rounds.count() + 1)),
  clear: () => sessionStorage.removeItem('rounds'),
};

/** A named factor is asked for again even if the session's requirements are met. */
export function stepUp(body) {
  const named = (body.claimValidationErrors ?? []).map((one) => one.reason?.factorId).find(Boolean);
  return named ? `?stepup=${encodeURIComponent(named)}` : '';
}

/** Off to the page that asks for the code. */
export function toCode(body) {
  rounds.add();
  return go(withNext(`/code${stepUp(body)}`));
}

async function send(method, path, body) {
  const headers = { rid: recipe(path), 'st-auth-mode': 'cookie', 'fdi-version': '4.2' };
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response;
  let text;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
    });
    text = await response.text();
  } catch {
    throw new Problem("The shop can't be reached. Is it still running?");
  }
  return { status: response.status, body: parsed(text), wait: Number(response.headers.get('retry-after')) || 0 };
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

/** The `rid` header: its presence is what a foreign site can't bring about. */
function recipe(path) {
  if (!path.startsWith('/auth/')) return 'anti-csrf';
  if (path.includes('/signinup/code')) return 'passwordless';
  if (path.endsWith('/mfa/info')) return 'multifactorauth';
  return path.endsWith('/signin') || path.endsWith('/signup') ? 'emailpassword' : 'session';
}

/** A route of the auth API, in a branch: each is a tenant. */
export const inBranch = (tenant, route) =>
  tenant === 'public' ? `/auth/${route}` : `/auth/${encodeURIComponent(tenant)}/${route}`;

let renewing;

/** Which renewal this browser has seen last. In a cookie, as other tabs may see a change of the local storage late. */
const lastRenewal = () => /(?:^|; )renewed=([^;]*)/.exec(document.cookie)?.[1] ?? '';

/** Renews the session once for all calls of all tabs that wait for it. False: there is no session any more. */
function renew(seen) {
  const work = () => renewOnce(seen);
  renewing ??= (navigator.locks ? navigator.locks.request('renew-session', work) : work()).finally(() => {
    renewing = undefined;
  });
  return renewing;
}

async function renewOnce(seen) {
  if (lastRenewal() !== seen) return true;
  for (let tries = 0; tries < 3; tries += 1) {
    const { status, wait } = await send('POST', '/auth/session/refresh');
    if (status === 200) {
      document.cookie = `renewed=${crypto.randomUUID()}; path=/; samesite=lax`;
      return true;
    }
    if (status === 401) return false;
    // 409: another tab has just completed a factor and its newer cookie is on the way. 503: busy. Both keep the session.
    await pause(Math.min(wait || 1, 5));
  }
  throw new Problem("The shop can't answer just now. Try again in a moment.");
}
