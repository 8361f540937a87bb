// Small things that every page needs. Text from the server is only ever set as text.

import { Problem } from '/http.js';

export const $ = (id) => document.getElementById(id);

export function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function say(text, problem = false) {
  const message = $('message');
  message.classList.toggle('problem', problem);
  message.textContent = text;
}

/** Runs `work`; a `Problem` is shown, anything else is a fault of ours and goes to the console. */
export async function attempt(work, show = (text) => say(text, true)) {
  try {
    await work();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    show(problem.message, problem.wait);
  }
}

/** `attempt`, while the button can't be pressed again. */
export async function busy(button, work, show) {
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  try {
    await attempt(work, show);
  } finally {
    button.removeAttribute('aria-disabled');
  }
}

export function onSubmit(form, work, show) {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    busy(form.querySelector('[type=submit]'), work, show);
  });
}

/** Shows (or with no text clears) what is wrong with a field. */
export function mark(input, text = '') {
  $(`${input.id}-error`).textContent = text;
  if (text) input.setAttribute('aria-invalid', 'true');
  else input.removeAttribute('aria-invalid');
}

/**
 * "Send it again": shut for some seconds after each send, which it shows. It stays within reach of the keyboard, and
 * says to a screen reader how long it takes and when it's over, not every second. `work` sends; the returned function
 * shuts the button.
 */
export function patient(work, show) {
  const [button, countdown, status] = [$('resend'), $('countdown'), $('resend-status')];
  let opensAt = 0;
  let ticking;
  const left = () => Math.ceil((opensAt - Date.now()) / 1000);
  const tick = () => {
    const seconds = left();
    countdown.textContent = seconds > 0 ? `in ${seconds} s` : '';
    if (seconds > 0) return;
    clearInterval(ticking);
    button.removeAttribute('aria-disabled');
    if (status.textContent) status.textContent = 'You can have it sent again now.';
  };
  const shut = (seconds) => {
    opensAt = Date.now() + seconds * 1000;
    clearInterval(ticking);
    if (left() > 0) {
      button.setAttribute('aria-disabled', 'true');
      status.textContent = `You can have it sent again in ${left()} seconds.`;
      ticking = setInterval(tick, 500);
    }
    tick();
  };
  button.addEventListener('click', async () => {
    if (left() > 0 || button.getAttribute('aria-disabled') === 'true') return;
    button.setAttribute('aria-disabled', 'true');
    await attempt(work, show);
    if (left() <= 0) button.removeAttribute('aria-disabled');
  });
  return shut;
}

export function facts(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([term, value]) => [make('dt', {}, term), make('dd', {}, value)]));
}

export const money = (cents) =>
  new Intl.NumberFormat('en-IE', { style: 'currency', currency: 'EUR' }).format(cents / 100);
export const when = (at) =>
  make(
    'time',
    { dateTime: new Date(at * 1000).toISOString() },
    new Date(at * 1000).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' }),
  );
