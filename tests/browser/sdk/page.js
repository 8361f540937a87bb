// A page that has nothing but supertokens-web-js, as an application sets it up: `?api=ORIGIN&mode=cookie|header`, which
// links get besides what is in them. The test calls `sdk`. Values that can't leave the page (responses) stay here.

import SuperTokens from 'supertokens-web-js';
import EmailPassword from 'supertokens-web-js/recipe/emailpassword';
import MultiFactorAuth from 'supertokens-web-js/recipe/multifactorauth';
import Passwordless from 'supertokens-web-js/recipe/passwordless';
import Session from 'supertokens-web-js/recipe/session';

const query = new URLSearchParams(location.search);
const api = query.get('api');
const events = [];

SuperTokens.init({
  appInfo: { appName: 'Testbed', apiDomain: api, apiBasePath: '/auth' },
  recipeList: [
    Session.init({ tokenTransferMethod: query.get('mode'), onHandleEvent: ({ action }) => events.push(action) }),
    EmailPassword.init(),
    Passwordless.init(),
    MultiFactorAuth.init(),
  ],
});

const plain = ({ fetchResponse, ...rest }) => rest;
const fields = (email, password) => ({
  formFields: [
    { id: 'email', value: email },
    { id: 'password', value: password },
  ],
});

window.sdk = {
  /** The session events since they were last asked for. */
  events: () => events.splice(0),
  exists: () => Session.doesSessionExist(),
  payload: () => Session.getAccessTokenPayloadSecurely(),
  invalidClaims: () => Session.validateClaims(),
  /** Whether there is a session after it; the status of the answer that the SDK threw, if it threw one. */
  refresh: async () => {
    try {
      return await Session.attemptRefreshingSession();
    } catch (error) {
      if (error instanceof Response) return error.status;
      throw error;
    }
  },
  signOut: () => Session.signOut(),
  signUp: async (email, password) => plain(await EmailPassword.signUp(fields(email, password))),
  signIn: async (email, password) => plain(await EmailPassword.signIn(fields(email, password))),
  factors: async () => plain(await MultiFactorAuth.resyncSessionAndFetchMFAInfo()),
  /** Within a session, for a second factor, unless told otherwise. */
  createCode: async (contact, shouldTryLinkingWithSessionUser = true) => {
    const kind = contact.includes('@') ? 'email' : 'phoneNumber';
    return plain(await Passwordless.createCode({ [kind]: contact, shouldTryLinkingWithSessionUser }));
  },
  resendCode: async () => plain(await Passwordless.resendCode()),
  consumeCode: async (userInputCode) => plain(await Passwordless.consumeCode({ userInputCode })),
  /** What the page's own address holds. */
  consumeLink: async () => plain(await Passwordless.consumeCode()),
  /** A call of the application's own, by each of the two ways that the SDK intercepts. */
  call: async (path) => {
    const response = await fetch(api + path);
    return { status: response.status, body: await response.json() };
  },
  callByXhr: (path) =>
    new Promise((done, failed) => {
      const request = new XMLHttpRequest();
      request.open('GET', api + path);
      request.onload = () => done({ status: request.status, body: JSON.parse(request.responseText) });
      request.onerror = () => failed(new Error(`${path} was not answered`));
      request.send();
    }),
};
