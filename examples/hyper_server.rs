//! Without axum: the layers around a plain `tower` service, served by hyper. `cargo run --example hyper_server`, then
//! sign up at `http://127.0.0.1:3001/auth/signup`; codes appear on standard error.

use std::{convert::Infallible, error::Error, future::Future};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};
use tower_mfa::{
    FactorId, Mfa, MfaLayer, Session,
    api::ApiLayer,
    config::{AppInfo, Secrets},
    delivery::Outbox,
    policy::ForRole,
    store::MemoryStore,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:3001").await?;
    serve(listener, Outbox::printing())?.await;
    Ok(())
}

/// Serves for ever.
pub fn serve(listener: TcpListener, outbox: Outbox) -> Result<impl Future<Output = ()>, Box<dyn Error>> {
    let shop = AppInfo::new("Shop", "http://127.0.0.1:3001", "http://127.0.0.1:3000")?;
    let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new())
        .policy(ForRole::new("admin", FactorId::OTP_EMAIL))
        .delivery(outbox)
        .build()?;
    let service = ServiceBuilder::new()
        .layer(mfa.cors())
        .layer(ApiLayer::new(mfa.clone()))
        .layer(MfaLayer::required(mfa.clone()))
        .service(service_fn(orders));
    Ok(async move {
        // A connection that breaks off is the client's doing; the next one is served.
        while let Ok((connection, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let _ = Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(connection), service)
                    .await;
            });
        }
    })
}

/// What the layer found is in the request's extensions.
async fn orders<B: Body>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match Session::from_extensions(request.extensions()) {
        Some(session) => (StatusCode::OK, format!("no orders yet, {}", session.user_id())),
        None => (StatusCode::INTERNAL_SERVER_ERROR, "the layer is missing".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}
