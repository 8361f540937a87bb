//! Links by mail that hold a ticket.

use super::Desk;
use crate::{
    base::{
        contact::{Contact, Email},
        error::Error,
        ident::TenantId,
        secret::Secret,
    },
    delivery::Notice,
    model::{
        Tx,
        ticket::{self, Kind, Token},
        user::Owner,
    },
};

impl Desk {
    /// Stages a ticket and the mail with its link, in one batch (row V01). One for show is written alike and goes
    /// nowhere: nobody ever has its token (row O24).
    pub(super) async fn stage_ticket(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        kind: Kind,
        owner: &Owner,
        email: &Email,
        for_show: bool,
    ) -> Result<(), Error> {
        let token = ticket::issue(tx, tenant, kind, owner, email).await?;
        let (to, link) = (Contact::from(email.clone()), self.page(tenant, kind, &token));
        let valid_for = kind.lifetime();
        let notice = match kind {
            Kind::PasswordReset => Notice::PasswordReset { to, link, valid_for },
            Kind::EmailVerification | Kind::EmailChange => Notice::EmailVerification { to, link, valid_for },
        };
        self.courier.stage(tx, tenant, &notice, tx.now() + valid_for, for_show)
    }

    /// The page of the website that spends the ticket: from the configuration alone (row V08), in the form that the
    /// SDKs' pages read (`spec/wire.md` §9.1, §9.3).
    fn page(&self, tenant: &TenantId, kind: Kind, token: &Token) -> Secret<String> {
        let app = &self.kit.config.app;
        let website = app.websites.first().unwrap_or(&app.api);
        let page = match kind {
            Kind::PasswordReset => "reset-password",
            Kind::EmailVerification | Kind::EmailChange => "verify-email",
        };
        Secret::new(format!(
            "{}{}/{page}?token={}&tenantId={tenant}",
            website.as_str(),
            app.website_base_path,
            token.expose(),
        ))
    }
}
