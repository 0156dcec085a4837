//! Browsers are refused. A page from anywhere can let the browser of whoever visits it send requests to this machine
//! (which carry an `Origin`), or have a name of its own lead here (which is not a name that anybody has configured).

use http::{HeaderMap, StatusCode, header};

use super::problem::Problem;
use crate::base::ErrorKind;

/// Names by which the listener may be called, as `http_names` has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names<'a>(pub &'a str);

impl Names<'_> {
    fn have(&self, name: &str) -> bool {
        self.0.split(',').map(str::trim).any(|listed| listed.eq_ignore_ascii_case(name))
    }
}

/// Lets in who is no browser, or calls by a name that is known.
///
/// # Errors
/// 403, and what would have to be configured.
pub fn check(headers: &HeaderMap, is_local: bool, names: &Names<'_>) -> Result<(), Problem> {
    let refuse = |what: String| {
        let detail = format!("{what} is not in http_names; add it if it is yours");
        Err(Problem::new(ErrorKind::InvalidRequest, detail).with_status(StatusCode::FORBIDDEN))
    };
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let host = origin.split_once("://").map_or(origin.as_ref(), |(_, host)| host);
        if !names.have(host_of(host)) {
            return refuse(format!("the origin {origin:?}"));
        }
    }
    let host = headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
    if let (true, Some(host)) = (is_local, host) {
        let host = host_of(&host);
        let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
        if !is_address && !host.eq_ignore_ascii_case("localhost") && !names.have(host) {
            return refuse(format!("the host {host:?}"));
        }
    }
    Ok(())
}

/// Without the port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}
