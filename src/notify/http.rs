//! One way to speak HTTP to receivers, which never tries twice and always says how far it came.
//!
//! The picture is a registered letter. Either the door was shut (it did not arrive), or it was handed over and we hold the
//! receipt (an answer with a status), or it was handed over and the postman never came back (nobody knows). The third is the
//! dangerous one, so everything that may have left this machine counts as such.
//!
//! Every attempt has its own connection: a kept one may be closed by the other side just as we write, and then a letter that
//! never left would have to be called lost. Redirects are not followed, since the secrets in the body would follow them. A
//! status that has arrived decides, even when the body behind it never ends. Addresses of cloud metadata services are refused
//! after resolution, at the moment of connecting; private addresses are allowed, because URLs come only from the file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::domain::Time;
use crate::domain::delivery::Outcome;
use crate::domain::time::{MINUTE_MS, SECOND_MS};

/// The whole attempt. Half of a lease, so that an attempt ends while its lease still holds.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Name, connection and TLS. Well below the whole, so that "nobody home" is not mistaken for "no answer".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The body is only read for a person's eyes; the status has decided by then.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an answer's body no more than this is read, bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// With less than this left of an attempt, no further request is begun.
const LEFT_MIN: Duration = Duration::from_secs(1);
/// Of an answer's body no more than this is shown, characters.
const DETAIL_CHARS_MAX: usize = 300;
/// The bounds within which a receiver may say when to come back, milliseconds.
pub const RETRY_AFTER_MS_MIN: i64 = SECOND_MS;
pub const RETRY_AFTER_MS_MAX: i64 = 15 * MINUTE_MS;
/// Shorter secrets are not searched for in answers: they would be found in ordinary words.
const SECRET_CHARS_MIN: usize = 6;

/// Statuses by which a receiver says that repeating cannot help.
pub const REFUSED: &[u16] = &[400, 401, 403, 404, 405, 410, 413, 422];

pub struct Client {
    inner: reqwest::Client,
    /// Blotted out wherever an answer repeats them.
    secrets: Vec<SecretString>,
}

/// The receipt: a status arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after_ms: Option<i64>,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The body came to its end within its bounds. What was cut off proves nothing.
    pub is_whole: bool,
    /// When the attempt began.
    pub now: Time,
    /// The body for people: one line, short, without secrets.
    pub words: String,
}

/// No status arrived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("not sent: {0}")]
    NotSent(String),
    #[error("sent, but the answer was lost: {0}")]
    Lost(String),
    /// Who answered could not show that he is the one who is meant.
    #[error("not sent: {0}")]
    Untrusted(String),
    #[error("cannot be sent: {0}")]
    Unfit(String),
}

// === impl Client ===

impl Client {
    /// # Errors
    /// In words, when this machine cannot do TLS at all.
    pub fn new(version: &str, proxy_from_env: bool, is_public_only: bool, secrets: Vec<SecretString>) -> Result<Client, String> {
        Client::with_authority(version, proxy_from_env, is_public_only, secrets, None)
    }

    /// As [`Client::new`], trusting one more certificate authority, in PEM.
    ///
    /// # Errors
    /// As [`Client::new`], and when that is no certificate.
    pub fn with_authority(
        version: &str,
        proxy_from_env: bool,
        is_public_only: bool,
        secrets: Vec<SecretString>,
        pem: Option<&[u8]>,
    ) -> Result<Client, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(format!("Bellwether/{version}"))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0)
            .dns_resolver(Guarded { is_public_only });
        if !proxy_from_env {
            builder = builder.no_proxy();
        }
        if let Some(pem) = pem {
            for certificate in reqwest::Certificate::from_pem_bundle(pem).map_err(|e| chain(&e))? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let inner = builder.build().map_err(|e| format!("http client: {}", chain(&e)))?;
        Ok(Client { inner, secrets })
    }

    /// One POST of exactly these bytes.
    ///
    /// # Errors
    /// When no status came back, with how far the request got.
    pub async fn post(&self, url: &Url, headers: HeaderMap, body: Vec<u8>, now: Time) -> Result<Answer, Failure> {
        let request = self.inner.post(url.clone()).headers(headers).body(body);
        self.send(request, now).await
    }

    /// Begins an attempt of several requests, which share the time of one.
    pub fn round(&self, now: Time) -> Round<'_> {
        Round { client: self, until: Instant::now() + REQUEST_TIMEOUT, now }
    }

    /// One GET.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub async fn get(&self, url: &Url, now: Time) -> Result<Answer, Failure> {
        self.send(self.inner.get(url.clone()), now).await
    }

    /// One request by any method; an empty body is none.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub async fn request(&self, method: Method, url: &Url, headers: HeaderMap, body: Vec<u8>, now: Time) -> Result<Answer, Failure> {
        let request = self.inner.request(method, url.clone()).headers(headers);
        self.send(if body.is_empty() { request } else { request.body(body) }, now).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, now: Time) -> Result<Answer, Failure> {
        let mut response = request.send().await.map_err(|e| self.failure(e))?;
        let status = response.status().as_u16();
        let retry_after_ms = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| retry_after_ms(v, now));
        let headers = response.headers().clone();
        let (mut body, mut is_whole) = (Vec::new(), false);
        // Whatever ends the reading (the end, the bound, the clock, a cut), the status stands.
        let _ = tokio::time::timeout(BODY_TIMEOUT, async {
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => {
                        let room = BODY_BYTES_MAX - body.len();
                        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                        if chunk.len() >= room {
                            break;
                        }
                    }
                    Ok(None) => {
                        is_whole = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
        })
        .await;
        let words = self.plain(&String::from_utf8_lossy(&body));
        Ok(Answer { status, retry_after_ms, headers, body, is_whole, now, words })
    }

    fn failure(&self, error: reqwest::Error) -> Failure {
        let host = error.url().and_then(|u| u.host_str().map(str::to_owned)).unwrap_or_default();
        let error = error.without_url();
        if let Some(words) = distrust(&error, &host) {
            return Failure::Untrusted(self.plain(&words));
        }
        let words = self.plain(&chain(&error));
        if error.is_builder() {
            Failure::Unfit(words)
        } else if error.is_connect() {
            Failure::NotSent(words)
        } else {
            Failure::Lost(words)
        }
    }

    /// One line for people: no control characters, no secrets, not long.
    pub fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().map(|s| s.expose_secret()).filter(|s| s.chars().count() >= SECRET_CHARS_MIN) {
            text = text.replace(secret, "[secret]");
        }
        let line: String = text.chars().map(|c| if c.is_control() || is_direction_mark(c) { ' ' } else { c }).collect();
        super::cut(&line.split_whitespace().collect::<Vec<_>>().join(" "), DETAIL_CHARS_MAX)
    }
}

/// An attempt of several requests.
pub struct Round<'a> {
    client: &'a Client,
    until: Instant,
    now: Time,
}

impl Round<'_> {
    /// One request within what is left of the attempt's time.
    ///
    /// # Errors
    /// As [`Client::post`]; nothing is sent when less than a second is left.
    pub async fn ask(&self, method: Method, url: &Url, headers: HeaderMap, body: Option<&Value>) -> Result<Answer, Failure> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left < LEFT_MIN {
            return Err(Failure::NotSent("the time of this attempt was used up by the requests before".to_owned()));
        }
        let mut request = self.client.inner.request(method, url.clone()).headers(headers).timeout(left);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        self.client.send(request, self.now).await
    }

    /// As [`Round::ask`], for requests that change nothing: when the answer is lost, nothing has happened.
    ///
    /// # Errors
    /// The outcome of the whole attempt, unless the answer is a success with a whole document in JSON.
    pub async fn read(&self, url: &Url, headers: HeaderMap) -> Result<Value, Outcome> {
        self.read_by(Method::GET, url, headers, None).await
    }

    /// As [`Round::read`], where a question is a POST.
    ///
    /// # Errors
    /// As [`Round::read`].
    pub async fn read_by(&self, method: Method, url: &Url, headers: HeaderMap, body: Option<&Value>) -> Result<Value, Outcome> {
        match self.ask(method, url, headers, body).await {
            Ok(answer) if answer.is_success() => {
                let why = || Outcome::Retry {
                    status: Some(answer.status),
                    detail: format!("asking: {}, which is no answer", answer.detail()),
                    after_ms: None,
                };
                answer.document().ok_or_else(why)
            }
            Ok(answer) => Err(answer.judge()),
            Err(Failure::Lost(words)) => Err(Outcome::Retry { status: None, detail: format!("asking: no answer: {words}"), after_ms: None }),
            Err(failure) => Err(failure.into()),
        }
    }

    pub fn has_time(&self, time: Duration) -> bool {
        self.until.saturating_duration_since(Instant::now()) > time
    }
}

impl Answer {
    /// The body as JSON, if all of it came.
    pub fn document(&self) -> Option<Value> {
        if self.is_whole { serde_json::from_slice(&self.body).ok() } else { None }
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long until the second of the epoch that a header names.
    pub fn until_reset_ms(&self, name: &str) -> Option<i64> {
        let seconds = self.header(name)?.trim().parse::<i64>().ok()?;
        Some(seconds.saturating_mul(SECOND_MS).saturating_sub(self.now.0))
    }

    /// A success that does not say what was made: it may have been made.
    pub fn unreadable(&self) -> Outcome {
        Outcome::Uncertain { detail: format!("{}, which does not say what was made", self.detail()) }
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The common table: 2xx is accepted, [`REFUSED`] is refused, all else is asked to come again.
    pub fn judge(&self) -> Outcome {
        let detail = self.detail();
        if self.is_success() {
            Outcome::Accepted { status: self.status, detail }
        } else if REFUSED.contains(&self.status) {
            Outcome::Refused { status: Some(self.status), detail }
        } else {
            Outcome::Retry { status: Some(self.status), detail, after_ms: self.retry_after_ms }
        }
    }

    /// `answered 503: over capacity`.
    pub fn detail(&self) -> String {
        if self.words.is_empty() { format!("answered {}", self.status) } else { format!("answered {}: {}", self.status, self.words) }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Outcome {
        let detail = failure.to_string();
        match failure {
            Failure::NotSent(_) => Outcome::Retry { status: None, detail, after_ms: None },
            Failure::Lost(_) => Outcome::Uncertain { detail },
            Failure::Unfit(_) => Outcome::Refused { status: None, detail },
            Failure::Untrusted(_) => Outcome::Untrusted { detail },
        }
    }
}

pub fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

/// `Retry-After` in either form, brought within its bounds. Nonsense is as good as nothing.
pub fn retry_after_ms(text: &str, now: Time) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let ms = if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        // A number too large for us is only a very long time.
        let seconds = digits.parse::<i64>().unwrap_or(i64::MAX);
        if text.starts_with('-') { 0 } else { seconds.saturating_mul(SECOND_MS) }
    } else {
        let at = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
        Time(at.as_millisecond()).since_ms(now)
    };
    Some(ms.clamp(RETRY_AFTER_MS_MIN, RETRY_AFTER_MS_MAX))
}

/// A URL that a receiver may have. Says nothing of the path, which may be a secret.
///
/// # Errors
/// In words that follow the key's name.
pub fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("is not a url: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("has scheme {:?} (known: http, https)", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password, which would be printed with it".to_owned());
    }
    place(url.host_str().ok_or("has no host")?, false)?;
    Ok(url)
}

/// A host that a receiver may have, as far as it says by itself where it leads.
///
/// # Errors
/// In words that follow the key's name.
pub fn place(host: &str, is_public_only: bool) -> Result<(), String> {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) if is_metadata(address) => Err(format!("leads to the metadata address {address}")),
        Ok(address) if is_public_only && !is_public_address(address) => Err(format!("leads to {address}, which is not public")),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Is an address that needs no resolution a public one?
///
/// # Errors
/// In words that follow the key's name.
pub fn is_public(url: &Url) -> Result<(), String> {
    place(url.host_str().unwrap_or_default(), true)
}

// === certificates ===

/// Are these certificates in PEM?
///
/// # Errors
/// In words that follow the key's name.
pub fn certificates(pem: &[u8]) -> Result<(), String> {
    match reqwest::Certificate::from_pem_bundle(pem) {
        Ok(all) if !all.is_empty() => Ok(()),
        Ok(_) => Err("holds no certificate in PEM".to_owned()),
        Err(why) => Err(format!("holds no certificate in PEM: {}", chain(&why))),
    }
}

/// Why the certificate of `host` was not taken, in words for whoever can mend it; `None` if that was not what went wrong.
pub fn distrust(error: &(dyn std::error::Error + 'static), host: &str) -> Option<String> {
    let mut at = Some(error);
    while let Some(cause) = at {
        if let Some(rustls::Error::InvalidCertificate(why)) = cause.downcast_ref::<rustls::Error>() {
            return Some(distrust_words(why, host));
        }
        // An error of input or output hides what it was made from from those that only ask for its source; and one lies in another.
        let inner = cause.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref()).map(|e| e as &(dyn std::error::Error + 'static));
        at = inner.or_else(|| cause.source());
    }
    None
}

fn distrust_words(why: &rustls::CertificateError, host: &str) -> String {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    let day = |t: &rustls::pki_types::UnixTime| Time(i64::try_from(t.as_secs()).unwrap_or(i64::MAX / 1_000).saturating_mul(SECOND_MS)).rfc3339();
    match why {
        ExpiredContext { not_after, .. } => format!("the certificate of {host} was good until {} and is out of date", day(not_after)),
        Expired => format!("the certificate of {host} is out of date"),
        NotValidYetContext { time, not_before } => {
            format!("the certificate of {host} is good from {} on only; by the clock of this machine it is {}", day(not_before), day(time))
        }
        NotValidYet => format!("the certificate of {host} is not good yet by the clock of this machine"),
        NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            format!("the certificate is not for {host}, but for {}", presented.join(", "))
        }
        NotValidForName | NotValidForNameContext { .. } => format!("the certificate is not for {host}"),
        UnknownIssuer => {
            format!("the certificate of {host} is signed by nobody whom this machine trusts; a company's own authority is named by ca_file")
        }
        other => format!("the certificate of {host} is not taken: {other}"),
    }
}

// === resolution ===
/// The system's resolver, behind which metadata addresses do not exist, and private ones neither where only public are wanted.
struct Guarded {
    is_public_only: bool,
}

#[derive(Debug, thiserror::Error)]
enum Unresolved {
    #[error("{0} has no address")]
    Empty(String),
    #[error("{0} leads to the metadata address {1}")]
    Forbidden(String, IpAddr),
    #[error("{0} leads to {1}, which is not public")]
    Private(String, IpAddr),
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let is_public_only = self.is_public_only;
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            allowed(name, found, is_public_only).map(|all| Box::new(all.into_iter()) as Addrs).map_err(Into::into)
        })
    }
}

/// Where `host` leads, for those who connect by themselves.
///
/// # Errors
/// In words: nowhere, or to an address that is refused.
pub async fn resolve(host: &str, port: u16, is_public_only: bool) -> Result<Vec<SocketAddr>, String> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(|e| format!("{host}: {e}"))?.collect();
    allowed(host.to_owned(), found, is_public_only).map_err(|e| e.to_string())
}

/// One forbidden address among several spoils all: a name that mixes them is an attack, not a configuration.
fn allowed(name: String, found: Vec<SocketAddr>, is_public_only: bool) -> Result<Vec<SocketAddr>, Unresolved> {
    if let Some(bad) = found.iter().find(|a| is_metadata(a.ip())) {
        return Err(Unresolved::Forbidden(name, bad.ip()));
    }
    if let Some(bad) = found.iter().find(|a| is_public_only && !is_public_address(a.ip())) {
        return Err(Unresolved::Private(name, bad.ip()));
    }
    if found.is_empty() { Err(Unresolved::Empty(name)) } else { Ok(found) }
}

/// Where clouds hand out credentials to whoever asks from inside.
fn is_metadata(address: IpAddr) -> bool {
    // Alibaba and Oracle keep theirs outside the link-local range.
    const ODD: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
    const AWS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || ODD.contains(&v4),
        IpAddr::V6(v6) => {
            let s = v6.segments();
            let tail = IpAddr::V4(Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7])));
            // The same address in IPv6 clothes: mapped, compatible, translated (NAT64) and tunnelled (6to4).
            let is_dressed = (s[..5] == [0; 5] && (s[5] == 0xffff || s[5] == 0)) || s[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            let tunnelled = IpAddr::V4(Ipv4Addr::from((u32::from(s[1]) << 16) | u32::from(s[2])));
            v6 == AWS || v6.is_unicast_link_local() || (is_dressed && is_metadata(tail)) || (s[0] == 0x2002 && is_metadata(tunnelled))
        }
    }
}

/// Reachable from anywhere: neither this machine, nor its networks, nor a range that is nobody's.
fn is_public_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_reserved = a == 0 || a >= 224 || (a == 192 && b == 0 && c == 0) || (a == 198 && (b == 18 || b == 19));
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_documentation() || is_shared || is_reserved)
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            let inner = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
            let is_dressed = (s[..5] == [0; 5] && (s[5] == 0xffff || s[5] == 0)) || s[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            if is_dressed {
                return !v6.is_loopback() && !v6.is_unspecified() && is_public_address(inner(s[6], s[7]));
            }
            if s[0] == 0x2002 {
                return is_public_address(inner(s[1], s[2]));
            }
            !(v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast() || s[..2] == [0x2001, 0xdb8])
        }
    }
}

/// Marks that turn the direction of a line around, by which a text may be made to look like another.
pub fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// An error with all its sources on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !out.ends_with(&words) {
            out.push_str(": ");
            out.push_str(&words);
        }
        next = source.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Time {
        Time::parse_rfc3339(text).expect("a time")
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_kept_within_bounds() {
        let now = at("2026-11-20T09:00:00Z");
        for (text, expected) in [
            ("7", Some(7_000)),
            (" 7 ", Some(7_000)),
            ("0", Some(RETRY_AFTER_MS_MIN)),
            ("-5", Some(RETRY_AFTER_MS_MIN)),
            ("315360000", Some(RETRY_AFTER_MS_MAX)),
            ("99999999999999999999999", Some(RETRY_AFTER_MS_MAX)),
            ("Fri, 20 Nov 2026 09:00:30 GMT", Some(30_000)),
            ("Fri, 20 Nov 2026 08:00:30 GMT", Some(RETRY_AFTER_MS_MIN)),
            ("Fri, 20 Nov 2036 08:00:30 GMT", Some(RETRY_AFTER_MS_MAX)),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after_ms(text, now), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn f31_retry_after(text in "\\PC{0,40}", seconds in any::<i64>(), now in any::<i64>()) {
            for text in [text, seconds.to_string(), format!("{seconds}0000")] {
                if let Some(ms) = retry_after_ms(&text, Time(now)) {
                    prop_assert!((RETRY_AFTER_MS_MIN..=RETRY_AFTER_MS_MAX).contains(&ms));
                }
            }
        }

        #[test]
        fn an_address_from_anywhere_never_panics(text in "\\PC{0,60}") {
            let _ = endpoint(&text);
        }
    }

    #[test]
    fn metadata_addresses_are_refused_in_every_spelling() {
        for url in [
            "http://169.254.169.254/latest",
            "http://2852039166/",
            "http://0xA9FEA9FE/",
            "http://0251.0376.0251.0376/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://100.100.100.200/",
            "http://１６９.254.169.254/",
        ] {
            assert!(endpoint(url).is_err_and(|e| e.contains("metadata")), "{url}");
        }
        for url in ["ftp://x/", "http://", "not a url", "https://user:pw@x/", "file:///etc/passwd", "javascript:1"] {
            assert!(endpoint(url).is_err(), "{url}");
        }
        for url in
            ["http://10.0.0.7:9093", "http://localhost:9093/", "https://events.pagerduty.com/v2/enqueue", "http://[fd00::1]/", "http://192.168.1.1/"]
        {
            assert!(endpoint(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_name_that_leads_to_metadata_is_refused_when_connecting() {
        let good: SocketAddr = "10.0.0.1:0".parse().expect("an address");
        let bad: SocketAddr = "169.254.169.254:0".parse().expect("an address");
        assert!(allowed("a".into(), vec![good], false).is_ok());
        assert!(allowed("a".into(), vec![good, bad], false).is_err());
        assert!(allowed("a".into(), vec![], false).is_err());
        assert!(allowed("a".into(), vec![good], true).is_err(), "private, where only public addresses are wanted");
    }

    #[test]
    fn public_addresses_are_told_from_all_others() {
        for public in ["1.1.1.1", "140.82.121.4", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(place(public, true).is_ok(), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:db8::1",
        ] {
            assert!(place(private, true).is_err() && place(private, false).is_ok(), "{private}");
        }
    }

    #[test]
    fn words_from_outside_are_one_line_without_secrets() {
        let client = Client::new("0", false, false, vec!["sesame-open".to_owned().into(), "a".to_owned().into()]).expect("a client");
        assert_eq!(client.plain("a\n\u{1b}[31mred\u{202e} sesame-open"), "a [31mred [secret]");
        assert!(client.plain(&"x".repeat(70_000)).chars().count() <= DETAIL_CHARS_MAX);
    }
}
