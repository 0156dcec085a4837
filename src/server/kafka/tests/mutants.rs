//! Requests that are right, as the crate's client side writes them, and every way of damaging one: cut anywhere, numbers in it
//! replaced, bits turned over. They are decoded as the listener does; none makes it panic or take much memory.
#![allow(clippy::disallowed_methods, reason = "what the process has taken is read from /proc, and seeds are written")]

use bytes::{Buf, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind};

use super::super::api::{self, APIS, Api};
use super::super::session::Hangup;
use super::super::{fuzz, requests};
use super::maker::Maker;

/// Set in the process that does the work.
const ALONE: &str = "TIDELOG_TEST_ALONE";
/// Where to put the right requests, as what fuzz targets begin with.
const SEEDS: &str = "TIDELOG_FUZZ_CORPUS";
/// Kilobytes of addresses that decoding may take beyond what the process had: some arenas of the allocator, and the
/// largest request of those here many times over. A count that is believed takes gigabytes.
const MOST_KIB: u64 = 192 * 1024;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// A body with something in every field, which the crate reads to its end and writes as the same bytes.
fn right(rng: &mut fastrand::Rng, api: &Api, version: i16) -> BytesMut {
    let made = Maker::true_to_form(rng.fork(), api, version).body(api, version);
    let what = format!("{} version {version}: {made:02x?}", api.name);
    let mut rest = made.clone().freeze();
    let key = ApiKey::try_from(api.key).unwrap();
    let request = RequestKind::decode(key, &mut rest, version).unwrap_or_else(|error| panic!("{error}: {what}"));
    assert!(!rest.has_remaining(), "the crate left {} bytes: {what}", rest.len());
    let mut written = BytesMut::new();
    request.encode(&mut written, version).unwrap_or_else(|error| panic!("{error}: {what}"));
    assert_eq!(written, made, "{what}");
    written
}

fn decode(api: &Api, version: i16, body: &[u8]) -> Result<(), Hangup> {
    let outcome = requests::decode(fuzz::request(api, version, body));
    if let Err(Hangup::Fault(fault)) = &outcome {
        panic!("{fault}: {} version {version}: {body:02x?}", api.name);
    }
    outcome
}

/// Numbers in the place of lengths and counts; the last ones for flexible versions.
const NUMBERS: [&[u8]; 11] = [
    &[0xff, 0xff],
    &[0xff, 0xfe],
    &[0x80, 0x00],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x80, 0x00, 0x00, 0x00],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x00, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
];

fn mutants(rng: &mut fastrand::Rng, right: &[u8], mut take: impl FnMut(&[u8])) {
    for at in 0..right.len() {
        for number in NUMBERS {
            let mut body = right.to_vec();
            let end = right.len().min(at + number.len());
            body[at..end].copy_from_slice(&number[..end - at]);
            take(&body);
        }
        // A varint that is longer than the one in its place.
        let mut body = right.to_vec();
        body.splice(at..=at, [0xff, 0xff, 0xff, 0xff, rng.u8(0..0x10)]);
        take(&body);
        let mut body = right.to_vec();
        body[at] ^= 1 << rng.u8(0..8);
        take(&body);
    }
    for _ in 0..8 {
        let noise: Vec<u8> = (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect();
        take(&noise);
        take(&[right, &noise].concat());
    }
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap()
}

fn all(rounds: u64, seed: u64) {
    println!("TIDELOG_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let before = status("VmSize");
    let (mut read, mut refused) = (0_u64, 0_u64);
    for _ in 0..rounds {
        for api in APIS {
            for version in api.min..=api.max {
                let body = right(&mut rng, api, version);
                decode(api, version, &body).unwrap();
                // Of these two, what comes at the end means nothing to the server.
                let whole = ![api::API_VERSIONS, api::FETCH].contains(&api.key);
                for length in 0..body.len() {
                    let cut = decode(api, version, &body[..length]);
                    assert!(cut.is_err() || !whole, "{} version {version} cut to {length}: {body:02x?}", api.name);
                }
                mutants(&mut rng, &body, |body| match decode(api, version, body) {
                    Ok(()) => read += 1,
                    Err(_) => refused += 1,
                });
            }
        }
    }
    let taken = status("VmPeak").saturating_sub(before);
    println!("{read} read, {refused} refused, {taken} KiB of addresses taken");
    assert!(taken < MOST_KIB, "{taken} KiB of addresses were taken; the most is {MOST_KIB}");
    assert!(refused > read / 20 && read > refused / 20, "too much of one kind");
}

#[test]
fn no_damage_to_a_request_makes_decoding_panic_or_take_much_memory() {
    if std::env::var_os(ALONE).is_some() {
        return all(number("TIDELOG_ROUNDS").unwrap_or(1), number("TIDELOG_SEED").unwrap_or(23));
    }
    // In a process of its own: what other tests take must not count.
    let name = std::thread::current().name().unwrap().to_owned();
    let alone = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&alone.stdout) + String::from_utf8_lossy(&alone.stderr);
    println!("{text}");
    assert!(alone.status.success() && text.contains("1 passed"), "{}", alone.status);
}

#[test]
fn every_request_decoder_has_a_fuzz_target() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for api in APIS {
        let target = std::fs::read_to_string(folder.join(format!("fuzz_targets/{}.rs", api.name))).unwrap();
        assert!(target.contains(&format!("fuzz::kafka(\"{}\", data)", api.name)), "{target}");
        assert!(manifest.contains(&format!("name = \"{}\"\n", api.name)), "{} is not in the manifest", api.name);
    }
}

/// With `TIDELOG_FUZZ_CORPUS` set, writes what fuzz targets of requests begin with.
#[test]
fn right_requests_of_every_version_are_what_fuzzing_begins_with() {
    let folder = std::env::var_os(SEEDS).map(std::path::PathBuf::from);
    let mut rng = fastrand::Rng::with_seed(5);
    for api in APIS {
        for version in api.min..=api.max {
            let mut seed = vec![u8::try_from(version - api.min).unwrap()];
            seed.extend_from_slice(&right(&mut rng, api, version));
            fuzz::decode(api.name, &seed);
            let whole = fuzz::request(api, version, &seed[1..]);
            let mut stream = u32::try_from(whole.len()).unwrap().to_be_bytes().to_vec();
            stream.extend_from_slice(&whole);
            fuzz::decode_stream(&stream);
            let Some(folder) = &folder else { continue };
            for (target, bytes) in [(api.name, &seed), ("kafka_stream", &stream)] {
                std::fs::create_dir_all(folder.join(target)).unwrap();
                std::fs::write(folder.join(target).join(format!("{}-{version}", api.name)), bytes).unwrap();
            }
        }
    }
}
