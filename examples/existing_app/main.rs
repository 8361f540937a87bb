//! The shop of `before.rs`, whose customers give a code by e-mail besides. They stay in the table where they were.
//!
//! `cargo run --features sqlite --example existing_app`, then sign in as alice, with the password `correct horse`; the
//! code is printed. It listens at `PORT` and keeps its data in the folder where it is started.

use std::env;

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router, extract::State, http::StatusCode};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tower_mfa::{account::*, api::*, config::*, delivery::*, ident::*, layer::*, policy::*, store::*, *};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let port: u16 = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let url = format!("http://127.0.0.1:{}", listener.local_addr()?.port());
    let shop = Shop::open("shop.db").await?;
    let db = SqliteStore::from_pool(shop.db.clone()).await?;
    let mfa = Mfa::builder(AppInfo::new("Shop", &url, &url)?, Secrets::file("mfa.key")?, db);
    let mfa = mfa.own_users(EmailOf::new(shop.clone(), Shop::email)).delivery(Outbox::printing());
    let mfa = mfa.policy(Everyone::new(FactorId::OTP_EMAIL)).build()?;
    let app = Router::new()
        .route("/", get(account).layer(MfaLayer::optional(mfa.clone())))
        .route("/code", get(async || Html(include_str!("code.html"))))
        .route("/login", get(async || Html(LOGIN)).post(log_in))
        .route("/logout", post(log_out))
        .with_state(shop)
        .layer((PageRedirect::to("/code")?, ApiLayer::new(mfa.clone()), axum::Extension(mfa)))
        .layer(SessionManagerLayer::new(MemoryStore::default()).with_secure(false));
    println!("open {url}/login");
    axum::serve(listener, app).await?;
    Ok(())
}

/// A page, or where else to go.
type Page = Result<Response, Failure>;

/// What only the customer sees.
async fn account(State(shop): State<Shop>, session: Session, mfa: Option<SessionExtractor>) -> Page {
    let customer = session.get::<String>("customer").await?;
    let Some(id) = customer.filter(|id| mfa.is_some_and(|mfa| mfa.user_id().as_str() == id)) else {
        return Ok(Redirect::to("/login").into_response());
    };
    let email = shop.email(id).await?.unwrap_or_default();
    Ok(Html(format!("{ACCOUNT}<p>You are signed in. We write to {email}.</p>")).into_response())
}

#[derive(serde::Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

async fn log_in(
    State(shop): State<Shop>,
    session: Session,
    (axum::Extension(mfa), parts): (axum::Extension<Mfa>, axum::http::request::Parts),
    Form(typed): Form<Credentials>,
) -> Result<Response, Failure> {
    let Some(id) = shop.check(typed).await? else {
        return Ok((StatusCode::UNAUTHORIZED, Html(format!("{LOGIN}{WRONG}"))).into_response());
    };
    session.cycle_id().await?;
    session.insert("customer", &id).await?;
    let (_, tokens) = mfa.sign_in(&parts, &id.parse()?, &TenantId::PUBLIC, FactorId::PASSWORD).await?;
    Ok((tokens, Redirect::to("/")).into_response())
}

async fn log_out(session: Session, mfa: axum::Extension<Mfa>, parts: axum::http::request::Parts) -> Page {
    let answer = (mfa.sign_out(&parts).await?, Redirect::to("/login")).into_response();
    session.flush().await?;
    Ok(answer)
}

/// The shop's data.
#[derive(Clone)]
struct Shop {
    db: SqlitePool,
}

impl Shop {
    async fn open(file: &str) -> Result<Self, Failure> {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let db = SqlitePool::connect_with(options).await?;
        let table = "CREATE TABLE IF NOT EXISTS customers \
                     (id INTEGER PRIMARY KEY, name TEXT UNIQUE, email TEXT, password TEXT)";
        sqlx::query(table).execute(&db).await?;
        let mut salt = [0; 16];
        aws_lc_rs::rand::fill(&mut salt)?;
        let password = Argon2::default().hash_password_with_salt(b"correct horse", &salt)?;
        let alice = "INSERT OR IGNORE INTO customers (name, email, password) \
                     VALUES ('alice', 'alice@shop.example', ?)";
        sqlx::query(alice).bind(password.to_string()).execute(&db).await?;
        Ok(Self { db })
    }

    /// The id of the customer whose name and password these are.
    async fn check(&self, typed: Credentials) -> Result<Option<String>, Failure> {
        let row = sqlx::query_as::<_, (i64, String)>("SELECT id, password FROM customers WHERE name = ?");
        let Some((id, hash)) = row.bind(typed.name).fetch_optional(&self.db).await? else { return Ok(None) };
        let same = move || Argon2::default().verify_password(typed.password.as_bytes(), &*hash).is_ok();
        Ok(tokio::task::spawn_blocking(same).await?.then(|| id.to_string()))
    }

    /// The address of a customer.
    async fn email(self, id: String) -> Result<Option<String>, sqlx::Error> {
        let row = sqlx::query_scalar("SELECT email FROM customers WHERE id = ?");
        row.bind(id).fetch_optional(&self.db).await
    }
}

/// Anything that went wrong: 500.
#[derive(Debug)]
struct Failure(Box<dyn std::error::Error + Send + Sync>);

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        eprintln!("{}", self.0);
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

const LOGIN: &str = r#"<!doctype html><title>Shop</title><form method="post"><p><label>Name <input name="name"></label>
<p><label>Password <input name="password" type="password"></label><p><button>Sign in</button></form>"#;
const WRONG: &str = r#"<p role="alert">Name or password is wrong."#;
const ACCOUNT: &str = r#"<!doctype html><title>Shop</title><form method="post" action="/logout"><button>Sign out</button>
</form>"#;
