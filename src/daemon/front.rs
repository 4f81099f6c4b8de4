//! What the pages and the API ask, answered by the store and the keeper.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::oneshot;

use super::keeper::{Ask, Status, WRITTEN_DOWN, chain, lock};
use super::{Reloader, now};
use crate::act::{Actor, Told};
use crate::domain::Hold;
use crate::domain::incident::Incident;
use crate::engine::Control;
use crate::engine::view::{BaselineView, EngineView, ModelView, SeriesPage, SeriesView};
use crate::incident::Command;
use crate::notify::pagerduty;
use crate::respond::StepCommand;
use crate::serve::{
    ActionResult, Audited, Backend, BaselineCommand, ClockRow, CommandError, DeliveryRow, FaultButton, HealthView, HearError, Holder, IncidentFilter,
    IncidentPage, NewHold, OutboxRow, PersonCommand, Readiness,
};
use crate::settings::{self, Settings};
use crate::store::{AuditEntry, Filter, Store};
use crate::telemetry::Metrics;

/// The keeper has hung if it has not turned for so long, milliseconds.
const TURN_MS_MAX: i64 = 30_000;

/// Faults that can be switched by hand: the demo's.
pub trait Faults: Send + Sync {
    fn list(&self) -> Vec<FaultButton>;
    fn switch(&self, name: &str, on: bool) -> Result<(), String>;
}

pub struct Front {
    pub store: Store,
    pub asks: Mutex<Sender<Ask>>,
    pub status: Arc<Status>,
    pub metrics: Arc<Metrics>,
    pub settings: Arc<ArcSwap<Settings>>,
    pub reloader: Reloader,
    pub faults: Option<Arc<dyn Faults>>,
    /// Those of the configuration in force.
    pub actors: Arc<ArcSwap<BTreeMap<String, Actor>>>,
}

impl Front {
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, CommandError> {
        let (to, answer) = oneshot::channel();
        let gone = || CommandError::Unavailable("the engine is not running".to_owned());
        lock(&self.asks).send(make(to)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    async fn read<T: Send + 'static>(&self, what: impl FnOnce(&Store) -> Result<T, crate::store::Error> + Send + 'static) -> Result<T, CommandError> {
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || what(&store)).await;
        let read = read.map_err(|e| CommandError::Unavailable(format!("reading broke off: {e}")))?;
        read.map_err(|e| CommandError::Unavailable(chain(&e)))
    }
}

#[async_trait]
impl Backend for Front {
    async fn incidents(&self, filter: IncidentFilter) -> Result<(Vec<Incident>, Option<String>), CommandError> {
        let word = |e: crate::domain::words::UnknownWord| CommandError::Refused(e.to_string());
        let filter = Filter {
            environment: None,
            model: filter.model,
            category: filter.category.map(|c| c.parse()).transpose().map_err(word)?,
            state: filter.state.map(|s| s.parse()).transpose().map_err(word)?,
            live: filter.live.then_some(true),
            limit: filter.limit,
            cursor: filter.cursor,
        };
        self.read(move |s| s.incidents(&filter)).await
    }

    async fn incident(&self, id: &str) -> Result<IncidentPage, CommandError> {
        let wanted = id.to_owned();
        let page = self
            .read(move |s| {
                let Some(incident) = s.incident(&wanted)? else { return Ok(None) };
                let deliveries = (s.deliveries_of(&wanted)?.into_iter())
                    .map(|d| DeliveryRow {
                        detail: d.delivery.told(&d.detail),
                        id: d.delivery.id,
                        receiver: d.delivery.receiver,
                        notice: d.delivery.message.notice.as_str().to_owned(),
                        state: d.state.as_str().to_owned(),
                        attempts: d.attempts,
                        created_at: d.created_at,
                        last_attempt_at: d.last_attempt_at,
                    })
                    .collect();
                Ok(Some(IncidentPage { clocks: ClockRow::of(&incident, now()), incident, timeline: s.timeline(&wanted)?, deliveries }))
            })
            .await?;
        page.ok_or_else(|| CommandError::NotFound(id.to_owned()))
    }

    async fn command(&self, id: &str, command: PersonCommand, revision: Option<u64>, key: Option<String>) -> Result<Incident, CommandError> {
        let command = match command {
            PersonCommand::Acknowledge { by, why } => Command::Acknowledge { by, why },
            PersonCommand::Mitigate { by, why } => Command::Mitigate { by, why },
            PersonCommand::Resolve { by, closed_as, why } => Command::Resolve { by, closed_as, why },
            PersonCommand::Reopen { by, why } => Command::Reopen { by, why },
            PersonCommand::Note { by, text } => Command::Note { by, text },
            PersonCommand::Plan { by, step } => Command::Step(StepCommand::Plan { by, step }),
            PersonCommand::Approve { by, role, step, plan } => Command::Step(StepCommand::Approve { by, role, step, plan }),
            PersonCommand::Undo { by, role, step } => Command::Step(StepCommand::Undo { by, role, step }),
            PersonCommand::Done { by, step, why } => Command::Step(StepCommand::Settle { by, step, why }),
            PersonCommand::Duty(duty) => Command::Duty(duty),
            PersonCommand::SetSeverity { by, severity, why } => Command::SetSeverity { by, severity, why },
            PersonCommand::Merge { into, by, why } => Command::Merge { into, by, why },
            PersonCommand::Split { by, why } => Command::Split { by, why },
            PersonCommand::Suppress { by, why, until } => Command::Suppress { by, why, until: Some(until) },
        };
        let incident = id.to_owned();
        self.ask(|to| Ask::Act { incident, command, revision, key, to }).await?
    }

    async fn hear(&self, receiver: &str, signature: &str, body: &[u8]) -> Result<String, HearError> {
        let settings = self.settings.load_full();
        let table = settings.receivers.get(receiver).filter(|r| r.kind == pagerduty::KIND.name).map(|r| &r.table);
        let secret = table.and_then(pagerduty::webhook_secret).ok_or(HearError::Unsigned)?;
        if !pagerduty::is_signed(body, signature, &secret) {
            return Err(HearError::Unsigned);
        }
        let Some(heard) = pagerduty::hear(body, &settings.instance) else { return Ok("nothing for us".to_owned()) };
        let (command, done) = match heard.what {
            pagerduty::Word::Acknowledged => (Command::Acknowledge { by: heard.by, why: "acknowledged in PagerDuty".to_owned() }, "acknowledged"),
            pagerduty::Word::Resolved => {
                let text = "resolved in PagerDuty; here it ends when the series are back or somebody resolves it here".to_owned();
                (Command::Note { by: heard.by, text }, "noted")
            }
        };
        // Like any person's act: in the input journal before it is answered, once for each event of theirs.
        let (incident, key) = (heard.incident, Some(format!("pagerduty:{}", heard.id)));
        let act = self.ask(|to| Ask::Act { incident, command, revision: None, key, to }).await;
        match act.and_then(|result| result) {
            Ok(_) => Ok(done.to_owned()),
            Err(CommandError::Unavailable(why)) if why != WRITTEN_DOWN => Err(HearError::Unavailable(why)),
            Err(CommandError::Unavailable(why) | CommandError::Refused(why)) => Ok(why),
            Err(other @ (CommandError::NotFound(_) | CommandError::Conflict { .. })) => Ok(other.to_string()),
        }
    }

    async fn result(&self, told: ActionResult) -> Result<(), HearError> {
        let ActionResult { id, message, timestamp, signature, body } = &told;
        let told = Told { id, message, timestamp, signature, body };
        let is_heard = self.actors.load().values().any(|a| a.provider.hear(&told, now()));
        if is_heard { Ok(()) } else { Err(HearError::Unsigned) }
    }

    fn holders(&self) -> Vec<Holder> {
        let settings = self.settings.load();
        let digest = |hex: &str| {
            let mut out = [0u8; 32];
            for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks(2)) {
                *byte = std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok()).unwrap_or(0);
            }
            out
        };
        settings.tokens.iter().map(|t| Holder { name: t.name.clone(), role: t.role, digest: digest(&t.sha256) }).collect()
    }

    async fn audit(&self, line: Audited) -> Result<(), CommandError> {
        let Audited { who, role, what, subject, detail } = line;
        self.read(move |s| s.audit(AuditEntry { who, role, what, subject, detail }, now())).await.map(drop)
    }

    async fn holds(&self) -> Result<Vec<Hold>, CommandError> {
        self.ask(Ask::Holds).await
    }

    async fn hold(&self, new: NewHold) -> Result<Hold, CommandError> {
        let NewHold { kind, matcher, from, until, by, why, harm } = new;
        self.ask(|to| Ask::Hold { control: Control::Hold { kind, matcher, from, until, by, why, harm }, id: None, to }).await?
    }

    async fn end_hold(&self, id: &str, by: String) -> Result<Hold, CommandError> {
        let id = id.to_owned();
        self.ask(|to| Ask::Hold { control: Control::EndHold { id: id.clone(), by, wall: now() }, id: Some(id), to }).await?
    }

    async fn models(&self) -> Result<Vec<ModelView>, CommandError> {
        self.ask(Ask::Models).await
    }

    async fn series(&self, model: Option<&str>, limit: usize) -> Result<Vec<SeriesView>, CommandError> {
        let model = model.map(str::to_owned);
        self.ask(|to| Ask::Series { model, limit, to }).await
    }

    async fn series_page(&self, id: &str) -> Result<SeriesPage, CommandError> {
        let missing = || CommandError::NotFound(id.to_owned());
        let id = id.parse().map_err(|()| missing())?;
        self.ask(|to| Ask::Page { id, to }).await?.ok_or_else(missing)
    }

    async fn baselines(&self, model: Option<&str>) -> Result<Vec<BaselineView>, CommandError> {
        let model = model.map(str::to_owned);
        self.ask(|to| Ask::Baselines { model, to }).await
    }

    async fn teach(&self, command: BaselineCommand) -> Result<Vec<BaselineView>, CommandError> {
        let (model, control) = match command {
            BaselineCommand::Import { model, environment, packed } => (model.clone(), Control::Baseline { model, environment, packed }),
            BaselineCommand::Forget { model, environment, signal } => (model.clone(), Control::Forget { model, environment, signal }),
        };
        self.ask(|to| Ask::Teach { model, control: Box::new(control), to }).await?
    }

    async fn engine(&self) -> Result<EngineView, CommandError> {
        self.ask(Ask::Engine).await
    }

    async fn health(&self) -> HealthView {
        let stats = self.read(Store::outbox_stats).await.unwrap_or_default();
        HealthView {
            lag: lock(&self.status.lag).clone(),
            rejected: lock(&self.status.rejected).iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect(),
            outbox: (stats.into_iter())
                .map(|b| OutboxRow { receiver: b.receiver, pending: b.pending as u64, oldest: b.oldest, last: String::new() })
                .collect(),
        }
    }

    fn is_healthy(&self) -> bool {
        let turned = self.status.turned_at.load(Ordering::Relaxed);
        lock(&self.status.died).is_none() && (turned == 0 || now().0 - turned < TURN_MS_MAX) && !self.store.is_dead()
    }

    fn readiness(&self) -> Readiness {
        let mut ready = Readiness { ready: self.status.is_assigned.load(Ordering::Relaxed), ..Readiness::default() };
        if !ready.ready {
            ready.reasons.push("the source has not been read yet".to_owned());
        }
        if let Some(why) = lock(&self.status.died).clone() {
            ready.ready = false;
            ready.reasons.push(why);
        }
        if let Some(why) = lock(&self.status.trouble).clone() {
            ready.degraded = ready.ready;
            ready.reasons.push(why);
        }
        if ready.ready && !self.status.is_caught_up.load(Ordering::Relaxed) {
            ready.degraded = true;
            ready.reasons.push("reading history".to_owned());
        }
        ready
    }

    async fn reload(&self) -> Result<(), String> {
        self.reloader.reload().await
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }

    fn config_text(&self) -> String {
        settings::redacted(&self.settings.load())
    }

    fn hosts(&self) -> Vec<String> {
        let url = self.settings.load().external_url.clone();
        let host = url.split("://").nth(1).and_then(|rest| rest.split(['/', ':']).next()).map(str::to_owned);
        host.into_iter().collect()
    }

    fn faults(&self) -> Vec<FaultButton> {
        self.faults.as_ref().map(|f| f.list()).unwrap_or_default()
    }

    fn switch_fault(&self, name: &str, on: bool) -> Result<(), CommandError> {
        match &self.faults {
            Some(faults) => faults.switch(name, on).map_err(CommandError::Refused),
            None => Err(CommandError::NotFound(name.to_owned())),
        }
    }
}
