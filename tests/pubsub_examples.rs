//! The examples of groups run, and what they say is so.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and reads files")]

#[path = "../examples/crm_to_erp.rs"]
mod crm_to_erp;
#[path = "../examples/erp_fan_out.rs"]
mod erp_fan_out;

#[tokio::test(flavor = "multi_thread")]
async fn every_account_reaches_the_erp_and_every_receipt_says_so() {
    let outcome = crm_to_erp::run().await.unwrap();
    assert_eq!((outcome.in_erp.len(), outcome.taken, outcome.given_up), (300, 299, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_system_gets_what_it_is_interested_in() {
    let outcome = erp_fan_out::run().await.unwrap();
    let events = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/data/erp_events.jsonl")).unwrap();
    let of = |types: &[&str]| {
        let is = |line: &&str| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            types.contains(&event["type"].as_str().unwrap())
        };
        events.lines().filter(is).count()
    };
    let total = events.lines().count();
    assert_eq!(outcome["crm"], of(&["shipment.sent", "order.created"]));
    assert_eq!(outcome["billing"], of(&["payment.received"]));
    assert_eq!([outcome["published"], outcome["analytics-live"], outcome["analytics-late"]], [total; 3]);
}
