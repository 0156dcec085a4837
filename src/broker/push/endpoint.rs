//! What the endpoint of a push subscription gets with each call beside records: headers of its own, checked, and what signs.
//!
//! A header may hold a credential, so it is for the host that it was given for: when the URL of a push changes to another one, none
//! is taken along.

use crate::base::{ErrorKind, GroupName, TimestampMs, TrustedClock, limits};
use crate::catalog::{Hidden, OldSecret, PushEndpoint, PushHeader};

use super::super::BrokerError;
use super::{WebhookSecret, WebhookSecrets};

/// Names that are the connection's.
const CONNECTION: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Names that say what the body is.
const BODY: [&str; 3] = ["content-encoding", "content-range", "content-type"];
/// What the names begin with that the server uses itself.
const OWN: [&str; 3] = ["ce-", "tidelog-", "webhook-"];
/// The longest time for which two secrets sign, in milliseconds.
const LONGEST_KEEP_MS: u64 = 30 * 24 * 3_600_000;

/// What is to become of headers and secret of an endpoint. What is not said stays.
#[derive(Debug, Clone, Default)]
pub struct EndpointChange {
    /// All the headers that it has go.
    pub drop_all: bool,
    /// These go.
    pub drop: Vec<String>,
    /// These are set, instead of those of the same names: name and value.
    pub set: Vec<(String, Hidden)>,
    /// Another secret.
    pub secret: Option<SecretChange>,
}

/// Another secret for an endpoint.
#[derive(Debug, Clone)]
pub struct SecretChange {
    /// What signs from now on; `None` for the secret that the server has for all.
    pub secret: Option<WebhookSecret>,
    /// How long the one before signs as well, in milliseconds.
    pub keep_old_ms: u64,
}

impl EndpointChange {
    /// What an endpoint is after this. `urls` are the one that the push has, if it is there, and the one that it gets.
    ///
    /// # Errors
    /// A header or the time is refused; there is no such header to go; headers would go to another host.
    pub(super) fn apply(
        &self,
        push: &GroupName,
        held: &PushEndpoint,
        urls: (Option<&str>, &str),
        clock: &TrustedClock,
    ) -> Result<PushEndpoint, BrokerError> {
        let headers = self.headers(push, &held.headers)?;
        let kept = headers.iter().filter(|header| held.headers.contains(header) && !self.sets(&header.name));
        let kept: Vec<&str> = kept.map(|header| header.name.as_str()).collect();
        if let (Some(before), now) = urls
            && !kept.is_empty()
            && !stays(before, now)
        {
            let (names, host) = (kept.join(", "), origin(now).1);
            return Err(refused(format!(
                "push '{push}' has headers that were given for {}: {names}. Give them anew for {host}, or drop them",
                origin(before).1
            )));
        }
        let old = held.old.clone().filter(|old| !is_over(old, clock));
        let (secret, old) = match &self.secret {
            None => (held.secret.clone(), old),
            Some(change) => change.apply(held.secret.as_ref(), old, clock.now_ms())?,
        };
        Ok(PushEndpoint { headers, secret, old })
    }

    fn sets(&self, name: &str) -> bool {
        self.set.iter().any(|(set, _)| set.eq_ignore_ascii_case(name))
    }

    fn headers(&self, push: &GroupName, held: &[PushHeader]) -> Result<Vec<PushHeader>, BrokerError> {
        for name in &self.drop {
            if !held.iter().any(|header| header.name.eq_ignore_ascii_case(name)) {
                return Err(refused(format!("push '{push}' has no header '{}'", shown(name))));
            }
        }
        let goes = |name: &str| self.drop_all || self.drop.iter().any(|drop| drop.eq_ignore_ascii_case(name));
        let kept = held.iter().filter(|header| !goes(&header.name) && !self.sets(&header.name));
        let mut headers: Vec<PushHeader> = kept.cloned().collect();
        for (at, (name, value)) in self.set.iter().enumerate() {
            let header = checked(name, value).map_err(refused)?;
            if self.set[..at].iter().any(|(before, _)| before.eq_ignore_ascii_case(name)) {
                return Err(refused(format!("header '{}' is given twice", header.name)));
            }
            headers.push(header);
        }
        if headers.len() > limits::PUSH_HEADERS {
            let most = limits::PUSH_HEADERS;
            return Err(refused(format!("push '{push}' would have {} headers; the limit is {most}", headers.len())));
        }
        let bytes: usize = headers.iter().map(|header| header.name.len() + header.value.reveal().len()).sum();
        if bytes > limits::PUSH_HEADERS_BYTES {
            let most = limits::PUSH_HEADERS_BYTES;
            return Err(refused(format!("the headers of push '{push}' have {bytes} bytes; the limit is {most}")));
        }
        headers.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(headers)
    }
}

impl SecretChange {
    /// What signs after this, and what signs as well. The same secret again begins no new time for the one before.
    fn apply(
        &self,
        held: Option<&Hidden>,
        old: Option<OldSecret>,
        now: TimestampMs,
    ) -> Result<(Option<Hidden>, Option<OldSecret>), BrokerError> {
        if self.keep_old_ms > LONGEST_KEEP_MS {
            let kept = self.keep_old_ms;
            return Err(refused(format!("{kept} ms for the old secret; allowed are 0 to {LONGEST_KEEP_MS} (30 days)")));
        }
        let secret = self.secret.as_ref().map(|secret| Hidden::new(secret.text()));
        if secret.as_ref() == held {
            return Ok((secret, old.filter(|_| self.keep_old_ms > 0)));
        }
        let until_ms = now.saturating_add_unsigned(self.keep_old_ms);
        let old = OldSecret { secret: held.cloned(), since_ms: now, until_ms };
        Ok((secret, (self.keep_old_ms > 0).then_some(old)))
    }
}

/// What signs calls to an endpoint now, the newest first. `server` are the secrets that the server has for all.
pub fn signing(endpoint: &PushEndpoint, server: &WebhookSecrets, clock: &TrustedClock) -> WebhookSecrets {
    let old = endpoint.old.as_ref().filter(|old| !is_over(old, clock));
    let wanted = [Some(endpoint.secret.as_ref()), old.map(|old| old.secret.as_ref())];
    let secrets = wanted.into_iter().flatten().map(|secret| match secret {
        None => server.clone(),
        // It was a secret when it was kept.
        Some(secret) => WebhookSecret::parse(secret.reveal()).map(WebhookSecrets::from).unwrap_or_default(),
    });
    secrets.fold(WebhookSecrets::default(), WebhookSecrets::and)
}

/// Whether a secret that was replaced signs no longer.
pub fn is_over(old: &OldSecret, clock: &TrustedClock) -> bool {
    clock.is_over(old.since_ms, old.until_ms)
}

/// A header as it is kept.
///
/// # Errors
/// In one line, why it is none, or none for an endpoint. The value is not repeated.
fn checked(name: &str, value: &Hidden) -> Result<PushHeader, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("'{}' is no name of an HTTP header", shown(name)));
    }
    if name.len() > limits::PUSH_HEADER_NAME_BYTES {
        let most = limits::PUSH_HEADER_NAME_BYTES;
        return Err(format!("the header name '{}' has {} bytes; the limit is {most}", shown(name), name.len()));
    }
    let name = name.to_ascii_lowercase();
    if CONNECTION.contains(&name.as_str()) {
        return Err(format!("header '{name}' cannot be set: it is the connection's"));
    }
    if BODY.contains(&name.as_str()) {
        return Err(format!("header '{name}' cannot be set: it says what the body is, which is each record's"));
    }
    if let Some(own) = OWN.iter().find(|own| name.starts_with(*own)) {
        return Err(format!("header '{name}' cannot be set: names that begin with '{own}' are the server's"));
    }
    let text = value.reveal().trim();
    if text.is_empty() {
        return Err(format!("header '{name}' has no value"));
    }
    if text.len() > limits::PUSH_HEADER_VALUE_BYTES {
        let most = limits::PUSH_HEADER_VALUE_BYTES;
        return Err(format!("the value of header '{name}' has {} bytes; the limit is {most}", text.len()));
    }
    if let Some(odd) = text.chars().find(|c| !matches!(c, ' '..='~' | '\t')) {
        let code = u32::from(odd);
        return Err(format!("the value of header '{name}' has the character U+{code:04X}; allowed is printable ASCII"));
    }
    Ok(PushHeader { name, value: Hidden::new(text) })
}

/// The beginning of something that may be anything.
fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

/// Whether what goes to one URL may go to another: the same host and port, and not in the clear where it was not.
fn stays(before: &str, now: &str) -> bool {
    let ((scheme, host), (to_scheme, to_host)) = (origin(before), origin(now));
    host == to_host && (scheme == to_scheme || to_scheme == "https")
}

/// Scheme, and host with port.
fn origin(url: &str) -> (String, String) {
    let url = url.to_ascii_lowercase();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", &url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    (scheme.to_owned(), host.to_owned())
}

fn refused(message: String) -> BrokerError {
    BrokerError::new(ErrorKind::InvalidRequest, message)
}
