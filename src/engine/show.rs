//! What people may ask of a running engine.

use super::Engine;
use super::view::{BaselineView, Drift, EngineView, ModelView, NamedTest, SeriesPage, SeriesStates, SeriesView};
use crate::domain::{DetectorState, SeriesId, Time};
use crate::judge::{Group, Line};
use crate::pane::FactKind;

/// Deployments and pipeline runs that are listed.
const CHANGES_MAX: usize = 50;

impl Engine {
    pub fn view(&self) -> EngineView {
        let mut view = EngineView {
            judged_through: self.desk.state.judged_through,
            is_live: self.is_live(),
            budget: self.desk.settings.judge.false_pages,
            budget_spent: self.desk.state.budget_spent,
            alarms_raised: self.desk.state.alarms_raised,
            alarms_held: self.desk.state.alarms_held,
            ..EngineView::default()
        };
        let mut bounds = [
            ("fields_coerced", 0),
            ("fields_invalid", 0),
            ("fields_cut", 0),
            ("times_clamped", 0),
            ("without_time", 0),
            ("foreign_currency", 0),
            ("segments_as_other", 0),
            ("slots_dropped", 0),
            ("embeddings_unsampled", 0),
            ("dedup_forgotten", 0),
        ];
        for c in self.watch.counts() {
            view.events += c.events;
            view.duplicates += c.duplicates;
            view.rejected += c.rejected;
            view.late += c.late;
            view.unattributed += c.unattributed;
            let met = [
                c.fields_coerced,
                c.fields_invalid,
                c.fields_cut,
                c.times_clamped,
                c.without_time,
                c.foreign_currency,
                c.segments_as_other,
                c.slots_dropped,
                c.embeddings_unsampled,
                c.dedup_forgotten,
            ];
            for (b, n) in bounds.iter_mut().zip(met) {
                b.1 += n;
            }
        }
        view.bounds = bounds.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let refused = self.desk.judge.refused();
        view.bounds.extend([("embedding_lines_refused".to_owned(), refused.embeddings), ("joint_lines_refused".to_owned(), refused.joint)]);
        view.series = states(self.desk.judge.groups().iter().flat_map(|g| &g.lines));
        view.changes = self
            .desk
            .facts()
            .filter_map(|f| {
                let who = f.model.as_deref().unwrap_or("");
                match &f.kind {
                    FactKind::Deployment { phase, target, .. } => {
                        Some((f.time, format!("{target} {}: deployment {phase} {who}", f.version.as_deref().unwrap_or(""))))
                    }
                    FactKind::Pipeline { job, state, .. } => Some((f.time, format!("pipeline {job} {state} {who}"))),
                    FactKind::Confirmed { .. } | FactKind::Leak { .. } | FactKind::Heartbeat { .. } | FactKind::Report { .. } => None,
                }
            })
            .collect();
        view.changes.reverse();
        view.changes.truncate(CHANGES_MAX);
        view
    }

    pub fn models(&self) -> Vec<ModelView> {
        let counts = self.watch.counts();
        let mut out: Vec<ModelView> = Vec::new();
        for whole in self.desk.judge.groups().iter().filter(|g| g.key.is_roll_up()) {
            let family: Vec<&Group> = self.desk.judge.siblings(&whole.key).collect();
            let model = whole.key.model.to_string();
            let events = counts.iter().flat_map(|c| &c.per_model).filter(|m| m.0 == model).map(|m| m.1).sum();
            let mut versions: Vec<String> = family.iter().filter_map(|g| g.key.version.as_ref().map(|v| v.to_string())).collect();
            let mut segments: Vec<String> = family.iter().filter_map(|g| g.key.segment.as_ref().map(|s| s.to_string())).collect();
            versions.extend(whole.only_version().map(str::to_owned));
            versions.sort();
            segments.sort();
            let incidents =
                self.desk.incidents().filter(|i| i.state.is_live() && i.key.model == model && *i.key.environment == *whole.key.environment);
            out.push(ModelView {
                environment: whole.key.environment.to_string(),
                owner: self.desk.settings.models.get(&model).and_then(|m| m.owner.clone()),
                versions,
                segments,
                events,
                last_event_at: (whole.last_event_at > Time(0)).then_some(whole.last_event_at),
                series: states(family.iter().flat_map(|g| &g.lines)),
                incidents: incidents.map(|i| i.id.clone()).collect(),
                model,
            });
        }
        out.sort_by(|a, b| (&a.model, &a.environment).cmp(&(&b.model, &b.environment)));
        out
    }

    pub fn series(&self, model: Option<&str>, limit: usize) -> Vec<SeriesView> {
        let lines = self.desk.judge.groups().iter().filter(|g| model.is_none_or(|m| *g.key.model == *m)).flat_map(|g| &g.lines);
        let mut out: Vec<SeriesView> = lines.take(limit.min(100_000)).map(|l| self.series_view(l)).collect();
        out.sort_by(|a, b| a.key.cmp(&b.key).then_with(|| a.detector.cmp(&b.detector)));
        out
    }

    pub fn series_page(&self, id: SeriesId) -> Option<SeriesPage> {
        let (_, line) = self.desk.judge.line(id)?;
        Some(SeriesPage {
            series: self.series_view(line),
            points: line.points.iter().collect(),
            onset: line.onset,
            decisions: line.decisions.iter().map(|d| (d.at, d.what.clone(), d.why.clone())).collect(),
            drift: line.drift().map(|(words, tests)| Drift {
                words,
                tests: (tests.into_iter())
                    .map(|(name, o)| NamedTest {
                        name: name.to_owned(),
                        statistic: o.statistic,
                        p_value: o.p_value,
                        threshold: o.threshold,
                        drifted: o.drifted,
                    })
                    .collect(),
            }),
        })
    }

    /// What is normal, of models as wholes; of a model that was not seen yet, what a reference says.
    pub fn baselines(&self, model: Option<&str>) -> Vec<BaselineView> {
        let judge = &self.desk.judge;
        let is_it = |m: &str| model.is_none_or(|asked| asked == m);
        let finite = |v: f64| v.is_finite().then_some(v);
        let mut out: Vec<BaselineView> = Vec::new();
        for group in judge.groups().iter().filter(|g| g.key.is_roll_up() && is_it(&g.key.model)) {
            for line in &group.lines {
                let band = line.bank.baseline();
                out.push(BaselineView {
                    model: group.key.model.to_string(),
                    environment: Some(group.key.environment.to_string()),
                    signal: line.series.signal.clone(),
                    detector: line.bank.name().to_owned(),
                    state: line.state(),
                    needs_events: finite(line.bank.sees(line.injection).needs_events),
                    unit: line.unit,
                    value: band.map(|b| b.value).and_then(finite),
                    low: band.map(|b| b.low).and_then(finite),
                    high: band.map(|b| b.high).and_then(finite),
                    learned_from: line.learned_from.as_ref().map(|p| p.words()),
                });
            }
        }
        for template in judge.templates().iter().filter(|t| is_it(&t.model)) {
            let words = template.provenance.words();
            for learned in &template.lines {
                if out.iter().any(|o| o.model == template.model && o.signal == learned.signal && o.learned_from.as_ref() == Some(&words)) {
                    continue;
                }
                let band = learned.baseline();
                out.push(BaselineView {
                    model: template.model.clone(),
                    environment: template.environment.clone(),
                    signal: learned.signal.clone(),
                    detector: learned.bank.name().to_owned(),
                    state: learned.state(),
                    needs_events: finite(judge.needs_events(learned)),
                    unit: learned.unit,
                    value: band.map(|b| b.value).and_then(finite),
                    low: band.map(|b| b.low).and_then(finite),
                    high: band.map(|b| b.high).and_then(finite),
                    learned_from: Some(words.clone()),
                });
            }
        }
        out.sort_by(|a, b| (&a.model, &a.environment, &a.signal, &a.detector).cmp(&(&b.model, &b.environment, &b.signal, &b.detector)));
        out
    }

    fn series_view(&self, line: &Line) -> SeriesView {
        let band = line.bank.baseline();
        let last = line.points.back();
        let finite = |v: f64| v.is_finite().then_some(v);
        let pane_ms = self.desk.settings.judge.pane_ms as f64;
        SeriesView {
            id: line.id,
            key: line.series.clone(),
            detector: line.bank.name().to_owned(),
            category: Engine::category(&line.series.signal),
            state: line.state(),
            words: line.words(),
            unit: line.unit,
            value: last.and_then(|p| finite(p.value)),
            baseline: band.map(|b| b.value).or(last.map(|p| p.baseline)).and_then(finite),
            low: band.map(|b| b.low).or(last.map(|p| p.low)).and_then(finite),
            high: band.map(|b| b.high).or(last.map(|p| p.high)).and_then(finite),
            log_evidence: if line.last_evidence.is_finite() { line.last_evidence } else { 0.0 },
            threshold: (line.injection > 0.0).then(|| -line.injection.ln()),
            budget_share: line.injection * 30.0 * 86_400_000.0 / pane_ms,
            learned_from: line.learned_from.as_ref().map(|p| p.words()),
            change: line.change.as_deref().map(|c| crate::domain::Change { before: c.before, after: c.after, low: c.low, high: c.high }),
        }
    }
}

fn states<'a>(lines: impl Iterator<Item = &'a Line>) -> SeriesStates {
    let mut s = SeriesStates::default();
    for line in lines {
        match line.state() {
            DetectorState::Warming => s.warming += 1,
            DetectorState::Armed => s.armed += 1,
            DetectorState::Starved => s.starved += 1,
            DetectorState::Frozen => s.frozen += 1,
            DetectorState::Off => s.off += 1,
        }
    }
    s
}
