use std::path::PathBuf;

use super::*;
use crate::disk::{self, RealDisk, SimOptions};

fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

/// The journal's only segment file.
fn journal_file(disk: &dyn Disk, path: &Path) -> PathBuf {
    let journal = path.join("journal");
    let files = disk.list(&journal).unwrap();
    let logs: Vec<_> = files.iter().filter(|file| file.name.ends_with(".log")).collect();
    assert_eq!(logs.len(), 1);
    journal.join(&logs[0].name)
}

/// The byte in the file where the record with this key lies.
fn place_of(content: &[u8], key: &str) -> usize {
    content.windows(key.len()).position(|window| window == key.as_bytes()).unwrap()
}

fn damage(path: &Path, key: &str) {
    let file = journal_file(&RealDisk, path);
    let mut content = disk::read_file(&RealDisk, &file).unwrap();
    let at = place_of(&content, key);
    content[at] ^= 1;
    disk::replace_file(&RealDisk, &file, &content).unwrap();
}

fn filled(path: &Path) {
    let (_dir, mut catalog, _) = open(&real(), path).unwrap();
    script().into_iter().for_each(|event| catalog.commit(event, NOW).unwrap());
    catalog.close(NOW).unwrap();
}

fn repair(disk: &Arc<dyn Disk>, path: &Path, mode: ViewMode) -> JournalRepair {
    let dir = DataDir::open(disk, path, false).unwrap();
    repair_journal(disk, &dir, mode, &path.join("damaged/journal"), NOW).unwrap()
}

#[test]
fn a_journal_without_damage_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let before = disk::read_file(&RealDisk, &journal_file(&RealDisk, folder.path())).unwrap();
    assert_eq!(repair(&real(), folder.path(), ViewMode::Sled), JournalRepair::default());
    assert_eq!(disk::read_file(&RealDisk, &journal_file(&RealDisk, folder.path())).unwrap(), before);
    assert!(!RealDisk.exists(&folder.path().join("damaged")).unwrap());
}

#[test]
fn what_the_journal_lost_comes_back_from_the_view() {
    let expected = states(&script()).pop().unwrap();
    let keys: Vec<String> = script().iter().map(Event::key).collect();
    for key in keys {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        damage(folder.path(), &key);
        let repaired = repair(&real(), folder.path(), ViewMode::Sled);
        assert!(repaired.recovered && !repaired.given_up.is_empty(), "{key}: {repaired:?}");
        let kept = RealDisk.list(&folder.path().join("damaged/journal")).unwrap();
        assert_eq!(kept.len(), 1, "{key}: the damaged file is kept");
        // Also without the view.
        for view in [true, false] {
            if !view {
                RealDisk.remove_dir_all(&folder.path().join("view")).unwrap();
            }
            let (_dir, mut catalog, _) = open(&real(), folder.path()).unwrap();
            assert_eq!(catalog.state(), &expected, "{key}, view {view}");
            assert_eq!(catalog.journal_damage(), [], "{key}");
            catalog.close(NOW).unwrap();
        }
        assert_eq!(repair(&real(), folder.path(), ViewMode::Sled), JournalRepair::default(), "{key}");
    }
}

#[test]
fn without_a_view_the_event_is_given_up_and_a_topic_comes_back_by_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, mut catalog, _) = open(&real(), folder.path()).unwrap();
    for (topic, id) in [("kept", 1), ("lost", 2), ("empty", 3)] {
        catalog.commit(created(topic, id), NOW).unwrap();
    }
    catalog.close(NOW).unwrap();
    for partition in 0..3 {
        let inside = dir.partition_dir(&name("lost"), TopicId(2), partition);
        RealDisk.create_dir_all(&inside).unwrap();
        disk::replace_file(&RealDisk, &inside.join("00000000000000000000.log"), b"data").unwrap();
    }
    RealDisk.create_dir_all(&dir.partition_dir(&name("empty"), TopicId(3), 0)).unwrap();
    drop((catalog, dir));
    RealDisk.remove_dir_all(&folder.path().join("view")).unwrap();
    damage(folder.path(), "topic/lost");
    damage(folder.path(), "topic/empty");
    assert!(open(&real(), folder.path()).is_err(), "the journal is damaged");
    let repaired = repair(&real(), folder.path(), ViewMode::Sled);
    assert!(!repaired.recovered, "{repaired:?}");
    assert_eq!(repaired.adopted, [name("lost")], "a folder without data is nobody's");
    let (_dir, catalog, _) = open(&real(), folder.path()).unwrap();
    let topics: Vec<_> = catalog.topics().map(|topic| (topic.name.as_str(), topic.id.0, topic.partitions)).collect();
    assert_eq!(topics, [("kept", 1, 1), ("lost", 2, 3)]);
}

#[test]
fn a_repair_of_the_journal_that_is_cut_off_can_be_done_again() {
    let path = Path::new("/data");
    for operation in 0.. {
        let sim = SimDisk::new(SimOptions { seed: operation, capacity: None });
        let (_dir, mut catalog, _) = open(&disk_of(&sim), path).unwrap();
        for (topic, id) in [("a", 1), ("b", 2), ("c", 3)] {
            catalog.commit(created(topic, id), NOW).unwrap();
        }
        catalog.close(NOW).unwrap();
        let file = journal_file(&sim, path);
        let at = place_of(&sim.content(&file).unwrap(), "topic/b");
        sim.flip_bit(&file, at, 1);
        let sim = sim.restart();
        let dir = DataDir::open(&disk_of(&sim), path, false).unwrap();
        let before = sim.operations();
        sim.cut_power_at(before + operation);
        let kept = path.join("damaged/journal");
        let whole = repair_journal(&disk_of(&sim), &dir, ViewMode::Off, &kept, NOW).is_ok();
        drop(dir);
        let done = sim.operations() < before + operation;
        let sim = sim.reboot();
        repair(&disk_of(&sim), path, ViewMode::Off);
        let (_dir, catalog, _) = open(&disk_of(&sim), path).unwrap();
        let topics: Vec<_> = catalog.topics().map(|topic| topic.name.as_str()).collect();
        assert_eq!(topics, ["a", "c"], "cut at {operation}");
        if whole && done {
            break;
        }
        assert!(operation < 1_000, "the repair does not end");
    }
}
