//! A server for programs: browser tests, client SDKs' suites, load generators, attack scripts. It uses the
//! crate's public API alone and is set up by environment variables; see `settings.rs` for them, and
//! `hooks.rs` for what `TEST_HOOKS=1` adds. It is no pattern for a server that people use: with a store
//! that is a file its root secret is derived from the file's name.
//!
//! ```sh
//! PORT=3001 STORE=sqlite:/tmp/testbed.db TEST_HOOKS=1 cargo run --features full --example testbed
//! ```

#![allow(unreachable_pub, reason = "the modules of one program")]

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

use self::{
    app::{App, Failed},
    settings::{Settings, Wrong},
};

mod app;
mod hooks;
mod settings;
mod watched;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    // `FAILPOINTS`, in builds that have them.
    #[cfg(feature = "test-hooks")]
    let _failpoints = fail::FailScenario::setup();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "testbed: {error}");
            if error.is::<Wrong>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

async fn serve() -> Result<(), Failed> {
    let mut settings = Settings::from_env(std::env::var_os::<&str>)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port))
        .await
        .map_err(|error| Wrong::new("PORT", format!("{} can't be listened on: {error}", settings.port)))?;
    let address = listener.local_addr()?;
    // Port 0 means: any that is free.
    settings.port = address.port();

    let App { mfa, router } = App::start(settings).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stdout = io::stdout();
    writeln!(stdout, "http://{address}")?;
    stdout.flush()?;

    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await?;
    mfa.shutdown().await;
    Ok(())
}
