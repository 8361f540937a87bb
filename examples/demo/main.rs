//! A shop with two branches: a password or a link by e-mail lets everybody in, admins and who wants it give a code
//! besides, by e-mail or (feature `phone`) by SMS.
//!
//! `cargo run --features sqlite --example demo`, or `--features sqlite,phone`; then open the address it prints.
//! `PORT` and `DEMO_DB` say where it listens and where it keeps its data; see `pages/README.md` for what the pages
//! expect of it.

#![allow(unreachable_pub, reason = "the modules of one program")]

use std::{env, error::Error, future::Future, path::PathBuf, time::Duration};

use axum::{Router, middleware};
use tokio::net::TcpListener;
use tower_mfa::{
    FactorId, Mfa, MfaPolicy, PolicyContext, Requirement, Requirements,
    api::ApiLayer,
    config::{AppInfo, FlowType, Passwordless, Secrets},
    ident::TenantId,
    policy::{ForRole, PolicyError, UserOrTenant},
    store::SqliteStore,
};

mod goods;
mod mail;
mod pages;
mod sessions;
mod shop;

/// The second factors: a code by any of them will do.
#[cfg(feature = "phone")]
pub const CODES: [FactorId; 2] = [FactorId::OTP_EMAIL, FactorId::OTP_PHONE];
/// The second factor.
#[cfg(not(feature = "phone"))]
pub const CODES: [FactorId; 1] = [FactorId::OTP_EMAIL];

/// Where codes and links go to.
fn contacts() -> Passwordless {
    // Every country: nothing is ever sent, so no number can cost anything.
    #[cfg(feature = "phone")]
    return Passwordless::email_or_phone(tower_mfa::config::Countries::all());
    #[cfg(not(feature = "phone"))]
    return Passwordless::email();
}

/// How long open connections may hold up the end.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    log();
    let port: u16 = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let port = listener.local_addr()?.port();
    let (here, also_here) = (format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}"));

    let data = PathBuf::from(env::var_os("DEMO_DB").unwrap_or_else(|| "demo.db".into()));
    let mut keys = data.clone().into_os_string();
    keys.push(".key");
    let mailbox = mail::Mailbox::new("Harbour Store");
    let app = AppInfo::new("Harbour Store", &here, &here)?.also_website(&also_here)?;
    let mfa = Mfa::builder(app, Secrets::file(keys)?, SqliteStore::open(&data).await?)
        .policy(ShopPolicy::new())
        // Both forms exist; that a sign-in is begun by a link and not by a code is said by the next line.
        .passwordless(contacts().flow(FlowType::UserInputCodeAndMagicLink))
        .first_factors([FactorId::PASSWORD, FactorId::LINK_EMAIL])
        .delivery(mailbox.clone())
        // People who try a demo sign in and out quickly. Budgets of wrong codes stay as they are.
        .insecure_without_quotas()
        .build()?;
    for branch in &goods::BRANCHES {
        mfa.tenants().create(&TenantId::parse(branch.id)?, None).await?;
    }

    let router = Router::new()
        .merge(pages::router())
        .merge(shop::router(&mfa, mailbox))
        .merge(sessions::router(&mfa))
        .layer(ApiLayer::new(mfa.clone()))
        .layer(middleware::from_fn_with_state(port, pages::guard));

    eprintln!(
        "A shop to try tower-mfa in. It answers on this machine only; its data is in {}.",
        data.display()
    );
    eprintln!("  1. Open an account: {here}/signup (any address will do, nothing is sent).");
    eprintln!("     Or have a link sent instead, {here}/signin, and open it in {here}/dev/outbox");
    eprintln!("  2. Make yourself an admin: {here}/dev");
    eprintln!("  3. Open the office, {here}/admin: it wants a code, which is in {here}/dev/outbox");
    println!("{here}");

    let (tell, told) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        end_asked().await;
        let _ = tell.send(());
    });
    // Somebody who sends or reads slowly can't hold up the end for ever.
    let long_after = async {
        let _ = told.await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        served = server.into_future() => served?,
        () = long_after => {}
    }
    mfa.shutdown().await;
    Ok(())
}

/// Admins need a code; everybody else needs what they, or their branch, asked for.
struct ShopPolicy {
    admins: ForRole,
    others: UserOrTenant,
}

impl ShopPolicy {
    fn new() -> Self {
        Self { admins: ForRole::new("admin", Requirement::one_of(CODES)), others: UserOrTenant::new() }
    }
}

impl MfaPolicy for ShopPolicy {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let office = self.admins.requirements(ctx).await?;
        if !office.items().is_empty() {
            return Ok(office);
        }
        self.others.requirements(ctx).await
    }
}

fn log() {
    let level = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).init();
}

/// Ends when the process is asked to: by Ctrl-C, or by SIGTERM.
fn end_asked() -> impl Future<Output = ()> {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    async {
        tokio::select! {
            () = interrupted => {}
            () = terminated => {}
        }
    }
}
