//! What this series reaches anyway.
//!
//! A series that often shows sums of rarity as high as today's must do more to page. The largest sums of blocks of rows are kept and
//! fade slowly; a part of one of the largest is taken off. The block being filled and the one before do not count yet: an event must
//! not excuse itself.

use serde::{Deserialize, Serialize};

use super::constants::Constants;

/// The last of them counts: a few bad days are no habit.
const HABITS: usize = 5;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Habit {
    /// In falling order.
    largest: [f32; HABITS],
    marks: [u8; HABITS],
    filling: f32,
    filling_mark: u8,
    waiting: f32,
    waiting_mark: u8,
    filled: u16,
}

// === impl Habit ===

impl Habit {
    /// What is to be taken off `sum`; then learns it.
    #[inline]
    pub fn step(&mut self, c: &Constants, sum: f64, mark: u8, kept_out: bool) -> f64 {
        let usual = c.habit_weight * f64::from(self.largest[HABITS - 1]);
        if !kept_out {
            self.filling = self.filling.max(sum as f32);
        }
        if mark != 0 {
            self.filling_mark = mark;
        }
        self.filled += 1;
        if self.filled >= c.habit_rows {
            self.close_block(c);
        }
        usual
    }

    fn close_block(&mut self, c: &Constants) {
        let fade = 0.5f64.powf(f64::from(c.habit_rows) / c.habit_half_rows) as f32;
        self.largest.iter_mut().for_each(|x| *x *= fade);
        let at = self.largest.partition_point(|&x| x >= self.waiting);
        if at < HABITS {
            self.largest.copy_within(at..HABITS - 1, at + 1);
            self.marks.copy_within(at..HABITS - 1, at + 1);
            (self.largest[at], self.marks[at]) = (self.waiting, self.waiting_mark);
        }
        (self.waiting, self.waiting_mark) = (self.filling, self.filling_mark);
        (self.filling, self.filling_mark, self.filled) = (0.0, 0, 0);
    }

    /// A page begins: the block being filled belongs to it.
    pub fn page(&mut self, mark: u8) {
        self.marks.iter_mut().filter(|m| **m == mark).for_each(|m| *m = 0);
        self.filling_mark = mark;
        if self.waiting_mark == mark {
            self.waiting_mark = 0;
        }
    }

    /// Takes out what fell into that page's time.
    pub fn forget(&mut self, mark: u8) {
        let mut at = 0;
        for i in 0..HABITS {
            if self.marks[i] != mark {
                (self.largest[at], self.marks[at]) = (self.largest[i], self.marks[i]);
                at += 1;
            }
        }
        self.largest[at..].fill(0.0);
        self.marks[at..].fill(0);
        for (value, m) in [(&mut self.filling, &mut self.filling_mark), (&mut self.waiting, &mut self.waiting_mark)] {
            if *m == mark {
                (*value, *m) = (0.0, 0);
            }
        }
    }
}
