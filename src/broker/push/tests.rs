use super::*;

/// The test vector that the libraries of Standard Webhooks share.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIME: i64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

#[test]
fn signatures_are_those_of_the_published_test_vector() {
    let secret = WebhookSecret::parse(SECRET).unwrap();
    assert_eq!(secret.sign(ID, TIME, BODY), SIGNATURE);
    assert_eq!(secret.text(), SECRET);
    assert!(secret.verifies(ID, TIME, BODY, SIGNATURE));
}

#[test]
fn one_good_signature_among_several_is_enough() {
    let secret = WebhookSecret::parse(SECRET).unwrap();
    let other = WebhookSecret::random().sign(ID, TIME, BODY);
    assert!(secret.verifies(ID, TIME, BODY, &format!("{other} {SIGNATURE}")));
    assert!(secret.verifies(ID, TIME, BODY, &format!("v2,AAAA {SIGNATURE} v1a,AAAA")));
    assert!(!secret.verifies(ID, TIME, BODY, &other));
}

#[test]
fn what_was_changed_does_not_verify() {
    let secret = WebhookSecret::parse(SECRET).unwrap();
    assert!(!secret.verifies("msg_other", TIME, BODY, SIGNATURE));
    assert!(!secret.verifies(ID, TIME + 1, BODY, SIGNATURE));
    assert!(!secret.verifies(ID, TIME, b"{}", SIGNATURE));
    for wrong in ["", "v1,", "v1", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "v1,g0hM9SsE", "v1,!!!!"] {
        assert!(!secret.verifies(ID, TIME, BODY, wrong), "{wrong}");
    }
}

#[test]
fn a_secret_is_read_as_it_is_written_and_kept_out_of_logs() {
    let secret = WebhookSecret::random();
    assert_eq!(WebhookSecret::parse(&secret.text()).unwrap(), secret);
    assert_ne!(secret, WebhookSecret::random());
    assert_eq!(format!("{secret:?}"), "WebhookSecret(..)");
    assert_eq!(WebhookSecret::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Err(SecretError::Form));
    assert_eq!(WebhookSecret::parse("whsec_?"), Err(SecretError::Form));
    assert_eq!(WebhookSecret::parse("whsec_AAAA"), Err(SecretError::Length { bytes: 3 }));
}

mod endpoints {
    use std::sync::Arc;

    use super::*;
    use crate::base::{GroupName, ManualClock, TrustedClock, limits};
    use crate::broker::BrokerError;
    use crate::catalog::{Hidden, PushEndpoint};

    const URL: &str = "https://erp.example.com/hook";
    const HOUR_MS: u64 = 3_600_000;

    fn clock() -> (Arc<ManualClock>, TrustedClock) {
        let manual = Arc::new(ManualClock::at(1_700_000_000_000));
        (Arc::clone(&manual), TrustedClock::new(manual))
    }

    fn set(headers: &[(&str, &str)]) -> EndpointChange {
        let set = headers.iter().map(|(name, value)| ((*name).to_owned(), Hidden::new(*value))).collect();
        EndpointChange { set, ..EndpointChange::default() }
    }

    fn apply(change: &EndpointChange, held: &PushEndpoint, to: &str) -> Result<PushEndpoint, BrokerError> {
        change.apply(&GroupName::new("erp").unwrap(), held, (Some(URL), to), &clock().1)
    }

    fn shown(endpoint: &PushEndpoint) -> Vec<(&str, &str)> {
        endpoint.headers.iter().map(|header| (header.name.as_str(), header.value.reveal())).collect()
    }

    #[test]
    fn headers_are_set_replaced_and_dropped_by_name() {
        let none = PushEndpoint::default();
        let two = apply(&set(&[("X-Tenant", " eu "), ("Authorization", "Bearer a")]), &none, URL).unwrap();
        assert_eq!(shown(&two), [("authorization", "Bearer a"), ("x-tenant", "eu")]);
        let other = apply(&set(&[("AUTHORIZATION", "Bearer b")]), &two, URL).unwrap();
        assert_eq!(shown(&other), [("authorization", "Bearer b"), ("x-tenant", "eu")]);
        let drop = EndpointChange { drop: vec!["X-Tenant".to_owned()], ..set(&[]) };
        assert_eq!(shown(&apply(&drop, &other, URL).unwrap()), [("authorization", "Bearer b")]);
        let all = EndpointChange { drop_all: true, ..set(&[("x-new", "1")]) };
        assert_eq!(shown(&apply(&all, &other, URL).unwrap()), [("x-new", "1")]);
        assert_eq!(apply(&EndpointChange::default(), &other, URL).unwrap(), other);
        let lost = apply(&drop, &none, URL).unwrap_err().to_string();
        assert!(lost.contains("push 'erp' has no header 'X-Tenant'"), "{lost}");
        assert!(!format!("{other:?}").contains("Bearer"));
    }

    #[test]
    fn names_that_are_not_an_endpoints_and_what_is_too_much_is_refused_and_no_value_repeated() {
        let (long, hush) = ("hush".repeat(1025), "hush".repeat(1024));
        let many: Vec<(String, &str)> = (0..17).map(|at| (format!("x-{at}"), "hush")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let full: Vec<(&str, &str)> = ["a", "b", "c", "d"].into_iter().map(|name| (name, hush.as_str())).collect();
        let name = "x".repeat(limits::PUSH_HEADER_NAME_BYTES + 1);
        for (headers, says) in [
            (&[("Host", "hush")][..], "'host' cannot be set: it is the connection's"),
            (&[("Transfer-Encoding", "hush")], "it is the connection's"),
            (&[("content-type", "hush")], "it says what the body is"),
            (&[("Webhook-Signature", "hush")], "names that begin with 'webhook-' are the server's"),
            (&[("ce-id", "hush")], "names that begin with 'ce-'"),
            (&[("tidelog-topic", "hush")], "names that begin with 'tidelog-'"),
            (&[("a b", "hush")], "'a b' is no name of an HTTP header"),
            (&[("", "hush")], "'' is no name"),
            (&[("x", " \t")], "header 'x' has no value"),
            (&[("x", "hush\r\nHost: y")], "the value of header 'x' has the character U+000D"),
            (&[("x", "hüsh")], "has the character U+00FC"),
            (&[("x", &long)], "the value of header 'x' has 4100 bytes; the limit is 4096"),
            (&[(&name, "hush")], "has 129 bytes; the limit is 128"),
            (&[("x", "hush"), ("X", "hush")], "header 'x' is given twice"),
            (&many, "push 'erp' would have 17 headers; the limit is 16"),
            (&full, "the headers of push 'erp' have 16388 bytes; the limit is 16384"),
        ] {
            let error = apply(&set(headers), &PushEndpoint::default(), URL).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("hush") && !error.contains("hüsh"), "{error}");
        }
    }

    #[test]
    fn headers_do_not_follow_to_another_host() {
        let held = apply(&set(&[("authorization", "Bearer a"), ("x", "1")]), &PushEndpoint::default(), URL).unwrap();
        let nothing = EndpointChange::default();
        for same in ["https://ERP.example.com/other", "https://erp.example.com?x"] {
            assert_eq!(apply(&nothing, &held, same).unwrap(), held, "{same}");
        }
        for other in ["https://example.org/hook", "https://erp.example.com:8443/hook", "http://erp.example.com/hook"] {
            let error = apply(&nothing, &held, other).unwrap_err().to_string();
            assert!(error.contains("given for erp.example.com: authorization, x"), "{error}");
            let error = apply(&set(&[("x", "2")]), &held, other).unwrap_err().to_string();
            assert!(error.contains("given for erp.example.com: authorization."), "{error}");
            let anew = apply(&set(&[("x", "2"), ("authorization", "Bearer a")]), &held, other).unwrap();
            assert_eq!(shown(&anew), [("authorization", "Bearer a"), ("x", "2")]);
            let dropped = EndpointChange { drop_all: true, ..EndpointChange::default() };
            assert_eq!(shown(&apply(&dropped, &held, other).unwrap()), []);
        }
    }

    #[test]
    fn two_secrets_sign_until_the_time_of_the_old_one_is_over() {
        let (manual, clock) = clock();
        let push = GroupName::new("erp").unwrap();
        let change = |held: &PushEndpoint, secret: Option<&WebhookSecret>, keep_old_ms| {
            let secret = Some(SecretChange { secret: secret.cloned(), keep_old_ms });
            EndpointChange { secret, ..EndpointChange::default() }.apply(&push, held, (Some(URL), URL), &clock)
        };
        let (server, one, two) = (WebhookSecret::random(), WebhookSecret::random(), WebhookSecret::random());
        let all = WebhookSecrets::from(server.clone());
        let sign = |endpoint: &PushEndpoint| signing(endpoint, &all, &clock).sign(ID, TIME, BODY).unwrap();
        let by = |secrets: &[&WebhookSecret]| {
            secrets.iter().map(|secret| secret.sign(ID, TIME, BODY)).collect::<Vec<_>>().join(" ")
        };
        let none = PushEndpoint::default();
        assert_eq!(sign(&none), by(&[&server]));
        let own = change(&none, Some(&one), HOUR_MS).unwrap();
        assert_eq!(sign(&own), by(&[&one, &server]), "the one before was the server's");
        manual.advance(1_800_000);
        // Said again, it begins no new time.
        let own = change(&own, Some(&one), HOUR_MS).unwrap();
        manual.advance(1_799_999);
        assert_eq!(sign(&own), by(&[&one, &server]));
        manual.advance(1);
        assert_eq!(sign(&own), by(&[&one]));
        let next = change(&own, Some(&two), HOUR_MS).unwrap();
        assert_eq!(sign(&next), by(&[&two, &one]));
        let again = change(&next, Some(&server), HOUR_MS).unwrap();
        assert_eq!(sign(&again), by(&[&server, &two]), "two at most");
        assert_eq!(sign(&change(&next, Some(&server), 0).unwrap()), by(&[&server]), "at once");
        let back = change(&next, None, HOUR_MS).unwrap();
        assert_eq!((sign(&back), back.secret.is_none()), (by(&[&server, &two]), true));
        let long = change(&next, None, 31 * 24 * HOUR_MS).unwrap_err().to_string();
        assert!(long.contains("2678400000 ms for the old secret; allowed are 0 to 2592000000 (30 days)"), "{long}");
    }
}

#[test]
fn the_servers_file_has_one_secret_or_two() {
    let (one, two) = (WebhookSecret::random(), WebhookSecret::random());
    let both = WebhookSecrets::parse(&format!("{}\n{}\n", one.text(), two.text())).unwrap();
    let signatures = both.sign(ID, TIME, BODY).unwrap();
    assert_eq!(signatures, format!("{} {}", one.sign(ID, TIME, BODY), two.sign(ID, TIME, BODY)));
    assert!(one.verifies(ID, TIME, BODY, &signatures) && two.verifies(ID, TIME, BODY, &signatures));
    assert_eq!(WebhookSecrets::parse(SECRET).unwrap().sign(ID, TIME, BODY).unwrap(), SIGNATURE);
    assert_eq!(WebhookSecrets::default().sign(ID, TIME, BODY), None);
    assert_eq!(WebhookSecrets::parse("\n"), Err(SecretError::Number { found: 0 }));
    assert_eq!(WebhookSecrets::parse("a b c"), Err(SecretError::Number { found: 3 }));
    assert_eq!(WebhookSecrets::parse("whsec_AAAA"), Err(SecretError::Length { bytes: 3 }));
}
