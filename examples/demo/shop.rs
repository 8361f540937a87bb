//! The shop's own API: plain handlers. What they demand of a session is said in one place, [`router`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tower_mfa::{
    ClaimValidator as _, Clock as _, FactorId, Mfa, MfaLayer, Requirements, Session, SessionExtractor,
    account::{LoginKind, User},
    claim::{FactorsMet, Includes, InvalidClaim, MfaClaim, Roles},
    ident::{ErrorKind, SystemClock, TenantId, Timestamp, UserId},
};

use crate::{
    CODES,
    goods::{self, BRANCHES},
    mail::Mailbox,
};

/// How fresh a code must be for turning codes off.
const FRESH: Duration = Duration::from_secs(300);
/// Orders are kept in memory, and not for ever.
const MOST_ORDERS: usize = 10_000;

#[derive(Clone)]
struct Shop {
    mfa: Mfa,
    mailbox: Mailbox,
    orders: Arc<Mutex<Vec<Order>>>,
}

/// A router for each demand, since a layer inside another can ask for more, never for less. `route_layer`
/// leaves out paths that don't exist: `layer` would answer 401 there, and not 404.
pub fn router(mfa: &Mfa, mailbox: Mailbox) -> Router {
    let everybody = Router::new().route("/api/shop", get(shop)).route("/dev/api/outbox", get(outbox));
    let anybody =
        Router::new().route("/api/me", get(me)).route_layer(MfaLayer::optional(mfa.clone()).without_mfa());
    let half = Router::new()
        .route("/dev/api/role", post(turn_role))
        .route_layer(MfaLayer::required(mfa.clone()).without_mfa());
    let members = Router::new()
        .route("/api/orders", get(orders).post(order))
        .route("/api/settings", get(settings))
        .route("/api/settings/codes/{factor}", put(turn_code))
        .route_layer(MfaLayer::required(mfa.clone()));
    let admins = Router::new()
        .route("/api/admin", get(admin))
        .route_layer(MfaLayer::required(mfa.clone()).validate(Includes::new(Roles, "admin")));
    let state = Shop { mfa: mfa.clone(), mailbox, orders: Arc::default() };
    everybody.merge(anybody).merge(half).merge(members).merge(admins).with_state(state)
}

#[derive(Clone)]
struct Order {
    number: usize,
    user: UserId,
    email: String,
    branch: TenantId,
    item: &'static goods::Item,
    quantity: u64,
    at: Timestamp,
}

impl Order {
    fn json(&self) -> Value {
        json!({
            "id": format!("{:05}", self.number),
            "item": self.item.id,
            "name": self.item.name,
            "quantity": self.quantity,
            "total": self.item.price * self.quantity,
            "at": self.at.as_secs(),
        })
    }
}

async fn shop() -> Json<Value> {
    Json(json!({ "branches": BRANCHES, "phone": CODES.contains(&FactorId::OTP_PHONE) }))
}

async fn me(State(shop): State<Shop>, session: Option<SessionExtractor>) -> Result<Json<Value>, Failure> {
    let Some(session) = session else { return Ok(Json(json!({ "signedIn": false }))) };
    let email = email(&shop.person(&session).await?, &session);
    let branch = session.tenant_id();
    let roles = shop.mfa.roles().of(&session.user_id(), &branch).await?;
    let verified = MfaClaim::from_payload(&session.payload()).is_some_and(|claim| claim.v);
    Ok(Json(json!({
        "signedIn": true,
        "email": email,
        "branch": branch.as_str(),
        "roles": roles.iter().map(|role| role.as_str()).collect::<Vec<_>>(),
        "verified": verified,
    })))
}

async fn orders(State(shop): State<Shop>, session: SessionExtractor) -> Json<Value> {
    let (user, branch) = (session.user_id(), session.tenant_id());
    let orders = shop.orders();
    let mine = orders.iter().rev().filter(|order| order.user == user && order.branch == branch);
    Json(json!({ "orders": mine.map(Order::json).collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
struct Wish {
    item: String,
    quantity: u64,
}

async fn order(
    State(shop): State<Shop>,
    session: SessionExtractor,
    body: Result<Json<Wish>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let Json(wish) = body?;
    let branch = session.tenant_id();
    let item =
        goods::find(&branch, &wish.item).ok_or(Failure::Wrong("This branch doesn't have that item."))?;
    if !(1..=99).contains(&wish.quantity) {
        return Err(Failure::Wrong("We send between 1 and 99 of a kind."));
    }
    let email = email(&shop.person(&session).await?, &session);
    let mut orders = shop.orders();
    if orders.len() >= MOST_ORDERS {
        orders.remove(0);
    }
    let order = Order {
        number: orders.last().map_or(1, |last| last.number + 1),
        user: session.user_id(),
        email,
        branch,
        item,
        quantity: wish.quantity,
        at: SystemClock::new().now(),
    };
    let answer = json!({ "order": order.json() });
    orders.push(order);
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn admin(State(shop): State<Shop>, session: SessionExtractor) -> Json<Value> {
    let branch = session.tenant_id();
    let orders = shop.orders();
    let all = orders.iter().rev().filter(|order| order.branch == branch).map(|order| {
        let mut shown = order.json();
        shown["email"] = json!(order.email);
        shown
    });
    Json(json!({ "branch": branch.as_str(), "orders": all.collect::<Vec<_>>() }))
}

async fn settings(State(shop): State<Shop>, session: SessionExtractor) -> Result<Json<Value>, Failure> {
    let (user, branch) = (shop.person(&session).await?, session.tenant_id());
    let roles = shop.mfa.roles().of(&user.id, &branch).await?;
    let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let chosen = shop.mfa.factors().required_for(&user.id).await?;
    let completed = session.completed_factors();
    let factors = user.logins.iter().filter_map(|login| {
        let (ids, contact) = match (&login.kind, &login.email, &login.phone) {
            (LoginKind::EmailPassword, Some(email), _) => (vec![FactorId::PASSWORD], email.to_string()),
            (_, Some(email), _) => (vec![FactorId::OTP_EMAIL, FactorId::LINK_EMAIL], email.to_string()),
            // Enough to recognise it by, whoever looks over a shoulder.
            (_, _, Some(phone)) => (vec![FactorId::OTP_PHONE], phone.masked()),
            _ => return None,
        };
        let at = ids.iter().filter_map(|id| completed.at(id)).max().map(Timestamp::as_secs);
        Some(json!({ "id": ids.first(), "contact": contact, "completedAt": at }))
    });
    let codes = CODES.map(|factor| {
        let choice = json!({ "on": chosen.contains(&factor) });
        (factor.to_string(), choice)
    });
    Ok(Json(json!({
        "email": email(&user, &session),
        "branch": branch.as_str(),
        "roles": roles,
        "factors": factors.collect::<Vec<_>>(),
        "codes": Map::from_iter(codes),
        "always": roles.contains(&"admin"),
    })))
}

#[derive(Deserialize)]
struct Turn {
    on: bool,
}

async fn turn_code(
    State(shop): State<Shop>,
    Path(factor): Path<String>,
    session: SessionExtractor,
    body: Result<Json<Turn>, JsonRejection>,
) -> Result<Json<Value>, Failure> {
    let Json(Turn { on }) = body?;
    let factor = CODES.into_iter().find(|known| known.as_str() == factor).ok_or(Failure::NoCode)?;
    let (user, factors) = (session.user_id(), shop.mfa.factors());
    if on {
        factors.opt_in(&user, factor).await?;
    } else if factors.required_for(&user).await?.contains(&factor) {
        // One direction of the switch only, so a check in the handler; for a whole route it would be
        // `RequireFactors::one_of([factor]).max_age(FRESH)`.
        let fresh = FactorsMet::new(Requirements::from(factor.clone()).max_age(FRESH));
        fresh.validate(&session.payload(), SystemClock::new().now()).map_err(Failure::Claim)?;
        factors.opt_out(&user, factor).await?;
    }
    Ok(Json(json!({ "on": on })))
}

/// For trying things out: no real shop lets people make themselves admins.
async fn turn_role(
    State(shop): State<Shop>,
    session: SessionExtractor,
    body: Result<Json<Turn>, JsonRejection>,
) -> Result<Json<Value>, Failure> {
    let Json(Turn { on }) = body?;
    let (user, branch, roles) = (session.user_id(), session.tenant_id(), shop.mfa.roles());
    match on {
        true => roles.grant(&user, &branch, "admin").await?,
        false => roles.revoke(&user, &branch, "admin").await?,
    }
    let held = roles.of(&user, &branch).await?;
    Ok(Json(json!({ "roles": held.iter().map(|role| role.as_str()).collect::<Vec<_>>() })))
}

async fn outbox(State(shop): State<Shop>) -> Json<Value> {
    Json(json!(shop.mailbox.newest()))
}

impl Shop {
    async fn person(&self, session: &Session) -> Result<User, Failure> {
        self.mfa.users().load(&session.user_id()).await?.ok_or(Failure::Gone)
    }

    fn orders(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address of the login that made the session.
fn email(user: &User, session: &Session) -> String {
    let email = user.login(&session.login_id()).and_then(|login| login.email.as_ref());
    email.map(|email| email.as_str().to_owned()).unwrap_or_default()
}

/// Why a handler doesn't do what it was asked for, in the words of the pages' contract.
pub enum Failure {
    Wrong(&'static str),
    NoCode,
    Gone,
    Claim(InvalidClaim),
    Crate(tower_mfa::Error),
}

impl From<tower_mfa::Error> for Failure {
    fn from(error: tower_mfa::Error) -> Self {
        Self::Crate(error)
    }
}

impl From<JsonRejection> for Failure {
    fn from(_: JsonRejection) -> Self {
        Self::Wrong("The shop didn't understand that.")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let plain =
            |status: StatusCode, message: &str| (status, Json(json!({ "message": message }))).into_response();
        match self {
            Self::Wrong(message) => plain(StatusCode::BAD_REQUEST, message),
            Self::NoCode => plain(StatusCode::NOT_FOUND, "The shop sends no codes that way."),
            Self::Gone => plain(StatusCode::UNAUTHORIZED, "unauthorised"),
            Self::Claim(InvalidClaim { id, reason, .. }) => {
                let errors = json!([{ "id": id, "reason": reason }]);
                let body = json!({ "message": "invalid claim", "claimValidationErrors": errors });
                (StatusCode::FORBIDDEN, Json(body)).into_response()
            }
            Self::Crate(error) => match error.kind() {
                ErrorKind::SessionEnded => plain(StatusCode::UNAUTHORIZED, "unauthorised"),
                ErrorKind::StaleToken => plain(StatusCode::UNAUTHORIZED, "try refresh token"),
                ErrorKind::Unavailable => {
                    let body = plain(StatusCode::SERVICE_UNAVAILABLE, "the shop can't answer just now");
                    ([(header::RETRY_AFTER, "1")], body).into_response()
                }
                _ => {
                    eprintln!("a request failed: {error}");
                    plain(StatusCode::INTERNAL_SERVER_ERROR, "something broke")
                }
            },
        }
    }
}
