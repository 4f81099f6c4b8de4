//! A series drawn on the server: values against tolerance above, evidence against threshold below, one time axis.
//!
//! An SVG needs no script, prints, and can be read aloud through its title and description. Colours are classes, so that light
//! and dark are the style sheet's business. The two panels stand one above the other because that is the argument: this is what
//! happened, and this is how sure it made us.

use std::fmt::Write;

use super::visible::visible;
use crate::domain::Time;
use crate::domain::alarm::Unit;
use crate::engine::view::{Point, SeriesPage};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
/// Room for the label of the onset.
const TOP: f64 = 20.0;
const VALUES_HEIGHT: f64 = 230.0;
const GAP: f64 = 34.0;
const EVIDENCE_HEIGHT: f64 = 96.0;
const BOTTOM: f64 = 26.0;
const HEIGHT: f64 = TOP + VALUES_HEIGHT + GAP + EVIDENCE_HEIGHT + BOTTOM;

/// More points than pixels only blur: beyond this many, neighbours are drawn as one.
const POINTS_MAX: usize = 420;
/// With more points than this, dots would hide the line.
const DOTS_MAX: usize = 150;

/// The chart, or `None` when there is nothing to draw.
pub fn draw(page: &SeriesPage) -> Option<String> {
    let points = thinned(&page.points);
    let (first, last) = (points.first()?.time, points.last()?.time);
    let unit = page.series.unit;
    let x = Scale::new(first.0 as f64, if last > first { last.0 as f64 } else { first.0 as f64 + 1.0 }, LEFT, WIDTH - RIGHT);
    let values = value_scale(page, &points);
    let evidence = evidence_scale(page, &points);
    let floor = TOP + VALUES_HEIGHT + GAP + EVIDENCE_HEIGHT;

    let mut svg = String::with_capacity(32 * 1024);
    let title = visible(&format!("{} of {}", page.series.key.signal.words(), page.series.key.group.words()));
    let about = visible(&description(page, &points));
    let _ = write!(
        svg,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"chart-title chart-about\" xmlns=\"http://www.w3.org/2000/svg\">\
         <title id=\"chart-title\">{title}</title><desc id=\"chart-about\">{about}</desc>"
    );

    // Grid and axes.
    for (value, label) in value_ticks(&values, unit) {
        grid_line(&mut svg, values.at(value), &label);
    }
    for (value, label) in value_ticks(&evidence, Unit::Score).into_iter().step_by(2) {
        grid_line(&mut svg, evidence.at(value), &label);
    }
    for (time, label) in time_ticks(first, last) {
        let at = x.at(time.0 as f64);
        let _ = write!(
            svg,
            "<line class=\"tick\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{floor}\"/>\
             <text class=\"label\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            floor + 17.0
        );
    }
    let _ = write!(svg, "<text class=\"label\" x=\"{LEFT}\" y=\"{:.1}\">Evidence, in nats</text>", evidence.to - 7.0);

    let pieces = pieces(&points);

    // Tolerance, then what is usual, then what was.
    for piece in &pieces {
        let band: Vec<&Point> = piece.iter().filter(|p| p.low.is_finite() && p.high.is_finite()).collect();
        if band.len() > 1 {
            let there = band.iter().map(|p| (x.at(p.time.0 as f64), values.at(p.high)));
            let back = band.iter().rev().map(|p| (x.at(p.time.0 as f64), values.at(p.low)));
            let _ = write!(svg, "<path class=\"band\" d=\"{}Z\"/>", path(there.chain(back)));
        }
    }
    if let Some(baseline) = page.series.baseline.filter(|b| b.is_finite()) {
        let at = values.at(baseline);
        let _ = write!(svg, "<line class=\"usual\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", WIDTH - RIGHT);
    }
    for piece in &pieces {
        let known = piece.iter().filter(|p| p.value.is_finite());
        let _ = write!(svg, "<path class=\"line\" d=\"{}\"/>", path(known.map(|p| (x.at(p.time.0 as f64), values.at(p.value)))));
    }
    if points.len() <= DOTS_MAX {
        for p in points.iter().filter(|p| p.value.is_finite()) {
            let class = if p.value < p.low || p.value > p.high { "dot outside" } else { "dot" };
            let _ = write!(svg, "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.2\"/>", x.at(p.time.0 as f64), values.at(p.value));
        }
    }

    // Evidence.
    for piece in &pieces {
        let known: Vec<&Point> = piece.iter().filter(|p| p.log_evidence.is_finite()).collect();
        if let (Some(start), Some(end)) = (known.first(), known.last()) {
            let line = path(known.iter().map(|p| (x.at(p.time.0 as f64), evidence.at(p.log_evidence))));
            let zero = evidence.at(0.0);
            let (from, to) = (x.at(start.time.0 as f64), x.at(end.time.0 as f64));
            let _ = write!(
                svg,
                "<path class=\"evidence-area\" d=\"{line}L{to:.1} {zero:.1}L{from:.1} {zero:.1}Z\"/><path class=\"evidence\" d=\"{line}\"/>"
            );
        }
    }
    if let Some(threshold) = page.series.threshold.filter(|t| t.is_finite()) {
        let at = evidence.at(threshold);
        let _ = write!(
            svg,
            "<line class=\"threshold\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"label threshold-label\" x=\"{}\" y=\"{:.1}\">pages here</text>",
            WIDTH - RIGHT,
            LEFT + 6.0,
            at - 4.0
        );
    }

    // Onset over both.
    if let Some(onset) = page.onset.filter(|o| *o >= first && *o <= last) {
        let at = x.at(onset.0 as f64);
        let (anchor, shift) = if at > WIDTH * 0.7 { ("end", -5.0) } else { ("start", 5.0) };
        let _ = write!(
            svg,
            "<line class=\"onset\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{floor}\"/>\
             <text class=\"label onset-label\" x=\"{:.1}\" y=\"14\" text-anchor=\"{anchor}\">began about {}</text>",
            TOP - 12.0,
            at + shift,
            visible(&onset.clock())
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// What a listener needs to know of the picture.
fn description(page: &SeriesPage, points: &[Point]) -> String {
    let unit = page.series.unit;
    let known = points.iter().map(|p| p.value).filter(|v| v.is_finite());
    let (least, most) = known.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let mut text = format!("{} values", points.len());
    if least <= most {
        let _ = write!(text, " between {} and {}", unit.words(least), unit.words(most));
    }
    if let Some(baseline) = page.series.baseline {
        let _ = write!(text, ", usually {}", unit.words(baseline));
    }
    if let Some(onset) = page.onset {
        let _ = write!(text, "; a change began about {}", onset.clock());
    }
    let _ = write!(text, ". {}", page.series.words);
    text
}

// --- scales ---

/// A linear map from values to pixels. `from` and `to` are pixels; on the vertical axis `to` is above.
#[derive(Clone, Copy, Debug)]
struct Scale {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(least: f64, most: f64, from: f64, to: f64) -> Scale {
        Scale { least, most, from, to }
    }

    /// Outside values stop at the edge.
    fn at(&self, value: f64) -> f64 {
        let share = ((value - self.least) / (self.most - self.least)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }
}

fn value_scale(page: &SeriesPage, points: &[Point]) -> Scale {
    let all = points.iter().flat_map(|p| [p.value, p.low, p.high]).chain(page.series.baseline).filter(|v| v.is_finite());
    let (mut least, mut most) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if least > most {
        (least, most) = (0.0, 1.0);
    }
    let never_negative = least >= 0.0;
    let room = if most > least { (most - least) * 0.08 } else { most.abs().max(1.0) * 0.1 };
    least -= room;
    most += room;
    // Where zero is near it is the honest foot of the axis.
    if never_negative && (least < 0.0 || least < most * 0.3) {
        least = 0.0;
    }
    Scale::new(least, most, TOP + VALUES_HEIGHT, TOP)
}

fn evidence_scale(page: &SeriesPage, points: &[Point]) -> Scale {
    let all = points.iter().map(|p| p.log_evidence).chain(page.series.threshold.map(|t| t * 1.25)).filter(|v| v.is_finite());
    let (least, most) = all.fold((0.0f64, 1.0f64), |(a, b), v| (a.min(v), b.max(v)));
    let top = TOP + VALUES_HEIGHT + GAP;
    Scale::new(least, most * 1.05, top + EVIDENCE_HEIGHT, top)
}

fn grid_line(svg: &mut String, at: f64, label: &str) {
    let _ = write!(
        svg,
        "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"label\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        WIDTH - RIGHT,
        LEFT - 8.0,
        at + 4.0,
        visible(label)
    );
}

/// Four to eight round values within the scale, with labels that differ.
fn value_ticks(scale: &Scale, unit: Unit) -> Vec<(f64, String)> {
    let span = scale.most - scale.least;
    if !span.is_finite() || span <= 0.0 {
        return Vec::new();
    }
    let (factor, sign) = match unit {
        Unit::Ratio => (100.0, " %"),
        Unit::Milliseconds if scale.most >= 2_000.0 => (0.001, " s"),
        Unit::Milliseconds => (1.0, " ms"),
        Unit::Seconds => (1.0, " s"),
        Unit::PerSecond => (1.0, "/s"),
        Unit::Deviations => (1.0, " sd"),
        Unit::Tokens | Unit::Currency | Unit::Score | Unit::Count => (1.0, ""),
    };
    let rough = span * factor / 5.0;
    let ten = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * ten).find(|s| *s >= rough).unwrap_or(rough);
    let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let first = (scale.least * factor / step).ceil();
    (0..12)
        .map(|i| (first + f64::from(i)) * step)
        .take_while(|v| *v <= scale.most * factor)
        // Adding zero makes minus zero plain.
        .map(|v| (v / factor, format!("{:.decimals$}{sign}", v + 0.0)))
        .collect()
}

/// At most nine times on round minutes, hours or days.
fn time_ticks(first: Time, last: Time) -> Vec<(Time, String)> {
    const SECOND: i64 = 1_000;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let steps = [
        (SECOND, 1),
        (SECOND, 5),
        (SECOND, 10),
        (SECOND, 30),
        (MINUTE, 1),
        (MINUTE, 2),
        (MINUTE, 5),
        (MINUTE, 10),
        (MINUTE, 15),
        (MINUTE, 30),
        (HOUR, 1),
        (HOUR, 2),
        (HOUR, 3),
        (HOUR, 6),
        (HOUR, 12),
        (DAY, 1),
        (DAY, 2),
        (DAY, 7),
        (DAY, 30),
        (DAY, 365),
    ];
    let span = last.since_ms(first);
    let step = steps.iter().map(|(unit, n)| unit * n).find(|s| span / s <= 8).unwrap_or(10 * 365 * DAY);
    let start = first.0.div_euclid(step) * step + if first.0.rem_euclid(step) == 0 { 0 } else { step };
    (0..10)
        .map(|i| Time(start.saturating_add(i * step)))
        .take_while(|t| *t <= last)
        .map(|t| {
            let form = if t.0.rem_euclid(DAY) == 0 {
                "%b %-d"
            } else if step < MINUTE {
                "%H:%M:%S"
            } else {
                "%H:%M"
            };
            let label = jiff::Timestamp::from_millisecond(t.0).map_or_else(|_| String::new(), |at| at.strftime(form).to_string());
            (t, label)
        })
        .collect()
}

// --- points ---

/// Neighbours drawn as one: means of values, the most of evidence.
fn thinned(points: &[Point]) -> Vec<Point> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let each = points.len().div_ceil(POINTS_MAX);
    let mean = |all: &[Point], of: fn(&Point) -> f64| {
        let known: Vec<f64> = all.iter().map(of).filter(|v| v.is_finite()).collect();
        if known.is_empty() { f64::NAN } else { known.iter().sum::<f64>() / known.len() as f64 }
    };
    points
        .chunks(each)
        .map(|some| Point {
            time: some[some.len() / 2].time,
            n: some.iter().map(|p| p.n).sum(),
            value: mean(some, |p| p.value),
            baseline: mean(some, |p| p.baseline),
            threshold: mean(some, |p| p.threshold),
            low: mean(some, |p| p.low),
            high: mean(some, |p| p.high),
            log_evidence: some.iter().map(|p| p.log_evidence).fold(f64::NEG_INFINITY, f64::max),
        })
        .collect()
}

/// Runs without a hole: a line across missing time would say that it was measured.
fn pieces(points: &[Point]) -> Vec<&[Point]> {
    let mut steps: Vec<i64> = points.windows(2).map(|w| w[1].time.since_ms(w[0].time)).collect();
    steps.sort_unstable();
    let usual = steps.get(steps.len() / 2).copied().unwrap_or(0).max(1);
    points.chunk_by(|a, b| b.time.since_ms(a.time) <= usual.saturating_mul(4)).collect()
}

fn path(corners: impl Iterator<Item = (f64, f64)>) -> String {
    let mut d = String::new();
    for (i, (x, y)) in corners.enumerate() {
        let _ = write!(d, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(minute: i64, value: f64) -> Point {
        Point { time: Time(minute * 60_000), n: 10.0, value, baseline: 0.005, low: 0.0, high: 0.01, log_evidence: value, threshold: 17.0 }
    }

    #[test]
    fn ticks_are_round_and_differ() {
        for (least, most, unit, labels) in [
            (0.0, 0.034, Unit::Ratio, vec!["0 %", "1 %", "2 %", "3 %"]),
            (0.0, 4_300.0, Unit::Milliseconds, vec!["0 s", "1 s", "2 s", "3 s", "4 s"]),
            (0.2, 0.9, Unit::Score, vec!["0.2", "0.4", "0.6", "0.8"]),
        ] {
            let ticks = value_ticks(&Scale::new(least, most, 0.0, 1.0), unit);
            assert_eq!(ticks.iter().map(|t| t.1.as_str()).collect::<Vec<_>>(), labels);
        }
    }

    #[test]
    fn times_are_round_and_few() {
        for minutes in [1, 7, 60, 300, 1_440, 20_160] {
            let ticks = time_ticks(Time(1_795_166_044_000), Time(1_795_166_044_000 + minutes * 60_000));
            assert!((2..=9).contains(&ticks.len()), "{minutes}: {ticks:?}");
        }
        assert_eq!(time_ticks(Time(0), Time(3_600_000))[1].1, "00:10");
    }

    #[test]
    fn a_hole_in_time_is_no_line() {
        let points: Vec<Point> = [0, 1, 2, 3, 60, 61, 62].map(|m| point(m, 0.01)).to_vec();
        assert_eq!(pieces(&points).len(), 2);
    }

    #[test]
    fn many_points_become_few() {
        let many: Vec<Point> = (0..20_000).map(|m| point(m, f64::from(m as i32))).collect();
        let few = thinned(&many);
        assert!(few.len() <= POINTS_MAX);
        assert!(few.windows(2).all(|w| w[0].time < w[1].time));
    }
}
