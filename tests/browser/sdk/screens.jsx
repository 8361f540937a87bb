// A page that has nothing but supertokens-auth-react's own screens, as an application sets them up, and a page behind
// them. `settings` says which recipes it has: `{api, mode, recipes, firstFactors, dynamic}`.

import { createRoot } from 'react-dom/client';
import SuperTokens, { SuperTokensWrapper } from 'supertokens-auth-react';
import EmailPassword from 'supertokens-auth-react/recipe/emailpassword';
import { EmailPasswordPreBuiltUI } from 'supertokens-auth-react/recipe/emailpassword/prebuiltui';
import EmailVerification from 'supertokens-auth-react/recipe/emailverification';
import { EmailVerificationPreBuiltUI } from 'supertokens-auth-react/recipe/emailverification/prebuiltui';
import MultiFactorAuth from 'supertokens-auth-react/recipe/multifactorauth';
import { MultiFactorAuthPreBuiltUI } from 'supertokens-auth-react/recipe/multifactorauth/prebuiltui';
import Passwordless from 'supertokens-auth-react/recipe/passwordless';
import { PasswordlessPreBuiltUI } from 'supertokens-auth-react/recipe/passwordless/prebuiltui';
import Session, { SessionAuth, useSessionContext } from 'supertokens-auth-react/recipe/session';
import ThirdParty from 'supertokens-auth-react/recipe/thirdparty';
import { ThirdPartyPreBuiltUI } from 'supertokens-auth-react/recipe/thirdparty/prebuiltui';
import { canHandleRoute, getRoutingComponent } from 'supertokens-auth-react/ui';

const { api, mode, recipes, firstFactors, dynamic } = window.settings;

// Where the tenant says what it offers, the page knows nothing of it.
const providers = dynamic ? [] : [{ id: 'loopback', name: 'Loopback' }];
const known = {
  emailpassword: [() => EmailPassword.init(), EmailPasswordPreBuiltUI],
  emailverification: [() => EmailVerification.init({ mode: 'REQUIRED' }), EmailVerificationPreBuiltUI],
  multifactorauth: [() => MultiFactorAuth.init({ firstFactors }), MultiFactorAuthPreBuiltUI],
  passwordless: [() => Passwordless.init({ contactMethod: 'EMAIL_OR_PHONE' }), PasswordlessPreBuiltUI],
  thirdparty: [() => ThirdParty.init({ signInAndUpFeature: { providers } }), ThirdPartyPreBuiltUI],
};
const used = recipes.map((id) => known[id]);
const screens = used.map(([, screen]) => screen);

SuperTokens.init({
  appInfo: {
    appName: 'Testbed',
    apiDomain: api,
    apiBasePath: '/auth',
    websiteDomain: location.origin,
    websiteBasePath: '/auth',
  },
  usesDynamicLoginMethods: dynamic === true,
  recipeList: [Session.init({ tokenTransferMethod: mode }), ...used.map(([init]) => init())],
});

/** Asks the application's own API, which wants every factor. */
async function ask() {
  const response = await fetch(`${api}/api/me`);
  document.getElementById('answer').textContent = String(response.status);
}

async function leave() {
  await Session.signOut();
  location.assign('/auth');
}

function Home() {
  const session = useSessionContext();
  if (session.loading) return null;
  return (
    <main>
      <h1>Home</h1>
      <p id="user">{session.userId}</p>
      <p>
        <button onClick={ask}>Ask</button> <output id="answer" />
      </p>
      <button onClick={leave}>Sign out</button>
    </main>
  );
}

const app = canHandleRoute(screens) ? (
  getRoutingComponent(screens)
) : (
  <SessionAuth>
    <Home />
  </SessionAuth>
);
createRoot(document.getElementById('root')).render(<SuperTokensWrapper>{app}</SuperTokensWrapper>);
