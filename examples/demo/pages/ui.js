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
