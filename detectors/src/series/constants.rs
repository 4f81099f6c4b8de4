//! The numbers of the judge, in one place.
//!
//! There is one set of them for every series, [`Constants::FROZEN`], and no setting reaches it: a number that is turned for one
//! series has learned that series. It is a value and not a list of `const` only so that the bench can turn one number at a time and
//! show what it does (`cargo bench -p bellwether-detectors --bench series -- --set floor=0.2 --quiet`).

/// Orders are decimal orders of rarity: 3 is "one in a thousand".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constants {
    /// Rows whose largest value counts once among the peaks, so that one burst does not fill the list.
    pub block_rows: u16,
    /// Rows after which a generation of peaks is retired; two are kept. Four weeks of five-minute rows.
    pub epoch_rows: u32,
    /// A step beyond the record is measured in units of at least this part of (record - centre): a saturated maximum has no spread.
    pub floor: f64,
    /// Weight of "never in n values". All of log10 n would be counted once by each of the correlated aspects.
    pub age: f64,
    /// Orders that one aspect may say at most: less than a page, so that none pages alone.
    pub cap_orders: f64,
    /// Days on which a time of day was seen before its level is used.
    pub season_days: u8,
    /// Slowest learning rate of a seasonal level.
    pub season_rate_min: f64,
    /// Rows whose largest sum counts once as a habit.
    pub habit_rows: u16,
    pub habit_half_rows: f64,
    pub habit_weight: f64,
    /// Learning rate of the local level.
    pub local_rate: f64,
    /// Rows the local scale looks back.
    pub local_scale_rows: f64,
    /// Scales that one error teaches the local scale at most.
    pub local_clip: f64,
    /// Rows before the local arm speaks.
    pub local_rows_min: u32,
    /// The line through the tail of local errors begins at this part of all rows ...
    pub local_tail: f64,
    /// ... leads through this one ...
    pub local_far: f64,
    /// ... and is never drawn steeper than with this shape.
    pub local_shape_min: f64,
    pub local_weight: f64,
    /// A value pages once it repeats this many times longer than ever.
    pub stuck_factor: f64,
    /// Changes of value seen before the stuck arm speaks.
    pub stuck_changes_min: u32,
    /// Rows after a page in which only worse pages again ...
    pub mute_rows: u32,
    /// ... worse by this many orders.
    pub again_orders: f64,
    /// And the time after which the mute ends, however few rows have come.
    pub mute_ms: i64,
    pub habit_rank: usize,
    // research
    pub young_orders: f64,
    pub young_rows: f64,
    pub credit_prior: f64,
    pub credit_power: f64,
    pub once: bool,
    pub young_rank: f64,
}

impl Constants {
    pub const FROZEN: Constants = Constants {
        block_rows: 24,
        epoch_rows: 8064,
        floor: 0.1,
        age: 0.5,
        cap_orders: 6.0,
        season_days: 3,
        season_rate_min: 0.1,
        habit_rows: 144,
        habit_half_rows: 8000.0,
        habit_weight: 0.25,
        local_rate: 0.3,
        local_scale_rows: 288.0,
        local_clip: 5.0,
        local_rows_min: 300,
        local_tail: 0.01,
        local_far: 0.002,
        local_shape_min: 0.25,
        local_weight: 2.0,
        stuck_factor: 4.0,
        stuck_changes_min: 100,
        mute_rows: 96,
        again_orders: 6.0,
        mute_ms: i64::MAX,
        habit_rank: 5,
        young_orders: 0.0,
        young_rows: 4032.0,
        credit_prior: 0.0,
        credit_power: 1.0,
        once: false,
        young_rank: 0.0,
    };
}
