//! Stories of the log's files: rotation, crashes, disks that fill up.

use std::{
    io::{BufReader, Cursor},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use super::*;
use crate::{
    audit::{Mac, chain::Found, verify::Walk},
    clock::SeededEntropy,
};

struct World(tempfile::TempDir);

const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

fn master() -> MasterKey {
    MasterKey::random(&SeededEntropy::new(1))
}

/// A line of which only the number is known.
fn seq(seq: u64) -> Head {
    Head { seq, mac: Mac::default() }
}

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("audit.log")
    }

    fn open(&self, known: Head) -> Result<FileAudit, AuditError> {
        self.open_with(known, |_| {})
    }

    fn open_with(
        &self,
        known: Head,
        set: impl FnOnce(&mut Settings),
    ) -> Result<FileAudit, AuditError> {
        let mut settings = Settings::new(&self.path());
        set(&mut settings);
        FileAudit::open(settings, &master(), known, EPOCH)
    }

    /// Every file, oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let rotated = files::rotated(&self.path()).unwrap();
        let files = rotated.into_iter().map(|file| file.path).chain([self.path()]);
        files.filter(|path| path.exists()).collect()
    }

    /// The lines of all files that can be read.
    fn lines(&self) -> Vec<(u64, String)> {
        let files = self.files();
        let texts = files.iter().map(|path| fs::read(path).unwrap());
        let lines = texts.flat_map(|text| {
            let lines = text.split(|b| *b == b'\n').filter_map(Found::read);
            lines.map(|line| (line.head.seq, line.event)).collect::<Vec<_>>()
        });
        lines.collect()
    }

    fn seqs(&self) -> Vec<u64> {
        self.lines().iter().map(|(seq, _)| *seq).collect()
    }

    /// What is wrong with the chain over all files, and what is odd.
    fn verified(&self) -> (Vec<String>, Vec<String>) {
        let mut walk = Walk::new(ChainKey::new(&master()));
        let (mut breaks, mut notes) = (Vec::new(), Vec::new());
        for path in self.files() {
            let file = BufReader::new(File::open(&path).unwrap());
            let report = walk.file(&path.display().to_string(), file).unwrap();
            breaks.extend(report.breaks);
            notes.extend(report.notes);
        }
        breaks.extend(walk.finish());
        (breaks.iter().map(ToString::to_string).collect(), notes)
    }

    fn holds(&self) {
        let (breaks, _) = self.verified();
        assert!(breaks.is_empty(), "{breaks:?}");
    }
}

fn two() -> [Record; 2] {
    [Event::LeaseGranted, Event::LeaseReleased].map(|e| Record::new(e, Actor::Broker))
}

#[test]
fn numbers_go_on_after_a_restart_and_the_file_is_ours_alone() {
    let world = World::new();
    let log = world.open(seq(0)).unwrap();
    let head = log.append(&two(), EPOCH).unwrap();
    assert_eq!(head.seq, 3);
    assert_eq!(fs::metadata(world.path()).unwrap().mode() & 0o777, 0o600);
    assert!(matches!(world.open(seq(0)).unwrap_err(), AuditError::InUse { .. }));
    drop(log);
    let log = world.open(head).unwrap();
    assert_eq!(log.head(), head);
    assert_eq!(log.append(&two(), EPOCH).unwrap().seq, 5);
    assert_eq!(world.seqs(), [1, 2, 3, 4, 5]);
    assert_eq!(world.lines()[0].1, "audit.opened");
    world.holds();
}

#[test]
fn a_torn_last_line_is_closed_noted_and_its_number_not_used_again() {
    let world = World::new();
    world.open(seq(0)).unwrap().append(&two(), EPOCH).unwrap();
    let whole = fs::read(world.path()).unwrap();
    let ends: Vec<_> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
    for cut in ends[1] + 2..whole.len() {
        fs::write(world.path(), &whole[..cut]).unwrap();
        let log = world.open(seq(1)).unwrap();
        log.append(&two(), EPOCH).unwrap();
        let mut expected = vec![1, 2, 4, 5, 6];
        if cut == whole.len() - 1 {
            expected.insert(2, 3); // it lacked only its newline
        }
        assert_eq!(world.seqs(), expected, "{cut}");
        assert!(world.lines().contains(&(4, "recovery.audit_torn".to_owned())));
        world.holds();
    }
}

#[test]
fn a_first_line_that_is_torn_or_zeros_after_a_power_cut_are_closed_too() {
    for end in [&b"{\"v\":1,\"se"[..], &[0; 100]] {
        let world = World::new();
        fs::write(world.path(), end).unwrap();
        let log = world.open(seq(0)).unwrap();
        assert_eq!(log.append(&two(), EPOCH).unwrap().seq, 4);
        assert_eq!(world.lines()[0], (2, "recovery.audit_torn".to_owned()));
        world.holds();
    }
}

#[test]
fn a_log_that_ends_before_what_the_store_knows_says_so() {
    let world = World::new();
    world.open(seq(0)).unwrap().append(&two(), EPOCH).unwrap();
    let log = world.open(Head { seq: 9, mac: Mac([9; 16]) }).unwrap();
    assert_eq!(log.head().seq, 10);
    assert_eq!(world.lines()[3], (10, "recovery.audit_short".to_owned()));
    let (breaks, _) = world.verified();
    let said = "before line 4: what lay between seq 3 and 10 is missing, as the broker noted";
    assert_eq!(breaks, [said]);
}

#[test]
fn a_log_that_comes_by_another_line_than_the_store_knows_says_so() {
    for (known, forged) in [(Mac([9; 16]), true), (Mac::default(), false)] {
        let world = World::new();
        world.open(seq(0)).unwrap().append(&two(), EPOCH).unwrap();
        world.open(Head { seq: 2, mac: known }).unwrap();
        let said = world.lines().contains(&(4, "recovery.audit_forged".to_owned()));
        assert_eq!(said, forged);
    }
}

#[test]
fn an_edited_end_is_found_out_when_the_log_is_opened() {
    let world = World::new();
    world.open(seq(0)).unwrap().append(&two(), EPOCH).unwrap();
    let text = fs::read_to_string(world.path()).unwrap();
    fs::write(world.path(), text.replace("lease.released", "lease.reissued")).unwrap();
    world.open(seq(3)).unwrap();
    assert_eq!(world.lines()[3], (4, "recovery.audit_forged".to_owned()));
}

#[test]
fn a_log_that_was_moved_away_is_followed_by_a_new_one_that_names_its_end() {
    let world = World::new();
    let log = world.open(seq(0)).unwrap();
    log.append(&two(), EPOCH).unwrap();
    fs::rename(world.path(), files::name(&world.path(), 1)).unwrap();
    let head = log.append(&two(), EPOCH).unwrap();
    assert_eq!(world.seqs(), [1, 2, 3, 4, 5, 6]);
    world.holds();
    drop(log);
    for path in world.files() {
        fs::remove_file(path).unwrap();
    }
    let log = world.open(head).unwrap();
    assert_eq!(log.head(), head, "the store remembers");
    log.append(&two(), EPOCH).unwrap();
    let (breaks, notes) = world.verified();
    assert_eq!((breaks.len(), notes.len()), (0, 1), "{breaks:?} {notes:?}");
    assert!(notes[0].starts_with("begins after seq 6"), "{notes:?}");
}

#[test]
fn some_other_file_is_not_written_to() {
    let world = World::new();
    let contents = "root:x:0:0\nnobody:x:1:1\n";
    fs::write(world.path(), contents).unwrap();
    assert!(matches!(world.open(seq(0)).unwrap_err(), AuditError::Foreign { .. }));
    assert_eq!(fs::read_to_string(world.path()).unwrap(), contents);
}

#[test]
fn a_full_file_is_rotated_and_the_oldest_go_after_a_line_has_said_so() {
    let world = World::new();
    let small = |settings: &mut Settings| {
        settings.max_bytes = 700;
        settings.keep.files = Some(2);
    };
    let log = world.open_with(seq(0), small).unwrap();
    for _ in 0..20 {
        log.append(&two(), EPOCH).unwrap();
    }
    let files = world.files();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().mode() & 0o777 == 0o600));
    let (breaks, notes) = world.verified();
    assert!(breaks.is_empty(), "{breaks:?}");
    let first = world.seqs()[0];
    assert_eq!(notes, [format!("begins after seq {}: earlier files were not given", first - 1)]);
    let removed = world.lines().iter().filter(|(_, event)| event == "audit.removed").count();
    assert!(removed >= 1, "{:?}", world.lines());
    let text = fs::read_to_string(files.last().unwrap()).unwrap();
    assert!(text.contains(&format!("up to seq {}\"", first - 1)), "{text}");
}

#[test]
fn a_crash_at_any_byte_of_a_rotation_leaves_a_chain_that_holds() {
    let small = |settings: &mut Settings| settings.max_bytes = 500;
    let whole = World::new();
    let log = whole.open_with(seq(0), small).unwrap();
    for _ in 0..2 {
        log.append(&two(), EPOCH).unwrap();
    }
    let (old, new) = (whole.files()[0].clone(), whole.path());
    let (old, new) = (fs::read(old).unwrap(), fs::read(new).unwrap());
    for cut in 0..=new.len() + 1 {
        let world = World::new();
        fs::write(files::name(&world.path(), 1), &old).unwrap();
        if let Some(length) = cut.checked_sub(1) {
            fs::write(world.path(), &new[..length]).unwrap(); // else: renamed, not made
        }
        let log = world.open_with(seq(3), small).unwrap();
        log.append(&two(), EPOCH).unwrap();
        world.holds();
        let mut seqs = world.seqs();
        let count = seqs.len();
        seqs.sort_unstable();
        seqs.dedup();
        assert_eq!(seqs.len(), count, "no number twice: {cut}");
        assert!(world.verified().1.iter().all(|note| note.contains("torn")));
    }
}

/// A tmpfs that is full after so many bytes; needs root.
struct Small(PathBuf);

impl Small {
    fn on(path: &Path) -> Option<Self> {
        use rustix::mount::{MountFlags, mount};
        let options = c"size=16k,mode=0700";
        mount("audit", path, "tmpfs", MountFlags::empty(), options).ok()?;
        Some(Self(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_log_on_a_full_disk_goes_on_in_a_new_file_once_there_is_room() {
    let world = World::new();
    let Some(_small) = Small::on(world.0.path()) else { return }; // not root
    let log = world.open(seq(0)).unwrap();
    log.append(&two(), EPOCH).unwrap();
    let filler = world.0.path().join("filler");
    fs::write(&filler, vec![0; 8 * 1024]).unwrap();
    let mut acknowledged = log.head();
    let error = loop {
        match log.append(&[two(), two()].concat(), EPOCH) {
            Ok(head) => acknowledged = head,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AuditError::Io { operation: "writing", .. }), "{error}");
    for _ in 0..3 {
        log.append(&two(), EPOCH).unwrap_err();
        assert_eq!(log.head(), acknowledged);
    }
    fs::remove_file(filler).unwrap();
    let head = log.append(&two(), EPOCH).unwrap();
    assert_eq!(world.files().len(), 2);
    let (breaks, notes) = world.verified();
    assert!(breaks.is_empty() && notes.len() == 1, "{breaks:?} {notes:?}");
    assert!(notes[0].starts_with("the file before ends in"), "{notes:?}");
    drop(log);
    assert_eq!(world.open(head).unwrap().head(), head);
}

#[test]
fn a_broker_that_starts_on_a_full_disk_has_a_log_that_only_can_t_be_written() {
    let world = World::new();
    let Some(_small) = Small::on(world.0.path()) else { return }; // not root
    let head = world.open(seq(0)).unwrap().append(&two(), EPOCH).unwrap();
    let whole = fs::read(world.path()).unwrap();
    fs::write(world.path(), &whole[..whole.len() - 9]).unwrap();
    let filler = world.0.path().join("filler");
    let _ = fs::write(&filler, vec![0; 64 * 1024]); // as much as there is room for
    let mut torn = OpenOptions::new().append(true).open(world.path()).unwrap();
    while torn.write_all(&[b'x'; 64]).is_ok() {} // and the log's own last page
    let log = world.open(seq(head.seq - 1)).unwrap();
    log.append(&two(), EPOCH).unwrap_err();
    fs::remove_file(filler).unwrap();
    log.append(&two(), EPOCH).unwrap();
    assert!(world.lines().iter().any(|(_, event)| event == "recovery.audit_torn"));
    world.holds();
}

#[test]
fn files_are_kept_by_age_too() {
    let world = World::new();
    let by_age = |settings: &mut Settings| {
        settings.max_bytes = 1;
        settings.keep.age = Some(Duration::from_secs(3_600));
    };
    let log = world.open_with(seq(0), by_age).unwrap();
    log.append(&two(), EPOCH).unwrap();
    let written = fs::metadata(world.path()).unwrap().modified().unwrap();
    log.append(&two(), written).unwrap();
    log.append(&two(), written + Duration::from_secs(3_601)).unwrap();
    assert_eq!(world.files().len(), 1, "{:?}", world.files());
    assert!(world.lines().iter().any(|(_, event)| event == "audit.removed"));
}

#[test]
fn a_whole_log_reads_back_from_memory_as_from_its_files() {
    let world = World::new();
    let log = world.open(seq(0)).unwrap();
    let head = log.append(&two(), EPOCH).unwrap();
    let bytes = fs::read(world.path()).unwrap();
    fs::set_permissions(world.path(), fs::Permissions::from_mode(0o400)).unwrap();
    let mut walk = Walk::new(ChainKey::new(&master()));
    walk.expect(head, "the log's own");
    let report = walk.file("audit.log", Cursor::new(bytes)).unwrap();
    assert_eq!((report.lines, report.first, report.last), (3, Some(1), Some(3)));
    assert!(report.breaks.is_empty() && walk.finish().is_empty());
}
