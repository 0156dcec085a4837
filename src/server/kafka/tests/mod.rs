//! Hostile requests. Bodies are made from the shapes of the requests, so that they are understood at first, and then
//! damaged: each is answered or ends the connection, and none is a fault of the server or makes it panic.

mod fetching;
mod maker;
mod mutants;
mod naming;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::api::{APIS, Api};
use super::session::{Hangup, Session};
use super::{fuzz, requests};
use crate::server::Server;
use crate::server::config::ServerConfig;
use maker::Maker;

fn request(rng: &mut fastrand::Rng, api: &Api, version: i16, damage: bool) -> BytesMut {
    let head = fuzz::request(api, version, &[]).len();
    let mut out = fuzz::request(api, version, &Maker::new(rng.fork(), api, version).body(api, version));
    if damage && out.len() > head {
        match rng.u32(0..4) {
            0 => out.truncate(rng.usize(head..out.len())),
            1 => out.extend((0..rng.usize(1..20)).map(|_| rng.u8(..)).collect::<Vec<_>>()),
            _ => {
                for _ in 0..rng.usize(1..4) {
                    let at = rng.usize(head..out.len());
                    out[at] = if rng.bool() { rng.u8(..) } else { 0xff };
                }
            }
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_or_ends_the_connection_whatever_is_in_it() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let rounds: u64 = number("TIDELOG_ROUNDS").unwrap_or(30);
    let seed: u64 = number("TIDELOG_SEED").unwrap_or(11);
    println!("TIDELOG_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let config = ServerConfig {
        data_dir: dir.path().join("data"),
        listen: "127.0.0.1:0".to_owned(),
        topic_defaults: crate::catalog::TopicSettings::default()
            .with(&[("durability".to_owned(), "interval".to_owned())].into())
            .unwrap(),
        ..ServerConfig::default()
    };
    let server = Server::start(config).await.unwrap();
    let address = server.kafka_addresses()[0];
    let account = server.shared.incoming.account(1 << 30, crate::server::budget::Holder::calls());
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut answered, mut ended) = (0, 0);
    for round in 0..rounds {
        for api in APIS {
            for version in api.min..=api.max {
                for damage in [false, true] {
                    let frame = request(&mut rng, api, version, damage);
                    let what = format!("round {round}: {} version {version}: {frame:02x?}", api.name);
                    let session = Session::new(Arc::clone(&server.shared), address, address);
                    // Nobody waits for anything here.
                    session.close();
                    let grant = account.take(1).await;
                    let outcome = match requests::begin(&session, frame, grant).await {
                        Ok(pending) => {
                            let answer = tokio::time::timeout(Duration::from_secs(60), pending).await;
                            answer.unwrap_or_else(|_| panic!("no answer: {what}"))
                        }
                        Err(hangup) => Err(hangup),
                    };
                    match outcome {
                        Ok(_) => answered += 1,
                        Err(Hangup::Fault(fault)) => panic!("{fault}: {what}"),
                        Err(_) => ended += 1,
                    }
                }
            }
        }
    }
    println!("{answered} answered, {ended} ended the connection");
    assert!(answered > ended / 4, "too few of the requests were understood");
    server.stop().await;
}
