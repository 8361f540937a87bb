//! Reads the change feed, folds it in, and counts what comes of that.

use std::{sync::atomic::Ordering, time::Instant};

use super::{
    claims::AccessClaims,
    feed::{Anew, Freshness, Numbered, Verdict},
    kit::Kit,
};
use crate::{
    base::{
        error::Error,
        time::{self, Timestamp},
    },
    model::change::{self, Change, ChangeKind, Cursor},
};

impl Kit {
    /// What the feed says of an opened token, and whether its silence can be relied on.
    #[inline]
    pub(crate) fn verdict(&self, claims: &AccessClaims, at: Instant, now: Timestamp) -> (Verdict, Freshness) {
        let (numbers, session) = (&claims.epochs, &claims.handle);
        let token = Numbered { numbers, user: &claims.user, tenant: &claims.tenant, session };
        self.feed.judge(&token, at, now)
    }

    /// Reads the feed, unless another caller did while this one waited.
    pub(crate) async fn read_feed(&self) -> Result<(), Error> {
        let asked = time::monotonic();
        self.ensure_clock().await?;
        let mut cursor = self.cursor.lock().await;
        if self.feed.freshness(asked, self.db.now()) == Freshness::Fresh {
            return Ok(());
        }
        self.read_news(&mut cursor).await
    }

    /// Reads the feed: what the background does once a second.
    pub(crate) async fn poll_feed(&self) -> Result<(), Error> {
        self.ensure_clock().await?;
        let mut cursor = self.cursor.lock().await;
        self.read_news(&mut cursor).await
    }

    async fn read_news(&self, cursor: &mut Cursor) -> Result<(), Error> {
        let read = self.try_read_news(cursor).await;
        let counts = &self.feed_counts;
        let counter = if read.is_ok() { &counts.reads } else { &counts.failures };
        counter.fetch_add(1, Ordering::Relaxed);
        read
    }

    async fn try_read_news(&self, cursor: &mut Cursor) -> Result<(), Error> {
        let (began, began_at) = (time::monotonic(), self.db.now());
        let heads = change::heads(&self.db).await?;
        let (restart, life) = (cursor.is_beyond(&heads), self.config.lifetimes.access_token);
        let from = if restart { Cursor::default() } else { cursor.clone() };
        let (mut anew, mut lost, mut keys) = (Anew::default(), 0, restart);
        let reached = change::read(&self.db, &from, heads, |page| {
            keys |= page.iter().any(|change| change.kind == ChangeKind::Keys);
            match restart {
                true => lost += page.iter().filter(|change| !anew.fold(change, life, began_at)).count(),
                false => self.learn(page),
            }
        })
        .await?;
        if restart {
            self.feed.take_over(anew);
            self.note_overrun(lost);
        }
        // Before the place is moved on: whoever is stopped here reads the same news again (row J08). A new
        // beginning may have lost what it said of the keys.
        if keys {
            self.load_keys().await?;
        }
        *cursor = reached;
        self.feed.was_read(began, began_at);
        Ok(())
    }

    /// Folds in what this process itself committed, at once.
    pub(crate) fn learn<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) {
        let (life, now) = (self.config.lifetimes.access_token, self.db.now());
        self.note_overrun(changes.into_iter().filter(|change| !self.feed.fold(change, life, now)).count());
    }

    /// Changes that found no room: from now on the store is asked (row K04).
    fn note_overrun(&self, lost: usize) {
        if lost > 0 {
            self.feed_counts.overruns.fetch_add(lost as u64, Ordering::Relaxed);
            #[cfg(feature = "tracing")]
            tracing::warn!(lost, "more changed than is kept in memory: the store is asked for every session");
        }
    }
}
