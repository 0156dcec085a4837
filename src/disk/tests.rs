use super::*;

fn keeps_the_contract(disk: &dyn Disk, root: &Path) {
    let dir = root.join("a/b");
    disk.create_dir_all(&dir).unwrap();
    let path = dir.join("f");
    assert_eq!(disk.open(&path, OpenMode::ReadWrite).err().unwrap().kind(), io::ErrorKind::NotFound);
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    assert_eq!(disk.open(&path, OpenMode::CreateNew).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    file.write_at(b"hello", 3).unwrap();
    file.write_vectored_at(&[b" wo", b"", b"rld"], 8).unwrap();
    let mut buf = [9; 20];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 14);
    assert_eq!(&buf[..14], b"\0\0\0hello world");
    assert_eq!(file.read_at(&mut buf, 50).unwrap(), 0);
    file.allocate(4096).unwrap();
    assert_eq!(file.len().unwrap(), 14);
    file.set_len(4).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read_file(disk, &path).unwrap(), b"\0\0\0h");
    assert!(disk.open(&path, OpenMode::Read).unwrap().write_at(b"x", 0).is_err());
    replace_file(disk, &dir.join("g"), b"one").unwrap();
    replace_file(disk, &dir.join("g"), b"two").unwrap();
    let names: Vec<_> = disk.list(&dir).unwrap().into_iter().map(|entry| (entry.name, entry.is_dir)).collect();
    assert_eq!(names, [("f".to_owned(), false), ("g".to_owned(), false)]);
    assert_eq!((length_of(disk, &path), length_of(disk, &dir.join("g")), length_of(disk, &dir.join("h"))), (4, 3, 0));
    disk.remove_file(&path).unwrap();
    assert_eq!(disk.remove_file(&path).err().unwrap().kind(), io::ErrorKind::NotFound);
    assert_eq!(file.len().unwrap(), 4, "an open file outlives its name");
    let lock = disk.lock(&root.join("lock")).unwrap();
    assert_eq!(disk.lock(&root.join("lock")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    disk.lock(&root.join("lock")).unwrap();
    disk.remove_dir_all(&root.join("a")).unwrap();
    assert!(!disk.exists(&dir).unwrap());
    assert_eq!(disk.list(&dir).err().unwrap().kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_real_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    keeps_the_contract(&RealDisk, dir.path());
    assert!(RealDisk.free_bytes(dir.path()).unwrap().unwrap() > 0);
}

#[test]
fn the_simulated_disk_keeps_the_contract() {
    keeps_the_contract(&SimDisk::new(SimOptions::default()), Path::new("/"));
}

#[test]
fn what_was_synced_survives_every_power_cut_and_the_rest_may_not() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(SimOptions { seed, capacity: None });
        let path = Path::new("/f");
        let file = disk.open(path, OpenMode::Create).unwrap();
        file.write_at(&[1; 2000], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(&[2; 3000], 2000).unwrap();
        let after = disk.reboot();
        assert!(file.len().is_err(), "old handles are dead");
        let content = after.content(path).unwrap();
        assert_eq!(content[..2000], [1; 2000], "seed {seed}");
        match content.iter().filter(|&&byte| byte == 2).count() {
            0 => lost += 1,
            3000 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 0 && kept > 0 && torn > 0, "{lost} {kept} {torn}");
}

#[test]
fn an_unsynced_entry_may_be_lost_and_a_killed_process_loses_nothing() {
    let mut gone = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(SimOptions { seed, capacity: None });
        let file = disk.open(Path::new("/f"), OpenMode::Create).unwrap();
        file.write_at(b"x", 0).unwrap();
        file.sync_data().unwrap();
        let disk = disk.restart();
        assert_eq!(disk.content(Path::new("/f")), Some(b"x".to_vec()));
        gone += usize::from(!disk.reboot().exists(Path::new("/f")).unwrap());
    }
    assert!(gone > 0 && gone < 50);
}

#[test]
fn data_of_a_failed_sync_is_never_durable_whatever_a_later_sync_says() {
    for seed in 0..50 {
        let disk = SimDisk::new(SimOptions { seed, capacity: None });
        let file = disk.open(Path::new("/f"), OpenMode::Create).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(b"lost", 0).unwrap();
        disk.inject(OpKind::Sync, "/f", Fault::Error, 1);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(disk.content(Path::new("/f")).unwrap(), b"lost");
        assert_eq!(disk.reboot().content(Path::new("/f")).unwrap(), b"");
    }
}

#[test]
fn a_full_disk_writes_what_fits_and_says_so() {
    let disk = SimDisk::new(SimOptions { seed: 1, capacity: Some(10) });
    let file = disk.open(Path::new("/f"), OpenMode::Create).unwrap();
    assert_eq!(file.write_at(&[1; 20], 0).err().unwrap().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 10);
    disk.set_capacity(None);
    file.write_at(&[1; 20], 0).unwrap();
}

#[test]
fn power_goes_at_the_operation_named_and_bits_flip_at_rest() {
    let disk = SimDisk::new(SimOptions::default());
    let file = disk.open(Path::new("/f"), OpenMode::Create).unwrap();
    file.write_at(&[0; 4], 0).unwrap();
    disk.flip_bit(Path::new("/f"), 2, 7);
    let mut buf = [0; 4];
    file.read_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [0, 0, 0x80, 0]);
    disk.cut_power_at(1);
    file.read_at(&mut buf, 0).unwrap();
    assert!(file.read_at(&mut buf, 0).is_err());
    assert!(disk.list(Path::new("/")).is_err());
}
