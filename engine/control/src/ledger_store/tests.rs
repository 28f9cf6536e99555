//! The store against a folder that dies at every step, keeps or loses what was not synced, and tears what it can.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;

use portico_scsi::ledger::{NexusName, ReservationChange};
use portico_scsi::persistent::{OutAction, PersistentOut, Registering};
use portico_scsi::reservation::{NexusId, Reservation};

use super::*;

const DEVICE: &str = "disk1";
const BOOT: BootId = [1; 16];

/// A ledger in which `holder` has reserved the unit.
fn held(holder: &str) -> Ledger {
    let mut ledger = Ledger::new();
    ledger.attach(NexusId(1), NexusName::new(holder, "target"));
    ledger.apply(ReservationChange::Reserve, NexusId(1)).unwrap();
    let restored = Ledger::restore(&ledger.encode(BOOT), BOOT).unwrap();
    assert_eq!(restored.absent_holder().unwrap().initiator_port(), holder);
    restored
}

fn same_boot(holder: &str) -> Restored {
    Restored::SameBoot(held(holder))
}

/// Content of a file, and whether it would survive a power cut.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inode {
    content: Vec<u8>,
    synced: bool,
}

/// A folder in memory that counts its steps and dies before the last one it may take.
#[derive(Debug, Default)]
struct Dying {
    inodes: RefCell<Vec<Inode>>,
    /// Names as the running system sees them, and after each change since they were last synced.
    names: RefCell<BTreeMap<String, usize>>,
    past_names: RefCell<Vec<BTreeMap<String, usize>>>,
    steps_left: Cell<usize>,
}

impl Dying {
    fn immortal() -> Self {
        let folder = Self { steps_left: Cell::new(usize::MAX), ..Self::default() };
        folder.past_names.borrow_mut().push(BTreeMap::new());
        folder
    }

    fn step(&self) -> io::Result<()> {
        match self.steps_left.get() {
            0 => Err(io::Error::other("killed")),
            left => {
                self.steps_left.set(left - 1);
                Ok(())
            }
        }
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.borrow().get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename_all(&self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        change(&mut self.names.borrow_mut());
        self.past_names.borrow_mut().push(self.names.borrow().clone());
    }

    /// Every folder that a power cut may leave: any prefix of the changes to the names since they were synced, and
    /// of each unsynced file its first `kept_bytes`.
    fn after_power_cut(&self, kept_bytes: usize) -> Vec<Self> {
        let torn = |inode: &Inode| match inode.synced {
            true => inode.clone(),
            false => {
                let kept = inode.content.len().min(kept_bytes);
                Inode { content: inode.content[..kept].to_vec(), synced: true }
            }
        };
        let inodes: Vec<Inode> = self.inodes.borrow().iter().map(torn).collect();
        let names = self.past_names.borrow();
        names
            .iter()
            .map(|names| Self {
                inodes: RefCell::new(inodes.clone()),
                names: RefCell::new(names.clone()),
                past_names: RefCell::new(vec![names.clone()]),
                steps_left: Cell::new(usize::MAX),
            })
            .collect()
    }
}

impl Folder for &Dying {
    fn elsewhere(&self, _path: &str) -> io::Result<Self> {
        Ok(self)
    }

    fn read(&self, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
        let inode = self.inode(name)?;
        let inodes = self.inodes.borrow();
        let content = &inodes[inode].content;
        Ok(content[..content.len().min(bytes_max + 1)].to_vec())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.names.borrow().contains_key(name))
    }

    fn create(&self, name: &str, content: &[u8]) -> io::Result<()> {
        // A process that is killed while it writes has written a part.
        let whole = self.step().is_ok();
        let kept = if whole { content.len() } else { content.len() / 2 };
        self.inodes.borrow_mut().push(Inode { content: content[..kept].to_vec(), synced: false });
        let inode = self.inodes.borrow().len() - 1;
        self.rename_all(|names| {
            names.insert(name.to_owned(), inode);
        });
        if whole { Ok(()) } else { Err(io::Error::other("killed")) }
    }

    fn sync_file(&self, name: &str) -> io::Result<()> {
        self.step()?;
        let inode = self.inode(name)?;
        self.inodes.borrow_mut()[inode].synced = true;
        Ok(())
    }

    fn link(&self, name: &str, second: &str) -> io::Result<()> {
        self.step()?;
        let inode = self.inode(name)?;
        assert!(!self.names.borrow().contains_key(second), "link(2) fails on a name that is taken");
        self.rename_all(|names| {
            names.insert(second.to_owned(), inode);
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step()?;
        self.rename_all(|names| {
            names.remove(name);
        });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let inode = self.inode(from)?;
        self.rename_all(|names| {
            names.remove(from);
            names.insert(to.to_owned(), inode);
        });
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.step()?;
        *self.past_names.borrow_mut() = vec![self.names.borrow().clone()];
        Ok(())
    }
}

fn store(folder: &Dying) -> LedgerStore<&Dying> {
    LedgerStore::new(folder, BOOT)
}

fn write(folder: &Dying, holder: &str) -> io::Result<()> {
    store(folder).write(DEVICE, &held(holder).encode(BOOT))
}

/// A folder that durably holds a ledger.
fn holding(holder: &str) -> Dying {
    let folder = Dying::immortal();
    write(&folder, holder).unwrap();
    folder
}

/// Steps of one write.
const STEPS: usize = 6;

#[test]
fn what_was_written_is_read_again_under_the_same_boot() {
    let folder = holding("a");
    assert_eq!(store(&folder).read(DEVICE).unwrap(), same_boot("a"));
    assert_eq!(store(&folder).read("disk2").unwrap(), Restored::Nothing);
}

#[test]
fn after_a_reboot_only_what_survives_one_is_left() {
    let folder = holding("a");
    let later = LedgerStore::new(&folder, [2; 16]);
    assert_eq!(later.read(DEVICE).unwrap(), Restored::OtherBoot(Ledger::new()), "a RESERVE does not");
}

/// A ledger in which one nexus is registered, with APTPL or without.
fn registered(persists: bool) -> Ledger {
    let mut ledger = Ledger::new();
    ledger.attach(NexusId(1), NexusName::new("initiator", "target"));
    let registering =
        Registering { ignore_existing: false, initiators: None, all_target_ports: false, persists };
    let action = OutAction::Register(registering);
    let out = PersistentOut { reservation_key: 0, action_key: 5, action };
    ledger.persistent_reserve_out(&out, NexusId(1)).unwrap();
    ledger
}

#[test]
fn registrations_are_kept_over_a_restart_and_over_a_reboot_with_aptpl_alone() {
    for persists in [false, true] {
        let folder = Dying::immortal();
        store(&folder).write(DEVICE, &registered(persists).encode(BOOT)).unwrap();
        let keys = |restored: Restored| match restored {
            Restored::SameBoot(ledger) | Restored::OtherBoot(ledger) => match ledger.view() {
                Reservation::Persistent(kept) => kept.registrants.iter().map(|one| one.key).collect(),
                _ => vec![],
            },
            Restored::Nothing => panic!("something was written"),
        };
        assert_eq!(keys(store(&folder).read(DEVICE).unwrap()), [5]);
        let later = LedgerStore::new(&folder, [2; 16]);
        let survives: &[u64] = if persists { &[5] } else { &[] };
        assert_eq!(keys(later.read(DEVICE).unwrap()), survives);
    }
}

#[test]
fn a_process_killed_at_any_step_leaves_the_old_ledger_or_the_new_one() {
    for steps in 0..=STEPS {
        let folder = holding("old");
        folder.steps_left.set(steps);
        let written = write(&folder, "newer");
        assert_eq!(written.is_ok(), steps == STEPS, "a write takes {STEPS} steps");
        let found =
            store(&folder).read(DEVICE).unwrap_or_else(|fault| panic!("after {steps} steps: {fault}"));
        assert!(
            found == same_boot("newer") || (found == same_boot("old") && written.is_err()),
            "{steps}: {found:?}"
        );
        // Whatever the crash left lying about, the next write takes.
        folder.steps_left.set(usize::MAX);
        write(&folder, "third").unwrap();
        assert_eq!(store(&folder).read(DEVICE).unwrap(), same_boot("third"));
    }
}

#[test]
fn a_power_cut_at_any_step_leaves_the_old_ledger_or_the_new_one_and_the_new_one_once_it_was_said() {
    for steps in 0..=STEPS {
        for kept_bytes in [0, 7, 40, usize::MAX] {
            let folder = holding("old");
            folder.steps_left.set(steps);
            let said = write(&folder, "newer").is_ok();
            for survivor in folder.after_power_cut(kept_bytes) {
                let found = store(&survivor).read(DEVICE).unwrap_or_else(|fault| panic!("{steps}: {fault}"));
                assert!(
                    found == same_boot("newer") || (found == same_boot("old") && !said),
                    "{steps}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn a_first_ledger_that_was_never_finished_is_none_or_whole() {
    for steps in 0..STEPS {
        let folder = Dying::immortal();
        // Nothing to link a backup to: that step does not count.
        folder.steps_left.set(steps);
        let written = write(&folder, "first");
        let found = store(&folder).read(DEVICE).unwrap();
        let whole = found == same_boot("first");
        assert!(whole || (found == Restored::Nothing && written.is_err()), "{steps}: {found:?}");
    }
}

#[test]
fn the_predecessor_stays_beside_it() {
    let folder = holding("old");
    write(&folder, "newer").unwrap();
    let backup = (&&folder).read("disk1.ledger.bak", LEDGER_BYTES_MAX).unwrap();
    assert_eq!(backup, held("old").encode(BOOT));
}

fn damage(change: impl FnOnce(&mut Vec<u8>)) -> LedgerDamage {
    let folder = holding("a");
    let inode = folder.inode("disk1.ledger").unwrap();
    change(&mut folder.inodes.borrow_mut()[inode].content);
    match store(&folder).read(DEVICE) {
        Err(LedgerFault::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_torn_or_altered_file_is_damaged() {
    let whole = held("a").encode(BOOT);
    for length in 0..whole.len() {
        damage(|content| content.truncate(length));
    }
    for at in 0..whole.len() {
        damage(|content| content[at] ^= 0x20);
    }
    damage(|content| content.push(0));
    damage(|content| content.resize(4 << 20, 0));
    damage(|content| content.fill(0));
}

#[test]
fn a_backup_without_its_ledger_means_that_somebody_took_it_away() {
    let folder = holding("old");
    write(&folder, "newer").unwrap();
    folder.rename_all(|names| {
        names.remove("disk1.ledger");
    });
    let fault = store(&folder).read(DEVICE).unwrap_err();
    assert!(matches!(fault, LedgerFault::TakenAway), "{fault}");
    assert!(fault.to_string().contains(".bak"), "it says what to do");
}

#[test]
fn no_name_of_a_device_leaves_the_folder() {
    assert_eq!(file_stem("../../etc/passwd"), "%2e.%2f..%2fetc%2fpasswd");
    assert_eq!(file_stem(".hidden"), "%2ehidden");
    assert_eq!(file_stem("a%2f"), "a%252f", "escaping is reversible, so that two names never meet");
    assert_eq!(file_stem("disk-1_b.img"), "disk-1_b.img");
    let folder = Dying::immortal();
    assert!(store(&folder).write(&"x".repeat(300), b"").is_err());
    assert!(store(&folder).write("", b"").is_err());
}

#[test]
fn a_boot_id_is_what_the_kernel_writes() {
    let id = boot_id("8a52e4ec-58b1-4ce5-9d3c-0a3ccd3d5b4c\n").unwrap();
    assert_eq!(id[..4], [0x8a, 0x52, 0xe4, 0xec]);
    for text in
        ["", "\n", "8a52e4ec", "8a52e4ec-58b1-4ce5-9d3c-0a3ccd3d5b4g", "+8a52e4ec58b14ce59d3c0a3ccd3d5b4"]
    {
        assert_eq!(boot_id(text), None, "{text:?}");
    }
}

#[test]
fn a_real_folder_keeps_a_ledger() {
    let place = tempfile::tempdir().unwrap();
    let folder = SystemFolder::open(place.path().join("ledgers")).unwrap();
    let store = LedgerStore::new(folder.clone(), BOOT);
    assert_eq!(store.read("a/b").unwrap(), Restored::Nothing);
    store.write("a/b", &held("one").encode(BOOT)).unwrap();
    store.write("a/b", &held("two").encode(BOOT)).unwrap();
    assert_eq!(store.read("a/b").unwrap(), same_boot("two"));
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a%2fb.ledger", "a%2fb.ledger.bak"]);
}

#[test]
fn a_ledger_with_a_path_of_its_own_is_kept_there_and_nowhere_else() {
    let top = tempfile::tempdir().unwrap();
    let own = SystemFolder::open(top.path().join("ledgers")).unwrap();
    let store = LedgerStore::new(own, BOOT);
    let path = top.path().join("scst/pr/disk1");
    let ledger = path.to_str().unwrap();
    assert!(matches!(store.read(ledger), Ok(Restored::Nothing)));
    for holder in ["a", "b"] {
        store.write(ledger, &held(holder).encode(BOOT)).unwrap();
        assert_eq!(store.read(ledger).unwrap(), same_boot(holder));
    }
    assert!(path.is_file() && path.with_extension("bak").is_file());
    assert_eq!(std::fs::read_dir(top.path().join("ledgers")).unwrap().count(), 0);
    std::fs::write(&path, b"of another program").unwrap();
    assert!(matches!(store.read(ledger), Err(LedgerFault::Damaged(_))), "it is not guessed at");
}
