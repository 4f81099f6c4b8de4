//! What a watch owes: the prefix law, its counts, its bounds, and silence about what it must not tell.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::decode::{self, Decoder};
use crate::domain::Time;
use crate::domain::series::StableHash;

/// 2026-11-20T09:12:00Z.
const START: i64 = 1_795_165_920_000;
const PANE: i64 = 10_000;

fn settings() -> Settings {
    Settings {
        pane_ms: PANE,
        lateness_ms: 30_000,
        dimensions: vec!["region".into()],
        currency: "USD".into(),
        exemplar_allow: vec!["employment".into()],
        protected: Default::default(),
        limits: Limits::default(),
        scan: Some(Arc::new(|_, output| output.contains("canary-7").then(|| ("canary".to_owned(), "a canary was seen".to_owned())))),
    }
}

/// A watch that is fed with text, as the daemon feeds it.
struct Desk {
    watch: Watch,
    decoder: Decoder,
    out: Vec<Outbound>,
    position: i64,
}

impl Desk {
    fn new(settings: Settings) -> Desk {
        Desk { watch: Watch::new(settings), decoder: Decoder::canonical(decode::Settings::new([7; 16])), out: vec![], position: 0 }
    }

    /// One record of partition 0 whose record time is `record_ms` after the start.
    fn record(&mut self, record_ms: i64, text: &str) {
        self.position += 1;
        let record_time = Time(START + record_ms);
        match self.decoder.decode(text.as_bytes(), record_time, None) {
            Ok(seen) => self.watch.handle(0, self.position, record_time, &seen, &mut self.out),
            Err(_) => self.watch.rejected(0, self.position),
        }
    }

    /// A prediction `at_ms` after the start, with more members.
    fn prediction(&mut self, at_ms: i64, id: &str, more: &str) {
        let time = START + at_ms;
        self.record(at_ms, &format!(r#"{{"kind":"prediction","id":"{id}","model":"m","time":{time}{more}}}"#));
    }

    fn counts(&self) -> Counts {
        self.watch.counts()[0].clone()
    }

    fn finish(&mut self) -> Vec<Contribution> {
        self.watch.finish(0, &mut self.out);
        self.sealed()
    }

    fn sealed(&self) -> Vec<Contribution> {
        let sealed = self.out.iter().filter_map(|o| match o {
            Outbound::Sealed(c) => Some(c.clone()),
            Outbound::Slot(..) | Outbound::SealedThrough(..) => None,
        });
        sealed.collect()
    }

    fn facts(&mut self) -> Vec<FactKind> {
        self.finish().into_iter().flat_map(|c| c.facts).map(|f| f.kind).collect()
    }
}

/// Count of a bin of a slot in a cell.
fn count(cell: &mut Cell, slot: u16, bin: u16) -> u32 {
    cell.codes().iter().find(|(code, _)| (code.slot(), code.bin()) == (slot, bin)).map_or(0, |(_, n)| *n)
}

/// The `i`-th record of a stream that has a bit of everything: `(partition, record time, text)`.
fn stream(seed: u64, i: u64) -> (PartitionId, Time, String) {
    let draw = |what: u64, below: u64| StableHash::of(&[seed.to_be_bytes(), i.to_be_bytes(), what.to_be_bytes()].concat()) % below;
    let record = START + (i as i64) * 700;
    let time = record - draw(0, 60_000) as i64 * i64::from(draw(1, 4) == 0);
    let common = format!(
        r#""time":{time},"model":"m{}","version":"v{}","segments":{{"region":"r{}"}},"user":"u{}""#,
        draw(2, 3),
        draw(3, 2),
        draw(4, 6),
        draw(5, 50)
    );
    let text = match draw(6, 12) {
        0 => format!(r#"{{"kind":"quality","name":"q{}","value":0.{},{common}}}"#, draw(7, 2), draw(8, 99)),
        1 => format!(r#"{{"kind":"feedback","kind_of":"complaint",{common}}}"#),
        2 => format!(r#"{{"kind":"deployment","target":{{"kind":"model","name":"m"}},"phase":"finished",{common}}}"#),
        3 => "not an event".to_owned(),
        4 => format!(r#"{{"kind":"quality","name":"q","value":1,"prediction_id":"p","time":{time}}}"#),
        _ => format!(
            r#"{{"kind":"prediction","id":"p-{}","latency_ms":{},"status":"{}","cost_usd":0.00{},"features":{{"f{}":{},"g":"c{}"}},"flags":{{"harmful":{}}},{common}}}"#,
            draw(9, 400),
            draw(10, 900),
            ["ok", "ok", "ok", "error", "timeout"][draw(11, 5) as usize],
            draw(12, 99),
            draw(13, 5),
            draw(14, 1_000),
            draw(15, 9),
            ["true", "false", "0.7", "\"confirmed\"", "-1"][draw(16, 5) as usize],
        ),
    };
    (draw(17, 2) as PartitionId, Time(record), text)
}

fn tight() -> Settings {
    let limits = Limits { segment_values_max: 3, leaves_max: 9, slots_max: 16, dedup_ids_max: 60, dedup_window_ms: 60_000, facts_max: 2 };
    Settings { limits, ..settings() }
}

fn feed(watch: &mut Watch, decoder: &Decoder, i: u64, seed: u64, out: &mut Vec<Outbound>) {
    let (partition, record_time, text) = stream(seed, i);
    match decoder.decode(text.as_bytes(), record_time, None) {
        Ok(seen) => watch.handle(partition, i as i64 + 1, record_time, &seen, out),
        Err(_) => watch.rejected(partition, i as i64 + 1),
    }
}

fn bytes(out: &[Outbound]) -> Vec<Vec<u8>> {
    let told = |o: &Outbound| match o {
        Outbound::Slot(s, name) => postcard::to_stdvec(&(0u8, s, name)).unwrap(),
        Outbound::Sealed(c) => postcard::to_stdvec(&(1u8, c)).unwrap(),
        Outbound::SealedThrough(p, t) => postcard::to_stdvec(&(2u8, p, t)).unwrap(),
    };
    out.iter().map(told).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The bounds are tight, so that what happens at each of them is kept over a restart too.
    #[test]
    fn a_restart_at_any_record_and_a_replay_from_before_it_change_no_byte(
        seed in any::<u64>(),
        mut cuts in prop::collection::vec(0u64..400, 1..6),
        back in 0u64..40,
    ) {
        let decoder = Decoder::canonical(decode::Settings::new([7; 16]));
        let (mut plain, mut told) = (Watch::new(tight()), vec![]);
        (0..400).for_each(|i| feed(&mut plain, &decoder, i, seed, &mut told));

        cuts.sort_unstable();
        let (mut watch, mut retold) = (Watch::new(tight()), vec![]);
        let mut done = 0;
        for cut in cuts.into_iter().chain([400]) {
            (done..cut).for_each(|i| feed(&mut watch, &decoder, i, seed, &mut retold));
            done = cut.max(done);
            let rows = saved(&watch);
            watch = restored(tight(), &rows).unwrap();
            prop_assert_eq!(&saved(&watch), &rows);
            // The log is read again from before our state: nothing is said twice.
            (done.saturating_sub(back)..done).for_each(|i| feed(&mut watch, &decoder, i, seed, &mut retold));
        }
        prop_assert_eq!(bytes(&retold), bytes(&told));
        prop_assert_eq!(watch.counts(), plain.counts());
        prop_assert_eq!(saved(&watch), saved(&plain));
        let counts = plain.counts();
        prop_assert!(counts.iter().any(|c| c.leaves_as_other > 0) && counts.iter().any(|c| c.segments_as_other > 0));
    }

    #[test]
    fn what_a_prefix_says_the_whole_says_first(seed in any::<u64>(), cut in 0u64..300) {
        let decoder = Decoder::canonical(decode::Settings::new([7; 16]));
        let run = |until: u64| {
            let (mut watch, mut told) = (Watch::new(settings()), vec![]);
            (0..until).for_each(|i| feed(&mut watch, &decoder, i, seed, &mut told));
            bytes(&told)
        };
        let (part, whole) = (run(cut), run(300));
        prop_assert!(whole.starts_with(&part));
    }
}

#[test]
fn a_pane_is_sealed_when_the_watermark_has_passed_it_by_the_lateness_and_then_it_is_late() {
    let mut desk = Desk::new(settings());
    desk.prediction(0, "a", "");
    desk.prediction(39_999, "b", "");
    assert_eq!(desk.sealed().len(), 0, "the pane may still be filled");
    desk.prediction(40_000, "c", "");
    let sealed = desk.sealed();
    assert_eq!((sealed.len(), sealed[0].pane, sealed[0].stamp, sealed[0].cells[0].1.predictions), (1, Time(START), 3, 1));
    assert!(desk.out.contains(&Outbound::SealedThrough(0, Time(START + PANE))));
    desk.prediction(9_999, "d", "");
    assert_eq!((desk.counts().late, desk.counts().events), (1, 4), "late is counted, once");
    desk.prediction(10_000, "e", "");
    assert_eq!(desk.counts().late, 1);
    assert_eq!(desk.finish().iter().map(|c| c.pane.0 - START).collect::<Vec<_>>(), [0, 10_000, 30_000, 40_000]);
}

#[test]
fn a_duplicate_within_a_partition_counts_once_and_another_kind_is_another_id() {
    let mut desk = Desk::new(settings());
    desk.prediction(0, "a", "");
    desk.prediction(5_000, "a", "");
    desk.record(6_000, r#"{"kind":"report","id":"a","summary":"s","source_of_report":"user"}"#);
    assert_eq!((desk.counts().events, desk.counts().duplicates), (2, 1));
    let seen = desk.decoder.decode(br#"{"kind":"prediction","id":"a","model":"m"}"#, Time(START), None).unwrap();
    desk.watch.handle(1, 1, Time(START), &seen, &mut desk.out);
    assert_eq!(desk.watch.counts()[1].events, 1, "another partition cannot know");
}

#[test]
fn ids_are_forgotten_at_the_bound_and_that_is_counted() {
    let limits = Limits { dedup_ids_max: 8, ..Limits::default() };
    let mut desk = Desk::new(Settings { limits, ..settings() });
    (0..12).for_each(|i| desk.prediction(i, &format!("p{i}"), ""));
    desk.prediction(20, "p11", "");
    desk.prediction(21, "p0", "");
    assert_eq!((desk.counts().duplicates, desk.counts().dedup_forgotten), (1, 8));
}

#[test]
fn a_rejected_and_an_unattributed_event_do_not_move_the_watermark() {
    let mut desk = Desk::new(settings());
    desk.prediction(0, "a", "");
    desk.record(200_000, "{");
    desk.record(200_000, r#"{"kind":"quality","name":"q","value":1,"prediction_id":"a"}"#);
    desk.record(200_000, r#"{"kind":"outcome","label":"x","prediction_id":"a"}"#);
    assert_eq!(desk.watch.watermark(0), Some(Time(START)));
    assert_eq!((desk.counts().rejected, desk.counts().unattributed, desk.counts().events), (1, 2, 3));
    assert_eq!(desk.watch.next_position(0), Some(4), "but their place in the log is passed");
}

#[test]
fn a_time_in_the_future_a_wrong_unit_and_a_placeholder_do_not_move_the_watermark() {
    let mut desk = Desk::new(settings());
    desk.prediction(0, "a", "");
    let times = ["\"9999-12-31T23:59:59Z\"", "0", "-5", "1e999", "1795165920", "4102444800000", "\"1795165920000000\"", "\"2150-01-01T00:00:00Z\""];
    for (i, time) in times.iter().enumerate() {
        desk.record(10, &format!(r#"{{"kind":"prediction","id":"t{i}","model":"m","time":{time}}}"#));
    }
    assert_eq!(desk.watch.watermark(0), Some(Time(START + 10)), "never beyond the record's own time");
    let counts = desk.counts();
    assert_eq!((counts.events, counts.late, counts.times_clamped, counts.without_time, counts.fields_invalid), (9, 0, 2, 4, 4));
}

#[test]
fn values_of_a_segment_beyond_the_budget_are_counted_as_other() {
    let limits = Limits { segment_values_max: 2, ..Limits::default() };
    let mut desk = Desk::new(Settings { limits, ..settings() });
    for (i, region) in ["eu", "us", "xx", "yy", "xx", "eu"].iter().enumerate() {
        desk.prediction(i as i64, &format!("p{i}"), &format!(r#","segments":{{"region":"{region}","shoe":"{i}"}}"#));
    }
    let cells = desk.finish().remove(0).cells;
    let mut told: Vec<_> = cells.iter().map(|(leaf, cell)| (leaf.segments[0].to_string(), cell.predictions)).collect();
    told.sort();
    assert_eq!(told, [("region=eu".to_owned(), 2), ("region=other".to_owned(), 3), ("region=us".to_owned(), 1)]);
    assert_eq!(desk.counts().segments_as_other, 3);
    let groups: Vec<_> = cells[0].0.groups().map(|g| g.words()).collect();
    assert_eq!(groups, ["m", "m, version unknown", "m, region=eu"]);
}

#[test]
fn invented_models_versions_features_and_flags_stay_within_their_bounds_and_known_ones_go_on() {
    let limits = Limits { leaves_max: 20, slots_max: 30, ..Limits::default() };
    let mut desk = Desk::new(Settings { limits, ..settings() });
    for i in 0..3_000 {
        desk.prediction(i, &format!("a{i}"), r#","version":"v1""#);
        let text = format!(r#"{{"kind":"prediction","id":"b{i}","model":"x{i}","features":{{"f{i}":1}},"flags":{{"g{i}":true}}}}"#);
        desk.record(i, &text);
    }
    let counts = desk.counts();
    assert!(counts.leaves_as_other > 2_900 && counts.slots_dropped > 2_900, "{counts:?}");
    let cells = desk.finish().remove(0).cells;
    assert!(cells.len() <= 20 + 1_000 + 1, "{}", cells.len());
    assert_eq!(cells.iter().map(|(_, cell)| cell.predictions).sum::<u32>(), 6_000, "nothing is lost");
    let known = cells.iter().find(|(leaf, _)| &*leaf.model == "m").expect("the first model");
    assert_eq!((&*known.0.version, known.1.predictions), ("v1", 3_000));
    assert_eq!(desk.watch.slots().len(), 30);
}

#[test]
fn a_partition_that_was_idle_gives_what_it_has_and_is_late_for_what_closed_without_it() {
    let mut desk = Desk::new(settings());
    desk.prediction(1_000, "a", "");
    desk.watch.rest(0, &mut desk.out);
    assert_eq!(desk.sealed().iter().map(|c| c.pane.0 - START).collect::<Vec<_>>(), [0]);
    assert!(matches!(desk.out.last(), Some(Outbound::SealedThrough(0, through)) if *through > Time(START + 1_000)));
    desk.watch.wake(0, Time(START + 60_000));
    desk.watch.wake(0, Time(START + 30_000));
    desk.prediction(59_999, "b", "");
    assert_eq!(desk.counts().late, 1, "an earlier floor does not lower it");
    assert_eq!(desk.watch.watermark(0), Some(Time(START + 1_000)));
    desk.prediction(60_000, "c", "");
    assert_eq!(desk.counts().late, 1);
    assert_eq!(desk.finish().len(), 2);
}

#[test]
fn users_are_counted_by_their_hashes_and_nothing_keeps_their_names() {
    let mut desk = Desk::new(settings());
    for (i, user) in ["ana@example.org", "ben@example.org", "ana@example.org"].iter().enumerate() {
        let status = if i == 1 { "error" } else { "ok" };
        desk.prediction(i as i64, &format!("p{i}"), &format!(r#","user":"{user}","status":"{status}""#));
    }
    let rows = saved(&desk.watch);
    let cell = desk.finish().remove(0).cells.remove(0).1;
    assert_eq!((cell.users.estimate().0, cell.users_failed.estimate().0), (2.0, 1.0));
    assert!(rows.len() == 2 && !rows.iter().any(|(_, row)| row.windows(7).any(|w| w == b"example")));
}

#[test]
fn an_exemplar_shows_only_what_the_list_allows() {
    let mut desk = Desk::new(settings());
    let more = r#","version":"v1","latency_ms":12,"status":"error","error":{"code":"504","message":"SECRET for ana"},"output":"SECRET","label":"SECRET",
        "segments":{"region":"eu","shoe":"SECRET"},"features":{"income":"SECRET","employment":"self"},"groups":{"sex":"SECRET"},"user":"SECRET",
        "trace_id":"SECRET","session_id":"SECRET""#;
    desk.prediction(0, "p-1", more);
    let cell = desk.finish().remove(0).cells.remove(0).1;
    assert!(cell.usual.told().is_empty());
    let e = &cell.failed.told()[0];
    let facts: Vec<(&str, &str)> = e.facts.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(facts, [("latency_ms", "12"), ("error", "504"), ("region", "eu"), ("employment", "self")]);
    assert_eq!((e.id.as_str(), e.version.as_str(), e.status.as_str()), ("p-1", "v1", "error"));
    assert!(!format!("{cell:?}").contains("SECRET"), "nor does anything else in the cell");
}

#[test]
fn confirmed_flags_and_what_the_scan_finds_become_facts() {
    let mut desk = Desk::new(settings());
    desk.prediction(0, "a", r#","flags":{"harmful":"confirmed","leak":0.4}"#);
    desk.prediction(1, "b", r#","output":"the word is canary-7""#);
    desk.record(2, r#"{"kind":"quality","model":"m","name":"leak","evaluator":"human","label":true,"prediction_id":"c"}"#);
    desk.record(3, r#"{"kind":"quality","model":"m","name":"leak","evaluator":"llm","label":true,"prediction_id":"d"}"#);
    let confirmed = |flag: &str, id: &str| FactKind::Confirmed { flag: flag.into(), id: id.into() };
    let leak = FactKind::Leak { rule: "canary".into(), words: "a canary was seen".into(), id: "b".into() };
    assert_eq!(desk.facts(), [confirmed("harmful", "a"), leak, confirmed("leak", "c")]);
}

#[test]
fn facts_of_a_pane_are_bounded_and_what_does_not_fit_is_counted() {
    let limits = Limits { facts_max: 3, ..Limits::default() };
    let mut desk = Desk::new(Settings { limits, ..settings() });
    (0..10).for_each(|i| desk.record(i, r#"{"kind":"heartbeat","model":"m","expected_interval_s":60}"#));
    assert_eq!((desk.facts().len(), desk.counts().facts_dropped), (3, 7));
}

#[test]
fn a_prediction_with_a_field_that_cannot_be_read_counts_against_the_schema() {
    let mut desk = Desk::new(settings());
    desk.prediction(0, "a", r#","latency_ms":12"#);
    desk.prediction(1, "b", r#","latency_ms":"12""#);
    desk.prediction(2, "c", r#","latency_ms":-12"#);
    let mut cell = desk.finish().remove(0).cells.remove(0).1;
    assert_eq!((count(&mut cell, slot::SCHEMA, 0), count(&mut cell, slot::SCHEMA, 1)), (2, 1), "repaired is not unreadable");
    assert_eq!((desk.counts().fields_coerced, desk.counts().fields_invalid), (1, 1));
}

#[test]
fn a_foreign_currency_is_counted_and_not_summed() {
    let mut desk = Desk::new(settings());
    desk.prediction(0, "a", r#","cost":{"amount":0.00071,"currency":"USD"}"#);
    desk.prediction(1, "b", r#","cost":{"amount":5,"currency":"EUR"}"#);
    let cell = desk.finish().remove(0).cells.remove(0).1;
    assert_eq!((cell.cost_nano, desk.counts().foreign_currency), (710_000, 1));
}

#[test]
fn a_state_of_another_version_is_refused_in_words() {
    let mut desk = Desk::new(settings());
    desk.prediction(0, "a", "");
    for n in 0..2 {
        let mut rows = saved(&desk.watch);
        rows[n].1 = vec![1, 2, 3];
        assert!(restored(settings(), &rows).is_err_and(|e| e.contains("saved panes")));
    }
    let mut rows = saved(&desk.watch);
    let last = rows[0].1.len() - 1;
    rows[0].1[last] ^= 1; // The last fixed slot becomes another.
    assert!(restored(settings(), &rows).is_err_and(|e| e.contains("saved panes")));
}

/// The slots, then the partitions.
fn saved(watch: &Watch) -> Vec<(String, Vec<u8>)> {
    let mut rows = vec![];
    watch.save(&mut Rows::new(&mut |name, row| rows.push((name, row.to_vec())))).unwrap();
    rows
}

fn restored(settings: Settings, rows: &[(String, Vec<u8>)]) -> Result<Watch, String> {
    let partitions: Vec<&[u8]> = rows[1..].iter().map(|r| r.1.as_slice()).collect();
    Watch::restore(settings, &rows[0].1, &partitions)
}
