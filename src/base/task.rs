//! Mutations run in tasks of their own, bounded and panic-proof, so that a client's leaving changes
//! nothing (rows M12, K07; decision 21).

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::error::Error;

/// How many mutations run at once.
const LIMIT: u32 = 1024;

/// The bound, shared by every clone of the handle.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    permits: Arc<Semaphore>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(LIMIT as usize)) }
    }

    /// Runs `work` to its end, whatever becomes of the caller.
    ///
    /// # Errors
    /// `Unavailable` before any work when 1024 are under way or the crate is shutting down;
    /// `Internal` if the work panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Err(Error::unavailable("too many operations are under way"));
        };
        let task = tokio::spawn(async move {
            let _permit = permit;
            work.await
        });
        match task.await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::internal("an operation panicked")),
        }
    }

    /// Takes no new work and waits for what is under way, at most `patience`.
    pub(crate) async fn drain(&self, patience: Duration) {
        let all = tokio::time::timeout(patience, self.permits.acquire_many(LIMIT)).await;
        if let Ok(Ok(permits)) = all {
            permits.forget();
        }
        self.permits.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::base::error::ErrorKind;

    #[tokio::test]
    async fn sec_m12_work_outlives_a_dropped_caller() {
        let (tasks, done) = (Tasks::new(), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&done);
        let call = tasks.run(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            flag.store(true, Ordering::SeqCst);
            Ok(())
        });
        tokio::time::timeout(Duration::from_millis(1), call).await.unwrap_err();
        tasks.drain(Duration::from_secs(1)).await;
        assert!(done.load(Ordering::SeqCst));
        assert_eq!(tasks.run(async { Ok(()) }).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn sec_m12_the_bound_holds_for_work_whose_caller_left() {
        let (tasks, gate) = (Tasks::new(), Arc::new(Semaphore::new(0)));
        for _ in 0..LIMIT {
            let gate = Arc::clone(&gate);
            let work = tasks
                .run(async move { gate.acquire().await.map(drop).map_err(|_| Error::internal("closed")) });
            // Begun, and left alone at once.
            assert!(futures_util::FutureExt::now_or_never(work).is_none());
        }
        assert_eq!(tasks.run(async { Ok(()) }).await.unwrap_err().kind(), ErrorKind::Unavailable);
        gate.add_permits(LIMIT as usize);
        while tasks.permits.available_permits() < LIMIT as usize {
            tokio::task::yield_now().await;
        }
        tasks.run(async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn sec_m13_a_panic_stays_inside() {
        let outcome = Tasks::new().run::<()>(async { panic!("planted") }).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Internal);
    }
}
