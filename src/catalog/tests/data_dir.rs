use super::*;
use crate::base::ErrorKind;
use crate::disk::{self, RealDisk, SimOptions};

const PATH: &str = "/srv/tidelog";

fn sim() -> (SimDisk, Arc<dyn Disk>) {
    let sim = SimDisk::new(SimOptions::default());
    let disk = disk_of(&sim);
    (sim, disk)
}

fn refused(disk: &Arc<dyn Disk>) -> (ErrorKind, String) {
    let error = DataDir::open(disk, Path::new(PATH), true).unwrap_err();
    let read_only = DataDir::open_read_only(disk, Path::new(PATH)).map(drop).map_err(|error| error.kind());
    if error.kind() != ErrorKind::Busy {
        assert_eq!(read_only, Err(error.kind()));
    }
    (error.kind(), error.to_string())
}

#[test]
fn a_new_folder_becomes_a_data_directory_and_stays_the_same_one() {
    let (sim, disk) = sim();
    let missing = DataDir::open(&disk, Path::new(PATH), false).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidRequest);
    assert!(!disk.exists(Path::new(PATH)).unwrap());
    let server_id = DataDir::open(&disk, Path::new(PATH), true).unwrap().server_id;
    let disk = disk_of(&sim.reboot());
    assert_eq!(DataDir::open(&disk, Path::new(PATH), false).unwrap().server_id, server_id);
    assert_eq!(DataDir::open_read_only(&disk, Path::new(PATH)).unwrap().server_id, server_id);
}

#[test]
fn a_second_server_is_refused_and_told_who_has_it() {
    let (_, disk) = sim();
    let first = DataDir::open(&disk, Path::new(PATH), true).unwrap();
    let (kind, message) = refused(&disk);
    let pid = std::process::id();
    assert_eq!(kind, ErrorKind::Busy);
    assert_eq!(message, format!("data directory {PATH} is in use by another Tidelog server (process {pid})"));
    assert!(DataDir::open_read_only(&disk, Path::new(PATH)).is_ok());
    drop(first);
    assert!(DataDir::open(&disk, Path::new(PATH), true).is_ok());
}

#[test]
fn the_lock_is_real_on_the_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let _first = DataDir::open(&disk, folder.path(), true).unwrap();
    assert_eq!(DataDir::open(&disk, folder.path(), true).unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let (sim, disk) = sim();
    disk.create_dir_all(Path::new(PATH)).unwrap();
    sim.plant(&Path::new(PATH).join("thesis.txt"), b"all my work");
    let (kind, message) = refused(&disk);
    assert_eq!(kind, ErrorKind::InvalidRequest);
    assert_eq!(message, format!("{PATH} is not a Tidelog data directory: it has no file 'format' and is not empty"));
    let names: Vec<_> = disk.list(Path::new(PATH)).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["thesis.txt"]);
}

#[test]
fn every_changed_or_missing_byte_of_the_format_file_is_refused() {
    let (_, disk) = sim();
    drop(DataDir::open(&disk, Path::new(PATH), true).unwrap());
    let file = Path::new(PATH).join("format");
    let good = disk::read_file(disk.as_ref(), &file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        disk::replace_file(disk.as_ref(), &file, &bad).unwrap();
        assert_eq!(refused(&disk).0, ErrorKind::Damaged, "byte {at}");
        disk::replace_file(disk.as_ref(), &file, &good[..at]).unwrap();
        assert_eq!(refused(&disk).0, ErrorKind::Damaged, "cut at {at}");
    }
    disk::replace_file(disk.as_ref(), &file, &good).unwrap();
    assert!(DataDir::open(&disk, Path::new(PATH), true).is_ok());
}

#[test]
fn a_newer_format_is_refused_with_both_numbers() {
    let (_, disk) = sim();
    drop(DataDir::open(&disk, Path::new(PATH), true).unwrap());
    let mut newer = b"TIDELOG\n".to_vec();
    newer.extend_from_slice(&7u32.to_be_bytes());
    newer.extend_from_slice(b"fields of the future");
    let checksum = crc32fast::hash(&newer);
    newer.extend_from_slice(&checksum.to_be_bytes());
    disk::replace_file(disk.as_ref(), &Path::new(PATH).join("format"), &newer).unwrap();
    let (kind, message) = refused(&disk);
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("format version 7") && message.contains("reads up to 1"), "{message}");
}

#[test]
fn a_start_cut_short_at_any_operation_can_be_repeated() {
    for operation in 0.. {
        let sim = SimDisk::new(SimOptions { seed: operation, capacity: None });
        sim.cut_power_at(operation);
        let first = DataDir::open(&disk_of(&sim), Path::new(PATH), true).map(|dir| dir.server_id);
        let second = DataDir::open(&disk_of(&sim.reboot()), Path::new(PATH), true).unwrap().server_id;
        if let Ok(first) = first {
            assert_eq!(first, second);
            break;
        }
    }
}

#[test]
fn folders_of_topics_fit_a_file_name_and_tell_incarnations_apart() {
    let (_, disk) = sim();
    let dir = DataDir::open(&disk, Path::new(PATH), true).unwrap();
    let long = name(&"x".repeat(249));
    let folder = dir.topic_dir(&long, TopicId(0xabc));
    assert_eq!(folder.file_name().unwrap().len(), 200 + 1 + 32);
    assert_ne!(folder, dir.topic_dir(&long, TopicId(0xabd)));
    let partition = dir.partition_dir(&name("crm.accounts"), TopicId(1), 7);
    assert_eq!(partition.to_str(), Some("/srv/tidelog/topics/crm.accounts~00000000000000000000000000000001/7"));
}

#[test]
fn the_format_file_is_frozen() {
    let hex: String =
        crate::catalog::data_dir::encode_format(0x7171).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "544944454c4f470a0000000100000000000000000000000000007171e3438e1c");
}
