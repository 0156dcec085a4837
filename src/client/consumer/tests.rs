use super::credit::Credit;

#[test]
fn credit_is_granted_again_in_halves_as_records_are_taken() {
    let mut credit = Credit::new(10, 1000);
    assert_eq!(credit.renew(), (10, 1000));
    assert!(credit.received(4, 100));
    assert_eq!(credit.grant(), None);
    assert!(!credit.taken(4, 100));
    assert!(credit.received(1, 10));
    assert!(credit.taken(1, 10));
    assert_eq!(credit.grant(), Some((5, 110)));
    assert_eq!(credit.grant(), None);
}

#[test]
fn an_overdraft_is_paid_back_before_more_is_granted() {
    let mut credit = Credit::new(10, 100);
    credit.renew();
    assert!(credit.received(1, 250));
    assert!(!credit.received(1, 1), "no credit is left");
    assert!(credit.received(0, 0), "news needs none");
    assert!(!Credit::new(1, 1).taken(0, 0) || credit.grant().is_none());
    credit.taken(1, 250);
    credit.taken(1, 1);
    // 251 bytes were sent against 100: what is granted now makes 100 available again.
    assert_eq!(credit.grant(), Some((2, 251)));
}

#[test]
fn a_new_subscription_gets_what_is_not_held() {
    let mut credit = Credit::new(10, 100);
    credit.renew();
    credit.received(7, 120);
    assert_eq!(credit.renew(), (3, 0));
    assert!(credit.taken(7, 120));
    assert_eq!(credit.grant(), Some((7, 100)));
}
