// The shop's pages; `data-page` on the body says which one this is.

import { code } from '/code.js';
import { call, go, inBranch, nextUrl, Problem, rounds, stepUp, toCode, wantsCode, withNext } from '/http.js';
import { linkSignIn, verify } from '/link.js';
import { forgot, reset } from '/reset.js';
import { sessions } from '/sessions.js';
import { $, attempt, busy, facts, make, mark, money, onSubmit, say, when } from '/ui.js';

const MEANT = 'meant-code';
const query = new URLSearchParams(location.search);
const page = document.body.dataset.page;

const pages = {
  home,
  signup: () => credentials('signup'),
  signin: () => credentials('signin'),
  code,
  verify: () => verify({ signedInAs: me.email }),
  forgot: () => {
    branchChoice($('forgot'));
    forgot();
  },
  reset,
  orders,
  admin,
  settings,
  sessions: () => sessions({ branchName }),
  dev,
  outbox,
};

let me = { signedIn: false };
let shop = { branches: [] };
let branch;

// --- What all pages share ---

async function frame() {
  for (const link of document.querySelectorAll('.nav a, .workbench a')) {
    if (link.pathname === location.pathname) link.setAttribute('aria-current', 'page');
  }
  for (const link of document.querySelectorAll('[data-keep-query]')) link.search = location.search;
  [shop, me] = await Promise.all(
    [call('GET', '/api/shop'), call('GET', '/api/me', undefined, { keep: [401] })].map(async (one) => (await one).body),
  );
  const choosing = ['signin', 'signup', 'verify', 'forgot', 'reset'].includes(page);
  const wanted = (choosing ? null : me.branch) ?? query.get('branch') ?? query.get('tenantId') ?? me.branch;
  branch = shop.branches.find((one) => one.id === wanted) ?? shop.branches[0];
  document.documentElement.dataset.branch = branch.id;
  $('branch-name').textContent = branch.name;
  document.title = document.title.replace('Harbour Store', branch.name);
  $('branches').replaceChildren(...shop.branches.map(branchLink));
  $('who').replaceChildren(...(me.signedIn ? signedIn() : signedOut()));
}

function branchLink(one) {
  const here = one.id === branch.id;
  const query = `?branch=${encodeURIComponent(one.id)}`;
  // A session belongs to one branch: with one, switching means signing in there.
  const href =
    me.signedIn && one.id !== me.branch
      ? `/signin${query}`
      : ['signin', 'signup', 'forgot'].includes(page)
        ? `/${page}${query}`
        : `/${query}`;
  return make('a', { href, ariaCurrent: here ? 'true' : null }, one.name);
}

function signedIn() {
  const out = make('button', { type: 'button', className: 'link', id: 'sign-out' }, 'Sign out');
  out.addEventListener('click', () =>
    busy(out, async () => {
      await call('POST', '/auth/signout', undefined, { keep: [401] });
      sessionStorage.clear();
      await go(`/?branch=${encodeURIComponent(branch.id)}`);
    }),
  );
  return [make('span', { className: 'mail', title: me.email }, me.email), out];
}

function signedOut() {
  const href = `/signin?branch=${encodeURIComponent(branch.id)}`;
  return ['signin', 'signup', 'verify', 'forgot', 'reset'].includes(page) ? [] : [make('a', { href, className: 'button small' }, 'Sign in')];
}

const branchName = (id) => shop.branches.find((one) => one.id === id)?.name ?? id;
const FACTORS = { emailpassword: 'Password', 'otp-email': 'Code or link by e-mail', 'otp-phone': 'Code by SMS' };
const factorName = (id) => FACTORS[id] ?? id;

// --- Pages ---

async function home() {
  $('headline').textContent = branch.name;
  $('count').textContent = `${branch.items.length} things, all in stock`;
  $('items').replaceChildren(...branch.items.map(card));
  const at = `branch=${encodeURIComponent(branch.id)}`;
  if (!me.signedIn) {
    $('state').replaceChildren(
      make('a', { href: `/signin?${at}`, className: 'button' }, 'Sign in'),
      make('a', { href: `/signup?${at}`, className: 'button plain' }, 'Open an account'),
    );
    return;
  }
  const step = me.verified
    ? make('a', { href: '/orders', className: 'button' }, 'Your orders')
    : make('a', { href: '/code', className: 'button' }, 'Enter your code');
  const text = me.verified ? 'Signed in as ' : 'One step left for ';
  $('state').replaceChildren(make('span', {}, text, make('strong', {}, me.email)), step);
}

function card(item) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#art-${$(`art-${item.id}`) ? item.id : 'parcel'}`);
  svg.setAttribute('aria-hidden', 'true');
  svg.append(use);
  const order = make(
    'a',
    { href: `/orders?item=${encodeURIComponent(item.id)}`, className: 'button plain small' },
    'Order',
    make('span', { className: 'visually-hidden' }, ` ${item.name}`),
  );
  return make(
    'li',
    { className: 'item' },
    svg,
    make('h3', {}, item.name),
    make('p', { className: 'quiet' }, item.note),
    make('p', { className: 'price' }, money(item.price), order),
  );
}

function branchChoice(form) {
  $('branch-choice').replaceChildren(
    ...shop.branches.map((one) =>
      make(
        'label',
        {},
        make('input', { type: 'radio', name: 'branch', value: one.id, checked: one.id === branch.id }),
        make('span', {}, one.name),
      ),
    ),
  );
  form.addEventListener('change', () => (document.documentElement.dataset.branch = form.elements.branch.value));
}

async function credentials(kind) {
  const form = $('credentials');
  branchChoice(form);
  if (me.signedIn) say(`You are signed in as ${me.email} at ${branchName(me.branch)}. Signing in here replaces that.`);
  const problem = (text) => ($('form-error').textContent = text);
  const fields = [$('email'), $('password')];
  if (kind === 'signin') linkSignIn(form, linkTo, (text) => mark(fields[0], text));

  function linkTo() {
    fields.forEach((one) => mark(one));
    const email = $('email').value.trim();
    if (email !== '') return { email, tenant: form.elements.branch.value };
    mark($('email'), 'Type the address that the link goes to.');
    $('email').focus();
  }

  onSubmit(
    form,
    async () => {
      fields.forEach((one) => mark(one));
      problem('');
      const tenant = form.elements.branch.value;
      const formFields = fields.map(({ id, value }) => ({ id, value }));
      const { body } = await call(
        'POST',
        inBranch(tenant, kind),
        { formFields, shouldTryLinkingWithSessionUser: false },
        { keep: [401] },
      );
      switch (body.status) {
        case 'OK': {
          sessionStorage.clear();
          const fresh = (await call('GET', '/api/me')).body;
          return go(fresh.verified ? nextUrl() : withNext('/code', nextUrl()));
        }
        case 'FIELD_ERROR':
          for (const wrong of body.formFields) mark($(wrong.id), wrong.error);
          return fields.find((one) => one.hasAttribute('aria-invalid'))?.focus();
        case 'WRONG_CREDENTIALS_ERROR':
          return problem("E-mail and password don't go together.");
        default:
          return problem(body.reason ?? 'This branch does not let you in that way.');
      }
    },
    problem,
  );
}

async function orders() {
  let list = (await call('GET', '/api/orders')).body.orders;
  rounds.clear();
  const [item, quantity] = [$('item'), $('quantity')];
  item.replaceChildren(
    ...branch.items.map((one) =>
      make('option', { value: one.id, selected: one.id === query.get('item') }, `${one.name} · ${money(one.price)}`),
    ),
  );
  const total = () =>
    ($('total').textContent = money(
      branch.items.find((one) => one.id === item.value).price * Math.max(0, quantity.valueAsNumber || 0),
    ));
  const show = () => {
    $('none').hidden = list.length > 0;
    $('orders').replaceChildren(
      ...list.map((one) =>
        make(
          'li',
          {},
          make(
            'span',
            { className: 'grow' },
            make('strong', {}, `${one.quantity} × ${one.name}`),
            make('span', { className: 'quiet' }, when(one.at)),
          ),
          make('span', { className: 'price' }, money(one.total)),
        ),
      ),
    );
  };
  $('order').addEventListener('input', total);
  total();
  show();
  $('content').hidden = false;
  onSubmit(
    $('order'),
    async () => {
      $('order-error').textContent = '';
      const { order } = (await call('POST', '/api/orders', { item: item.value, quantity: quantity.valueAsNumber || 0 }))
        .body;
      list = [order, ...list];
      show();
      say(`Ordered: ${order.quantity} × ${order.name}. Thank you!`);
      quantity.value = '1';
      total();
    },
    (text) => ($('order-error').textContent = text),
  );
}

async function admin() {
  const { status, body } = await call('GET', '/api/admin', undefined, { keep: [403] });
  if (status === 403) {
    if (wantsCode(body)) return toCode(body);
    $('refused').hidden = false;
    return;
  }
  rounds.clear();
  const sum = (list, of) => list.reduce((total, one) => total + of(one), 0);
  $('office').textContent = branchName(body.branch);
  $('office').hidden = false;
  const figures = [
    ['Orders', String(body.orders.length)],
    ['Customers', String(new Set(body.orders.map((one) => one.email)).size)],
    ['Taken in', money(sum(body.orders, (one) => one.total))],
  ];
  $('figures').replaceChildren(
    ...figures.map(([term, value]) => make('div', {}, make('dt', {}, term), make('dd', {}, value))),
  );
  $('none').hidden = body.orders.length > 0;
  $('rows').replaceChildren(
    ...body.orders.map((one) =>
      make(
        'tr',
        {},
        make('td', {}, when(one.at)),
        make('td', {}, one.email),
        make('td', {}, one.name),
        make('td', { className: 'num' }, String(one.quantity)),
        make('td', { className: 'num' }, money(one.total)),
      ),
    ),
  );
  $('content').hidden = false;
}

async function settings() {
  const boxes = { 'otp-email': $('email-code'), 'otp-phone': $('sms-code') };
  const { body: account } = await call('GET', '/api/settings');
  rounds.clear();
  facts($('facts'), [
    ['E-mail', account.email],
    ['Branch', branchName(account.branch)],
    ['Roles', account.roles.join(', ') || 'customer'],
  ]);
  $('factors').replaceChildren(
    ...account.factors.map((one) =>
      make(
        'li',
        {},
        make(
          'span',
          { className: 'grow' },
          make('strong', {}, factorName(one.id)),
          make('span', { className: 'quiet' }, one.contact),
        ),
        one.completedAt === null
          ? make('span', { className: 'tag dim' }, 'not in this session')
          : make('span', { className: 'tag' }, 'proven ', when(one.completedAt)),
      ),
    ),
  );
  const phone = account.factors.some((one) => one.id === 'otp-phone');
  $('add-phone').hidden = !shop.phone || phone;
  $('sms-row').hidden = $('either').hidden = !phone;
  for (const [factor, { on }] of Object.entries(account.codes)) boxes[factor].checked = on;
  $('always').hidden = !account.always;
  $('content').hidden = false;

  async function turn(factor, on, mayAsk) {
    let now = !on;
    let asked = {};
    try {
      const { status, body } = await call('PUT', `/api/settings/codes/${factor}`, { on }, { keep: [403] });
      if (status === 200) {
        now = body.on;
        return say(now ? "From now on we'll ask you for a code." : turnedOff());
      }
      if (!mayAsk || !wantsCode(body)) throw new Problem('That needs a newer code.');
      asked = body;
    } finally {
      boxes[factor].checked = now;
    }
    // What the person meant stays in this tab: as part of the URL, any link could turn the code off.
    sessionStorage.setItem(MEANT, JSON.stringify({ factor, on, at: Date.now() }));
    return go(withNext(`/code${stepUp(asked)}`, '/settings'));
  }

  function turnedOff() {
    if (account.always) return 'Turned off. As an admin you are still asked.';
    const others = Object.values(boxes).some((box) => box.checked);
    return others ? 'Turned off. The other code is still asked for.' : 'Turned off. One step will do.';
  }

  for (const [factor, box] of Object.entries(boxes)) {
    box.addEventListener('change', () => busy(box, () => turn(factor, box.checked, true)));
  }
  const meant = JSON.parse(sessionStorage.getItem(MEANT) ?? 'null');
  sessionStorage.removeItem(MEANT);
  if (meant && Date.now() - meant.at < 5 * 60_000) await turn(meant.factor, meant.on, false);
}

async function dev() {
  const show = () => {
    $('nobody').hidden = me.signedIn;
    $('roles').hidden = !me.signedIn;
    if (!me.signedIn) return;
    facts($('facts'), [
      ['E-mail', me.email],
      ['Branch', branchName(me.branch)],
      ['Roles', me.roles.join(', ') || 'customer'],
      ['Sign-in', me.verified ? 'complete' : 'a code is missing'],
    ]);
    $('grant').disabled = me.roles.includes('admin');
    $('revoke').disabled = !me.roles.includes('admin');
  };
  const turn = (button, on) =>
    $(button).addEventListener('click', () =>
      busy($(button), async () => {
        await call('POST', '/dev/api/role', { on });
        me = (await call('GET', '/api/me')).body;
        show();
        const ask = me.verified ? '' : ' The office will ask for a code.';
        say(on ? `You are an admin of this branch now.${ask}` : 'You are a customer again.');
        $(on ? 'revoke' : 'grant').focus();
      }),
    );
  turn('grant', true);
  turn('revoke', false);
  show();
}

async function outbox() {
  let known;
  for (;;) {
    if (document.hidden)
      await new Promise((done) => document.addEventListener('visibilitychange', done, { once: true }));
    await attempt(async () => {
      const mails = (await call('GET', '/dev/api/outbox')).body;
      const newest = `${mails.length} ${JSON.stringify(mails[0])}`;
      if (newest === known) return;
      if (known !== undefined) say('A new message.');
      known = newest;
      $('none').hidden = mails.length > 0;
      $('mails').replaceChildren(...mails.map(mail));
    });
    $('main').setAttribute('aria-busy', 'false');
    await new Promise((done) => setTimeout(done, 3000));
  }
}

function mail({ by, to, subject, text, code, link, at }) {
  const sms = by === 'sms';
  const kind = make('span', { className: 'tag dim' }, sms ? 'SMS' : 'E-mail');
  const title = make('h2', {}, subject || 'Text message', ' ', kind);
  const head = make('header', {}, title, when(at), make('p', { className: 'quiet' }, `to ${to}`));
  const body = [];
  if (code) body.push(make('p', { className: 'digits' }, code));
  if (link) body.push(make('p', { className: 'actions' }, make('a', { className: 'button', href: link }, 'Open the link')));
  return make('li', { className: sms ? 'card sms' : 'card' }, head, ...body, make('pre', {}, text));
}

// A page brought back from the browser's memory would show who was signed in then.
addEventListener('pageshow', (event) => event.persisted && location.reload());

await attempt(async () => {
  await frame();
  await pages[page]();
});
$('main').setAttribute('aria-busy', 'false');
