// A password that was forgotten: a link is asked for, and the page that it opens sets a new one.

import { call, inBranch } from '/http.js';
import { $, mark, onSubmit } from '/ui.js';

const trouble = (text) => ($('form-error').textContent = text);

/** The page that asks for the link. It says the same whether somebody has an account by that address or not. */
export function forgot() {
  const email = $('email');
  onSubmit(
    $('forgot'),
    async () => {
      mark(email);
      trouble('');
      const formFields = [{ id: 'email', value: email.value }];
      const tenant = $('forgot').elements.branch.value;
      const { body } = await call('POST', inBranch(tenant, 'user/password/reset/token'), { formFields });
      if (body.status === 'FIELD_ERROR') {
        mark(email, body.formFields[0].error);
        return email.focus();
      }
      if (body.status !== 'OK') return trouble(body.reason ?? 'That did not work.');
      $('sent-address').textContent = email.value.trim();
      $('forgot').hidden = true;
      $('sent').hidden = false;
      $('sent-heading').focus();
    },
    trouble,
  );
}

/** The page that the link opens. Loading it spends nothing. */
export function reset() {
  const query = new URLSearchParams(location.search);
  const [token, tenant] = [query.get('token'), query.get('tenantId') ?? 'public'];
  const password = $('password');
  if (!token) return over('This link is incomplete. Copy all of it, up to its end.');
  // What is to be spent has no business in the browser's history.
  history.replaceState(null, '', `${location.pathname}?tenantId=${encodeURIComponent(tenant)}`);
  $('reset').hidden = false;
  onSubmit(
    $('reset'),
    async () => {
      mark(password);
      trouble('');
      const formFields = [{ id: 'password', value: password.value }];
      const body = { method: 'token', token, formFields };
      const answer = (await call('POST', inBranch(tenant, 'user/password/reset'), body)).body;
      if (answer.status === 'FIELD_ERROR') {
        mark(password, answer.formFields[0].error);
        return password.focus();
      }
      if (answer.status !== 'OK') return over('This link has been used, or is too old.');
      $('over-heading').textContent = 'Your password is set';
      return over('Every session has ended. Sign in with your new password.', 'Sign in', '/signin');
    },
    trouble,
  );

  function over(text, next = 'Ask for a new link', page = '/forgot') {
    $('over-text').textContent = text;
    $('over-link').textContent = next;
    $('over-link').href = `${page}?branch=${encodeURIComponent(tenant)}`;
    $('reset').hidden = true;
    $('over').hidden = false;
    $('over-heading').focus();
  }
}
