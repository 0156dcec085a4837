use super::*;
use crate::base::ErrorKind;
use crate::disk::{Fault, OpKind, SimOptions};

const PATH: &str = "/data";

fn path() -> &'static Path {
    Path::new(PATH)
}

/// Opens and commits until the end or the power cut; how many events were acknowledged.
fn run(sim: &SimDisk, events: &[Event]) -> Option<usize> {
    let Ok((_dir, mut catalog, _)) = open(&disk_of(sim), path()) else { return None };
    let done = events.iter().take_while(|event| catalog.commit((*event).clone(), NOW).is_ok()).count();
    let _ = catalog.close(NOW);
    Some(done)
}

fn state_of(sim: &SimDisk) -> State {
    open(&disk_of(sim), path()).unwrap().1.state().clone()
}

#[test]
fn acknowledged_events_survive_a_power_cut_at_any_operation_and_others_are_whole_or_absent() {
    let events = script();
    let states = states(&events);
    for seed in 0..4 {
        for operation in 0.. {
            let sim = SimDisk::new(SimOptions { seed, capacity: None });
            sim.cut_power_at(operation);
            let done = run(&sim, &events).unwrap_or(0);
            let sim = sim.reboot();
            let state = state_of(&sim);
            let possible = &states[done..=(done + 1).min(events.len())];
            assert!(possible.contains(&state), "seed {seed}, cut at {operation}, {done} done: {state:?}");
            // Nothing changes by looking again, whether the power was cut or the process killed.
            assert_eq!(state_of(&sim.restart()), state);
            assert_eq!(state_of(&sim.reboot()), state);
            if done == events.len() && operation > sim.operations() {
                break;
            }
            assert!(operation < 10_000, "the script does not end");
        }
    }
}

#[test]
fn recovery_itself_can_be_cut_at_any_operation() {
    let events = script();
    let states = states(&events);
    for seed in 0..2 {
        for operation in 0.. {
            let sim = SimDisk::new(SimOptions { seed, capacity: None });
            sim.cut_power_at(55);
            let done = run(&sim, &events).unwrap_or(0);
            let sim = sim.reboot();
            let before = sim.operations();
            sim.cut_power_at(operation);
            let opened = open(&disk_of(&sim), path()).is_ok();
            let whole = opened && sim.operations() < before + operation;
            let sim = sim.reboot();
            let state = state_of(&sim);
            assert!(states[done..=(done + 1).min(events.len())].contains(&state), "seed {seed}, cut at {operation}");
            if whole {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_changes_nothing_and_commits_go_on_when_there_is_room() {
    let sim = SimDisk::new(SimOptions::default());
    let (_dir, mut catalog, _) = open(&disk_of(&sim), path()).unwrap();
    catalog.commit(created("a", 1), NOW).unwrap();
    sim.inject(OpKind::Write, ".log", Fault::Full, 1);
    let error = catalog.commit(created("b", 2), NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(catalog.topics().len(), 1);
    catalog.commit(created("c", 3), NOW).unwrap();
    let names = |catalog: &Catalog| catalog.topics().map(|topic| topic.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&catalog), ["a", "c"]);
    let (_dir, catalog, _) = open(&disk_of(&sim.reboot()), path()).unwrap();
    assert_eq!(names(&catalog), ["a", "c"]);
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_memory_and_journal_agree_afterwards() {
    for seed in 0..20 {
        let sim = SimDisk::new(SimOptions { seed, capacity: None });
        let (_dir, mut catalog, _) = open(&disk_of(&sim), path()).unwrap();
        catalog.commit(created("a", 1), NOW).unwrap();
        sim.inject(OpKind::Sync, ".log", Fault::Error, 1);
        let error = catalog.commit(created("b", 2), NOW).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(catalog.topics().len(), 1);
        // The same name again: either the first attempt turns out to be in force, or this one is.
        match catalog.commit(created("b", 3), NOW) {
            Ok(()) => assert_eq!(catalog.topic(&name("b")).unwrap().id, TopicId(3)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::AlreadyExists);
                assert_eq!(catalog.topic(&name("b")).unwrap().id, TopicId(2));
            }
        }
        catalog.commit(created("c", 4), NOW).unwrap();
        assert_eq!(&state_of(&sim.reboot()), catalog.state(), "seed {seed}");
    }
}

#[test]
fn while_the_disk_keeps_failing_every_commit_is_refused_and_reading_goes_on() {
    let sim = SimDisk::new(SimOptions::default());
    let (_dir, mut catalog, _) = open(&disk_of(&sim), path()).unwrap();
    catalog.commit(created("a", 1), NOW).unwrap();
    sim.inject(OpKind::Sync, "journal", Fault::Error, 1000);
    for id in 2..6 {
        assert!(catalog.commit(created("b", id), NOW).is_err());
        assert!(catalog.next_producer_ids(1, NOW).is_err());
        assert_eq!(catalog.topics().len(), 1);
    }
    sim.heal();
    catalog.commit(created("c", 9), NOW).unwrap();
    assert_eq!(&state_of(&sim.reboot()), catalog.state());
}

#[test]
fn producer_ids_are_never_given_twice_whatever_crashes() {
    let mut sim = SimDisk::new(SimOptions { seed: 5, capacity: None });
    let mut rng = fastrand::Rng::with_seed(5);
    let mut given = std::collections::HashSet::new();
    for round in 0..60 {
        sim.cut_power_at(rng.u64(20..90));
        if let Ok((_dir, mut catalog, _)) = open(&disk_of(&sim), path()) {
            for _ in 0..rng.u32(1..30) {
                let count = if rng.u8(..4) == 0 { rng.u32(1..3000) } else { 1 };
                let Ok(ids) = catalog.next_producer_ids(count, NOW) else { break };
                assert_eq!(ids.end - ids.start, i64::from(count));
                assert!(ids.into_iter().all(|id| id >= 0 && given.insert(id)), "round {round}");
            }
        }
        sim = if rng.bool() { sim.reboot() } else { sim.restart() };
        if rng.u8(..8) == 0 {
            sim = sim.reboot();
        }
    }
    assert!(given.len() > 1000, "{}", given.len());
    let (_dir, mut catalog, _) = open(&disk_of(&sim.reboot()), path()).unwrap();
    for count in [0, 1_000_001] {
        assert_eq!(catalog.next_producer_ids(count, NOW).unwrap_err().kind(), ErrorKind::InvalidRequest);
    }
}

#[test]
fn a_journal_that_is_gone_is_not_replaced_by_an_empty_one() {
    let sim = SimDisk::new(SimOptions::default());
    run(&sim, &script());
    let disk = disk_of(&sim.restart());
    disk.create_dir_all(&path().join("topics/crm.accounts~1")).unwrap();
    disk.remove_dir_all(&path().join("journal")).unwrap();
    let error = open(&disk, path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("/data/journal is missing"), "{error}");
}

#[test]
fn a_damaged_journal_is_reported_with_its_place_and_not_skipped() {
    let sim = SimDisk::new(SimOptions::default());
    assert_eq!(run(&sim, &script()), Some(script().len()));
    let sim = sim.reboot();
    sim.flip_bit(&path().join("journal/00000000000000000000.log"), 200, 3);
    let error = open(&disk_of(&sim), path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("00000000000000000000.log"), "{error}");
}

#[test]
fn after_close_every_change_is_refused() {
    let sim = SimDisk::new(SimOptions::default());
    let (_dir, mut catalog, _) = open(&disk_of(&sim), path()).unwrap();
    catalog.commit(created("a", 1), NOW).unwrap();
    catalog.close(NOW).unwrap();
    catalog.close(NOW).unwrap();
    assert_eq!(catalog.commit(created("b", 2), NOW).unwrap_err().kind(), ErrorKind::ShuttingDown);
    assert_eq!(catalog.next_producer_ids(1, NOW).unwrap_err().kind(), ErrorKind::ShuttingDown);
    assert!(catalog.topic_by_id(TopicId(1)).is_some());
}
