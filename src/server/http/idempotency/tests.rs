use super::*;

#[test]
fn a_key_without_a_place_is_told_when_to_come_again() {
    let mut headers = HeaderMap::new();
    headers.insert(NAME, HeaderValue::from_static("order-7"));
    let key = IdempotencyKey::read(&headers).unwrap().unwrap();
    let answer = key.problem(BrokerError::keys_full("orders", 61_001)).answer();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "62");
    let other = BrokerError::new(ErrorKind::Overloaded, "no room");
    let answer = key.problem(other).answer();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()[header::RETRY_AFTER]),
        (503, &HeaderValue::from_static("1"))
    );
}
