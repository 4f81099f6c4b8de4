//! Pages on a phone: none is wider than the screen, nothing is cut off, and what is tapped is high enough for a thumb.
//!
//! The browser's own window is never narrower than 500 px, so it is told over its debugging protocol how wide the screen is. That
//! goes through pipes, one JSON text after the other with a zero byte behind each.

use std::io::{BufRead, BufReader};
use std::process::ChildStdin;
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine;
use bellwether::domain::StepState;
use bellwether::domain::response::{Action, Draft, Plan};
use bellwether::respond::{self, LegalClock, Scene};
use bellwether::settings::built_in;

use super::*;

const WIDE: u64 = 390;
const HIGH: u64 = 844;
/// Of what is tapped.
const HIGH_ENOUGH: u64 = 40;
/// For the slowest answer of a browser on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is wrong with the page that is shown, everything on it unfolded. What scrolls within itself may be wider than the screen.
const LOOK: &str = "(async () => {
    if (document.readyState !== 'complete') await new Promise(done => addEventListener('load', done));
    document.querySelectorAll('details').forEach(d => { d.open = true; });
    const box = e => e.getBoundingClientRect();
    const named = e => `${e.tagName} ${e.textContent.trim().slice(0, 40)} (${Math.round(box(e).width)} x ${Math.round(box(e).height)})`;
    const all = [...document.querySelectorAll('header *, main *, footer *')].filter(e => e.checkVisibility());
    const tapped = 'button, summary, select, textarea, input:not([type=hidden], [type=checkbox]), nav a';
    const is_cut = e => !e.parentElement.closest('.wide, .chart, pre') && (box(e).left < 0 || box(e).right > innerWidth + 0.5);
    return {
        inner: innerWidth,
        wide: document.documentElement.scrollWidth,
        high: document.documentElement.scrollHeight,
        cut: all.filter(is_cut).map(named),
        low: all.filter(e => e.matches(tapped) && box(e).height < HIGH_ENOUGH).map(named),
    };
})()";

struct Phone {
    to: ChildStdin,
    /// What the browser says, text by text; ends with it.
    from: mpsc::Receiver<Vec<u8>>,
    calls: u64,
    session: Option<Value>,
    _browser: Running,
    _profile: tempfile::TempDir,
}

impl Phone {
    fn start(chromium: &str) -> Phone {
        let profile = tempfile::tempdir().unwrap();
        // The shell puts the pipes where the browser looks for them.
        let mut browser = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null", chromium])
            .args(HEADLESS)
            .args(["--remote-debugging-pipe".to_owned(), format!("--user-data-dir={}", profile.path().display())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, mut said) = (browser.stdin.take().unwrap(), BufReader::new(browser.stdout.take().unwrap()));
        let (heard, from) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            while said.read_until(0, &mut text).is_ok_and(|n| n > 0) && heard.send(std::mem::take(&mut text)).is_ok() {}
        });
        let mut phone = Phone { to, from, calls: 0, session: None, _browser: Running(browser), _profile: profile };
        let page = phone.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].take();
        let mut attached = phone.call("Target.attachToTarget", json!({"targetId": page, "flatten": true}));
        phone.session = Some(attached["sessionId"].take());
        let screen = json!({"width": WIDE, "height": HIGH, "deviceScaleFactor": 2, "mobile": false});
        phone.call("Emulation.setDeviceMetricsOverride", screen);
        phone
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut asked = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            asked["sessionId"] = session.clone();
        }
        self.to.write_all(format!("{asked}\0").as_bytes()).unwrap();
        loop {
            let text = self.from.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("the browser does not answer {method}: {e}"));
            let mut said: Value = serde_json::from_slice(text.strip_suffix(&[0]).expect("a whole text")).unwrap();
            // Between answers it tells what happens.
            if said["id"] == self.calls {
                assert!(said["error"].is_null(), "{asked}: {said}");
                return said["result"].take();
            }
        }
    }

    /// Shows a page, and says what is wrong with it; the picture is for people.
    fn look(&mut self, url: &str, picture: &std::path::Path) -> Value {
        self.call("Page.navigate", json!({"url": url}));
        let look = LOOK.replace("HIGH_ENOUGH", &HIGH_ENOUGH.to_string());
        let seen = self.call("Runtime.evaluate", json!({"expression": look, "awaitPromise": true, "returnByValue": true}))["result"]["value"].take();
        let clip = json!({"x": 0, "y": 0, "width": WIDE, "height": seen["high"], "scale": 1});
        let taken = self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true, "clip": clip}));
        std::fs::write(picture, base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().unwrap()).unwrap()).unwrap();
        seen
    }
}

/// An incident as it is in the middle: a runbook with a plan that waits, drafts for users and a duty to report.
fn in_the_middle(fake: Fake) -> Fake {
    {
        let incident = &mut fake.incidents.lock().unwrap()[0];
        let clock = LegalClock {
            name: "eu_ai_act_15_days".into(),
            words: "a serious incident of a high-risk system is reported to the market surveillance authority".into(),
            after_ms: 15 * 24 * HOUR,
            categories: vec![incident.key.category],
            checked_on: "2026-11-01".into(),
        };
        let settings = respond::Settings { runbooks: built_in(), clocks: vec![clock], ..respond::Settings::default() };
        let mut response = settings.prepare(&Scene {
            key: &incident.key,
            severity: incident.severity,
            title: &incident.title,
            since: incident.onset.at,
            versions: &incident.versions,
            segments: &incident.segments,
            owner: Some("credit-ml"),
            exposed: true,
            pages: true,
        });
        let step = &mut response.steps[0];
        step.state = StepState::Planned;
        let set = [("spec.traffic.canaryPercentOfTheNewestRevision".to_owned(), "0".to_owned())].into();
        step.action = Some(Arc::new(Action { using: "kubernetes-production".into(), target: "inferenceservice/loan-scorer".into(), set }));
        step.plan = Some(Plan {
            hash: "9f2c81d07a5be3349f2c81d0".into(),
            at: now(),
            expires_at: Time(now().0 + HOUR),
            before: "canaryTrafficPercent 100".into(),
            version: "resourceVersion 884123".into(),
            request: format!("PATCH /apis/serving.kserve.io/v1beta1/namespaces/prod/inferenceservices/loan-scorer\n\n{}", "{\"spec\":0}".repeat(20)),
            change: "canaryTrafficPercent of inferenceservice/loan-scorer: 100 -> 0".into(),
            is_noop: false,
            can_undo: true,
        });
        for (name, text) in [
            (
                "notify_users_affected",
                "Between 09:12 and now some of your applications were declined by mistake. They are looked at again by a person.",
            ),
            ("status_page", "We are looking into wrong answers of the loan scorer in the EU, and will write again within an hour."),
        ] {
            response.drafts.push(Draft { name: name.into(), text: text.into(), ..Draft::default() });
        }
        incident.response = response;
    }
    fake
}

#[tokio::test]
async fn a_name_that_was_said_is_not_asked_for_by_the_small_forms() {
    let site = Site::with(in_the_middle(Fake::with(""))).await;
    let page = site.url(&format!("/incidents/{}", site.fake.first_id()));
    let seen = async |cookie: &str| site.client.get(&page).header("cookie", cookie).send().await.unwrap().text().await.unwrap();
    let (stranger, ada) = (seen("").await, seen("bellwether_name=416461").await);
    let asked = |html: &str| (html.matches("Your name <input").count(), html.matches(">as Ada<").count());
    // The plan that waits, the steps by hand, two drafts and a duty to report.
    assert_eq!((asked(&stranger), asked(&ada)), ((5, 0), (0, 5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_on_a_phone_and_can_be_tapped() {
    let Some(chromium) = real("chromium", program("chromium")) else { return };
    let folder = std::path::Path::new("target/screenshots");
    std::fs::create_dir_all(folder).unwrap();
    let site = Site::with(in_the_middle(Fake::with(""))).await;
    let strange = Site::with(in_the_middle(Fake::with(&format!("{HOSTILE}{}", "w".repeat(80))))).await;
    let mut pages = Vec::new();
    for (site, kind) in [(&site, ""), (&strange, "strange-")] {
        let incident = format!("/incidents/{}", site.fake.first_id());
        let model = format!("/models/{}", percent(&site.fake.models[0].model));
        let series = format!("/series/{}", site.fake.series[0].series.id);
        let named = [("fleet", "/"), ("incidents", "/incidents"), ("silences", "/silences"), ("health", "/health")];
        for (name, path) in named.into_iter().chain([("incident", &*incident), ("model", &*model), ("series", &*series)]) {
            pages.push((format!("phone-{kind}{name}.png"), site.url(path)));
        }
    }
    let seen = tokio::task::spawn_blocking(move || {
        let mut phone = Phone::start(&chromium);
        pages.into_iter().map(|(picture, url)| (phone.look(&url, &folder.join(&picture)), picture)).collect::<Vec<_>>()
    });
    for (seen, picture) in seen.await.unwrap() {
        assert_eq!(seen["inner"], WIDE, "{picture}: {seen}");
        assert!(seen["wide"].as_u64().unwrap() <= WIDE && seen["cut"] == json!([]) && seen["low"] == json!([]), "{picture}: {seen:#}");
    }
}
