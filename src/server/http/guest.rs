//! Browsers are refused. A page from anywhere can let the browser of whoever visits it send requests to this machine
//! (which carry an `Origin`, or, when the page only embeds them as an image or frame, nothing but `Sec-Fetch-Site`), or have a
//! name of its own lead here (which is not a name that anybody has configured).

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::problem::Problem;
use crate::base::ErrorKind;

/// How a browser says where a request comes from, in what way, and what for (Fetch Metadata). No page can set or suppress it.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

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
    let mut is_known_page = false;
    for origin in headers.get_all(header::ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let host = origin.split_once("://").map_or(origin.as_ref(), |(_, host)| host);
        if !names.have(host_of(host)) {
            return refuse(format!("the origin {origin:?}"));
        }
        is_known_page = true;
    }
    for site in headers.get_all(SITE) {
        // What an address typed in or a page of this very listener leads to is `none` or `same-origin`. Other ports and
        // neighbouring names are `same-site`: a link there may be followed, nothing may be embedded.
        let is_link = headers.get(MODE).is_some_and(|mode| mode == "navigate")
            && headers.get(DEST).is_some_and(|dest| dest == "document");
        let foreign = site == "cross-site" || site == "same-site" && !is_link;
        if foreign && !is_known_page {
            return refuse(format!(
                "the page that makes a browser send this ({SITE}: {})",
                site.to_str().unwrap_or("?")
            ));
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
