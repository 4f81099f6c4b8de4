//! E-mail by SMTP: one message for every news, in one thread per incident. For those who want to know, never the only pager.
//!
//! The `Message-ID` is made from the delivery, so a message that is sent again has the same one and mail programs drop it; those
//! after the first of an incident name the first, which is the reference kept. The conversation is led step by step, because only
//! behind the last byte of the message nobody knows whether it was taken: everything before has not arrived.
//!
//! Names are resolved here and the address is checked before anything connects.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lettre::address::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::http;
use super::story::{Story, line};
use super::{CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PUBLIC_ONLY, Reader, Receiver, Repeat, Schedule, Table, cut};
use crate::domain::Time;
use crate::domain::delivery::{Delivery, Outcome, Receipt};
use crate::domain::time::MINUTE_MS;

pub const KIND: Kind = Kind {
    name: "email",
    about: "e-mail by SMTP: a message for every news, one thread per incident",
    knobs: &[
        Knob {
            name: "url",
            about: "smtp://host:587 (STARTTLS is required) or smtps://host:465 (TLS from the first byte)",
            form: Form::Text,
            required: true,
        },
        Knob { name: "from", about: "the sender's address", form: Form::Text, required: true },
        Knob { name: "to", about: "addresses, separated by commas", form: Form::Text, required: true },
        Knob { name: "reply_to", about: "where answers go", form: Form::Text, required: false },
        Knob { name: "username", about: "for servers that want to know who sends", form: Form::Text, required: false },
        Knob { name: "password", about: "for servers that want to know who sends", form: Form::Secret, required: false },
        Knob { name: "helo", about: "how we name ourselves to the server; the address's domain if left out", form: Form::Text, required: false },
        Knob { name: "plain", about: "send without TLS, as to a relay on this machine; never with a password", form: Form::Bool, required: false },
        CA,
        PUBLIC_ONLY,
    ],
    build,
};

const SUBJECT_CHARS_MAX: usize = 200;
const RECIPIENTS_MAX: usize = 100;
/// A server that says "later" means minutes.
const SCHEDULE: Schedule = Schedule::Doubling { first_ms: MINUTE_MS, max_ms: 15 * MINUTE_MS };
const PER_MINUTE_MAX: u32 = 60;

struct Email {
    host: String,
    port: u16,
    security: Security,
    credentials: Option<(String, SecretString)>,
    from: Mailbox,
    to: Vec<Mailbox>,
    reply_to: Option<Mailbox>,
    helo: ClientId,
    is_public_only: bool,
    /// One more that is trusted, in PEM.
    authority: Option<Vec<u8>>,
    common: Common,
    words: http::Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    StartTls,
    Tls,
    Plain,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let is_plain = r.bool("plain");
    let is_public_only = r.bool(PUBLIC_ONLY.name);
    let text = r.text("url");
    let server = r.required("url", text).and_then(|text| match server(&text, is_plain, is_public_only) {
        Ok(server) => Some(server),
        Err(why) => {
            r.problem("url", format!("url {why}"));
            None
        }
    });
    let mut mailboxes = |key: &str, is_required: bool| -> Vec<Mailbox> {
        let text = r.text(key);
        let text = if is_required { r.required(key, text) } else { text };
        let mut all = Vec::new();
        for one in text.iter().flat_map(|t| t.split(',')).map(str::trim).filter(|t| !t.is_empty()) {
            match one.parse::<Mailbox>() {
                Ok(mailbox) if mailbox.email.to_string().is_ascii() => all.push(mailbox),
                Ok(_) => r.problem(key, format!("{key}: {one:?} is an address with letters that not every server takes")),
                Err(_) => r.problem(key, format!("{key}: {one:?} is not an address")),
            }
        }
        all
    };
    let (mut from, to, mut reply_to) = (mailboxes("from", true), mailboxes("to", true), mailboxes("reply_to", false));
    if from.len() > 1 {
        r.problem("from", "from is more than one address");
    }
    if to.len() > RECIPIENTS_MAX {
        r.problem("to", format!("to is more than {RECIPIENTS_MAX} addresses"));
    }
    let credentials = match (r.text("username"), r.secret("password")) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        _ => {
            r.problem("username", "give username and password, or neither");
            None
        }
    };
    if is_plain && credentials.is_some() {
        r.problem("plain", "plain sends a password that everybody on the way can read");
    }
    let helo = r.text("helo").or_else(|| from.first().map(|f| f.email.domain().to_owned())).unwrap_or_default();
    if helo.contains(|c: char| c.is_whitespace() || c.is_control()) {
        r.problem("helo", "helo holds a space");
    }
    let authority = r.authority();
    let secrets = credentials.iter().map(|(_, password)| password.clone()).collect();
    // Only for making what servers say fit to be shown.
    let words = http::Client::new(&common.version, false, is_public_only, secrets).map_err(|why| vec![("url".to_owned(), why)])?;
    match (server, from.pop()) {
        (Some((host, port, security)), Some(from)) if r.problems.is_empty() => Ok(Receiver::Messages(Box::new(Email {
            host,
            port,
            security,
            credentials,
            from,
            to,
            reply_to: reply_to.pop(),
            helo: ClientId::Domain(helo),
            is_public_only,
            authority,
            common: common.clone(),
            words,
        }))),
        _ => Err(r.problems),
    }
}

/// Host, port and how the way is secured.
fn server(text: &str, is_plain: bool, is_public_only: bool) -> Result<(String, u16, Security), String> {
    let url = Url::parse(text).map_err(|e| format!("is not a url: {e}; such as smtp://mail.example:587"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    http::place(&host, is_public_only)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password, which would be printed with it".to_owned());
    }
    let (port, security) = match (url.scheme(), is_plain) {
        ("smtps", false) => (465, Security::Tls),
        ("smtp", false) => (587, Security::StartTls),
        ("smtp", true) => (25, Security::Plain),
        ("smtps", true) => return Err("is smtps, and plain is set; keep one".to_owned()),
        (other, _) => return Err(format!("has scheme {other:?} (known: smtp, smtps)")),
    };
    if host.is_empty() {
        return Err("has no host".to_owned());
    }
    Ok((host, url.port().unwrap_or(port), security))
}

#[async_trait]
impl Notifier for Email {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        let id = self.message_id(errand.delivery);
        let thread = errand.reference.filter(|first| *first != id);
        let story = Story::of(&errand.delivery.message, &self.common, false);
        let html = html(&story);
        let outcome = self.send(&story.headline, &story.plain(), &html, &id, thread, Some(&story.incident), now).await;
        let is_first = errand.reference.is_none() && matches!(outcome, Outcome::Accepted { .. } | Outcome::Uncertain { .. });
        Receipt { reference: is_first.then_some(id), outcome }
    }

    async fn test(&self, now: Time) -> Outcome {
        let text = format!("Bellwether test message from {}: nothing is wrong", self.common.instance);
        let id = format!("<test.{}@{}>", now.0, self.from.email.domain());
        self.send(&text, &text, &format!("<p>{}</p>", escape(&text)), &id, None, None, now).await
    }

    fn manner(&self) -> Manner {
        Manner { repeat: Repeat::SameMessage, schedule: SCHEDULE, per_minute_max: Some(PER_MINUTE_MAX), ..Manner::VENDOR }
    }
}

/// How far a conversation came.
enum Broken {
    /// Before the message: it has not arrived.
    Before(lettre::transport::smtp::Error),
    /// Behind its last byte.
    After(lettre::transport::smtp::Error),
    Words(String),
}

impl Email {
    /// The same for every attempt.
    fn message_id(&self, delivery: &Delivery) -> String {
        let incident = &delivery.message.incident;
        let plain: String = incident.id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        format!("<{plain}.{}.{}@{}>", incident.revision, delivery.message.notice.as_str(), self.from.email.domain())
    }

    #[allow(clippy::too_many_arguments)]
    async fn send(&self, subject: &str, text: &str, html: &str, id: &str, thread: Option<&str>, incident: Option<&str>, now: Time) -> Outcome {
        let message = match self.message(subject, text, html, id, thread, incident, now) {
            Ok(message) => message,
            Err(why) => return Outcome::Refused { status: None, detail: format!("cannot be written: {why}") },
        };
        let is_sent = AtomicBool::new(false);
        match tokio::time::timeout(http::REQUEST_TIMEOUT, self.converse(&message, &is_sent)).await {
            Err(_) if is_sent.load(Ordering::Relaxed) => {
                Outcome::Uncertain { detail: "sent, but the answer was lost: the server is too slow".to_owned() }
            }
            Err(_) => Outcome::Retry { status: None, detail: "not sent: the server is too slow".to_owned(), after_ms: None },
            Ok(Ok(detail)) => Outcome::Accepted { status: 250, detail },
            Ok(Err(Broken::Words(why))) => Outcome::Retry { status: None, detail: format!("not sent: {}", self.words.plain(&why)), after_ms: None },
            Ok(Err(Broken::Before(error))) => self.judge(&error, false),
            Ok(Err(Broken::After(error))) => self.judge(&error, true),
        }
    }

    /// 4yz is later, 5yz is no, silence behind the message is unknown.
    fn judge(&self, error: &lettre::transport::smtp::Error, is_behind: bool) -> Outcome {
        if let Some(words) = http::distrust(error, &self.host) {
            return Outcome::Untrusted { detail: format!("not sent: {}", self.words.plain(&words)) };
        }
        let words = self.words.plain(&http::chain(error));
        let status = error.status().map(u16::from);
        if error.is_permanent() {
            Outcome::Refused { status, detail: format!("refused: {words}") }
        } else if error.is_transient() {
            Outcome::Retry { status, detail: format!("later: {words}"), after_ms: None }
        } else if is_behind {
            Outcome::Uncertain { detail: format!("sent, but the answer was lost: {words}") }
        } else {
            Outcome::Retry { status: None, detail: format!("not sent: {words}"), after_ms: None }
        }
    }

    async fn converse(&self, message: &[u8], is_sent: &AtomicBool) -> Result<String, Broken> {
        let addresses = http::resolve(&self.host, self.port, self.is_public_only).await.map_err(Broken::Words)?;
        let began = Instant::now();
        let mut connection = self.connect(&addresses).await?;
        if self.security == Security::StartTls {
            // Without it nothing is said: a server that offers none may not be the one that is meant.
            connection.starttls(self.tls()?, &self.helo).await.map_err(Broken::Before)?;
        }
        if let Some((user, password)) = &self.credentials {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await.map_err(Broken::Before)?;
        }
        let mut options = Vec::new();
        if !message.is_ascii() && connection.server_info().supports_feature(Extension::EightBitMime) {
            options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        connection.command(Mail::new(Some(self.from.email.clone()), options)).await.map_err(Broken::Before)?;
        let mut refused: Vec<(&Address, lettre::transport::smtp::Error)> = Vec::new();
        for to in &self.to {
            match connection.command(Rcpt::new(to.email.clone(), Vec::new())).await {
                Ok(_) => {}
                Err(error) if error.status().is_some() => refused.push((&to.email, error)),
                Err(error) => return Err(Broken::Before(error)),
            }
        }
        if refused.len() == self.to.len() {
            connection.abort().await;
            // One that may be taken later is reason enough to come again.
            let at = refused.iter().position(|(_, e)| e.is_transient()).unwrap_or(0);
            return Err(Broken::Before(refused.swap_remove(at).1));
        }
        connection.command(Data).await.map_err(Broken::Before)?;
        is_sent.store(true, Ordering::Relaxed);
        let answer = connection.message(message).await.map_err(Broken::After)?;
        let mut detail = self.words.plain(answer.first_line().unwrap_or("taken"));
        for (address, error) in &refused {
            detail.push_str(&format!("; not for {address}: {}", self.words.plain(&http::chain(error))));
        }
        // What is said after that changes nothing.
        if began.elapsed() < Duration::from_secs(10) {
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.quit()).await;
        }
        Ok(cut(&detail, 400))
    }

    fn tls(&self) -> Result<TlsParameters, Broken> {
        let mut builder = TlsParameters::builder(self.host.clone());
        if let Some(pem) = &self.authority {
            builder = builder.add_root_certificate(Certificate::from_pem(pem).map_err(Broken::Before)?);
        }
        builder.build_rustls().map_err(Broken::Before)
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<AsyncSmtpConnection, Broken> {
        let mut last = Broken::Words(format!("{} has no address", self.host));
        for address in addresses {
            let tls = match self.security {
                Security::Tls => Some(self.tls()?),
                Security::StartTls | Security::Plain => None,
            };
            // The address that was checked, and no name that could lead elsewhere by now.
            match AsyncSmtpConnection::connect_tokio1(*address, Some(Duration::from_secs(5)), &self.helo, tls, None).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Broken::Before(error),
            }
        }
        Err(last)
    }

    #[allow(clippy::too_many_arguments)]
    fn message(
        &self,
        subject: &str,
        text: &str,
        html: &str,
        id: &str,
        thread: Option<&str>,
        incident: Option<&str>,
        now: Time,
    ) -> Result<Vec<u8>, String> {
        let at = Duration::from_millis(u64::try_from(now.0).unwrap_or_default());
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .date(std::time::UNIX_EPOCH + at)
            .message_id(Some(id.to_owned()))
            .subject(line(subject, SUBJECT_CHARS_MAX));
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        if let Some(reply_to) = &self.reply_to {
            builder = builder.reply_to(reply_to.clone());
        }
        if let Some(first) = thread {
            builder = builder.in_reply_to(first.to_owned()).references(first.to_owned());
        }
        let mut raw = vec![("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All"), ("Precedence", "bulk")];
        raw.extend(incident.map(|id| ("X-Bellwether-Incident", id)));
        for (name, value) in raw {
            let name = HeaderName::new_from_ascii(name.to_owned()).map_err(|e| e.to_string())?;
            builder = builder.raw_header(HeaderValue::new(name, line(value, 200)));
        }
        let parts = MultiPart::alternative()
            .singlepart(SinglePart::builder().header(ContentType::TEXT_PLAIN).body(text.to_owned()))
            .singlepart(SinglePart::builder().header(ContentType::TEXT_HTML).body(html.to_owned()));
        builder.multipart(parts).map(|m| m.formatted()).map_err(|e| e.to_string())
    }
}

/// Nothing from elsewhere is loaded, and nothing from outside is markup.
fn html(story: &Story) -> String {
    let mut out = format!("<h2>{}</h2><p>{}</p><table>", escape(&story.headline), escape(&story.news));
    for (name, fact) in &story.facts {
        out.push_str(&format!("<tr><th align=\"left\" valign=\"top\">{name}</th><td>{}</td></tr>", escape(fact)));
    }
    out.push_str("</table>");
    if let Some(url) = &story.url {
        out.push_str(&format!("<p><a href=\"{}\">Evidence</a></p>", escape(url)));
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, table};
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_words() {
        for (url, words) in [
            ("http://169.254.169.254/", "metadata"),
            ("https://mail.example", "known: smtp, smtps"),
            ("mail.example:25", "known: smtp, smtps"),
            ("smtp://u:p@mail.example", "would be printed"),
            ("smtp://", "has no host"),
            ("smtps://[fe80::1]", "metadata"),
        ] {
            let t = table(&[("url", url.into()), ("from", "a@b.example".into()), ("to", "c@d.example".into())]);
            let Err(problems) = build("x", &common(), &t) else { panic!("built {url}") };
            assert!(problems[0].1.contains(words), "{url}: {problems:?}");
        }
        let t = table(&[
            ("url", "smtp://mail.example".into()),
            ("from", "nobody".into()),
            ("to", "a@b.example, c d".into()),
            ("username", "u".into()),
            ("password", "sesame".into()),
            ("plain", true.into()),
        ]);
        let Err(problems) = build("x", &common(), &t) else { panic!("built") };
        let keys: Vec<_> = problems.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, ["from", "to", "plain"], "{problems:?}");
        assert!(!format!("{problems:?}").contains("sesame"));
    }
}
