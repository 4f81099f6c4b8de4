//! Who may come in, and what browsers may do with what they get.
//!
//! Without tokens Bellwether trusts the machine it runs on. Two tricks turn a browser on that machine against it: a
//! page elsewhere that posts here (cross-site request forgery), and a name elsewhere that resolves to here (DNS rebinding). The
//! first is met by comparing `Origin` with `Host` and by a token in every form, the second by refusing names that are not ours.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub const COOKIE: &str = "bellwether_csrf";
/// The name under which a visitor acted last, as hexadecimal digits; until the browser is closed.
const NAME_COOKIE: &str = "bellwether_name";
/// As long as the forms let a name be.
const NAME_CHARS_MAX: usize = 200;

/// Nothing inline, nothing from elsewhere, no frames.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

pub const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Why somebody was turned away, in words for him.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request names no host")]
    NoHost,
    #[error("this daemon listens on the loopback only and does not answer to the name {0:?}; set external_url if it is meant to")]
    StrangeHost(String),
    #[error("the request comes from a page of another site")]
    CrossOrigin,
    #[error("the form is out of date; go back, reload the page and try again")]
    Token,
}

pub struct Guard {
    /// Listening beyond the loopback means that any name may be meant.
    any_host: bool,
    /// Names beside the loopback's, lower case.
    hosts: Vec<String>,
    /// Of this process: a restart makes open forms stale, which costs a reload.
    key: [u8; 32],
    cookies: AtomicU64,
}

impl Guard {
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(listen: SocketAddr, hosts: Vec<String>) -> std::io::Result<Guard> {
        let mut key = [0; 32];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut key)?;
        let hosts = hosts.iter().map(|h| h.to_ascii_lowercase()).collect();
        Ok(Guard { any_host: !listen.ip().is_loopback(), hosts, key, cookies: AtomicU64::new(0) })
    }

    /// May this request be looked at?
    ///
    /// # Errors
    /// The reason why not.
    pub fn admits(&self, method: &Method, headers: &HeaderMap, authority: Option<&str>) -> Result<(), Refusal> {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).or(authority).ok_or(Refusal::NoHost)?;
        let name = without_port(host).to_ascii_lowercase();
        if !self.any_host && !is_loopback(&name) && !self.hosts.contains(&name) {
            return Err(Refusal::StrangeHost(host.chars().take(200).collect()));
        }
        if method.is_safe() {
            return Ok(());
        }
        // Browsers send Origin with every write; programs send none. `null` is a sandboxed page, which has no business here.
        if let Some(origin) = headers.get(header::ORIGIN) {
            let from = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, rest)| rest);
            if !from.is_some_and(|from| from.eq_ignore_ascii_case(host)) {
                return Err(Refusal::CrossOrigin);
            }
        }
        match headers.get("sec-fetch-site").and_then(|s| s.to_str().ok()) {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) => Err(Refusal::CrossOrigin),
        }
    }

    /// The visitor's cookie, if it is one of ours; else a new one and the header that sets it.
    pub fn cookie(&self, headers: &HeaderMap) -> (String, Option<HeaderValue>) {
        if let Some(known) = cookie_of(headers) {
            return (known, None);
        }
        let n = self.cookies.fetch_add(1, Ordering::Relaxed);
        let fresh = hex(&self.mac(b"cookie", &n.to_be_bytes()))[..32].to_owned();
        let set = HeaderValue::from_str(&format!("{COOKIE}={fresh}; Path=/; HttpOnly; SameSite=Lax")).ok();
        (fresh, set)
    }

    /// What a form of this visitor must carry.
    pub fn token(&self, cookie: &str) -> String {
        hex(&self.mac(b"token", cookie.as_bytes()))
    }

    /// # Errors
    /// When the form was not made for this visitor by this process.
    pub fn check_token(&self, headers: &HeaderMap, token: &str) -> Result<(), Refusal> {
        let cookie = cookie_of(headers).ok_or(Refusal::Token)?;
        let same = subtle::ConstantTimeEq::ct_eq(self.token(&cookie).as_bytes(), token.as_bytes());
        if bool::from(same) { Ok(()) } else { Err(Refusal::Token) }
    }

    fn mac(&self, purpose: &[u8], text: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(purpose);
        mac.update(&[0]);
        mac.update(text);
        mac.finalize().into_bytes().into()
    }
}

/// What a visitor without a token is called: as he says, else as he said before.
pub fn name_said(said: &str, headers: &HeaderMap) -> String {
    if !said.trim().is_empty() {
        return said.to_owned();
    }
    let bytes = value_of(headers, NAME_COOKIE).and_then(|digits| {
        let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
        pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<u8>>>()
    });
    let name = bytes.and_then(|b| String::from_utf8(b).ok());
    name.filter(|n| n.chars().count() <= NAME_CHARS_MAX).unwrap_or_default()
}

/// The header by which a browser remembers under which name somebody acted.
pub fn remember_name(name: &str) -> Option<HeaderValue> {
    let name = name.trim();
    let fits = !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX;
    fits.then(|| HeaderValue::from_str(&format!("{NAME_COOKIE}={}; Path=/; HttpOnly; SameSite=Lax", hex(name.as_bytes()))).ok())?
}

fn cookie_of(headers: &HeaderMap) -> Option<String> {
    let value = value_of(headers, COOKIE)?;
    (value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit())).then(|| value.to_owned())
}

fn value_of<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|c| c.to_str().ok()).flat_map(|c| c.split(';'));
    all.filter_map(|c| c.trim().split_once('=')).find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `localhost:9710` and `[::1]:9710` without their port.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(listen: &str, method: Method, pairs: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let guard = Guard::new(listen.parse().unwrap(), vec!["Bellwether.Example".into()]).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        guard.admits(&method, &headers, None)
    }

    #[test]
    fn on_the_loopback_only_our_names_are_answered() {
        for host in ["localhost:9710", "127.0.0.1:9710", "127.8.0.1", "[::1]:9710", "bellwether.example", "LOCALHOST"] {
            assert_eq!(asked("127.0.0.1:9710", Method::GET, &[("host", host)]), Ok(()), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:9710", "localhost.evil", "10.0.0.1"] {
            assert!(asked("127.0.0.1:9710", Method::GET, &[("host", host)]).is_err(), "{host}");
            assert_eq!(asked("0.0.0.0:9710", Method::GET, &[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(asked("127.0.0.1:9710", Method::GET, &[]), Err(Refusal::NoHost));
    }

    #[test]
    fn a_write_from_another_site_is_refused() {
        let host = ("host", "localhost:9710");
        let ask = |extra: &[(&'static str, &str)]| asked("127.0.0.1:9710", Method::POST, &[&[host], extra].concat());
        assert_eq!(ask(&[]), Ok(()));
        assert_eq!(ask(&[("origin", "http://localhost:9710")]), Ok(()));
        for origin in ["http://evil.example", "null", "http://localhost:9711", "http://localhost", "http://127.0.0.1:9710"] {
            assert_eq!(ask(&[("origin", origin)]), Err(Refusal::CrossOrigin), "{origin}");
        }
        assert_eq!(ask(&[("sec-fetch-site", "cross-site")]), Err(Refusal::CrossOrigin));
        assert_eq!(ask(&[("sec-fetch-site", "same-site")]), Err(Refusal::CrossOrigin));
    }

    #[test]
    fn a_token_belongs_to_its_cookie() {
        let guard = Guard::new("127.0.0.1:1".parse().unwrap(), vec![]).unwrap();
        let (cookie, set) = guard.cookie(&HeaderMap::new());
        assert!(set.unwrap().to_str().unwrap().contains("SameSite=Lax"));
        let mut headers = HeaderMap::new();
        headers.insert("cookie", format!("a=b; {COOKIE}={cookie}").parse().unwrap());
        assert_eq!(guard.check_token(&headers, &guard.token(&cookie)), Ok(()));
        assert_eq!(guard.check_token(&headers, &guard.token("other")), Err(Refusal::Token));
        assert_eq!(guard.check_token(&HeaderMap::new(), &guard.token(&cookie)), Err(Refusal::Token));
        assert!(guard.cookie(&headers).1.is_none());
    }

    #[test]
    fn a_name_is_remembered_as_it_was_said() {
        let kept = |name: &str| remember_name(name).map(|h| h.to_str().unwrap().split(';').next().unwrap().to_owned());
        let with = |cookie: &str| HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]);
        for name in ["Ada", "Zoë = ; \"x\"", "李"] {
            let headers = with(&format!("a=b; {}", kept(name).unwrap()));
            assert_eq!((name_said("", &headers).as_str(), name_said("Bob", &headers).as_str()), (name, "Bob"));
        }
        assert_eq!((kept(" "), kept(&"x".repeat(201))), (None, None));
        for broken in ["bellwether_name=4", "bellwether_name=zz", "bellwether_name=ff", "bellwether_name=+1", "other=41"] {
            assert!(name_said(" ", &with(broken)).len() <= 1, "{broken}");
        }
    }
}
