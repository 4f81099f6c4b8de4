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
    /// Blocks beyond the record that are granted before a side that sets records all the time loses weight ...
    pub credit_blocks: f64,
    /// ... as (expected / seen) to this power.
    pub credit_power: f64,
    /// Days on which a time of day was seen before its level is used.
    pub season_days: u8,
    /// Slowest learning rate of a seasonal level.
    pub season_rate_min: f64,
    /// Weight of the seasonal aspects while this time of the week was never seen: a first weekend is no fault.
    pub season_first_week: f64,
    /// Rows whose largest sum counts once as a habit.
    pub habit_rows: u16,
    /// Rows in which a habit fades to half.
    pub habit_half_rows: f64,
    /// Part of the habit that is taken off.
    pub habit_weight: f64,
    /// Rows for which a series is young (a fortnight of five-minute rows) ...
    pub young_rows: f64,
    /// ... and the orders taken off for each factor of ten that it is younger: a young series sets records by itself.
    pub young_orders: f64,
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
    /// Orders at which the local arm pages alone: one row in 5 600 by its own line.
    pub local_orders: f64,
    /// Orders less for each page of its kind that a person called real ...
    pub eager_orders: f64,
    /// ... up to so many.
    pub eager_max: f64,
    /// A value pages once it repeats this many times longer than ever.
    pub stuck_factor: f64,
    /// Changes of value seen before the stuck arm speaks.
    pub stuck_changes_min: u32,
    /// Evidence that pages at the default, in orders; the score is one half there.
    pub page_orders: f64,
    /// Rows after a page in which only worse pages again ...
    pub mute_rows: u32,
    /// ... worse by this many orders.
    pub again_orders: f64,
    /// And the time after which the mute ends, however few rows have come: two days.
    pub mute_ms: i64,
}

impl Constants {
    pub const FROZEN: Constants = Constants {
        block_rows: 24,
        epoch_rows: 8064,
        floor: 0.1,
        age: 0.5,
        cap_orders: 6.0,
        credit_blocks: 10.0,
        credit_power: 0.5,
        season_days: 3,
        season_rate_min: 0.1,
        season_first_week: 0.85,
        habit_rows: 144,
        habit_half_rows: 8000.0,
        habit_weight: 0.3,
        young_rows: 4032.0,
        young_orders: 0.5,
        local_rate: 0.3,
        local_scale_rows: 288.0,
        local_clip: 5.0,
        local_rows_min: 300,
        local_tail: 0.03,
        local_far: 0.006,
        local_shape_min: 0.25,
        local_orders: 3.75,
        eager_orders: 0.25,
        eager_max: 4.0,
        stuck_factor: 4.0,
        stuck_changes_min: 100,
        page_orders: 7.4,
        mute_rows: 96,
        again_orders: 6.0,
        mute_ms: 172_800_000,
    };

    /// Turns one number, for study.
    ///
    /// # Errors
    /// There is no such name.
    pub fn set(&mut self, name: &str, number: f64) -> Result<(), String> {
        match name {
            "block_rows" => self.block_rows = number as u16,
            "epoch_rows" => self.epoch_rows = number as u32,
            "floor" => self.floor = number,
            "age" => self.age = number,
            "cap_orders" => self.cap_orders = number,
            "credit_blocks" => self.credit_blocks = number,
            "credit_power" => self.credit_power = number,
            "season_days" => self.season_days = number as u8,
            "season_rate_min" => self.season_rate_min = number,
            "season_first_week" => self.season_first_week = number,
            "habit_rows" => self.habit_rows = number as u16,
            "habit_half_rows" => self.habit_half_rows = number,
            "habit_weight" => self.habit_weight = number,
            "young_rows" => self.young_rows = number,
            "young_orders" => self.young_orders = number,
            "local_rate" => self.local_rate = number,
            "local_scale_rows" => self.local_scale_rows = number,
            "local_clip" => self.local_clip = number,
            "local_rows_min" => self.local_rows_min = number as u32,
            "local_tail" => self.local_tail = number,
            "local_far" => self.local_far = number,
            "local_shape_min" => self.local_shape_min = number,
            "local_orders" => self.local_orders = number,
            "eager_orders" => self.eager_orders = number,
            "eager_max" => self.eager_max = number,
            "stuck_factor" => self.stuck_factor = number,
            "stuck_changes_min" => self.stuck_changes_min = number as u32,
            "page_orders" => self.page_orders = number,
            "mute_rows" => self.mute_rows = number as u32,
            "again_orders" => self.again_orders = number,
            "mute_ms" => self.mute_ms = number as i64,
            _ => return Err(format!("no constant is called {name}")),
        }
        Ok(())
    }
}
