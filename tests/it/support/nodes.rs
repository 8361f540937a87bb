//! Several nodes of one app on one store, by one clock.

#[cfg(feature = "sqlite")]
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
#[cfg(feature = "sqlite")]
use tower_mfa::store::SqliteStore;
use tower_mfa::{Store, config::Secrets, store::MemoryStore};

use super::{Browser, TestApp};
use crate::spy::shop;

pub const NODES: usize = 3;

async fn nodes<S: Store>(stores: [S; NODES]) -> Vec<TestApp> {
    let (secrets, mut nodes) = (Secrets::random().unwrap(), Vec::<TestApp>::new());
    for store in stores {
        let clock = nodes.first().map(|first| first.clock.clone());
        let node = TestApp::on(shop(), secrets.clone(), store, |b| match clock.clone() {
            Some(clock) => b.clock(clock),
            None => b,
        });
        nodes.push(node.await.with_clock(clock));
    }
    nodes
}

pub async fn in_memory() -> Vec<TestApp> {
    let store = MemoryStore::new();
    nodes([store.clone(), store.clone(), store]).await
}

/// On one file, which each of them opens.
#[cfg(feature = "sqlite")]
pub async fn on_sqlite(dir: &Path) -> Vec<TestApp> {
    let open = || async { SqliteStore::open(dir.join("db")).await.unwrap() };
    nodes([open().await, open().await, open().await]).await
}

/// Begins a flow where the client is; with the code, whichever node's courier sent it.
pub async fn begun(nodes: &[TestApp], client: &mut Browser, contact: &str, linking: bool) -> (Value, String) {
    let seen: Vec<usize> = nodes.iter().map(|node| node.sent_to(contact)).collect();
    let flow = client.ask_code(contact, linking).await.ok();
    for _ in 0..5000 {
        if let Some((node, seen)) =
            nodes.iter().zip(&seen).find(|(node, seen)| node.sent_to(contact) > **seen)
        {
            return (flow, node.code_after(contact, *seen).await);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("no message to {contact}");
}

/// Waits until every message was sent that these nodes queued, and counts those that arrived.
pub async fn arrived(nodes: &[&TestApp]) -> usize {
    for _ in 0..2000 {
        let mut waiting = 0;
        for node in nodes {
            let kept = node.store.dump().await;
            waiting += kept.keys().filter(|key| key.as_str().starts_with("queue/")).count();
        }
        if waiting == 0 {
            return nodes.iter().map(|node| node.outbox.messages().len()).sum();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("messages wait for ever");
}
