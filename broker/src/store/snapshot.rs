//! The sealed copy of the store beside the database.
//!
//! ```text
//! header    magic "KRBSNAP2", key id (8), salt (16), taken at, in ms since 1970 (8)
//! frame*    kind 0, length (4), AES-256-GCM of operations
//! trailer   kind 1, length (4), AES-256-GCM of the mark (32), operations (8)
//! checksum  SHA-256 of all before it
//! ```
//!
//! Numbers are big-endian. Each snapshot has a key of its own, derived from the master key
//! with its salt; the nonce is the frame's number, the trailer's all ones; the header and
//! the kind are associated data. An operation is a put (1, key length (4), value length
//! (4), key, value) or a delete (2, key length (4), key). They are read in order: what was
//! committed while the copy was made follows it, so that the whole is the store as it was
//! at the trailer's sequence number.
//!
//! A snapshot is written under another name, synced, and renamed into place; the one
//! before it is kept. A file that is cut, changed or of another key is never read in part.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use krb_proto::Secret;
use ring::{aead, digest};

use super::{
    Mark, StoreError,
    directory::{io_error, sync_directory},
    seal::{KeyId, MasterKey, cipher},
};
use crate::{
    audit::Head,
    clock::{Entropy, from_unix_millis, unix_millis},
};

const MAGIC: &[u8; 8] = b"KRBSNAP2";
const HEADER: usize = 8 + 8 + 16 + 8;
const FRAME: usize = 256 * 1024;
const LONGEST_FRAME: usize = 4 * 1024 * 1024;
const TAG: usize = 16;
const TRAILER: usize = Mark::LEN + 8 + TAG;
const CHECKSUM: usize = 32;
const OPERATIONS: u8 = 0;
const END: u8 = 1;

/// What a snapshot reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Reach {
    /// When it was begun.
    pub taken_at: SystemTime,
    /// The sequence number of the last commit in it.
    pub sequence: u64,
    /// The store's audit head then.
    pub audit_head: Head,
}

/// What a snapshot holds.
pub(super) struct Contents {
    /// Every record.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How far it goes.
    pub reach: Reach,
}

/// Why a snapshot can't be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// There is none.
    Missing,
    /// It was sealed under another master key.
    OtherKey(KeyId),
    /// It is cut, changed, or can't be read from the disk.
    Broken(String),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::UnexpectedEof => Self::Broken("it is cut short".to_owned()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// The newest snapshot of the store in `directory`.
pub(super) fn newest(directory: &Path) -> PathBuf {
    directory.join("snapshot")
}

/// The one before it.
pub(super) fn previous(directory: &Path) -> PathBuf {
    directory.join("snapshot.previous")
}

/// A snapshot's own key, and what is bound into every frame.
struct Seal {
    key: Secret,
    header: [u8; HEADER],
}

impl Seal {
    fn new(master: &MasterKey, header: [u8; HEADER]) -> Self {
        Self { key: master.derive("krb-broker snapshot 1", &header[16..32]), header }
    }

    fn aad(&self, kind: u8) -> aead::Aad<Vec<u8>> {
        aead::Aad::from([&self.header[..], &[kind]].concat())
    }

    fn nonce(number: u64) -> aead::Nonce {
        let mut nonce = [0; aead::NONCE_LEN];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        aead::Nonce::assume_unique_for_key(nonce)
    }

    fn taken_at(&self) -> SystemTime {
        from_unix_millis(number(&self.header[32..]))
    }
}

/// The number of the trailer; no file has as many frames.
const TRAILER_NUMBER: u64 = u64::MAX;

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A length of four bytes.
fn small(bytes: &[u8]) -> usize {
    bytes.iter().take(4).fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Writes one snapshot. Dropped before [`Self::finish`], it leaves the old ones as they are.
pub(super) struct Writer {
    directory: PathBuf,
    path: PathBuf,
    out: BufWriter<File>,
    seal: Seal,
    checksum: digest::Context,
    plain: Vec<u8>,
    frames: u64,
    operations: u64,
}

impl Writer {
    /// Begins a snapshot of the store in `directory`.
    pub fn begin(
        directory: &Path,
        master: &MasterKey,
        entropy: &dyn Entropy,
        now: SystemTime,
    ) -> Result<Self, StoreError> {
        let path = directory.join("snapshot.new");
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("opening", &path))?;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&master.id().0);
        entropy.fill(&mut header[16..32]);
        header[32..].copy_from_slice(&unix_millis(now).to_be_bytes());
        let mut writer = Self {
            directory: directory.to_owned(),
            out: BufWriter::with_capacity(FRAME, file),
            seal: Seal::new(master, header),
            checksum: digest::Context::new(&digest::SHA256),
            plain: Vec::with_capacity(FRAME + 1024),
            frames: 0,
            operations: 0,
            path,
        };
        writer.write(&header)?;
        Ok(writer)
    }

    /// Adds a record, over an earlier one of the same key.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.plain.push(1);
        self.plain.extend((key.len() as u32).to_be_bytes());
        self.plain.extend((value.len() as u32).to_be_bytes());
        self.plain.extend(key);
        self.plain.extend(value);
        self.added()
    }

    /// Removes a record that was added before.
    pub fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.plain.push(2);
        self.plain.extend((key.len() as u32).to_be_bytes());
        self.plain.extend(key);
        self.added()
    }

    /// Makes the snapshot durable and the newest.
    pub fn finish(mut self, mark: Mark) -> Result<Reach, StoreError> {
        self.frame()?;
        self.plain.extend(mark.to_bytes());
        self.plain.extend(self.operations.to_be_bytes());
        self.seal_frame(END, TRAILER_NUMBER)?;
        let checksum = self.checksum.clone().finish();
        self.write(checksum.as_ref())?;
        let io = io_error("writing", &self.path);
        self.out.flush().map_err(&io)?;
        self.out.get_ref().sync_all().map_err(&io)?;
        self.install()?;
        let Mark { sequence, audit_head } = mark;
        Ok(Reach { taken_at: self.seal.taken_at(), sequence, audit_head })
    }

    /// Keeps the one that was the newest, and renames: at no moment is there none.
    fn install(&self) -> Result<(), StoreError> {
        let (newest, previous) = (newest(&self.directory), previous(&self.directory));
        if newest.exists() {
            let kept = self.directory.join("snapshot.kept");
            let _ = fs::remove_file(&kept); // left by a crash, if at all
            fs::hard_link(&newest, &kept).map_err(io_error("keeping", &newest))?;
            fs::rename(&kept, &previous).map_err(io_error("keeping", &previous))?;
        }
        fs::rename(&self.path, &newest).map_err(io_error("renaming", &self.path))?;
        sync_directory(&self.directory)
    }

    fn added(&mut self) -> Result<(), StoreError> {
        self.operations += 1;
        if self.plain.len() >= FRAME { self.frame() } else { Ok(()) }
    }

    fn frame(&mut self) -> Result<(), StoreError> {
        if self.plain.is_empty() {
            return Ok(());
        }
        self.seal_frame(OPERATIONS, self.frames)?;
        self.frames += 1;
        Ok(())
    }

    fn seal_frame(&mut self, kind: u8, number: u64) -> Result<(), StoreError> {
        let mut sealed = std::mem::take(&mut self.plain);
        cipher(&self.seal.key)
            .seal_in_place_append_tag(Seal::nonce(number), self.seal.aad(kind), &mut sealed)
            .expect("a frame is far shorter than AES-GCM allows");
        self.write(&[kind])?;
        self.write(&(sealed.len() as u32).to_be_bytes())?;
        self.write(&sealed)?;
        sealed.clear();
        self.plain = sealed;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.checksum.update(bytes);
        self.out.write_all(bytes).map_err(io_error("writing", &self.path))
    }
}

/// Reads how far a snapshot goes, and nothing else of it.
pub(super) fn read_reach(path: &Path, master: &MasterKey) -> Result<Reach, Unreadable> {
    let mut file = File::open(path)?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header)?;
    let seal = check_header(header, master)?;
    let from_end = i64::try_from(5 + TRAILER + CHECKSUM).unwrap_or(i64::MAX);
    file.seek(SeekFrom::End(-from_end))?;
    let mut frame = [0; 5 + TRAILER];
    file.read_exact(&mut frame)?;
    if frame[..5] != [END, 0, 0, 0, TRAILER as u8] {
        return Err(Unreadable::Broken("it has no end".to_owned()));
    }
    open_trailer(&seal, frame[5..].to_vec()).map(|(reach, _)| reach)
}

/// Reads a snapshot whole.
pub(super) fn read(path: &Path, master: &MasterKey) -> Result<Contents, Unreadable> {
    let mut input = Checked::open(path)?;
    let mut header = [0; HEADER];
    input.fill(&mut header)?;
    let seal = check_header(header, master)?;
    let (mut records, mut operations) = (BTreeMap::new(), 0);
    for frame_number in 0.. {
        let mut start = [0; 5];
        input.fill(&mut start)?;
        let length = small(&start[1..]);
        if !(TAG..=LONGEST_FRAME).contains(&length) {
            return Err(Unreadable::Broken(format!("frame {frame_number} has a wrong length")));
        }
        let mut sealed = vec![0; length];
        input.fill(&mut sealed)?;
        if start[0] == END {
            let (reach, counted) = open_trailer(&seal, sealed)?;
            input.finish()?;
            if counted != operations {
                return Err(Unreadable::Broken("operations are missing".to_owned()));
            }
            return Ok(Contents { records, reach });
        }
        let plain = cipher(&seal.key)
            .open_in_place(Seal::nonce(frame_number), seal.aad(OPERATIONS), &mut sealed)
            .map_err(|_| Unreadable::Broken(format!("frame {frame_number} was changed")))?;
        operations += apply(plain, &mut records)
            .ok_or_else(|| Unreadable::Broken(format!("frame {frame_number} is malformed")))?;
    }
    Err(Unreadable::Broken("it has no end".to_owned()))
}

fn check_header(header: [u8; HEADER], master: &MasterKey) -> Result<Seal, Unreadable> {
    if !header.starts_with(MAGIC) {
        return Err(Unreadable::Broken("it is no snapshot of a known format".to_owned()));
    }
    let mut found = KeyId([0; 8]);
    found.0.copy_from_slice(&header[8..16]);
    if found != master.id() {
        return Err(Unreadable::OtherKey(found));
    }
    Ok(Seal::new(master, header))
}

fn open_trailer(seal: &Seal, mut sealed: Vec<u8>) -> Result<(Reach, u64), Unreadable> {
    let plain = cipher(&seal.key)
        .open_in_place(Seal::nonce(TRAILER_NUMBER), seal.aad(END), &mut sealed)
        .map_err(|_| Unreadable::Broken("its end was changed".to_owned()))?;
    let mark = plain.first_chunk().map(Mark::from_bytes).unwrap_or_default();
    let (Mark { sequence, audit_head }, operations) = (mark, number(&plain[Mark::LEN..]));
    Ok((Reach { taken_at: seal.taken_at(), sequence, audit_head }, operations))
}

/// Does a frame's operations; how many there were, or `None` for what is none.
fn apply(mut plain: &[u8], records: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Option<u64> {
    let mut done = 0;
    while let Some((kind, rest)) = plain.split_first() {
        let (key_length, rest) = rest.split_at_checked(4)?;
        let key_length = small(key_length);
        plain = match kind {
            1 => {
                let (value_length, rest) = rest.split_at_checked(4)?;
                let (key, rest) = rest.split_at_checked(key_length)?;
                let (value, rest) = rest.split_at_checked(small(value_length))?;
                records.insert(key.to_vec(), value.to_vec());
                rest
            }
            2 => {
                let (key, rest) = rest.split_at_checked(key_length)?;
                records.remove(key);
                rest
            }
            _ => return None,
        };
        done += 1;
    }
    Some(done)
}

/// A reader that keeps the checksum of what it has read.
struct Checked {
    input: BufReader<File>,
    checksum: digest::Context,
}

impl Checked {
    fn open(path: &Path) -> Result<Self, Unreadable> {
        let input = BufReader::with_capacity(FRAME, File::open(path)?);
        Ok(Self { input, checksum: digest::Context::new(&digest::SHA256) })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.input.read_exact(bytes)?;
        self.checksum.update(bytes);
        Ok(())
    }

    /// Compares the checksum, which ends the file.
    fn finish(mut self) -> Result<(), Unreadable> {
        let mut rest = Vec::new();
        (&mut self.input).take(CHECKSUM as u64 + 1).read_to_end(&mut rest)?;
        if rest == self.checksum.finish().as_ref() {
            Ok(())
        } else {
            Err(Unreadable::Broken("its checksum is wrong".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
