// The page that asks for the e-mail code: as the second step of a sign-in, or once more before something grave (`?stepup`).

import { call, go, nextUrl, Problem, rounds } from '/http.js';
import { $, busy, mark, onSubmit, say } from '/ui.js';

const FLOW = 'code-flow';
const RESEND_AFTER = 15;

export async function code() {
  const stepUp = new URLSearchParams(location.search).has('stepup');
  const next = nextUrl();
  const input = $('code');
  const shown = (...ids) =>
    ['waiting', 'sent', 'code-form', 'restart', 'again'].forEach((id) => ($(id).hidden = !ids.includes(id)));
  const trouble = (text) => ($('flow-error').textContent = text);
  if (stepUp) $('heading').textContent = "Confirm it's you";

  const { body: info } = await call('PUT', '/auth/mfa/info', {});
  const address = info.emails?.['otp-email']?.[0];
  if (!stepUp && info.factors.next.length === 0 && rounds.count() < 2) return go(next);
  if (!address || (!stepUp && !info.factors.next.includes('otp-email'))) {
    shown();
    rounds.clear();
    return trouble('This branch asks for something that this page cannot do.');
  }
  $('address').textContent = address;
  $('restart').addEventListener('click', () => busy($('restart'), start, refused));
  $('resend').addEventListener('click', () => busy($('resend'), again, tooEarly));
  onSubmit($('code-form'), confirm, (text) => mark(input, text));
  // People copy codes with the spaces of the message.
  input.addEventListener('input', () => (input.value = input.value.replace(/\D/g, '').slice(0, 6)));

  let flow = JSON.parse(sessionStorage.getItem(FLOW) ?? 'null');
  if (flow?.address === address && Date.now() - flow.at < 9 * 60_000) ready();
  else await busy($('restart'), start, refused);

  async function start() {
    trouble('');
    const { status, body } = await call(
      'POST',
      '/auth/signinup/code',
      { email: address, shouldTryLinkingWithSessionUser: true },
      { keep: [403] },
    );
    if (status === 403 || body.status !== 'OK')
      throw new Problem(body.reason ?? 'No code can be sent to that address.');
    keep({ address, at: Date.now(), deviceId: body.deviceId, preAuthSessionId: body.preAuthSessionId });
    ready();
  }

  function ready() {
    shown('sent', 'code-form', 'again');
    mark(input);
    input.value = '';
    input.focus();
    countDown(RESEND_AFTER - (Date.now() - flow.at) / 1000);
  }

  function refused(text) {
    trouble(text);
    shown('restart');
  }

  function tooEarly(text, wait) {
    trouble(text);
    if (wait > 0) countDown(wait);
  }

  function keep(value) {
    flow = value;
    sessionStorage.setItem(FLOW, JSON.stringify(value));
  }

  async function again() {
    trouble('');
    const { deviceId, preAuthSessionId } = flow;
    const { body } = await call('POST', '/auth/signinup/code/resend', {
      deviceId,
      preAuthSessionId,
      shouldTryLinkingWithSessionUser: true,
    });
    if (body.status !== 'OK') return over();
    keep({ ...flow, at: Date.now() });
    ready();
    say('A new code is on its way.');
  }

  function over() {
    sessionStorage.removeItem(FLOW);
    refused('That code has had its day: too many tries, or too old.');
    $('restart').focus();
  }

  async function confirm() {
    const userInputCode = input.value;
    mark(input);
    if (userInputCode.length !== 6) return wrong('The code has six digits.');
    const { deviceId, preAuthSessionId } = flow;
    const { status, body } = await call(
      'POST',
      '/auth/signinup/code/consume',
      { deviceId, preAuthSessionId, userInputCode, shouldTryLinkingWithSessionUser: true },
      { keep: [403] },
    );
    const left = body.maximumCodeInputAttempts - body.failedCodeInputAttemptCount;
    const tries = left === 1 ? '1 try left' : `${left} tries left`;
    if (status === 403) return refused('That address cannot be used for this account.');
    switch (body.status) {
      case 'OK':
        sessionStorage.removeItem(FLOW);
        return go(next);
      case 'INCORRECT_USER_INPUT_CODE_ERROR':
        return wrong(`That's not the code. ${tries}.`);
      case 'EXPIRED_USER_INPUT_CODE_ERROR':
        return wrong(`That code is too old. Ask for a new one below (${tries}).`);
      case 'RESTART_FLOW_ERROR':
        return over();
      default:
        return refused(body.reason ?? 'That did not work.');
    }
  }

  function wrong(text) {
    mark(input, text);
    input.select();
    input.focus();
  }
}

let ticking;

/** Keeps "Send it again" shut for so many seconds and says how many are left. */
function countDown(seconds) {
  const end = Date.now() + seconds * 1000;
  clearInterval(ticking);
  const tick = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    $('resend').disabled = left > 0;
    $('countdown').textContent = left > 0 ? `in ${left} s` : '';
    if (left <= 0) clearInterval(ticking);
  };
  ticking = setInterval(tick, 500);
  tick();
}
