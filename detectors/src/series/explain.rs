//! Why a row paged, in words.

use serde::{Deserialize, Serialize};

use super::Judgement;

/// What may speak, in the order of [`Judgement::orders`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Voice {
    /// The value itself.
    Level,
    /// The mean of the last 48 rows.
    LongLevel,
    /// The step from the row before.
    Jump,
    /// The mean of the last 48 rows against the 48 before.
    LongShift,
    /// The mean size of the last 12 steps.
    Swing,
    /// The mean size of the last 48 steps, where it falls.
    Calm,
    /// The distance from what is usual at this time of day and week.
    Season,
    /// The mean of that distance over 48 rows.
    LongSeason,
    /// One step against all steps that this series ever made; does not get used to faults.
    Local,
    /// A value that repeats longer than ever.
    Stuck,
}

/// How many may speak.
pub const VOICES: usize = 10;

// === impl Voice ===

impl Voice {
    pub const ALL: [Voice; VOICES] = [
        Voice::Level,
        Voice::LongLevel,
        Voice::Jump,
        Voice::LongShift,
        Voice::Swing,
        Voice::Calm,
        Voice::Season,
        Voice::LongSeason,
        Voice::Local,
        Voice::Stuck,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Voice::Level => "level",
            Voice::LongLevel => "long level",
            Voice::Jump => "jump",
            Voice::LongShift => "long shift",
            Voice::Swing => "swing",
            Voice::Calm => "calm",
            Voice::Season => "season",
            Voice::LongSeason => "long season",
            Voice::Local => "local",
            Voice::Stuck => "stuck",
        }
    }

    /// What it means that this voice is the loudest.
    fn meaning(self, is_above: bool) -> &'static str {
        match (self, is_above) {
            (Voice::Level | Voice::LongLevel, true) => "above everything of the last weeks",
            (Voice::Level | Voice::LongLevel, false) => "below everything of the last weeks",
            (Voice::Jump | Voice::LongShift, true) => "a rise beyond every rise of the last weeks",
            (Voice::Jump | Voice::LongShift, false) => "a fall beyond every fall of the last weeks",
            (Voice::Swing, _) => "moves more than ever in the last weeks",
            (Voice::Calm, _) => "moves less than ever in the last weeks",
            (Voice::Season | Voice::LongSeason, true) => "farther above the usual of this time of day and week than ever in the last weeks",
            (Voice::Season | Voice::LongSeason, false) => "farther below the usual of this time of day and week than ever in the last weeks",
            (Voice::Local, _) => "a step of a size that this series hardly ever makes",
            (Voice::Stuck, _) => "the same value for longer than ever before",
        }
    }
}

// === impl Judgement ===

impl Judgement {
    /// Those that spoke with their orders, the loudest first: negative where it is the low side that is rare.
    pub fn spoke(&self) -> Vec<(Voice, f64)> {
        let mut spoke: Vec<(Voice, f64)> = Voice::ALL.into_iter().zip(self.orders).filter(|(_, orders)| *orders != 0.0).collect();
        spoke.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        spoke
    }

    /// `level 2.6, jump 2.5: above everything of the last weeks`.
    pub fn words(&self) -> String {
        let spoke = self.spoke();
        let Some((loudest, orders)) = spoke.first() else { return "nothing unusual".to_owned() };
        let all: Vec<String> = spoke.iter().map(|(voice, orders)| format!("{} {:.1}", voice.name(), orders.abs())).collect();
        format!("{}: {}", all.join(", "), loudest.meaning(*orders > 0.0))
    }
}
