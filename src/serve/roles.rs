//! Who is asking, and what he may do.
//!
//! Without tokens in the configuration the machine is trusted, and so is whoever is on it. With tokens, everybody shows one: as a
//! bearer token, or, from a browser, as the password of the dialogue that the browser opens by itself. Only digests of tokens are
//! kept. All of them are compared, each in constant time, so that the time of an answer tells nothing of which one was nearly right.

use axum::http::{HeaderMap, Method, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::backend::Holder;
use crate::domain::Role;

/// Longer tokens are nobody's.
const TOKEN_BYTES_MAX: usize = 512;

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// None: somebody on this machine, who says himself who he is.
    pub name: Option<String>,
    pub role: Role,
}

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// He has not shown who he is, or nothing that is known here.
    Unknown,
    Role {
        name: String,
        role: Role,
        needs: Role,
    },
}

impl Caller {
    /// # Errors
    /// When he shows nothing that is known, or what he shows is not enough. `needs` None is open to everybody.
    pub fn of(headers: &HeaderMap, holders: &[Holder], needs: Option<Role>) -> Result<Caller, Denied> {
        if holders.is_empty() {
            return Ok(Caller { name: None, role: Role::Admin });
        }
        let found = presented(headers).and_then(|token| {
            let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
            let mut found = None;
            for holder in holders {
                if bool::from(holder.digest.ct_eq(&digest)) {
                    found = Some(holder);
                }
            }
            found
        });
        match (found, needs) {
            (Some(h), Some(needs)) if h.role < needs => Err(Denied::Role { name: h.name.clone(), role: h.role, needs }),
            (Some(h), _) => Ok(Caller { name: Some(h.name.clone()), role: h.role }),
            (None, None) => Ok(Caller { name: None, role: Role::Viewer }),
            (None, Some(_)) => Err(Denied::Unknown),
        }
    }

    /// The name under which something is done: the token's, whatever the request says.
    pub fn by(&self, said: &str) -> String {
        self.name.clone().unwrap_or_else(|| said.trim().to_owned())
    }
}

/// The token of `Authorization: Bearer`, or the password of `Basic`.
fn presented(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok().filter(|v| v.len() <= 2 * TOKEN_BYTES_MAX)?;
    let (scheme, rest) = value.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.trim().to_owned()),
        "basic" => {
            let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            text.split_once(':').map(|(_, password)| password.to_owned())
        }
        _ => None,
    }
    .filter(|t| !t.is_empty())
}

/// What a request needs; None: nothing. What is not listed needs the most.
pub fn needs(method: &Method, path: &str) -> Option<Role> {
    let is_read = method.is_safe();
    match path {
        // Whoever keeps us running does not log in for it.
        "/-/healthy" | "/-/ready" | "/metrics" if is_read => return None,
        _ if path.starts_with("/assets/") && is_read => return None,
        // By its signature, not by a token.
        _ if is_signed_door(path) => return None,
        _ if is_read => return Some(Role::Viewer),
        _ => {}
    }
    let verb =
        path.strip_prefix("/api/v1/incidents/").or_else(|| path.strip_prefix("/incidents/")).and_then(|rest| rest.split_once('/')).map(|(_, v)| v);
    if path.starts_with("/silences") || path.starts_with("/api/v1/silences") || path.starts_with("/api/v1/maintenance") {
        return Some(Role::Responder);
    }
    match verb {
        // Which role a step needs is the runbook's word; it is asked again where it is known.
        Some(
            "acknowledge" | "mitigate" | "resolve" | "reopen" | "note" | "severity" | "merge" | "split" | "suppress" | "plan" | "approve" | "undo"
            | "done" | "draft" | "sent",
        ) => Some(Role::Responder),
        // What is said of the law is not said by whoever happens to be awake.
        Some("clock") => Some(Role::Approver),
        _ => Some(Role::Admin),
    }
}

/// Where receivers speak to us, `/api/v1/receivers/<name>/events`, and where results are brought, `/api/v1/actions/<id>/result`.
/// Everything that comes in there is signed or turned away.
pub fn is_signed_door(path: &str) -> bool {
    let doors = [("/api/v1/receivers/", "/events"), ("/api/v1/actions/", "/result")];
    let is_one = |(before, after): (&str, &str)| {
        path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(|name| !name.is_empty() && !name.contains('/'))
    };
    doors.into_iter().any(is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str, role: Role) -> Holder {
        Holder { name: name.to_owned(), role, digest: Sha256::digest(format!("token of {name}").as_bytes()).into() }
    }

    #[test]
    fn every_route_asks_for_its_role_and_no_less() {
        let holders = [holder("vera", Role::Viewer), holder("rene", Role::Responder), holder("anna", Role::Approver), holder("adam", Role::Admin)];
        let rows = [
            (Method::GET, "/-/healthy", None),
            (Method::GET, "/metrics", None),
            (Method::GET, "/", Some(Role::Viewer)),
            (Method::GET, "/api/v1/status/config", Some(Role::Viewer)),
            (Method::POST, "/api/v1/incidents/inc-1/acknowledge", Some(Role::Responder)),
            (Method::POST, "/incidents/inc-1/approve", Some(Role::Responder)),
            (Method::POST, "/api/v1/incidents/inc-1/severity", Some(Role::Responder)),
            (Method::POST, "/api/v1/incidents/inc-1/draft", Some(Role::Responder)),
            (Method::POST, "/incidents/inc-1/clock", Some(Role::Approver)),
            (Method::POST, "/api/v1/incidents/inc-1/delete", Some(Role::Admin)),
            (Method::POST, "/-/reload", Some(Role::Admin)),
            (Method::PUT, "/-/reload", Some(Role::Admin)),
            (Method::POST, "/api/v1/faults/silence/on", Some(Role::Admin)),
            (Method::POST, "/anything/else", Some(Role::Admin)),
            (Method::POST, "/api/v1/receivers/pager/events", None),
            (Method::POST, "/api/v1/receivers/pager/other/events", Some(Role::Admin)),
            (Method::POST, "/api/v1/actions/inc-1-2-reroute-apply/result", None),
            (Method::POST, "/api/v1/actions/inc-1/2/result", Some(Role::Admin)),
            (Method::DELETE, "/metrics", Some(Role::Admin)),
        ];
        for (method, path, needed) in rows {
            assert_eq!(needs(&method, path), needed, "{method} {path}");
            for h in &holders {
                let mut headers = HeaderMap::new();
                headers.insert(header::AUTHORIZATION, format!("Bearer token of {}", h.name).parse().unwrap());
                let may = Caller::of(&headers, &holders, needed).is_ok();
                assert_eq!(may, needed.is_none_or(|n| h.role >= n), "{method} {path} {}", h.name);
            }
            assert_eq!(Caller::of(&HeaderMap::new(), &holders, needed).is_ok(), needed.is_none(), "{method} {path} by a stranger");
            assert_eq!(
                Caller::of(&HeaderMap::new(), &[], needed),
                Ok(Caller { name: None, role: Role::Admin }),
                "without tokens the machine is trusted"
            );
        }
    }

    #[test]
    fn a_browser_shows_it_as_a_password_and_nothing_else_counts() {
        let holders = [holder("anna", Role::Approver)];
        let ask = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            Caller::of(&headers, &holders, Some(Role::Viewer)).is_ok()
        };
        assert!(ask(&format!("Basic {}", STANDARD.encode("whoever:token of anna"))));
        assert!(ask("bearer token of anna"));
        for wrong in ["Bearer token of ann", "Bearer ", "Bearer", "Basic !!", "Digest token of anna", "token of anna"] {
            assert!(!ask(wrong), "{wrong}");
        }
        assert!(!ask(&format!("Bearer {}", holders[0].digest.iter().map(|b| format!("{b:02x}")).collect::<String>())), "the digest opens nothing");
    }
}
