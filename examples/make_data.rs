//! Makes the sample documents in data/: `cargo run --example make_data [-- --check]`. Deterministic: the same seed gives
//! the same bytes, which `tests/data.rs` compares with what is committed.
#![allow(clippy::disallowed_methods, reason = "writes the project's own sample files")]

use std::fmt::Write;

use fastrand::Rng;
use serde::Serialize;
use serde_json::{Map, Value, json};

const SEED: u64 = 7171;

const REGIONS: [(&str, &[&str], &str); 4] = [
    ("south-america", &["São Paulo", "Bogotá", "Córdoba", "Valparaíso"], "BRL"),
    ("north-america", &["Montréal", "Austin", "Guadalajara", "Boise"], "USD"),
    ("apac", &["東京", "बेंगलुरु", "서울", "Auckland"], "JPY"),
    ("emea", &["Zürich", "Łódź", "Αθήνα", "København"], "EUR"),
];
const INDUSTRIES: [&str; 4] = ["automotive", "banking", "pharmaceuticals", "retail"];
const FIRST: [&str; 16] = [
    "Ana",
    "João",
    "José",
    "Chloë",
    "Jürgen",
    "Søren",
    "Łukasz",
    "Zoë",
    "さくら",
    "美咲",
    "प्रिया",
    "민준",
    "Íñigo",
    "Renée",
    "Björn",
    "Grace",
];
const LAST: [&str; 16] = [
    "Gonçalves",
    "Müller",
    "Nguyễn",
    "O'Neill",
    "Peña",
    "Sørensen",
    "Kowalczyk",
    "佐藤",
    "शर्मा",
    "김",
    "Hernández",
    "Çelik",
    "García",
    "Smith",
    "Weiß",
    "Lefèvre",
];
const FIRMS: [&str; 12] = [
    "Aurora",
    "Bluefin",
    "Cordillera",
    "Dünenwind",
    "Estrela",
    "Fjord",
    "Gingko",
    "Harbour",
    "Ilha",
    "Jade",
    "Kestrel",
    "Lumière",
];
const FORMS: [&str; 6] = ["Ltda.", "GmbH", "株式会社", "Inc.", "S.A.", "Pvt. Ltd."];
const PARTS: [(&str, &[&str]); 4] = [
    ("automotive", &["Bremsscheibe 320 mm", "Air filter", "Câble d'embrayage", "Wiper blade"]),
    ("banking", &["Card terminal lease", "Safe deposit audit", "Überweisungspaket", "KYC check"]),
    ("pharmaceuticals", &["Ampoule 5 ml", "Cold chain box", "Reagenz A-7", "Blister foil"]),
    ("retail", &["Shelf label", "Paper bag 500 ct", "Étiquette", "Till roll"]),
];

#[derive(Serialize)]
struct Account {
    id: String,
    name: String,
    region: &'static str,
    industries: Vec<&'static str>,
    city: &'static str,
    contact: Contact,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    credit_limit_cents: Option<u64>,
    tags: Vec<&'static str>,
    updated_at: String,
}

#[derive(Serialize)]
struct Contact {
    name: String,
    email: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
}

#[derive(Serialize)]
struct Invoice {
    id: String,
    customer: Value,
    currency: &'static str,
    issued_at: String,
    due_days: u32,
    lines: Vec<Value>,
    total_cents: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    /// One section an industry, so that a receiver can be given its part: `$.automotive`.
    #[serde(flatten)]
    sections: Map<String, Value>,
}

/// A moment on a day of 2026, in minutes from its start.
fn moment(minute: u64) -> String {
    let (day, minute) = (minute / 1440, minute % 1440);
    format!("2026-{:02}-{:02}T{:02}:{:02}:00Z", 1 + day / 28 % 12, 1 + day % 28, minute / 60, minute % 60)
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

fn accounts(rng: &mut Rng, count: usize) -> Vec<Account> {
    let mut out: Vec<Account> = Vec::new();
    for number in 0..count {
        let (region, cities, _) = pick(rng, &REGIONS);
        let mut industries = vec![pick(rng, &INDUSTRIES)];
        if rng.u8(..4) == 0 {
            industries.push(pick(rng, &INDUSTRIES));
            industries.sort_unstable();
            industries.dedup();
        }
        let parent = if number > 20 && rng.u8(..6) == 0 { Some(out[rng.usize(..number)].id.clone()) } else { None };
        out.push(Account {
            id: format!("acc-{number:05}"),
            name: format!("{} {} {}", pick(rng, &FIRMS), 100 + number, pick(rng, &FORMS)),
            region,
            industries,
            city: pick(rng, cities),
            contact: Contact {
                name: format!("{} {}", pick(rng, &FIRST), pick(rng, &LAST)),
                email: format!("contact{number}@example.com"),
                phone: (rng.u8(..3) > 0).then(|| format!("+00 555 {:04}", rng.u32(..10_000))),
            },
            parent,
            credit_limit_cents: (rng.u8(..5) > 0).then(|| rng.u64(1..500) * 100_000),
            tags: if rng.bool() { vec!["key-account"] } else { vec![] },
            updated_at: moment(number as u64 * 7),
        });
    }
    out
}

fn invoices(rng: &mut Rng, accounts: &[Account], count: usize) -> Vec<Invoice> {
    (0..count)
        .map(|number| {
            let account = &accounts[rng.usize(..accounts.len())];
            let currency =
                REGIONS.iter().find(|(region, _, _)| *region == account.region).map_or("EUR", |found| found.2);
            // A few are large, as month-end statements are.
            let count = if number % 400 == 399 { rng.usize(300..600) } else { rng.usize(1..6) };
            let mut sections = Map::new();
            let mut total = 0;
            let lines = (0..count)
                .map(|line| {
                    let industry = pick(rng, &account.industries);
                    let parts = PARTS.iter().find(|(name, _)| *name == industry).map_or(PARTS[3].1, |found| found.1);
                    let (quantity, price) = (rng.u64(1..50), rng.u64(99..99_999));
                    total += quantity * price;
                    let section = sections.entry(industry).or_insert_with(|| json!({"lines": 0, "total_cents": 0}));
                    section["lines"] = json!(section["lines"].as_u64().unwrap_or(0) + 1);
                    section["total_cents"] = json!(section["total_cents"].as_u64().unwrap_or(0) + quantity * price);
                    json!({"line": line + 1, "industry": industry, "text": pick(rng, parts), "quantity": quantity,
                           "unit_price_cents": price})
                })
                .collect();
            Invoice {
                id: format!("inv-{number:06}"),
                customer: json!({"id": account.id, "name": account.name, "region": account.region}),
                currency,
                issued_at: moment(10_000 + number as u64 * 11),
                due_days: pick(rng, &[14, 30, 60]),
                lines,
                total_cents: total,
                note: match rng.u8(..20) {
                    0 => Some("Merci pour votre confiance 🙂"),
                    1 => Some("お支払いは月末までにお願いいたします"),
                    _ => None,
                },
                sections,
            }
        })
        .collect()
}

fn events(rng: &mut Rng, invoices: &[Invoice], count: usize) -> Vec<Value> {
    (0..count)
        .map(|number| {
            let invoice = &invoices[rng.usize(..invoices.len())];
            let kind = pick(rng, &["order.created", "stock.moved", "shipment.sent", "payment.received"]);
            let detail = match kind {
                "order.created" => json!({"customer": invoice.customer["id"], "lines": invoice.lines.len()}),
                "stock.moved" => {
                    json!({"from": "W1", "to": pick(rng, &["W2", "Ladeluke 3"]), "quantity": rng.u32(1..900)})
                }
                "shipment.sent" => {
                    json!({"carrier": pick(rng, &["Correios", "DHL", "ヤマト運輸"]), "parcels": rng.u32(1..9)})
                }
                _ => json!({"amount_cents": invoice.total_cents, "reference": null}),
            };
            json!({"id": format!("evt-{number:06}"), "type": kind, "invoice": invoice.id,
                   "at": moment(10_005 + number as u64 * 11), "detail": detail})
        })
        .collect()
}

fn lines(documents: &[impl Serialize]) -> String {
    let mut out = String::new();
    for document in documents {
        if let Ok(line) = serde_json::to_string(document) {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

/// Every file: its name and content.
pub fn make() -> Vec<(&'static str, String)> {
    let mut rng = Rng::with_seed(SEED);
    let accounts = accounts(&mut rng, 1500);
    let invoices = invoices(&mut rng, &accounts, 2000);
    let events = events(&mut rng, &invoices, 2000);
    let stray = json!({"id": "inv-999999", "customer": {"id": "acc-00000", "name": "Nowhere", "region": "antarctica"},
                       "lines": [], "total_cents": 0});
    vec![
        ("crm_accounts.jsonl", lines(&accounts)),
        ("billing_invoices.jsonl", lines(&invoices)),
        ("erp_events.jsonl", lines(&events)),
        ("unroutable.jsonl", format!("{stray}\n{{\"id\": \"inv-broken\", \"customer\": \n")),
    ]
}

#[allow(dead_code, reason = "tests include this file for `make`")]
fn main() -> std::process::ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    for (name, content) in make() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
        if check {
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            if let Some(line) = content.lines().zip(there.lines()).position(|(made, there)| made != there) {
                eprintln!("{}: line {} differs", path.display(), line + 1);
                return std::process::ExitCode::FAILURE;
            }
            if content.len() != there.len() {
                eprintln!("{}: {} bytes where {} are made", path.display(), there.len(), content.len());
                return std::process::ExitCode::FAILURE;
            }
        } else if let Err(error) = std::fs::write(&path, content) {
            eprintln!("cannot write {}: {error}", path.display());
            return std::process::ExitCode::FAILURE;
        }
    }
    std::process::ExitCode::SUCCESS
}
