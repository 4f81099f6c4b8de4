//! The names that an event may carry at its top, all kinds together: one flat list, because `kind` may come last.
//!
//! A name is found by a small hash table built by the compiler. Asking seventy names one after the other would cost as much
//! as reading their values.

/// Declares the members with their spelling, so that the two cannot disagree.
macro_rules! members {
    ($($variant:ident $text:literal),+ $(,)?) => {
        /// A known member at the top of an event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Member { $($variant),+ }

        impl Member {
            pub const ALL: &'static [Member] = &[$(Member::$variant),+];
            pub const NAMES: &'static [&'static str] = &[$($text),+];
        }
    };
}

members! {
    Kind "kind", Id "id", Time "time", Model "model", Version "version", Environment "environment", Segments "segments",
    TraceId "trace_id", SpanId "span_id", SessionId "session_id", User "user", Schema "schema",
    LatencyMs "latency_ms", FirstTokenMs "first_token_ms", Status "status", Error "error", Score "score", Label "label",
    Scores "scores", Output "output", OutputEmpty "output_empty", FinishReason "finish_reason", Features "features",
    InputTokens "input_tokens", OutputTokens "output_tokens", CachedTokens "cached_tokens", ReasoningTokens "reasoning_tokens",
    Cost "cost", CostUsd "cost_usd", CacheHit "cache_hit", Attempt "attempt", Flags "flags", Groups "groups",
    PredictionId "prediction_id", Value "value", ObservedAt "observed_at", Weight "weight", Supersedes "supersedes",
    Retracted "retracted", Source "source",
    Name "name", Evaluator "evaluator", EvaluatorVersion "evaluator_version", Min "min", Max "max",
    HigherIsBetter "higher_is_better", Explanation "explanation",
    KindOf "kind_of", Category "category", Text "text", Url "url",
    Target "target", Phase "phase", PreviousVersion "previous_version", TrafficPercent "traffic_percent", Actor "actor",
    Description "description",
    Job "job", State "state", RunId "run_id", NominalTime "nominal_time", Inputs "inputs", Outputs "outputs",
    Assertions "assertions",
    Summary "summary", SourceOfReport "source_of_report", Reporter "reporter", Contact "contact",
    HappeningNow "happening_now", SeverityGuess "severity_guess", Examples "examples", DisclosureDeadline "disclosure_deadline",
    Producer "producer", ExpectedIntervalS "expected_interval_s",
}

/// Known members; below 128, so that the ones seen fit into one word.
pub const COUNT: usize = Member::ALL.len();
const _: () = assert!(COUNT < 128);

impl Member {
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The member of this name.
    pub fn find(name: &str) -> Option<Member> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() > LONGEST {
            return None;
        }
        let mut slot = slot_of(bytes);
        while TABLE[slot] != EMPTY {
            let at = TABLE[slot] as usize;
            if Self::NAMES[at] == name {
                return Some(Self::ALL[at]);
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }

    /// The known name that a misspelt one most likely meant: one edit away, or two for names of five letters and more.
    pub fn nearest(name: &str) -> Option<&'static str> {
        nearest(name, Self::NAMES)
    }
}

/// The closest word within one edit, or two for five letters and more. The first of equals.
pub fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    // No known word is close to a long one, and the distance is quadratic.
    if name.len() > 40 {
        return None;
    }
    let folded = name.to_ascii_lowercase().replace('-', "_");
    let allowed = if folded.len() >= 5 { 2 } else { 1 };
    let near = known.iter().map(|word| (strsim::osa_distance(&folded, word), *word)).filter(|(distance, _)| *distance <= allowed);
    near.min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

const SLOTS: usize = 256;
const EMPTY: u8 = u8::MAX;
const LONGEST: usize = longest();
/// Open addressing: the index of a member in its list, or [`EMPTY`].
static TABLE: [u8; SLOTS] = table();

const fn slot_of(name: &[u8]) -> usize {
    let (first, middle, last) = (name[0] as usize, name[name.len() / 2] as usize, name[name.len() - 1] as usize);
    (first.wrapping_mul(7) ^ middle.wrapping_mul(31) ^ last.wrapping_mul(131) ^ (name.len() * 17)) % SLOTS
}

const fn table() -> [u8; SLOTS] {
    let mut table = [EMPTY; SLOTS];
    let mut at = 0;
    while at < COUNT {
        let mut slot = slot_of(Member::NAMES[at].as_bytes());
        while table[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = at as u8;
        at += 1;
    }
    table
}

const fn longest() -> usize {
    let (mut at, mut longest) = (0, 0);
    while at < COUNT {
        if Member::NAMES[at].len() > longest {
            longest = Member::NAMES[at].len();
        }
        at += 1;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_member_and_no_other_does() {
        for &member in Member::ALL {
            assert_eq!(Member::find(member.name()), Some(member));
            assert_eq!(Member::find(&member.name().to_uppercase()), None);
            assert_eq!(Member::find(&format!("{}x", member.name())), None);
        }
        assert_eq!(Member::find(""), None);
        assert_eq!(Member::find(&"x".repeat(1_000)), None);
    }

    #[test]
    fn a_misspelt_name_is_near_its_member() {
        assert_eq!(Member::nearest("latncy_ms"), Some("latency_ms"));
        assert_eq!(Member::nearest("Model"), Some("model"));
        assert_eq!(Member::nearest("finish-reason"), Some("finish_reason"));
        assert_eq!(Member::nearest("idd"), Some("id"));
        assert_eq!(Member::nearest("rid_of_it"), None);
        assert_eq!(Member::nearest(&"x".repeat(100_000)), None);
    }
}
