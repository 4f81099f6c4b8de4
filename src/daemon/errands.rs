//! Errands outside: takes what the incidents want looked at or changed, has it done once, and brings the answer back.
//!
//! The order is what keeps a kill from doing harm. An errand is marked before its first byte leaves; its answer goes into the input
//! journal under the errand's own name before the errand is settled. So after a kill there is either an answer, which is heard once,
//! or a mark without an answer, which for a change means `unknown`: nobody sends it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tracing::{info, warn};

use super::keeper::{Ask, Status, chain};
use super::now;
use crate::act::Actor;
use crate::domain::response::{Errand, Job, Receipt};
use crate::store::Store;

/// Errands at the same time: one that hangs does not keep the others.
const AT_ONCE_MAX: usize = 8;
/// Looked for new ones at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Waits between looks back, until it is as wanted; flags and routes need a moment to spread.
const LOOK_BACK_MS: &[u64] = &[0, 300, 700, 1_500, 3_000, 6_000, 12_000];

pub struct Errands {
    pub store: Store,
    pub asks: Sender<Ask>,
    pub status: Arc<Status>,
    pub actors: Arc<BTreeMap<String, Actor>>,
    pub wake: Arc<Notify>,
    /// The first of this process: what was under way when the last one ended has nobody who could still bring an answer.
    pub is_first: bool,
}

impl Errands {
    /// Works until it is told to stop. What is under way then ends within its own time limit.
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let room = Arc::new(Semaphore::new(AT_ONCE_MAX));
        // Before that, an answer could reach an incident that is not there yet.
        while !self.status.is_caught_up.load(Ordering::Relaxed) {
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
        if self.is_first {
            self.look_over().await;
        }
        while !*shutdown.borrow() {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let store = self.store.clone();
            let claimed = tokio::task::spawn_blocking(move || store.claim_job(now())).await;
            match claimed {
                Ok(Ok(Some(job))) => {
                    let this = Arc::clone(&self);
                    let stop = shutdown.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        this.run_one(job, stop).await;
                    });
                    continue;
                }
                Ok(Ok(None)) => {}
                Ok(Err(e)) => warn!(error = %chain(&e), "errands cannot be taken"),
                Err(e) => warn!(error = %e, "errands cannot be taken"),
            }
            drop(place);
            tokio::select! {
                () = stopped(&mut shutdown) => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        // Whoever is under way may bring his answer back.
        let _ = room.acquire_many(AT_ONCE_MAX as u32).await;
    }

    async fn look_over(&self) {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || store.jobs_after_restart()).await {
            Ok(Ok(left)) => {
                for job in left {
                    warn!(errand = %job.id, "the last run ended before the answer to this was written down; it is not sent again");
                    let words = "the process ended before the answer was written down".to_owned();
                    self.bring_back(job, Receipt::Unknown(words)).await;
                }
            }
            Ok(Err(e)) => warn!(error = %chain(&e), "errands of the last run cannot be read"),
            Err(e) => warn!(error = %e, "errands of the last run cannot be read"),
        }
    }

    async fn run_one(&self, job: Job, mut stop: watch::Receiver<bool>) {
        let using = job.step.action.as_ref().map(|a| a.using.clone()).unwrap_or_default();
        info!(errand = %job.id, using, "errand begins");
        let Some(actor) = self.actors.get(&using) else {
            let words = format!("there is no action {using:?} in the configuration any more");
            return self.bring_back(job, Receipt::Refused(words)).await;
        };
        if job.errand == Errand::Plan || !job.errand.only_reads() {
            let receipt = actor.run(&job, now()).await;
            return self.bring_back(job, receipt).await;
        }
        let mut last = Receipt::NotSent("it was not looked at".to_owned());
        for wait in LOOK_BACK_MS {
            tokio::select! {
                // Whoever comes next looks again.
                () = stopped(&mut stop) => return self.put_back(job).await,
                () = tokio::time::sleep(Duration::from_millis(*wait)) => {}
            }
            last = actor.run(&job, now()).await;
            if matches!(last, Receipt::Read { as_wanted: true, .. }) {
                break;
            }
        }
        self.bring_back(job, last).await;
    }

    async fn put_back(&self, job: Job) {
        let store = self.store.clone();
        let put = tokio::task::spawn_blocking(move || store.put_back_job(&job.id, now())).await;
        if let Ok(Err(e)) = put {
            warn!(error = %chain(&e), "an errand cannot be given back");
        }
    }

    async fn bring_back(&self, job: Job, receipt: Receipt) {
        let detail = format!("{}: {}", receipt.as_str(), receipt.words());
        info!(errand = %job.id, detail, "errand answered");
        let (to, heard) = oneshot::channel();
        let asked = self.asks.send(Ask::Answered { job: Box::new(job.clone()), receipt, to }).is_ok();
        if !asked || heard.await.is_err() {
            return warn!(errand = %job.id, "the engine does not run; the answer is lost, and the errand counts as unknown");
        }
        let store = self.store.clone();
        let settled = tokio::task::spawn_blocking(move || store.settle_job(&job, &detail, now())).await;
        if let Ok(Err(e)) = settled {
            warn!(error = %chain(&e), "an errand cannot be settled");
        }
    }
}

/// Returns when it is told to stop, or nobody is left to tell it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await;
}
