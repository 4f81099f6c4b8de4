//! The switches that actions turn, behind the real [`Actor`], with all that can go wrong between asking and hearing.
//!
//! What an answer means is decided by the product ([`judged`]); here is only whether the deed was done, and what is said of it. A
//! switch checks what no vendor checks for us: that nobody asks it twice in one name.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bellwether::act::{Actor, Call, Provider, Sight, judged};
use bellwether::domain::Time;
use bellwether::domain::response::{Job, Plan, Receipt};
use bellwether::notify::http::{Answer, Failure};

/// What becomes of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    #[default]
    Well,
    /// The connection was never made.
    NotSent,
    /// 429.
    Busy,
    /// It goes under on its way.
    LostBefore,
    /// Done, and the answer goes under.
    LostAfter,
    /// 503, before anything was done.
    BreaksBefore,
    /// 500, after it was done.
    BreaksAfter,
}

/// What the other side is known to have said of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Done,
    /// It was not done, for sure.
    NotDone,
    /// Nothing that proves anything.
    Nothing,
}

#[derive(Default)]
pub struct Switches {
    /// Value and version, by target.
    states: BTreeMap<String, (String, u64)>,
    pub fate: Fate,
    /// A mistake: the version is not looked at.
    pub forgets_the_version: bool,
    calls: BTreeMap<String, u32>,
    /// Of the last change that was asked for.
    pub said: Option<Said>,
    pub wrong: Option<String>,
}

/// The one panel of all switches.
#[derive(Clone, Default)]
pub struct Panel(Arc<Mutex<Switches>>);

// === impl Switches ===

impl Switches {
    fn state(&self, target: &str) -> (String, u64) {
        self.states.get(target).cloned().unwrap_or_else(|| ("live".to_owned(), 1))
    }

    /// Somebody else turns it.
    pub fn turn(&mut self, target: &str, value: &str) {
        let version = self.state(target).1 + 1;
        self.states.insert(target.to_owned(), (value.to_owned(), version));
    }

    fn answer(status: u16) -> Result<Answer, Failure> {
        Ok(Answer { status, ..Answer::default() })
    }

    /// `holds`: is the world still as it was when this was decided?
    fn change(&mut self, call: &Call<'_>, holds: bool, to: &str) -> Receipt {
        let calls = self.calls.entry(call.id.to_owned()).or_default();
        *calls += 1;
        if *calls > 1 {
            self.wrong = Some(format!("{} was asked for {calls} times", call.id));
        }
        let (said, answer) = match self.fate {
            Fate::NotSent => (Said::NotDone, Err(Failure::NotSent(String::new()))),
            Fate::Busy => (Said::NotDone, Switches::answer(429)),
            Fate::LostBefore => (Said::Nothing, Err(Failure::Lost(String::new()))),
            Fate::BreaksBefore => (Said::Nothing, Switches::answer(503)),
            Fate::Well | Fate::LostAfter | Fate::BreaksAfter => {
                if !holds && self.forgets_the_version {
                    self.wrong = Some(format!("{} changed what somebody else had changed since", call.id));
                }
                let does = holds || self.forgets_the_version;
                if does {
                    self.turn(&call.action.target, to);
                }
                match self.fate {
                    Fate::LostAfter => (Said::Nothing, Err(Failure::Lost(String::new()))),
                    Fate::BreaksAfter => (Said::Nothing, Switches::answer(500)),
                    _ if does => (Said::Done, Switches::answer(200)),
                    _ => (Said::NotDone, Switches::answer(409)),
                }
            }
        };
        self.said = Some(said);
        match judged(answer) {
            Ok(_) => Receipt::Done(String::new()),
            Err(receipt) => receipt,
        }
    }
}

// === impl Panel ===

impl Panel {
    pub fn lock(&self) -> MutexGuard<'_, Switches> {
        self.0.lock().expect("a whole panel")
    }

    pub fn actor(&self, targets: Vec<String>) -> Actor {
        Actor { provider: Box::new(self.clone()), targets }
    }

    fn wanted<'a>(call: &'a Call<'_>) -> &'a str {
        call.action.set.get("mode").map_or("", String::as_str)
    }
}

#[async_trait]
impl Provider for Panel {
    async fn plan(&self, call: &Call<'_>, _now: Time) -> Result<Sight, String> {
        let panel = self.lock();
        if panel.fate != Fate::Well {
            return Err(String::new());
        }
        let ((before, version), wanted) = (panel.state(&call.action.target), Panel::wanted(call));
        let (change, is_noop) = (format!("{before} -> {wanted}"), before == wanted);
        Ok(Sight { before, version: version.to_string(), request: String::new(), change, is_noop, can_undo: true })
    }

    async fn apply(&self, call: &Call<'_>, plan: &Plan, _now: Time) -> Receipt {
        let mut panel = self.lock();
        let holds = panel.state(&call.action.target).1.to_string() == plan.version;
        panel.change(call, holds, Panel::wanted(call))
    }

    async fn read(&self, call: &Call<'_>, plan: &Plan, undone: bool, _now: Time) -> Result<(bool, String), String> {
        let panel = self.lock();
        if panel.fate != Fate::Well {
            return Err(String::new());
        }
        let expected = if undone { plan.before.as_str() } else { Panel::wanted(call) };
        let value = panel.state(&call.action.target).0;
        Ok((value == expected, value))
    }

    async fn undo(&self, call: &Call<'_>, plan: &Plan, _now: Time) -> Receipt {
        let mut panel = self.lock();
        let holds = panel.state(&call.action.target).0 == Panel::wanted(call);
        panel.change(call, holds, &plan.before)
    }
}

/// One errand, by an actor that never waits.
pub fn run(actor: &Actor, job: &Job, now: Time) -> Receipt {
    match pin!(actor.run(job, now)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(receipt) => receipt,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}
