//! A real mail server beside the test, `tests/servers/mail.mjs`, and certificates made for the run.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

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
    events: Arc<Mutex<Vec<Value>>>,
    _process: Child,
}

impl MailServer {
    pub async fn start(mut settings: Value) -> Self {
        let folder = installed();
        settings["port"] = json!(0);
        let mut process = Command::new("node")
            .arg("mail.mjs")
            .arg(settings.to_string())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the tests of mail need node");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        let port = u16::try_from(first["port"].as_u64().unwrap()).unwrap();
        let events: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&events);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { port, events, _process: process }
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
        self.events.lock().unwrap().iter().filter(|event| event["event"] == kind).cloned().collect()
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
        panic!("{count} × {kind} didn't happen: {:?}", self.events.lock().unwrap());
    }
}

/// The server's folder, with what it needs, installed by whoever comes first.
fn installed() -> PathBuf {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
    let mut done = INSTALLED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !*done && !folder.join("node_modules/smtp-server/package.json").exists() {
        let npm = std::process::Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .output()
            .expect("the tests of mail need npm");
        assert!(npm.status.success(), "{}", String::from_utf8_lossy(&npm.stderr));
    }
    *done = true;
    folder
}
