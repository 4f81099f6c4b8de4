//! Where a change sits: what changed within the parts of the traffic, and what only their mix did.
//!
//! The picture is a school's average mark. It may fall although no class has become worse, because the weaker class has grown;
//! it may even fall while every class has become better (Simpson's paradox). Whoever is woken by the average and is sent to look
//! for what broke looks in vain. So the change of the whole is split, part by part, into what changed within the part, at its mean
//! share, and what its share did, at its mean distance from the whole. The two add up to the change exactly, and neither
//! time is preferred as the yardstick (Kitagawa, "Components of a difference between two rates", JASA 50, 1955). A regression
//! with interactions would say the same with more words, and would need the events.

use crate::domain::alarm::Unit;
use crate::domain::incident::{PartOfChange, Spread};
use crate::domain::{Segment, Time};

/// The mix explains a change if it makes this share of it.
const MIX_EXPLAINS: f64 = 0.7;
/// One part explains a change if it makes this share of it.
const ONE_EXPLAINS: f64 = 0.8;
/// And if it changed at least this many times as much as the whole, relative to its own level.
const STANDS_OUT: f64 = 1.3;
/// A part with less of the traffic than this says nothing of the others.
const SHARE_KNOWN: f64 = 0.01;
/// Parts that are kept for people.
const PARTS_MAX: usize = 8;
/// Less of the traffic than this says nothing of where a change sits.
const COVERS_MIN: f64 = 0.8;

/// One part of the traffic at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Level {
    /// Events per second, or any measure of traffic that is the same for all parts.
    pub traffic: f64,
    /// What is measured; of no account where there is no traffic.
    pub value: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub segment: Segment,
    pub before: Level,
    pub after: Level,
}

/// Splits a change of a mean over the parts of one dimension. `None` for fewer than two parts, or no traffic at one time.
pub fn decompose(parts: &[Part], unit: Unit) -> Option<Spread> {
    let sum = |of: fn(&Part) -> f64| parts.iter().map(of).sum::<f64>();
    let (before_n, after_n) = (sum(|p| p.before.traffic), sum(|p| p.after.traffic));
    if parts.len() < 2 || before_n <= 0.0 || after_n <= 0.0 {
        return None;
    }
    // Where there was no traffic the value is that of the other time: nothing changed within it.
    let known = |p: &Part| match (p.before.traffic > 0.0, p.after.traffic > 0.0) {
        (false, _) => (p.after.value, p.after.value),
        (_, false) => (p.before.value, p.before.value),
        (true, true) => (p.before.value, p.after.value),
    };
    let mut whole = (0.0, 0.0);
    for p in parts {
        let (before, after) = known(p);
        whole.0 += p.before.traffic / before_n * before;
        whole.1 += p.after.traffic / after_n * after;
    }
    let middle = 0.5 * (whole.0 + whole.1);
    let of = |p: &Part| {
        let (before, after) = known(p);
        let (share_before, share_after) = (p.before.traffic / before_n, p.after.traffic / after_n);
        PartOfChange {
            segment: p.segment.clone(),
            share_before,
            share_after,
            before,
            after,
            within: 0.5 * (share_before + share_after) * (after - before),
            mix: (share_after - share_before) * (0.5 * (before + after) - middle),
        }
    };
    finished(parts.iter().map(of).collect(), unit, whole)
}

/// Splits a change of the traffic itself: what each part sends more or less, per second.
pub fn decompose_traffic(parts: &[Part]) -> Option<Spread> {
    let sum = |of: fn(&Part) -> f64| parts.iter().map(of).sum::<f64>();
    let (before_n, after_n) = (sum(|p| p.before.traffic), sum(|p| p.after.traffic));
    if parts.len() < 2 || before_n <= 0.0 {
        return None;
    }
    let of = |p: &Part| PartOfChange {
        segment: p.segment.clone(),
        share_before: p.before.traffic / before_n,
        share_after: if after_n > 0.0 { p.after.traffic / after_n } else { 0.0 },
        before: p.before.traffic,
        after: p.after.traffic,
        within: p.after.traffic - p.before.traffic,
        mix: 0.0,
    };
    finished(parts.iter().map(of).collect(), Unit::PerSecond, (before_n, after_n))
}

fn finished(mut parts: Vec<PartOfChange>, unit: Unit, (before, after): (f64, f64)) -> Option<Spread> {
    let within = parts.iter().map(|p| p.within).sum();
    let mix = parts.iter().map(|p| p.mix).sum();
    let makes = |p: &PartOfChange| (p.within + p.mix).abs();
    parts.sort_by(|a, b| makes(b).total_cmp(&makes(a)).then_with(|| a.segment.cmp(&b.segment)));
    parts.truncate(PARTS_MAX);
    let dimension = parts.first()?.segment.dimension.to_string();
    let spread = Spread { dimension, unit, before, after, within, mix, parts };
    let is_finite = [before, after, within, mix].iter().all(|v| v.is_finite());
    is_finite.then_some(spread)
}

/// Did the mix of the traffic do it, and nothing within any part?
pub fn is_mix(spread: &Spread) -> bool {
    let total = spread.within + spread.mix;
    total != 0.0 && spread.mix / total >= MIX_EXPLAINS
}

/// Did nothing but the mix change: is everybody served as before, only more of them where it was worse already? A part that is new
/// says no: nobody knows how it was served before. Neither does one that by itself went the way of the whole for more than the
/// share of it that a mix may leave unexplained.
pub fn is_mix_alone(spread: &Spread) -> bool {
    let relative = |before: f64, after: f64| if before > 0.0 { (after - before) / before } else { f64::INFINITY };
    let whole = relative(spread.before, spread.after);
    let is_as_before = |p: &PartOfChange| {
        let own = relative(p.before, p.after) * whole.signum();
        p.share_before > SHARE_KNOWN && own <= (1.0 - MIX_EXPLAINS) * whole.abs()
    };
    is_mix(spread) && whole.is_finite() && spread.parts.iter().filter(|p| p.share_after > SHARE_KNOWN).all(is_as_before)
}

/// Does the whole go one way while every part goes the other, or stays? (Simpson's paradox)
pub fn is_paradox(spread: &Spread) -> bool {
    let total = spread.within + spread.mix;
    total != 0.0 && spread.parts.iter().all(|p| (p.after - p.before) * total <= 0.0)
}

/// Share of the change that a part makes; 0 where nothing changed.
pub fn share(spread: &Spread, part: &PartOfChange) -> f64 {
    let total = spread.within + spread.mix;
    if total == 0.0 { 0.0 } else { (part.within + part.mix) / total }
}

/// The one part that explains the change by what happened within it, if there is one.
pub fn one_part(spread: &Spread) -> Option<&PartOfChange> {
    let relative = |before: f64, after: f64| if before > 0.0 { ((after - before) / before).abs() } else { f64::INFINITY };
    let whole = relative(spread.before, spread.after);
    let first = spread.parts.first().filter(|_| !is_mix(spread))?;
    let explains = first.within / (spread.within + spread.mix) >= ONE_EXPLAINS;
    (explains && relative(first.before, first.after) >= STANDS_OUT * whole).then_some(first)
}

/// Of several dimensions the one that tells most: the mix, one part alone, or the largest share of a part beyond its traffic.
pub fn telling(spreads: Vec<Spread>) -> Option<Spread> {
    let tells = |s: &Spread| {
        let beyond = s.parts.first().map_or(0.0, |p| share(s, p).abs() - 0.5 * (p.share_before + p.share_after));
        f64::from(u8::from(is_mix(s))) + f64::from(u8::from(one_part(s).is_some())) + beyond.clamp(0.0, 0.9)
    };
    // The first of equals, in the order of their names.
    spreads.into_iter().reduce(|a, b| if tells(&b) > tells(&a) { b } else { a })
}

/// Do parts with so much traffic speak for a whole with so much?
pub fn covers(parts: &[Part], whole_after: f64) -> bool {
    parts.iter().map(|p| p.after.traffic).sum::<f64>() >= COVERS_MIN * whole_after
}

/// Is this dimension one of places?
pub fn is_place(dimension: &str) -> bool {
    let name = dimension.to_ascii_lowercase();
    let words = ["region", "country", "geo", "continent", "city", "location", "market", "site", "territory"];
    words.iter().any(|word| name.contains(word)) || matches!(name.as_str(), "state" | "zone")
}

/// In words: `no segment changed by itself, the mix did: country=es went from 10 % to 61 % of the traffic`.
pub fn say(spread: &Spread) -> String {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let place = if is_place(&spread.dimension) { ", a place" } else { "" };
    if is_mix(spread) {
        let moved = spread.parts.iter().max_by(|a, b| {
            let moves = |p: &PartOfChange| (p.share_after - p.share_before).abs();
            moves(a).total_cmp(&moves(b))
        });
        let moved = moved.map(|p| {
            format!(
                ": {}{place} went from {} to {} of the traffic",
                super::quoted(&p.segment.to_string()),
                percent(p.share_before),
                percent(p.share_after)
            )
        });
        let paradox = if is_paradox(spread) && spread.within != 0.0 { "; every segment by itself stayed or went the other way" } else { "" };
        let moved = moved.unwrap_or_default();
        return match is_mix_alone(spread) {
            true => format!("no segment changed by itself, the mix did{moved}{paradox}"),
            false => format!("the mix made most of it{moved}; but segments changed by themselves as well, or are new"),
        };
    }
    if let Some(one) = one_part(spread) {
        let name = super::quoted(&one.segment.to_string());
        return format!("{name}{place} makes {} of the change with {} of the traffic", percent(share(spread, one)), percent(one.share_before));
    }
    let listed: Vec<String> =
        spread.parts.iter().take(3).map(|p| format!("{} {}", super::quoted(&p.segment.value), percent(share(spread, p)))).collect();
    format!("no one value of {}{place} explains it: they make {}", super::quoted(&spread.dimension), listed.join(", "))
}

/// Is a change still growing? From values since the onset, in their order, and what was usual: the last third lies further from it
/// than the first third, by a fifth. `None` while there are too few.
pub fn grows(values: &[(Time, f64)], usual: f64) -> Option<bool> {
    let third = values.len() / 3;
    if third < 2 {
        return None;
    }
    let mean = |of: &[(Time, f64)]| of.iter().map(|(_, v)| v).sum::<f64>() / of.len() as f64;
    let (first, last) = (mean(&values[..third]), mean(&values[values.len() - third..]));
    Some((last - usual).abs() > 1.2 * (first - usual).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(value: &str, before: (f64, f64), after: (f64, f64)) -> Part {
        let level = |(traffic, value)| Level { traffic, value };
        Part { segment: Segment { dimension: "country".into(), value: value.into() }, before: level(before), after: level(after) }
    }

    fn split(parts: &[Part]) -> Spread {
        let spread = decompose(parts, Unit::Ratio).expect("two parts with traffic");
        assert!((spread.within + spread.mix - (spread.after - spread.before)).abs() < 1e-12, "{spread:?}");
        let shares: f64 = spread.parts.iter().map(|p| share(&spread, p)).sum();
        assert!(spread.after == spread.before || (shares - 1.0).abs() < 1e-9, "{spread:?}");
        spread
    }

    #[test]
    fn what_changed_within_one_part_is_told_as_its_own() {
        let s = split(&[part("de", (40.0, 0.01), (40.0, 0.01)), part("es", (60.0, 0.01), (60.0, 0.05))]);
        assert!(!is_mix(&s) && s.mix == 0.0);
        assert_eq!(one_part(&s).map(|p| &*p.segment.value), Some("es"));
        assert_eq!(say(&s), "country=es, a place makes 100 % of the change with 60 % of the traffic");
    }

    #[test]
    fn what_changed_everywhere_is_no_parts_own() {
        let s = split(&[part("de", (50.0, 0.01), (50.0, 0.04)), part("es", (50.0, 0.01), (50.0, 0.04))]);
        assert!(!is_mix(&s) && one_part(&s).is_none());
        assert!(say(&s).starts_with("no one value of country, a place explains it: they make de 50 %, es 50 %"), "{}", say(&s));
    }

    /// Errors of both countries have fallen, and those of the whole have risen: more of the traffic comes from the worse one.
    #[test]
    fn simpsons_paradox_is_seen_through() {
        let s = split(&[part("de", (90.0, 0.010), (20.0, 0.009)), part("es", (10.0, 0.050), (80.0, 0.048))]);
        assert!(s.after > 2.0 * s.before, "{s:?}");
        assert!(s.within < 0.0 && s.mix > 0.0 && is_mix(&s) && is_paradox(&s) && one_part(&s).is_none());
        let words = say(&s);
        assert!(words.starts_with("no segment changed by itself, the mix did: country="), "{words}");
        assert!(words.contains("10 % to 80 % of the traffic") || words.contains("90 % to 20 % of the traffic"), "{words}");
        assert!(words.ends_with("every segment by itself stayed or went the other way"), "{words}");
    }

    #[test]
    fn a_part_that_is_new_or_gone_changes_the_mix_only() {
        let s = split(&[part("de", (50.0, 0.02), (50.0, 0.02)), part("cn", (0.0, f64::NAN), (50.0, 0.20))]);
        assert!(is_mix(&s) && s.within == 0.0, "{s:?}");
        let s = split(&[part("de", (50.0, 0.02), (50.0, 0.02)), part("cn", (50.0, 0.20), (0.0, f64::NAN))]);
        assert!(is_mix(&s) && s.within == 0.0, "{s:?}");
    }

    /// Before and after of each part, and whether nothing but the mix has changed.
    #[test]
    fn a_mix_is_alone_only_where_every_part_was_known_and_is_served_as_before() {
        let moved = [part("de", (90.0, 100.0), (40.0, 100.0)), part("es", (10.0, 300.0), (60.0, 300.0))];
        assert!(is_mix_alone(&split(&moved)));
        let noisy = [part("de", (90.0, 100.0), (40.0, 104.0)), part("es", (10.0, 300.0), (60.0, 310.0))];
        assert!(is_mix_alone(&split(&noisy)));
        // A part that makes little of it, and is served twice as slowly.
        let with_a_change =
            [part("de", (90.0, 100.0), (35.0, 100.0)), part("es", (8.0, 300.0), (60.0, 300.0)), part("it", (2.0, 100.0), (5.0, 200.0))];
        let s = split(&with_a_change);
        assert!(is_mix(&s) && !is_mix_alone(&s), "{s:?}");
        assert!(say(&s).starts_with("the mix made most of it: country=de") && say(&s).contains("by themselves as well"), "{}", say(&s));
        let better = [part("de", (90.0, 100.0), (35.0, 100.0)), part("es", (8.0, 300.0), (60.0, 300.0)), part("it", (2.0, 200.0), (5.0, 100.0))];
        assert!(is_mix_alone(&split(&better)), "who is served better than before is no harm");
        let new = [part("de", (100.0, 100.0), (60.0, 100.0)), part("pt", (0.0, f64::NAN), (40.0, 400.0))];
        assert!(is_mix(&split(&new)) && !is_mix_alone(&split(&new)), "nobody knows how they were served before");
        let falls = [part("de", (90.0, 0.9), (30.0, 0.9)), part("es", (10.0, 0.6), (70.0, 0.6))];
        assert!(is_mix_alone(&split(&falls)));
        let falls = [part("de", (90.0, 0.9), (30.0, 0.8)), part("es", (10.0, 0.6), (70.0, 0.6))];
        assert!(!is_mix_alone(&split(&falls)), "the better part has become worse");
    }

    #[test]
    fn traffic_is_split_by_what_each_part_sends() {
        let s = decompose_traffic(&[part("us", (12.0, 0.0), (0.0, 0.0)), part("eu", (12.0, 0.0), (11.5, 0.0)), part("apac", (6.0, 0.0), (6.2, 0.0))]);
        let s = s.expect("split");
        assert_eq!(one_part(&s).map(|p| &*p.segment.value), Some("us"));
        let all =
            decompose_traffic(&[part("us", (12.0, 0.0), (4.0, 0.0)), part("eu", (12.0, 0.0), (4.0, 0.0)), part("apac", (6.0, 0.0), (2.0, 0.0))]);
        assert_eq!(one_part(&all.expect("split")), None);
        assert_eq!(decompose_traffic(&[part("us", (12.0, 0.0), (4.0, 0.0))]), None);
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert_eq!(decompose(&[], Unit::Ratio), None);
        assert_eq!(decompose(&[part("de", (1.0, 1.0), (1.0, 2.0))], Unit::Ratio), None);
        assert_eq!(decompose(&[part("de", (0.0, 1.0), (1.0, 2.0)), part("es", (0.0, 1.0), (1.0, 2.0))], Unit::Ratio), None);
        assert_eq!(decompose(&[part("de", (1.0, f64::INFINITY), (1.0, 2.0)), part("es", (1.0, 1.0), (1.0, 2.0))], Unit::Ratio), None);
        let same = decompose(&[part("de", (1.0, 1.0), (1.0, 1.0)), part("es", (1.0, 1.0), (1.0, 1.0))], Unit::Ratio).expect("split");
        assert!(!is_mix(&same) && !is_paradox(&same) && share(&same, &same.parts[0]) == 0.0);
    }

    #[test]
    fn the_dimension_that_tells_most_is_told() {
        let flat = decompose(&[part("a", (1.0, 1.0), (1.0, 2.0)), part("b", (1.0, 1.0), (1.0, 2.0))], Unit::Ratio).expect("split");
        let one = decompose(&[part("c", (1.0, 1.0), (1.0, 3.0)), part("d", (1.0, 1.0), (1.0, 1.0))], Unit::Ratio).expect("split");
        assert_eq!(telling(vec![flat.clone(), one.clone()]), Some(one.clone()));
        assert_eq!(telling(vec![one.clone(), flat]), Some(one));
        assert_eq!(telling(vec![]), None);
    }

    #[test]
    fn a_trend_is_told_from_the_thirds() {
        let at = |values: &[f64]| values.iter().enumerate().map(|(i, v)| (Time(i as i64), *v)).collect::<Vec<_>>();
        assert_eq!(grows(&at(&[1.0; 5]), 0.0), None);
        assert_eq!(grows(&at(&[1.0; 6]), 0.0), Some(false));
        assert_eq!(grows(&at(&[1.0, 1.1, 1.2, 1.3, 1.4, 1.5]), 0.0), Some(true));
        assert_eq!(grows(&at(&[-1.0, -1.1, -1.2, -1.3, -1.4, -1.5]), 0.0), Some(true));
    }

    #[test]
    fn places_are_known_by_the_names_of_their_dimension() {
        assert!(["region", "country", "geo", "user_country", "Market", "zone"].iter().all(|d| is_place(d)));
        assert!(["tier", "language", "age_band", "device", "estate"].iter().all(|d| !is_place(d)));
    }
}
