//! Errands outside: takes what the incidents want looked at or changed, has it done once, and brings the answer back.
//!
//! The order is what keeps a kill from doing harm. An errand is marked before its first byte leaves; its answer goes into the input
//! journal under the errand's own name before the errand is settled. So after a kill there is either an answer, which is heard once,
//! or a mark without an answer, which for a change means `unknown`: nobody sends it again.
//!
//! What decides is a handful of pure functions ([`before_doing`], [`is_enough`], [`left_behind`], [`heard`]); the rest waits and spawns.

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
use crate::domain::Time;
use crate::domain::response::{Errand, Job, Receipt};
use crate::incident::Command;
use crate::respond::StepCommand;
use crate::store::Store;

/// Errands at the same time: one that hangs does not keep the others.
const AT_ONCE_MAX: usize = 8;
/// Looked for new ones at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Waits between looks back, until it is as wanted; flags and routes need a moment to spread.
const LOOK_BACK_MS: &[u64] = &[0, 300, 700, 1_500, 3_000, 6_000, 12_000];

// === decisions ===

/// What is to be done with an errand that has been marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// Nothing leaves; this is the answer.
    Answer(Receipt),
    /// Asked once, whatever comes of it.
    Once,
    /// Looked at again and again, until it is enough.
    LookBack,
}

/// `is_known`: the configuration still has the action that the step names. An approval holds as long as its plan: what was
/// approved in time and has waited since (for a daemon that was down) is no longer what somebody looked at.
pub fn before_doing(job: &Job, is_known: bool, now: Time) -> Course {
    let using = job.step.action.as_ref().map(|a| a.using.as_str()).unwrap_or_default();
    let good_until = job.step.plan.as_ref().map(|p| p.expires_at);
    match job.errand {
        _ if !is_known => Course::Answer(Receipt::Refused(format!("there is no action {using:?} in the configuration any more"))),
        Errand::Apply if let Some(until) = good_until.filter(|until| now > *until) => {
            Course::Answer(Receipt::NotSent(format!("it was not begun before {until}, until when its approval was good; plan again")))
        }
        Errand::Plan | Errand::Apply | Errand::Undo => Course::Once,
        Errand::Verify | Errand::VerifyUndo => Course::LookBack,
    }
}

/// Nobody has to look once more.
pub fn is_enough(receipt: &Receipt) -> bool {
    matches!(receipt, Receipt::Read { as_wanted: true, .. })
}

/// The answer to what was under way when the process ended; None: it only looks, and is simply due again.
pub fn left_behind(job: &Job) -> Option<Receipt> {
    (!job.errand.only_reads()).then(|| Receipt::Unknown("the process ended before the answer was written down".to_owned()))
}

/// How an answer reaches its incident: under the errand's own name, so that it is heard once, however often it is told.
pub fn heard(job: &Job, receipt: Receipt) -> (String, Command) {
    let command = Command::Step(StepCommand::Answered { step: job.step.id.clone(), errand: job.errand, receipt });
    (format!("errand/{}", job.id), command)
}

// === the worker ===

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
                    let Some(receipt) = left_behind(&job) else { continue };
                    warn!(errand = %job.id, "the last run ended before the answer to this was written down; it is not sent again");
                    self.bring_back(job, receipt).await;
                }
            }
            Ok(Err(e)) => warn!(error = %chain(&e), "errands of the last run cannot be read"),
            Err(e) => warn!(error = %e, "errands of the last run cannot be read"),
        }
    }

    async fn run_one(&self, job: Job, mut stop: watch::Receiver<bool>) {
        let using = job.step.action.as_ref().map(|a| a.using.clone()).unwrap_or_default();
        info!(errand = %job.id, using, "errand begins");
        let actor = self.actors.get(&using);
        let actor = match (before_doing(&job, actor.is_some(), now()), actor) {
            (Course::Answer(receipt), _) => return self.bring_back(job, receipt).await,
            (Course::Once, Some(actor)) => {
                let receipt = actor.run(&job, now()).await;
                return self.bring_back(job, receipt).await;
            }
            (Course::LookBack, Some(actor)) => actor,
            // Without an actor there is an answer.
            (Course::Once | Course::LookBack, None) => return,
        };
        let mut last = Receipt::NotSent("it was not looked at".to_owned());
        for wait in LOOK_BACK_MS {
            tokio::select! {
                // Whoever comes next looks again.
                () = stopped(&mut stop) => return self.put_back(job).await,
                () = tokio::time::sleep(Duration::from_millis(*wait)) => {}
            }
            last = actor.run(&job, now()).await;
            if is_enough(&last) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::StepState;
    use crate::domain::response::{Step, fixtures};

    fn job(errand: Errand) -> Job {
        let step = Step { state: StepState::Applying, plan: Some(fixtures::plan("p", Time(0))), ..fixtures::step("s") };
        Job::new(&crate::notify::fixtures::incident(), &step, errand)
    }

    #[test]
    fn what_was_approved_in_time_is_not_applied_after_it() {
        assert_eq!(before_doing(&job(Errand::Apply), true, Time(60_000)), Course::Once);
        let Course::Answer(Receipt::NotSent(words)) = before_doing(&job(Errand::Apply), true, Time(60_001)) else { panic!("it is applied") };
        assert!(words.contains("plan again"), "{words}");
        // Taking it back is never too late.
        assert_eq!(before_doing(&job(Errand::Undo), true, Time(60_001)), Course::Once);
        assert_eq!(before_doing(&job(Errand::Verify), true, Time(60_001)), Course::LookBack);
        assert!(matches!(before_doing(&job(Errand::Verify), false, Time(0)), Course::Answer(Receipt::Refused(_))));
    }

    #[test]
    fn after_a_kill_a_change_is_unknown_and_a_look_is_due_again() {
        for errand in [Errand::Plan, Errand::Apply, Errand::Verify, Errand::Undo, Errand::VerifyUndo] {
            let left = left_behind(&job(errand));
            assert_eq!(left.is_none(), errand.only_reads(), "{errand:?}");
            assert!(left.is_none_or(|r| matches!(r, Receipt::Unknown(_))), "{errand:?}");
        }
    }
}
