// The page that asks for a code by e-mail or SMS: as the second step of a sign-in, once more before something grave
// (`?stepup=FACTOR`), or to add a phone (`?setup=otp-phone`).

import { call, go, nextUrl, Problem, rounds, withNext } from '/http.js';
import { $, busy, make, mark, onSubmit, patient, say } from '/ui.js';

const FLOW = 'code-flow';
const RESEND_AFTER = 15;
/** A code works for ten minutes: an older flow isn't taken up again. */
const FRESH = 9 * 60_000;
const WAYS = {
  'otp-email': { name: 'By e-mail', check: 'Check your e-mail', field: 'email', listed: 'emails' },
  'otp-phone': { name: 'By SMS', check: 'Check your phone', field: 'phoneNumber', listed: 'phoneNumbers' },
};

export async function code() {
  const query = new URLSearchParams(location.search);
  const stepUp = query.get('stepup');
  const setUp = query.get('setup');
  const next = nextUrl();
  const [input, number] = [$('code'), $('number')];
  const parts = ['waiting', 'choose', 'number-form', 'sent', 'code-form', 'restart', 'sign-in-again', 'again', 'other'];
  const shown = (...ids) => parts.forEach((id) => ($(id).hidden = !ids.includes(id)));
  const trouble = (text) => ($('flow-error').textContent = text);
  const title = (text) => ($('heading').textContent = stepUp ? "Confirm it's you" : text);
  const draw = (way) => ['otp-email', 'otp-phone'].forEach((one) => $(`art-${one}`).toggleAttribute('hidden', one !== way));

  const { body: info } = await call('PUT', '/auth/mfa/info', {});
  const { next: asked, alreadySetup } = info.factors;
  if (setUp ? alreadySetup.includes(setUp) : !stepUp && asked.length === 0 && rounds.count() < 2) return go(next);
  const wanted = stepUp || setUp ? [stepUp ?? setUp] : asked;
  const ways = Object.keys(WAYS).filter((way) => wanted.includes(way));
  if (ways.length === 0) {
    shown();
    rounds.clear();
    return trouble('This branch asks for something that this page cannot do.');
  }

  /** What the server suggests, perhaps only in part; it takes that for the whole. */
  const contactOf = (way) => info[WAYS[way].listed]?.[way]?.[0];
  const shut = patient(again, tooEarly);
  $('restart').addEventListener('click', () => busy($('restart'), () => start(flow.way, flow.contact), refused));
  $('other-way').addEventListener('click', () => (ways.length > 1 ? choose() : askNumber(true)));
  onSubmit($('number-form'), sendToNumber, (text) => mark(number, text));
  onSubmit($('code-form'), confirm, (text) => mark(input, text));
  // People copy codes with the spaces of the message.
  input.addEventListener('input', () => (input.value = input.value.replace(/\D/g, '').slice(0, 6)));

  let flow = JSON.parse(sessionStorage.getItem(FLOW) ?? 'null');
  const suits = flow && ways.includes(flow.way) && [undefined, flow.contact].includes(contactOf(flow.way));
  if (suits && Date.now() - flow.begun < FRESH) return ready();
  if (ways.length > 1) return choose(false);
  return pick(ways[0]);

  function choose(back = true) {
    title('One more step');
    draw('otp-email');
    trouble('');
    $('ways').replaceChildren(
      ...ways.map((way) => {
        const where = contactOf(way) ?? 'to a number of yours';
        const choice = make(
          'button',
          { type: 'button', className: 'way' },
          make('strong', {}, WAYS[way].name),
          make('span', { className: 'quiet contact' }, where),
        );
        choice.addEventListener('click', () => busy(choice, () => pick(way)));
        return make('li', {}, choice);
      }),
    );
    shown('choose');
    if (back) $('ways').querySelector('button').focus();
  }

  async function pick(way) {
    const contact = contactOf(way);
    if (contact === undefined) return askNumber(ways.length > 1);
    flow = { way, contact };
    await busy($('restart'), () => start(way, contact), refused);
  }

  function askNumber(focus) {
    title(setUp ? 'Add a phone' : 'Your phone number');
    draw('otp-phone');
    trouble('');
    mark(number);
    shown('number-form', ...(ways.length > 1 ? ['other'] : []));
    $('other-way').textContent = 'Choose another way';
    if (focus) number.focus();
  }

  async function sendToNumber() {
    mark(number);
    const typed = number.value.trim();
    if (typed === '') {
      mark(number, 'Type the number of your mobile phone.');
      return number.focus();
    }
    flow = { way: 'otp-phone', contact: typed };
    await start(flow.way, flow.contact);
  }

  async function start(way, contact) {
    trouble('');
    const { status, body } = await call(
      'POST',
      '/auth/signinup/code',
      { [WAYS[way].field]: contact, shouldTryLinkingWithSessionUser: true },
      { keep: [403] },
    );
    if (status === 403) return notAllowed(body);
    if (body.status !== 'OK') throw new Problem(body.reason ?? 'No code can be sent there.');
    const now = Date.now();
    keep({ way, contact, begun: now, at: now, deviceId: body.deviceId, preAuthSessionId: body.preAuthSessionId });
    ready();
  }

  function notAllowed(body) {
    const late = (body.claimValidationErrors ?? []).some((one) => one.reason === 'step_up_required');
    if (!late) return refused('No code can be sent there: this account uses another address or number.');
    shown('sign-in-again');
    $('sign-in-link').href = withNext('/signin');
    trouble('You signed in more than five minutes ago. To add a phone, sign in again first.');
  }

  function ready() {
    title(setUp ? 'Confirm your number' : WAYS[flow.way].check);
    draw(flow.way);
    $('address').textContent = flow.contact;
    const enrols = contactOf(flow.way) === undefined;
    $('other-way').textContent = ways.length > 1 ? 'Choose another way' : 'Use another number';
    shown('sent', 'code-form', 'again', ...(ways.length > 1 || enrols ? ['other'] : []));
    mark(input);
    input.value = '';
    input.focus();
    shut(RESEND_AFTER - (Date.now() - flow.at) / 1000);
  }

  function refused(text) {
    trouble(text);
    const enrols = contactOf(flow.way) === undefined;
    shown('restart', ...(ways.length > 1 || enrols ? ['other'] : []));
  }

  function tooEarly(text, wait) {
    trouble(text);
    if (wait > 0) shut(wait);
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
    if (body.status !== 'OK') return over('That code has had its day: too many tries, or too old.');
    keep({ ...flow, at: Date.now() });
    ready();
    say('A new code is on its way.');
  }

  function over(text) {
    sessionStorage.removeItem(FLOW);
    refused(text);
    $('restart').focus();
  }

  async function confirm() {
    const userInputCode = input.value;
    mark(input);
    trouble('');
    if (userInputCode.length !== 6) return wrong('The code has six digits.');
    const { deviceId, preAuthSessionId } = flow;
    const { status, body } = await call(
      'POST',
      '/auth/signinup/code/consume',
      { deviceId, preAuthSessionId, userInputCode, shouldTryLinkingWithSessionUser: true },
      { keep: [403] },
    );
    const left = body.maximumCodeInputAttempts - body.failedCodeInputAttemptCount;
    if (status === 403) return notAllowed(body);
    switch (body.status) {
      case 'OK':
        sessionStorage.removeItem(FLOW);
        return go(next);
      case 'INCORRECT_USER_INPUT_CODE_ERROR':
        return wrong(`That's not the code. ${left === 1 ? '1 try left' : `${left} tries left`}.`);
      case 'EXPIRED_USER_INPUT_CODE_ERROR':
        return over('That code is too old: each works for ten minutes.');
      case 'RESTART_FLOW_ERROR':
        return over('That code has had its day: too many tries, or too old.');
      default:
        return over(body.reason ?? 'That did not work.');
    }
  }

  function wrong(text) {
    mark(input, text);
    input.select();
    input.focus();
  }
}
