//! A real mail server beside the test, `tests/servers/mail.mjs`, and certificates made for the run.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use super::servers::Server;

/// A private authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Key and certificate for a host.
    pub fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (key.serialize_pem(), certificate.pem())
    }
}

/// A mail server of its own process, which ends with this.
pub struct MailServer {
    pub port: u16,
    server: Server,
}

impl MailServer {
    pub async fn start(mut settings: Value) -> Self {
        settings["port"] = json!(0);
        let server = Server::start("mail.mjs", &settings).await;
        Self { port: server.port, server }
    }

    /// A server with TLS by this authority, for `localhost` unless told otherwise.
    pub async fn with_tls(authority: &Authority, tls: &str, mut more: Value) -> Self {
        let (key, cert) = authority.issue(more["host"].as_str().unwrap_or("localhost"));
        more["tls"] = json!(tls);
        more["key"] = json!(key);
        more["cert"] = json!(cert);
        Self::start(more).await
    }

    /// What happened there, of one kind.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        self.server.told.lock().unwrap().iter().filter(|event| event["event"] == kind).cloned().collect()
    }

    /// Waits until so many of a kind have happened.
    pub async fn wait_for(&self, kind: &str, count: usize) -> Vec<Value> {
        for _ in 0..15_000 {
            let events = self.events(kind);
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{count} × {kind} didn't happen: {:?}", self.server.told.lock().unwrap());
    }
}
