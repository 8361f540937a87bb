// Where the person is signed in: one line a session, ended one by one, all others, or all.

import { call, go, Problem, rounds, stepUp, withNext } from '/http.js';
import { $, busy, make, say, when } from '/ui.js';

const MEANT = 'meant-end';
const SVG = 'http://www.w3.org/2000/svg';
const SHAPES = {
  screen: 'M5 6h30v20H5zM15 34h10M20 26v8',
  phone: 'M12 4h16v32H12zM18 31h4',
};

export async function sessions({ branchName }) {
  let rows = (await call('GET', '/api/sessions')).body.sessions;
  rounds.clear();
  show();
  $('content').hidden = false;
  $('others').addEventListener('click', () => busy($('others'), () => end('others')));
  $('all').addEventListener('click', () => busy($('all'), () => end('all')));
  const meant = JSON.parse(sessionStorage.getItem(MEANT) ?? 'null');
  sessionStorage.removeItem(MEANT);
  if (meant && Date.now() - meant.at < 5 * 60_000) await end(meant.what, false);

  function show() {
    $('others').hidden = rows.length < 2;
    $('sessions').replaceChildren(...rows.map(line));
  }

  function line(one) {
    const { name, phone } = device(one.device);
    const out = make('button', { type: 'button', className: 'button plain small' }, 'Sign out');
    out.append(make('span', { className: 'visually-hidden' }, ` ${name}${one.here ? ', this browser' : ''}`));
    out.addEventListener('click', () => busy(out, () => end(one.id)));
    const tags = [];
    if (one.here) tags.push(make('span', { className: 'tag' }, 'this browser'));
    return make(
      'li',
      { id: `session-${one.id}` },
      picture(phone ? 'phone' : 'screen'),
      make(
        'span',
        { className: 'grow' },
        make('span', { className: 'name', title: one.device ?? '' }, make('strong', {}, name), ...tags),
        make('span', { className: 'quiet' }, `${branchName(one.branch)} · signed in `, when(one.createdAt)),
        make('span', { className: 'quiet' }, 'last used ', when(one.usedAt)),
      ),
      out,
    );
  }

  /** `what` is a session's id, `others` or `all`. */
  async function end(what, mayAsk = true) {
    const many = what === 'others' || what === 'all';
    const path = many ? '/api/sessions' : `/api/sessions/${what}`;
    const { status, body } = await call('DELETE', path, many ? { here: what === 'all' } : undefined, { keep: [403] });
    if (status === 403) return prove(body, what, mayAsk);
    const gone = rows.find((one) => one.id === what);
    if (what === 'all' || gone?.here) return go('/signin');
    const at = rows.indexOf(gone);
    rows = what === 'others' ? rows.filter((one) => one.here) : rows.filter((one) => one.id !== what);
    show();
    say(many ? 'Signed out everywhere else.' : `Signed out: ${device(gone?.device).name}.`);
    // The line is gone, and the button with it: on to the next one.
    const next = $('sessions').children[Math.min(Math.max(at, 0), rows.length - 1)];
    (next?.querySelector('button') ?? $('heading')).focus();
  }

  /** Not everybody who sits at an open browser may put its owner out. */
  function prove(body, what, mayAsk) {
    const wanted = stepUp(body);
    if (wanted === '') {
      $('again').hidden = false;
      return $('again').querySelector('a').focus();
    }
    if (!mayAsk) throw new Problem('That needs a newer code.');
    sessionStorage.setItem(MEANT, JSON.stringify({ what, at: Date.now() }));
    return go(withNext(`/code${wanted}`, '/sessions'));
  }
}

function picture(shape) {
  const svg = document.createElementNS(SVG, 'svg');
  const path = document.createElementNS(SVG, 'path');
  for (const [name, value] of [['viewBox', '0 0 40 40'], ['width', '40'], ['height', '40'], ['aria-hidden', 'true']]) {
    svg.setAttribute(name, value);
  }
  svg.classList.add('device');
  path.setAttribute('class', 'l');
  path.setAttribute('d', SHAPES[shape]);
  svg.append(path);
  return svg;
}

const BROWSERS = [
  [/Edg/, 'Edge'],
  [/OPR|Opera/, 'Opera'],
  [/Firefox|FxiOS/, 'Firefox'],
  [/Chrom|CriOS/, 'Chrome'],
  [/Safari/, 'Safari'],
];
const SYSTEMS = [
  [/iPhone|iPad/, 'iOS'],
  [/Android/, 'Android'],
  [/Windows/, 'Windows'],
  [/Mac OS X/, 'macOS'],
  [/Linux/, 'Linux'],
];

/** What a browser calls itself, as people would say it. */
function device(agent) {
  const named = (list) => list.find(([pattern]) => pattern.test(agent ?? ''))?.[1];
  const [browser, system] = [named(BROWSERS), named(SYSTEMS)];
  const name = [browser, system].filter(Boolean).join(' on ') || agent?.slice(0, 40) || 'Unknown device';
  return { name, phone: system === 'iOS' || system === 'Android' };
}
