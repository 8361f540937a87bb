// Signing in by a link: asked for on the sign-in page, spent by the page that the link opens.

import { call, go, inBranch, nextUrl, Problem, withNext } from '/http.js';
import { $, busy, patient, say } from '/ui.js';

/** Which link this browser asked for, where all its tabs see it: a link opens in a new one. */
const FLOW = 'link-flow';
const RESEND_AFTER = 15;

/**
 * The sign-in page's other way. `values()` are the address and the branch, or nothing if there is none to send to;
 * `problem` shows what is wrong with it, or clears that.
 */
export function linkSignIn(form, values, problem) {
  const sent = $('link-sent');
  const trouble = (text) => ($('link-error').textContent = text);
  let flow;
  const shut = patient(again, (text, wait) => {
    trouble(text);
    if (wait > 0) shut(wait);
  });
  $('send-link').addEventListener('click', () => busy($('send-link'), send, problem));
  $('link-back').addEventListener('click', () => back(''));

  async function send() {
    const wanted = values();
    if (!wanted) return;
    const { email, tenant } = wanted;
    const { body } = await call(
      'POST',
      inBranch(tenant, 'signinup/code'),
      { email, shouldTryLinkingWithSessionUser: false },
      { keep: [401] },
    );
    if (body.status !== 'OK') throw new Problem(body.reason ?? 'This branch does not let you in that way.');
    const { deviceId, preAuthSessionId } = body;
    flow = { deviceId, preAuthSessionId, tenant };
    localStorage.setItem(FLOW, JSON.stringify({ preAuthSessionId, next: nextUrl() }));
    $('link-address').textContent = email;
    trouble('');
    form.hidden = true;
    sent.hidden = false;
    $('link-heading').focus();
    shut(RESEND_AFTER);
  }

  async function again() {
    trouble('');
    const { deviceId, preAuthSessionId, tenant } = flow;
    const { body } = await call('POST', inBranch(tenant, 'signinup/code/resend'), {
      deviceId,
      preAuthSessionId,
      shouldTryLinkingWithSessionUser: false,
    });
    if (body.status !== 'OK') return back('That link has had its day. Ask for a new one.');
    shut(RESEND_AFTER);
    say('A new link is on its way.');
  }

  function back(text) {
    say('');
    sent.hidden = true;
    form.hidden = false;
    $('send-link').focus();
    problem(text);
  }
}

/**
 * The page that a link opens. Loading it spends nothing (mail scanners load it, too): it takes a POST with the part
 * after the `#`, which no server sees before. Where the link was asked for that is done at once; anywhere else the person
 * is asked, since somebody may want them to sign in as somebody else.
 */
export async function verify({ signedInAs }) {
  const query = new URLSearchParams(location.search);
  const [preAuthSessionId, tenant] = [query.get('preAuthSessionId'), query.get('tenantId') ?? 'public'];
  const linkCode = location.hash.slice(1);
  const own = JSON.parse(localStorage.getItem(FLOW) ?? 'null');
  const here = own?.preAuthSessionId === preAuthSessionId;
  const next = nextUrl(here ? own.next : '/');
  const shown = (...ids) => ['waiting', 'ask', 'anew'].forEach((id) => ($(id).hidden = !ids.includes(id)));

  if (!preAuthSessionId || !linkCode) return over('This link is incomplete. Copy all of it, up to its end.');
  $('go-on').addEventListener('click', () => busy($('go-on'), spend, failed));
  if (here) return busy($('go-on'), spend, failed);
  $('heading').textContent = 'Continue signing in on this device?';
  if (signedInAs) {
    $('elsewhere').textContent += ` You are signed in as ${signedInAs}: that ends if you go on.`;
  }
  return shown('ask');

  async function spend() {
    const { body } = await call(
      'POST',
      inBranch(tenant, 'signinup/code/consume'),
      { preAuthSessionId, linkCode, shouldTryLinkingWithSessionUser: false },
      { keep: [401] },
    );
    if (body.status === 'OK') {
      if (here) localStorage.removeItem(FLOW);
      sessionStorage.clear();
      // What is spent has no business in the browser's history.
      history.replaceState(null, '', '/signin');
      const { verified } = (await call('GET', '/api/me')).body;
      return go(verified ? next : withNext('/code', next));
    }
    if (body.status === 'RESTART_FLOW_ERROR') return over('This link has been used, or is too old.');
    return over(body.reason ?? 'This branch does not let you in that way.');
  }

  /** It may work in a moment: the link isn't spent. */
  function failed(text) {
    $('heading').textContent = 'That did not work yet';
    if (here) $('ask').querySelectorAll('.quiet').forEach((one) => (one.hidden = true));
    $('link-error').textContent = text;
    shown('ask');
  }

  function over(text) {
    $('heading').textContent = 'This link does not sign you in';
    $('link-error').textContent = text;
    $('anew-link').href = `/signin?branch=${encodeURIComponent(tenant)}`;
    shown('anew');
  }
}
