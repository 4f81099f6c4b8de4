//! Mail by a small SMTP server of our own: a life is one thread, and every bad reply is told apart.
//!
//! The server speaks as RFC 5321 says, remembers every message, and misbehaves at the step that a test names.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bellwether::domain::delivery::{Delivery, DeliveryState, Message, Notice};
use bellwether::domain::incident::Incident;
use bellwether::domain::{ClosedAs, IncidentState};
use bellwether::notify::{Errand, Receiver};
use serde_json::Value;

use crate::notify::{House, Shelf, build, clock, incident, later, notifier};

/// A step of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Greeting,
    Ehlo,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// Behind the last byte of the message.
    End,
}

/// What the server does in place of a good reply.
#[derive(Clone, Debug)]
pub enum Reply {
    Line(&'static str),
    Cut,
    Hang,
    /// Takes the message and then cuts.
    TakeAndCut,
    Drip,
    Endless,
    Binary,
}

#[derive(Default)]
struct Memory {
    mails: Vec<Mail>,
    faults: VecDeque<(Step, Reply)>,
    commands: Vec<String>,
}

/// A message as it came.
#[derive(Clone, Debug, Default)]
pub struct Mail {
    pub to: Vec<String>,
    pub text: String,
}

impl Mail {
    /// A header, unfolded.
    pub fn header(&self, name: &str) -> String {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ").replace("\r\n\t", " ");
        let found = head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()));
        found.unwrap_or_default()
    }
}

pub struct Server {
    pub url: String,
    memory: Arc<Mutex<Memory>>,
    is_over: Arc<AtomicBool>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("smtp://{}", listener.local_addr().expect("an address"));
        let (memory, is_over) = (Arc::new(Mutex::new(Memory::default())), Arc::new(AtomicBool::new(false)));
        let (m, over) = (Arc::clone(&memory), Arc::clone(&is_over));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (m, over) = (Arc::clone(&m), Arc::clone(&over));
                thread::spawn(move || talk(stream, &m, &over));
            }
        });
        Server { url, memory, is_over }
    }

    pub fn next(&self, step: Step, reply: Reply) {
        self.memory.lock().expect("a memory").faults.push_back((step, reply));
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.memory.lock().expect("a memory").mails.clone()
    }

    pub fn commands(&self) -> Vec<String> {
        self.memory.lock().expect("a memory").commands.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.url.trim_start_matches("smtp://"));
    }
}

/// One conversation. Ends when the other side goes.
fn talk(stream: TcpStream, memory: &Mutex<Memory>, is_over: &AtomicBool) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut out = stream.try_clone().ok()?;
    let mut aside = stream.try_clone().ok()?;
    let mut lines = BufReader::new(stream);
    let mut mail = Mail::default();
    // True: go on with the conversation.
    let mut say = |step: Step, good: &str, took: Option<&Mail>| -> Option<()> {
        let fault = {
            let mut m = memory.lock().ok()?;
            let at = m.faults.iter().position(|(s, _)| *s == step);
            let fault = at.and_then(|at| m.faults.remove(at)).map(|(_, reply)| reply);
            if let Some(mail) = took.filter(|_| matches!(fault, None | Some(Reply::TakeAndCut))) {
                m.mails.push(mail.clone());
            }
            fault
        };
        match fault {
            None => out.write_all(format!("{good}\r\n").as_bytes()).ok(),
            Some(Reply::Line(text)) => out.write_all(format!("{text}\r\n").as_bytes()).ok(),
            Some(Reply::Cut | Reply::TakeAndCut) => {
                let _ = out.shutdown(std::net::Shutdown::Both);
                None
            }
            Some(Reply::Hang) => {
                while !is_over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(20));
                }
                None
            }
            Some(Reply::Drip) => {
                while !is_over.load(Ordering::Relaxed) {
                    out.write_all(b"2").ok()?;
                    thread::sleep(Duration::from_millis(50));
                }
                None
            }
            Some(Reply::Endless) => loop {
                out.write_all(b"250-and another thing\r\n").ok()?;
            },
            Some(Reply::Binary) => {
                out.write_all(b"\x16\x03\x01\xff\xfe\x00\r\n").ok()?;
                None
            }
        }
    };
    say(Step::Greeting, "220 oracle ESMTP", None)?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let command = line.trim_end().to_owned();
        memory.lock().ok()?.commands.push(command.clone());
        let upper = command.to_ascii_uppercase();
        if upper.starts_with("EHLO") {
            say(Step::Ehlo, "250-oracle\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN", None)?;
        } else if upper.starts_with("AUTH") {
            say(Step::Auth, "235 yes", None)?;
        } else if upper.starts_with("MAIL FROM:") {
            mail = Mail::default();
            say(Step::Mail, "250 ok", None)?;
        } else if upper.starts_with("RCPT TO:") {
            mail.to.push(command["RCPT TO:".len()..].to_owned());
            say(Step::Rcpt, "250 ok", None)?;
        } else if upper == "DATA" {
            say(Step::Data, "354 go ahead", None)?;
            loop {
                let mut line = String::new();
                if lines.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                if line == ".\r\n" {
                    break;
                }
                mail.text.push_str(line.strip_prefix('.').unwrap_or(&line));
            }
            say(Step::End, "250 2.0.0 queued as 1", Some(&mail))?;
        } else if upper == "QUIT" {
            let _ = aside.write_all(b"221 bye\r\n");
            return None;
        } else {
            aside.write_all(b"500 what\r\n").ok()?;
        }
    }
}

// === tests ===

fn email(server: &Server) -> Receiver {
    let knobs: &[(&str, Value)] = &[
        ("url", server.url.clone().into()),
        ("plain", true.into()),
        ("from", "Bellwether <bell@wether.example>".into()),
        ("to", "ml@x.example, Risk <risk@x.example>".into()),
    ];
    build("email", knobs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_is_one_thread_of_mail() {
    let server = Server::start();
    let shelf = Arc::new(Shelf::default());
    let house = House::start(Arc::clone(&shelf), vec![("mail", email(&server))], &[], clock(60));
    let now = (house.clock)();
    let first = Incident { title: "loan-scorer: a\r\nBcc: thief@evil.example".to_owned(), ..incident(1, now) };
    let over = Incident { closed_as: Some(ClosedAs::Fixed), ..later(&first, IncidentState::Resolved, now) };
    for (notice, i) in [(Notice::Opened, &first), (Notice::Resolved, &over)] {
        shelf.say("mail", notice, i, now);
        house.wake.notify_one();
        house.all_done().await;
    }
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    for mail in &mails {
        assert_eq!(mail.to, ["<ml@x.example>", "<risk@x.example>"]);
        assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
        assert_eq!(mail.header("X-Auto-Response-Suppress"), "All");
        assert_eq!(mail.header("Precedence"), "bulk");
        assert_eq!(mail.header("X-Bellwether-Incident"), first.id);
        assert_eq!(mail.header("Bcc"), "", "a header from outside");
        assert!(mail.header("Subject").starts_with("[SEV2] loan-scorer: a Bcc:"), "{}", mail.text);
        assert!(mail.header("Content-Type").starts_with("multipart/alternative"));
        let (plain, html) = (mail.text.find("text/plain"), mail.text.find("text/html"));
        assert!(plain < html && plain.is_some(), "the text comes first");
        assert!(!mail.text.contains("src=") && mail.text.len() < 1_000_000);
    }
    let id = mails[0].header("Message-ID");
    assert_eq!(id, format!("<{}.1.opened@wether.example>", first.id));
    assert_eq!(mails[0].header("In-Reply-To"), "");
    assert_eq!((mails[1].header("In-Reply-To"), mails[1].header("References")), (id.clone(), id));
    assert!(mails[1].text.contains("Resolved as fixed."));
    house.stop().await;
}

/// A lost answer is followed by the same message with the same id, which mail programs drop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f32_what_comes_twice_has_the_same_id() {
    let server = Server::start();
    let shelf = Arc::new(Shelf::default());
    let house = House::start(Arc::clone(&shelf), vec![("mail", email(&server))], &[], clock(120));
    server.next(Step::End, Reply::TakeAndCut);
    server.next(Step::Mail, Reply::Line("451 later"));
    server.next(Step::Greeting, Reply::Line("421 too busy"));
    let now = (house.clock)();
    let id = shelf.say("mail", Notice::Opened, &incident(1, now), now);
    house.wake.notify_one();
    house.all_done().await;
    let ids: Vec<String> = server.mails().iter().map(|m| m.header("Message-ID")).collect();
    assert_eq!((ids.len(), &ids[0]), (2, &ids[1]));
    assert_eq!(server.mails()[1].header("In-Reply-To"), "", "it is no answer to itself");
    assert_eq!(shelf.row(&id).state, DeliveryState::Accepted);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f34_every_bad_reply_is_told_apart() {
    use Reply::{Binary, Cut, Drip, Endless, Hang, Line, TakeAndCut};
    use Step::{Data, Ehlo, End, Greeting, Rcpt};
    let cases: Vec<(Vec<(Step, Reply)>, &str)> = vec![
        (vec![(Greeting, Line("421 too busy"))], "retry"),
        (vec![(Greeting, Line("554 no service for you"))], "refused"),
        (vec![(Greeting, Line("HTTP/1.1 400 Bad Request"))], "retry"),
        (vec![(Greeting, Binary)], "retry"),
        (vec![(Greeting, Cut)], "retry"),
        (vec![(Greeting, Hang)], "retry"),
        (vec![(Greeting, Drip)], "retry"),
        (vec![(Greeting, Endless)], "retry"),
        (vec![(Ehlo, Line("502 what"))], "refused"),
        (vec![(Ehlo, Cut)], "retry"),
        (vec![(Step::Mail, Line("451 later"))], "retry"),
        (vec![(Step::Mail, Line("530 5.7.0 say who you are"))], "refused"),
        (vec![(Step::Mail, Line("999 what"))], "retry"),
        (vec![(Step::Mail, Hang)], "retry"),
        (vec![(Rcpt, Line("550 no such user")), (Rcpt, Line("550 no such user"))], "refused"),
        (vec![(Rcpt, Line("550 no such user"))], "accepted"),
        (vec![(Rcpt, Line("450 greylisted")), (Rcpt, Line("450 greylisted"))], "retry"),
        (vec![(Rcpt, Line("550 no such user")), (Rcpt, Line("450 greylisted"))], "retry"),
        (vec![(Rcpt, Cut)], "retry"),
        (vec![(Data, Line("452 no room"))], "retry"),
        (vec![(Data, Line("554 no valid recipients"))], "refused"),
        (vec![(End, Line("552 too large"))], "refused"),
        (vec![(End, Line("451 virus scanner is ill"))], "retry"),
        (vec![(End, Cut)], "uncertain"),
        (vec![(End, TakeAndCut)], "uncertain"),
        (vec![(End, Hang)], "uncertain"),
        (vec![(End, Drip)], "uncertain"),
        (vec![(End, Endless)], "uncertain"),
        (vec![(End, Binary)], "uncertain"),
    ];
    assert!(cases.len() >= 20);
    let now = clock(1)();
    let mut running = tokio::task::JoinSet::new();
    for (n, (faults, expected)) in cases.into_iter().enumerate() {
        running.spawn(async move {
            let server = Server::start();
            for (step, reply) in &faults {
                server.next(*step, reply.clone());
            }
            let delivery = Delivery::new("mail", Message { notice: Notice::Opened, at: now, incident: incident(n, now) });
            let outcome = notifier(email(&server)).deliver(Errand::first(&delivery), now).await.outcome;
            let is_clean = outcome.detail().chars().count() < 500 && !outcome.detail().contains(['\u{1b}', '\n']);
            (outcome.as_str() != expected || !is_clean).then(|| format!("{faults:?}: {outcome:?}, expected {expected}"))
        });
    }
    let mut wrong = Vec::new();
    while let Some(done) = running.join_next().await {
        wrong.extend(done.expect("no panic"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A server that offers no STARTTLS hears neither address nor password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tls_nothing_is_said() {
    let server = Server::start();
    for url in [server.url.clone(), server.url.replace("smtp://", "smtps://")] {
        let knobs: &[(&str, Value)] = &[
            ("url", url.clone().into()),
            ("from", "a@x.example".into()),
            ("to", "b@x.example".into()),
            ("username", "u".into()),
            ("password", "sesame-open".into()),
        ];
        let now = clock(1)();
        let delivery = Delivery::new("mail", Message { notice: Notice::Opened, at: now, incident: incident(0, now) });
        let outcome = notifier(build("email", knobs)).deliver(Errand::first(&delivery), now).await.outcome;
        assert!(outcome.as_str() == "retry" && !outcome.detail().contains("sesame"), "{url}: {outcome:?}");
    }
    let commands = server.commands();
    assert!(!commands.iter().any(|c| c.starts_with("AUTH") || c.starts_with("MAIL")), "{commands:?}");
}
