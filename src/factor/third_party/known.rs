//! The well-known providers, one row each. Ids are those of the SDKs' buttons.

use super::{OAuth2Endpoints, Provider, ProviderClient};

impl Provider {
    /// Google, by OpenID Connect.
    pub fn google(client: ProviderClient) -> Self {
        Self::oidc("google", "Google", "https://accounts.google.com", client)
    }

    /// Apple, by OpenID Connect: see [`ProviderClient::apple`]. It sends people back by a form, so that the
    /// redirect goes to the API's `/callback/apple`.
    pub fn apple(client: ProviderClient) -> Self {
        Self::oidc("apple", "Apple", "https://appleid.apple.com", client)
            .scopes(["openid", "email", "name"])
            .parameter("response_mode", "form_post")
    }

    /// GitLab, by OpenID Connect; one's own by [`Provider::issuer`].
    pub fn gitlab(client: ProviderClient) -> Self {
        Self::oidc("gitlab", "GitLab", "https://gitlab.com", client)
    }

    /// Microsoft, by OpenID Connect, for the accounts of one directory, by its id (a UUID; `consumers` has
    /// `9188040d-6c67-4c5b-b112-36a304b66dad`). Not for `common`, where every directory is an issuer of its own. Microsoft
    /// never says that an address is verified.
    pub fn microsoft(directory: &str, client: ProviderClient) -> Self {
        let issuer = format!("https://login.microsoftonline.com/{directory}/v2.0");
        Self::oidc("active-directory", "Microsoft", issuer, client).scopes(["openid", "email", "profile"])
    }

    /// LinkedIn, by OpenID Connect.
    pub fn linkedin(client: ProviderClient) -> Self {
        Self::oidc("linkedin", "LinkedIn", "https://www.linkedin.com/oauth", client)
            .scopes(["openid", "profile", "email"])
            .secret_in_form()
    }

    /// Okta, by OpenID Connect: the issuer is `https://<domain>` or one of its authorisation servers,
    /// `https://<domain>/oauth2/default`.
    pub fn okta(issuer: impl Into<String>, client: ProviderClient) -> Self {
        Self::oidc("okta", "Okta", issuer, client)
    }

    /// GitHub, by OAuth 2.
    pub fn github(client: ProviderClient) -> Self {
        let endpoints = OAuth2Endpoints::new(
            "https://github.com/login/oauth/authorize",
            "https://github.com/login/oauth/access_token",
            "https://api.github.com/user",
        )
        .with_emails("https://api.github.com/user/emails")
        .with_s256();
        Self::oauth2("github", "GitHub", endpoints, client)
            .scopes(["read:user", "user:email"])
            .fields("/id", "/primary_email/email", Some("/primary_email/verified"))
            .secret_in_form()
    }

    /// Facebook, by OAuth 2. It never says that an address is verified.
    pub fn facebook(client: ProviderClient) -> Self {
        let endpoints = OAuth2Endpoints::new(
            "https://www.facebook.com/v23.0/dialog/oauth",
            "https://graph.facebook.com/v23.0/oauth/access_token",
            "https://graph.facebook.com/v23.0/me?fields=id,name,email",
        );
        Self::oauth2("facebook", "Facebook", endpoints, client)
            .scopes(["email"])
            .fields("/id", "/email", None)
            .secret_in_form()
    }

    /// Discord, by OAuth 2.
    pub fn discord(client: ProviderClient) -> Self {
        let endpoints = OAuth2Endpoints::new(
            "https://discord.com/oauth2/authorize",
            "https://discord.com/api/oauth2/token",
            "https://discord.com/api/users/@me",
        );
        Self::oauth2("discord", "Discord", endpoints, client)
            .scopes(["identify", "email"])
            .fields("/id", "/email", Some("/verified"))
            .secret_in_form()
    }
}

#[cfg(test)]
mod tests;
