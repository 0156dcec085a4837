mod crash;
mod data_dir;
mod event;
mod progress;
mod repair;
mod settings;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::state::State;
use super::*;
use crate::base::{GroupName, RequestId, TopicId, TopicName, TopicPattern, TopicRegex};
use crate::disk::{Disk, SimDisk};

const NOW: i64 = 1_700_000_000_000;

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn entry(topic: &str, id: u128, partitions: u32) -> TopicEntry {
    TopicEntry { name: name(topic), id: TopicId(id), partitions, settings: BTreeMap::new(), created_ms: NOW }
}

fn created(topic: &str, id: u128) -> Event {
    Event::TopicCreated(entry(topic, id, 1))
}

fn deleted(topic: &str, id: u128) -> Event {
    Event::TopicDeleted { name: name(topic), id: TopicId(id), partitions: 1 }
}

fn group(of: &str) -> GroupEntry {
    GroupEntry {
        name: GroupName::new(of).unwrap(),
        kind: GroupKind::Queue(QueueSettings { dead_letter: Some(name("erp.dead")), ..QueueSettings::default() }),
        topics: vec![TopicPattern::new("erp.>").unwrap()],
        filter: Some("value.amount > 100".into()),
        created_ms: NOW,
    }
}

fn paused(of: &str) -> Event {
    Event::GroupPaused { name: GroupName::new(of).unwrap(), since_ms: Some(NOW) }
}

fn place(of: &str, topic: u128) -> Place {
    Place { group: GroupName::new(of).unwrap(), topic: TopicId(topic), partition: 2 }
}

fn position(of: &str, topic: u128, offset: u64) -> Event {
    let position = Position { offset, metadata: "so far".into(), time_ms: NOW, leader_epoch: None };
    Event::PositionSet { place: place(of, topic), position: Some(position) }
}

fn position_at(of: &str, topic: u128, offset: u64) -> Event {
    let Event::PositionSet { place, position: Some(position) } = position(of, topic, offset) else { unreachable!() };
    Event::PositionSet { place, position: Some(Position { leader_epoch: Some(300), ..position }) }
}

fn chunk(of: &str, topic: u128, number: u64) -> Event {
    let failed = vec![Failed { at: 4095, deliveries: 2, due_ms: NOW + 1000 }];
    Event::ChunkSet { place: place(of, topic), number, chunk: Some(Chunk { done: vec![(1, 2), (7, 300)], failed }) }
}

fn member(of: &str, id: &str) -> Event {
    let owned = |partition, gives_up| Owned { topic: TopicId(7), partition, epoch: 3, gives_up };
    let entry = MemberEntry {
        instance: Some("billing-1".into()),
        client: "erp 1.0".into(),
        topics: vec![TopicPattern::new("erp.>").unwrap()],
        session_ms: 10_000,
        handover_ms: 60_000,
        epoch: 4,
        before: 3,
        owns: vec![owned(0, false), owned(300, true)],
        away: false,
        joined_ms: NOW,
        consumer: None,
    };
    Event::MemberSet { group: GroupName::new(of).unwrap(), member: id.into(), entry: Some(entry) }
}

fn consumer(of: &str, id: &str) -> Event {
    let Event::MemberSet { group, member, entry: Some(entry) } = member(of, id) else { unreachable!() };
    let consumer = ConsumerEntry {
        host: "/127.0.0.1".into(),
        rack: Some("a1".into()),
        assignor: Some(Assignor::Range),
        regex: Some(TopicRegex::new("^erp[.].*").unwrap()),
    };
    Event::MemberSet { group, member, entry: Some(MemberEntry { consumer: Some(consumer), ..entry }) }
}

fn route(of: &str) -> Event {
    Event::RouteSet(RouteEntry {
        name: name(of),
        definition: "[[route]]\nname = \"billing\"\n".into(),
        version: 3,
        paused: true,
        made: vec![name("crm.apac")],
        created_ms: NOW,
        changed_ms: NOW + 5,
    })
}

fn moved(of: &str, topic: u128) -> Event {
    let counts = RouteCounts { read: 40, unwanted: 2, failed: 1, version: 3, by_rule: vec![5, 0, 300] };
    let open = vec![(17, NOW), (30, NOW + 7)];
    let progress = RouteProgress { producer: 1 << 62, offset: 41, open, expired: vec![9], rounds: 2, counts };
    let place = RoutePlace { route: name(of), topic: TopicId(topic), partition: 2 };
    Event::RouteMoved { place, progress: Some(progress) }
}

fn request(id: &str) -> Event {
    let kind = OutcomeKind::Failed { code: "unknown".into(), text: "no such customer".into() };
    let entry = RequestEntry {
        id: RequestId::new(id).unwrap(),
        steps: vec![TopicName::new("crm.load").unwrap(), TopicName::new("crm.analyse").unwrap()],
        step: 1,
        requester: "support 1.0".into(),
        created_ms: NOW,
        deadline_ms: NOW + 60_000,
        callback: Some(Callback::Topic(TopicName::new("support.answers").unwrap())),
        outcome: Some(RequestOutcome { kind, finished_ms: NOW + 5, at: 77 }),
        writing: Some(Writing { to: Some((TopicName::new("support.answers").unwrap(), 3)), from: 12, source: 77 }),
        content: None,
    };
    Event::RequestSet { id: entry.id.clone(), entry: Some(entry) }
}

fn request_of(id: &str) -> Event {
    let Event::RequestSet { id, entry: Some(mut entry) } = request(id) else { unreachable!() };
    entry.content = Some([0xa5; 16]);
    Event::RequestSet { id, entry: Some(entry) }
}

fn transaction(id: &str) -> Event {
    let Event::PositionSet { place, position: Some(position) } = position("erp/billing", 7, 12) else { unreachable!() };
    let entry = TransactionEntry {
        id: id.to_owned(),
        producer: 1_007,
        epoch: 3,
        last_epoch: Some(2),
        timeout_ms: 60_000,
        phase: TransactionPhase::PrepareCommit,
        started_ms: NOW,
        updated_ms: NOW + 1,
        partitions: vec![(TopicId(7), 0), (TopicId(7), 300)],
        groups: vec![GroupName::new("erp/billing").unwrap()],
        positions: vec![(place, position)],
        client: TransactionClient::default(),
        open_ms: 0,
    };
    Event::TransactionSet { id: entry.id.clone(), entry: Some(entry) }
}

fn transaction_of(id: &str) -> Event {
    let Event::TransactionSet { id, entry: Some(entry) } = transaction(id) else { unreachable!() };
    let client = TransactionClient { address: "192.0.2.7".to_owned(), name: "copier".to_owned() };
    Event::TransactionSet { id, entry: Some(TransactionEntry { client, open_ms: 2_500, ..entry }) }
}

fn transaction_at(id: &str) -> Event {
    let Event::TransactionSet { id, entry: Some(mut entry) } = transaction_of(id) else { unreachable!() };
    let (place, mut position) = entry.positions[0].clone();
    position.leader_epoch = Some(7);
    entry.positions.push((Place { partition: 301, ..place }, position));
    Event::TransactionSet { id, entry: Some(entry) }
}

fn classic(of: &str) -> Event {
    let member = |id: &str, instance: Option<&str>| ClassicMemberEntry {
        id: id.into(),
        instance: instance.map(Into::into),
        client: "connect-1".into(),
        host: "/192.0.2.7".into(),
        session_ms: 10_000,
        rebalance_ms: 60_000,
        protocols: vec![("sessioned".into(), vec![0, 1, 255]), ("compatible".into(), Vec::new())],
        assignment: vec![7; 300],
        joined_ms: NOW,
    };
    let entry = ClassicEntry {
        generation: 3,
        protocol_type: "connect".into(),
        protocol: "sessioned".into(),
        leader: Some("connect-1-b".into()),
        members: vec![member("connect-1-b", None), member("connect-1-a", Some("place"))],
    };
    Event::ClassicSet { group: GroupName::new(of).unwrap(), entry: Some(entry) }
}

fn push(of: &str) -> Event {
    Event::PushSet(PushEntry {
        name: GroupName::new(of).unwrap(),
        url: "https://hooks.example.com/erp".into(),
        batch: Some(100),
        concurrency: 4,
        timeout_ms: Some(5_000),
        paused: Some("by request".into()),
        created_ms: NOW,
        changed_ms: NOW + 5,
        endpoint: PushEndpoint::default(),
    })
}

fn push_of(of: &str) -> Event {
    let Event::PushSet(entry) = push(of) else { unreachable!() };
    let header = |name: &str, value: &str| PushHeader { name: name.into(), value: Hidden::new(value) };
    let endpoint = PushEndpoint {
        headers: vec![header("authorization", "Bearer 7f3a"), header("x-tenant", "eu")],
        secret: Some(Hidden::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
        old: Some(OldSecret { secret: None, since_ms: NOW, until_ms: NOW + 86_400_000 }),
    };
    Event::PushSet(PushEntry { endpoint, ..entry })
}

fn receipt(group: &str, offset: u64) -> Event {
    let place = ReceiptPlace { topic: TopicId(7), partition: 300, offset, group: GroupName::new(group).unwrap() };
    let entry = ReceiptEntry {
        place: place.clone(),
        topic: name("erp.orders"),
        url: "https://crm.example.com/receipts".into(),
        asked_ms: NOW,
        until_ms: NOW + 604_800_000,
        news: Some(ReceiptNews { processed: Some(Processed::DeadLettered), at_ms: NOW + 5 }),
        given_up: Some(GivenUp { reason: "the endpoint answers 500".into(), at_ms: NOW + 9 }),
    };
    Event::ReceiptSet { place, entry: Some(entry) }
}

fn receipt_over(group: &str, offset: u64) -> Event {
    let Event::ReceiptSet { place, .. } = receipt(group, offset) else { unreachable!() };
    Event::ReceiptSet { place, entry: None }
}

fn disk_of(sim: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(sim.clone())
}

/// Opens data directory and catalog.
fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<(DataDir, Catalog, CatalogStartup), CatalogError> {
    let dir = DataDir::open(disk, path, true)?;
    let (catalog, startup) = Catalog::open(Arc::clone(disk), &dir, NOW)?;
    Ok((dir, catalog, startup))
}

/// A script that has every event in it, and a name that is used again.
fn script() -> Vec<Event> {
    let mut altered = entry("crm.accounts", 1, 3);
    altered.settings.insert("retention_time".into(), "7d".into());
    vec![
        created("crm.accounts", 1),
        created("erp.orders", 2),
        Event::TopicAltered(altered),
        Event::ProducerIdsReserved { up_to: 1000 },
        deleted("erp.orders", 2),
        created("erp.orders", 3),
        Event::TopicPurged { id: TopicId(2) },
        deleted("crm.accounts", 1),
        Event::ProducerIdsReserved { up_to: 2000 },
        created("billing", 4),
        route("billing"),
        moved("billing", 4),
        route("other"),
        Event::RouteDeleted { name: name("other") },
        request("one"),
        request("two"),
        transaction("copier/1"),
        transaction_of("copier/2"),
        Event::TransactionSet { id: "copier/1".to_owned(), entry: None },
        Event::RequestSet { id: RequestId::new("one").unwrap(), entry: None },
        push("erp/hook"),
        push("erp/other"),
        push_of("erp/hook"),
        Event::PushDeleted { name: GroupName::new("erp/other").unwrap() },
        receipt("erp/billing", 12),
        receipt("erp/billing", 13),
        receipt_over("erp/billing", 12),
    ]
}

/// The state after each number of events.
fn states(events: &[Event]) -> Vec<State> {
    let mut states = vec![State::default()];
    for event in events {
        let mut state = states.last().unwrap().clone();
        state.check(event).unwrap();
        state.apply(event.clone());
        states.push(state);
    }
    states
}
