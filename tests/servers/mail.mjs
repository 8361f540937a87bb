// A mail server on loopback that says what it gets, a line of JSON each, or as a person reads it.
//
//   node mail.mjs                        plain text on 127.0.0.1:2525, prints messages to read
//   node mail.mjs '{"port":0,...}'       for the tests: prints JSON
//
// Settings: port; tls ("none", "starttls", "implicit"), key and cert as PEM; user and password (asked for, if given);
// refuse (a reply code for every recipient); cut (closes the connection after so many messages instead of answering,
// a number); delay (milliseconds before the answer to a message).

import { SMTPServer } from 'smtp-server';

const settings = JSON.parse(process.argv[2] ?? '{}');
const forPeople = process.argv[2] === undefined;
const say = (event) => { if (!forPeople) console.log(JSON.stringify(event)); };
let cuts = settings.cut ?? 0;

const server = new SMTPServer({
  secure: settings.tls === 'implicit',
  key: settings.key,
  cert: settings.cert,
  hideSTARTTLS: settings.tls !== 'starttls',
  authOptional: settings.user === undefined,
  disabledCommands: settings.user === undefined ? ['AUTH'] : [],
  authMethods: ['PLAIN', 'LOGIN'],
  disableReverseLookup: true,
  onConnect(session, done) {
    say({ event: 'connect' });
    done();
  },
  onAuth(auth, session, done) {
    const right = auth.username === settings.user && auth.password === settings.password;
    say({ event: 'auth', secure: session.secure, right });
    if (right) done(null, { user: auth.username });
    else done(Object.assign(new Error('wrong credentials'), { responseCode: 535 }));
  },
  onRcptTo(address, session, done) {
    say({ event: 'rcpt', to: address.address, args: address.args });
    if (settings.refuse) done(Object.assign(new Error('no such user'), { responseCode: settings.refuse }));
    else done();
  },
  onData(stream, session, done) {
    const chunks = [];
    stream.on('data', (chunk) => chunks.push(chunk));
    stream.on('end', () => {
      const text = Buffer.concat(chunks).toString('utf8');
      const { mailFrom, rcptTo } = session.envelope;
      if (forPeople) console.log(`\n${text}\n`);
      say({
        event: 'message',
        secure: session.secure,
        from: mailFrom.address,
        to: rcptTo.map((to) => to.address),
        text,
      });
      if (cuts > 0) {
        cuts -= 1;
        for (const connection of server.connections) connection._socket.destroy();
        return;
      }
      setTimeout(done, settings.delay ?? 0);
    });
  },
});

// A client that hangs up over a certificate is what some tests want to see.
server.on('error', (error) => say({ event: 'error', message: error.message }));
server.listen(settings.port ?? 2525, '127.0.0.1', () => {
  const { port } = server.server.address();
  if (forPeople) console.log(`mail server on 127.0.0.1:${port}: whatever comes in is printed here`);
  say({ event: 'listening', port });
});
// The one who started it is gone.
if (!forPeople) process.stdin.on('end', () => process.exit(0)).resume();
