// The same with supertokens-web-js of a time when recipes were combined, as an application set it up then: `settings` is
// `{api, mode}`. The test calls `sdk`.

import SuperTokens from 'supertokens-web-js-older';
import EmailPassword from 'supertokens-web-js-older/recipe/thirdpartyemailpassword';
import Passwordless from 'supertokens-web-js-older/recipe/thirdpartypasswordless';
import Session from 'supertokens-web-js-older/recipe/session';

const { api, mode } = window.settings;

SuperTokens.init({
  appInfo: { appName: 'Testbed', apiDomain: api, apiBasePath: '/auth' },
  recipeList: [Session.init({ tokenTransferMethod: mode }), EmailPassword.init(), Passwordless.init()],
});

const plain = ({ fetchResponse, ...rest }) => rest;
const fields = (values) => ({ formFields: Object.entries(values).map(([id, value]) => ({ id, value })) });

window.sdk = {
  exists: () => Session.doesSessionExist(),
  payload: () => Session.getAccessTokenPayloadSecurely(),
  refresh: () => Session.attemptRefreshingSession(),
  signOut: () => Session.signOut(),
  isTaken: async (email) => plain(await EmailPassword.doesEmailExist({ email })),
  hasCodes: async (email) => plain(await Passwordless.doesPasswordlessUserEmailExist({ email })),
  signUp: async (email, password) => plain(await EmailPassword.emailPasswordSignUp(fields({ email, password }))),
  signIn: async (email, password) => plain(await EmailPassword.emailPasswordSignIn(fields({ email, password }))),
  askReset: async (email) => plain(await EmailPassword.sendPasswordResetEmail(fields({ email }))),
  /** With the token in the page's own address. */
  reset: async (password) => plain(await EmailPassword.submitNewPassword(fields({ password }))),
  whereTo: (combined) => {
    const place = { thirdPartyId: 'loopback', frontendRedirectURI: `${location.origin}/auth/callback/loopback` };
    return combined === 'emailpassword'
      ? EmailPassword.getAuthorisationURLWithQueryParamsAndSetState(place)
      : Passwordless.getThirdPartyAuthorisationURLWithQueryParamsAndSetState(place);
  },
  /** With what the provider left in the page's own address. */
  comeBack: async (combined) =>
    plain(await (combined === 'emailpassword' ? EmailPassword : Passwordless).thirdPartySignInAndUp()),
  createCode: async (email) => plain(await Passwordless.createPasswordlessCode({ email })),
  resendCode: async () => plain(await Passwordless.resendPasswordlessCode()),
  consumeCode: async (userInputCode) => plain(await Passwordless.consumePasswordlessCode({ userInputCode })),
  call: async (path) => {
    const response = await fetch(api + path);
    return { status: response.status, body: await response.json() };
  },
};
