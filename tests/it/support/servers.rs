//! The servers of `tests/servers`, in processes of their own: what they need is installed by whoever comes first.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// A server that ends with this, and what it told, a line of JSON each.
pub struct Server {
    pub port: u16,
    pub told: Arc<Mutex<Vec<Value>>>,
    _process: Child,
}

impl Server {
    /// Starts one, which says its port first.
    pub async fn start(script: &str, settings: &Value) -> Self {
        let mut process = Command::new("node")
            .arg(script)
            .arg(settings.to_string())
            .current_dir(installed())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the tests with servers need node");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        let port = u16::try_from(first["port"].as_u64().unwrap()).unwrap();
        let told: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&told);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { port, told, _process: process }
    }
}

fn installed() -> PathBuf {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
    let there = |name: &str| folder.join("node_modules").join(name).join("package.json").exists();
    let mut done = INSTALLED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !*done && !["smtp-server", "oidc-provider"].into_iter().all(there) {
        let npm = std::process::Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .output()
            .expect("the tests with servers need npm");
        assert!(npm.status.success(), "{}", String::from_utf8_lossy(&npm.stderr));
    }
    *done = true;
    folder
}
