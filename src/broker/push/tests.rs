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
