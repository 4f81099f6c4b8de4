//! What a fleet is made of: its models, how much they are asked, and how unruly they are when nothing is wrong.
//!
//! A fleet that is quiet in the textbook's way proves nothing. So health here has bursts, days and weeks, error rates that
//! wander, latencies that drift, tokens with heavy tails, late and doubled events; all of it within what a careful
//! practitioner would call normal: rates within 10 % of their level, values within a tenth of their standard deviation.

/// What kind of work a model does, which decides the members of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A tabular scorer: twelve features, a score, a label.
    Scorer,
    /// A language model: tokens, cost, first token, answers, flags, an evaluator, feedback of users.
    Assistant,
    /// A ranker: six features and a score.
    Ranker,
}

/// An evaluator that looks at a share of the answers.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityPlan {
    pub name: String,
    pub mean: f64,
    pub sigma: f64,
    /// Share of good answers that are evaluated.
    pub share: f64,
}

/// One model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPlan {
    pub name: String,
    pub environment: String,
    pub kind: Kind,
    /// Predictions per second, as a mean over the week, before `Plan::share`.
    pub per_second: f64,
    /// The segment dimension that every event carries, and its values with their weights.
    pub dimension: String,
    pub segments: Vec<(String, f64)>,
    pub error_rate: f64,
    pub timeout_rate: f64,
    /// Median of the latency, and the standard deviation of its logarithm.
    pub latency_ms: f64,
    pub latency_sigma: f64,
    /// Distinct users; a few of them ask most.
    pub users: u64,
    /// Hour of the day, UTC, at which traffic is highest.
    pub peak_hour: f64,
    /// Assistants only.
    pub quality: Option<QualityPlan>,
    /// Shares of answers that a user gives a thumb, and that a user complains about. Assistants only.
    pub thumbs: f64,
    pub complaints: f64,
    /// The data job whose successful runs are told every hour.
    pub pipeline: Option<String>,
    /// A protected attribute that every event carries, and its values with their weights. Scorers only.
    pub groups: Option<(String, Vec<(String, f64)>)>,
}

/// The whole fleet. Every knob may be turned by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub models: Vec<ModelPlan>,
    /// Scales all rates of traffic and no law.
    pub share: f64,
    /// Coefficient of variation of the traffic from second to second, beyond Poisson; 0 for none, 1 at most.
    pub burst: f64,
    /// Swing of the day, 0 to 0.9: traffic lies between `1 - daily` and `1 + daily` times its level.
    pub daily: f64,
    /// What the weekend takes away, 0 to 0.9.
    pub weekly: f64,
    /// Standard deviation with which failure rates wander, relative to the rate; never beyond 10 %.
    pub rate_wander: f64,
    /// Standard deviation with which latency wanders, in standard deviations of its logarithm; never beyond 0.06.
    pub latency_wander: f64,
    /// Share of events that arrive late, and by how much at most.
    pub late: f64,
    pub late_ms_max: i64,
    /// Share of events that arrive twice.
    pub doubled: f64,
    /// Seconds between heartbeats of each model; 0 for none.
    pub heartbeat_s: u32,
    /// Mean seconds between ordinary deployments of a model; 0 for none.
    pub deploy_every_s: f64,
    /// How long before a fault the deployment or the failed run that belongs to it is stamped.
    pub lead_ms: i64,
}

// === impl Plan ===

impl Plan {
    /// Three models and about a thousand events per second.
    pub fn demo() -> Plan {
        let regions = [("eu", 0.4), ("us", 0.4), ("apac", 0.2)];
        let model = |name: &str, kind, per_second, latency_ms, latency_sigma, peak_hour| ModelPlan {
            name: name.to_owned(),
            environment: "prod".to_owned(),
            kind,
            per_second,
            dimension: "region".to_owned(),
            segments: regions.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
            error_rate: 0.01,
            timeout_rate: 0.001,
            latency_ms,
            latency_sigma,
            users: 20_000,
            peak_hour,
            quality: None,
            thumbs: 0.0,
            complaints: 0.0,
            pipeline: None,
            groups: None,
        };
        let scorer = ModelPlan { pipeline: Some("loan-features".to_owned()), ..model("loan-scorer", Kind::Scorer, 400.0, 38.0, 0.45, 13.0) };
        let assistant = ModelPlan {
            quality: Some(QualityPlan { name: "faithfulness".to_owned(), mean: 0.86, sigma: 0.08, share: 0.2 }),
            thumbs: 0.03,
            complaints: 0.001,
            ..model("assistant", Kind::Assistant, 250.0, 1_400.0, 0.5, 15.0)
        };
        let ranker = model("ranker", Kind::Ranker, 250.0, 22.0, 0.4, 18.0);
        Plan { heartbeat_s: 10, deploy_every_s: 0.0, ..Plan::of(vec![scorer, assistant, ranker]) }
    }

    /// Many models of mixed kinds, with `segments` values of one dimension each.
    pub fn large(models: usize, segments: usize, events_per_second_per_model: f64) -> Plan {
        let model = |i: usize| {
            let (kind, word, latency_ms, latency_sigma) = match i % 3 {
                0 => (Kind::Scorer, "scorer", 30.0, 0.45),
                1 => (Kind::Assistant, "assistant", 1_200.0, 0.5),
                _ => (Kind::Ranker, "ranker", 20.0, 0.4),
            };
            let is_assistant = kind == Kind::Assistant;
            ModelPlan {
                name: format!("{word}-{i:03}"),
                environment: "prod".to_owned(),
                kind,
                per_second: events_per_second_per_model,
                dimension: "region".to_owned(),
                segments: (0..segments.max(1)).map(|s| (format!("r{s}"), 1.0 / (1.0 + s as f64 * 0.3))).collect(),
                // From 0.3 % to 3 %, so that a fleet holds both easy and hard cases.
                error_rate: 0.003 * 10f64.powf((i % 7) as f64 / 6.0),
                timeout_rate: 0.001,
                latency_ms: latency_ms * (1.0 + (i % 5) as f64 * 0.2),
                latency_sigma,
                users: 5_000,
                peak_hour: (11 + i % 9) as f64,
                quality: is_assistant.then(|| QualityPlan { name: "faithfulness".to_owned(), mean: 0.86, sigma: 0.08, share: 0.2 }),
                thumbs: if is_assistant { 0.03 } else { 0.0 },
                complaints: if is_assistant { 0.001 } else { 0.0 },
                pipeline: (kind == Kind::Scorer).then(|| format!("features-{i:03}")),
                groups: None,
            }
        };
        Plan::of((0..models).map(model).collect())
    }

    /// These models, with the usual unruliness.
    pub fn of(models: Vec<ModelPlan>) -> Plan {
        Plan {
            models,
            share: 1.0,
            burst: 0.3,
            daily: 0.3,
            weekly: 0.2,
            rate_wander: 0.04,
            latency_wander: 0.02,
            late: 0.002,
            late_ms_max: 20_000,
            doubled: 0.001,
            heartbeat_s: 60,
            deploy_every_s: 6.0 * 3_600.0,
            lead_ms: 60_000,
        }
    }

    /// The same fleet with everything that is not the law of a value turned off: no bursts, seasons, wander, late or doubled events.
    pub fn calm(self) -> Plan {
        Plan { burst: 0.0, daily: 0.0, weekly: 0.0, rate_wander: 0.0, latency_wander: 0.0, late: 0.0, doubled: 0.0, deploy_every_s: 0.0, ..self }
    }
}
