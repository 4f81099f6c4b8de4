//! Silences, maintenance windows, merging and splitting as a person does them: on the command line, against a running daemon.

use std::fmt::Write;

use bellwether::domain::Time;

use crate::fed::Fed;

/// Ten requests a second of two models from `from` on, all of them failing or hardly any.
fn requests(from: Time, seconds: i64, failing: bool) -> String {
    let mut out = String::new();
    for n in 0..seconds * 10 {
        for model in ["quiet", "loud"] {
            let time = from.plus_ms(n * 100);
            let status = if failing || n % 50 == 0 { "error" } else { "ok" };
            let _ = writeln!(
                out,
                r#"{{"kind":"prediction","id":"{model}-{}","time":"{}","model":"{model}","version":"1","environment":"prod","status":"{status}"}}"#,
                time.0,
                time.rfc3339()
            );
        }
    }
    out
}

#[test]
fn nobody_is_called_for_what_somebody_silenced_and_hands_may_merge_and_split() {
    let mut d = Fed::start(|_| "pane: 2s\nlateness: 2s\n".to_owned(), |_| ());
    let state = |d: &Fed, model: &str| {
        let all = d.incidents();
        let one = all.iter().find(|p| p["incident"]["key"]["model"] == model).map(|p| p["incident"].clone());
        one.map_or((String::new(), String::new()), |i| (i["id"].as_str().unwrap_or("").to_owned(), i["state"].as_str().unwrap_or("").to_owned()))
    };
    let ok = |d: &Fed, arguments: &[&str]| {
        let (code, text) = d.command(arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}");
        text
    };
    let began = bellwether::daemon::now().plus_ms(-120_000).floor(2_000);
    d.say(&requests(began, 60, false));
    d.flush();
    d.until("quiet minute", |d| d.judged_through().is_some_and(|t| t >= began.plus_ms(40_000)));

    let (code, text) = d.command(&["silences", "add", "--for", "1h"]);
    assert!(code == 1 && text.contains("name a model"), "{text}");
    let (code, text) = d.command(&["silences", "add", "--model", "quiet", "--for", "60"]);
    assert!(code == 2 && text.contains("no unit"), "{text}");
    let said = ok(&d, &["silences", "add", "--model", "quiet", "--for", "1h", "--why", "load test"]);
    let silence = said.split(':').next().expect("an id").to_owned();
    let listed = ok(&d, &["silences", "list"]);
    assert!(listed.contains(&silence) && listed.contains("model=quiet") && listed.contains("load test") && listed.contains("ana"), "{listed}");
    let (code, text) = d.command(&["silences", "expire", "sil-999"]);
    assert!(code == 1 && text.contains("sil-999"), "{text}");

    // A hold counts from now on; events come with the time of now.
    let now = bellwether::daemon::now().floor(2_000);
    d.say(&requests(now, 20, true));
    d.flush();
    d.until("incidents", |d| !state(d, "quiet").1.is_empty() && !state(d, "loud").1.is_empty());
    let ((quiet, quiet_is), (loud, loud_is)) = (state(&d, "quiet"), state(&d, "loud"));
    // Both fail at once: one cause, and the silenced one is told by nobody.
    assert!(quiet_is == "suppressed" || quiet_is == "merged", "{quiet_is}");
    assert!(loud_is == "open" || loud_is == "merged", "{loud_is}");
    let shown = ok(&d, &["incidents", "show", &quiet]);
    assert!(shown.contains("load test") || shown.contains("merged into"), "{shown}");

    ok(&d, &["silences", "expire", &silence]);
    assert!(ok(&d, &["silences", "list"]).contains("ended by ana"));
    d.until("call", |d| !d.oracle.alerts().is_empty());

    // By hand: apart, together, apart, and suppressed.
    let (one, other) = if loud_is == "merged" { (&quiet, &loud) } else { (&loud, &quiet) };
    if state(&d, "quiet").1 == "merged" || state(&d, "loud").1 == "merged" {
        ok(&d, &["incidents", "split", other, "--why", "two things"]);
    }
    assert!(state(&d, "quiet").1 == "open" && state(&d, "loud").1 == "open");
    ok(&d, &["incidents", "merge", other, "--into", one, "--why", "one switch"]);
    let shown = ok(&d, &["incidents", "show", other]);
    assert!(shown.contains(&format!("merged into {one}")) && shown.contains("one switch"), "{shown}");
    assert!(ok(&d, &["incidents", "show", one]).contains("told here as well"));
    let (code, text) = d.command(&["incidents", "ack", other]);
    assert!(code == 1 && text.contains(one.as_str()), "{text}");
    ok(&d, &["incidents", "split", other]);
    ok(&d, &["incidents", "suppress", other, "--for", "1h", "--why", "known"]);
    assert!(ok(&d, &["incidents", "show", other]).contains("suppressed by ana: known"));

    let said = ok(&d, &["maintenance", "add", "--environment", "prod", "--for", "2h", "--why", "new cluster", "-o", "json"]);
    let window: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let id = window["id"].as_str().expect("an id");
    assert_eq!(window["kind"], "maintenance");
    assert!(ok(&d, &["maintenance", "list"]).contains("environment=prod"));
    assert!(!ok(&d, &["silences", "list"]).contains(id), "each list holds its own");
    ok(&d, &["maintenance", "end", id]);
    let (code, text) = d.command(&["maintenance", "end", id]);
    assert!(code == 1 && text.contains("over already"), "{text}");
}
