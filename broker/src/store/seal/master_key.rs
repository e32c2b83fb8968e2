//! The master key's file: 64 hexadecimal digits and a newline, mode 0400 or 0600, owned by
//! us or by root, and not where the store is: a copy of the store's volume must not hold
//! the key to it.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use krb_proto::Secret;
use zeroize::Zeroizing;

use super::MasterKey;
use crate::clock::Entropy;

/// Whether the master key may lie on the device that the store is on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Volume {
    /// It must lie on another one.
    Apart,
    /// It may lie on the same one, for trying things out.
    MayBeShared,
}

/// A master key's file, and the store it must keep away from.
#[derive(Clone, Copy, Debug)]
pub struct MasterKeyFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// The store's directory; it need not exist yet.
    pub store: &'a Path,
    /// Whether they may share a device.
    pub volume: Volume,
}

impl MasterKey {
    /// Reads the master key.
    ///
    /// # Errors
    /// When the file is missing, unreadable, too open, another's, in the store's directory,
    /// on its volume, or does not hold 64 hexadecimal digits.
    pub fn from_file(file: MasterKeyFile<'_>) -> Result<Self, MasterKeyError> {
        let path = file.path;
        let io = |source| match source {
            e if io::Error::kind(&e) == io::ErrorKind::NotFound => {
                MasterKeyError::Missing { path: path.to_owned() }
            }
            source => MasterKeyError::Unreadable { path: path.to_owned(), source },
        };
        let mut open = File::open(path).map_err(io)?;
        check_owner_and_mode(path, &open.metadata().map_err(io)?)?;
        check_place(file, open.metadata().map_err(io)?.dev())?;
        // one byte more than the longest that fits, so that a longer file is noticed
        let mut text = Zeroizing::new(vec![0; 2 * Self::LEN + 3]);
        let mut length = 0;
        while length < text.len() {
            match open.read(&mut text[length..]).map_err(io)? {
                0 => break,
                read => length += read,
            }
        }
        let bytes = from_hex(text[..length].trim_ascii_end())
            .ok_or_else(|| MasterKeyError::Digits { path: path.to_owned() })?;
        Self::new(bytes)
    }
}

fn check_owner_and_mode(path: &Path, meta: &std::fs::Metadata) -> Result<(), MasterKeyError> {
    let path = path.to_owned();
    let mode = meta.mode() & 0o7777;
    if !meta.is_file() {
        return Err(MasterKeyError::NotAFile { path });
    }
    if mode != 0o400 && mode != 0o600 {
        return Err(MasterKeyError::Mode { path, mode });
    }
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != us && meta.uid() != 0 {
        return Err(MasterKeyError::Owner { path, uid: meta.uid() });
    }
    Ok(())
}

fn check_place(file: MasterKeyFile<'_>, device: u64) -> Result<(), MasterKeyError> {
    let path = file.path.to_owned();
    let store = nearest_existing(file.store);
    let read = |path: &Path| {
        path.canonicalize()
            .map_err(|source| MasterKeyError::Unreadable { path: path.to_owned(), source })
    };
    let inside = file.store.exists() && read(file.path)?.starts_with(read(file.store)?);
    if inside {
        return Err(MasterKeyError::InsideStore { path, store: file.store.to_owned() });
    }
    let store_meta = store
        .metadata()
        .map_err(|source| MasterKeyError::Unreadable { path: store.clone(), source })?;
    if store_meta.dev() == device && file.volume == Volume::Apart {
        return Err(MasterKeyError::SameVolume { path, store: file.store.to_owned() });
    }
    Ok(())
}

/// The deepest directory of `path` that is there.
fn nearest_existing(path: &Path) -> PathBuf {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    match existing {
        Some(found) if !found.as_os_str().is_empty() => found.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn from_hex(text: &[u8]) -> Option<Secret> {
    if text.len() != 2 * MasterKey::LEN {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MasterKey::LEN));
    for pair in text.chunks_exact(2) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        let byte = digit(0)? * 16 + digit(1)?;
        bytes.push(u8::try_from(byte).ok()?);
    }
    Some(Secret::new(bytes.to_vec()))
}

/// A new master key as its file holds it: 64 hexadecimal digits and a newline.
pub fn new_master_key(entropy: &dyn Entropy) -> Secret {
    let mut key = Zeroizing::new([0; MasterKey::LEN]);
    entropy.fill(&mut *key);
    let mut text = Vec::with_capacity(2 * MasterKey::LEN + 1);
    for byte in key.iter() {
        text.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    text.push(b'\n');
    Secret::new(text)
}

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// No such file.
    #[error("the master key file {} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It can't be read.
    #[error("reading the master key file {}", path.display())]
    Unreadable {
        /// The file, or the directory beside it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory, a device or the like.
    #[error("the master key file {} is no regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("the master key file {} has mode {mode:04o}; it must be 0400 or 0600", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is somebody else's.
    #[error("the master key file {} belongs to uid {uid}, neither ours nor root's", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// It lies in the store's directory.
    #[error(
        "the master key file {} lies in the store {}: who takes the one has the other",
        path.display(), store.display()
    )]
    InsideStore {
        /// The file.
        path: PathBuf,
        /// The store's directory.
        store: PathBuf,
    },
    /// It lies on the store's volume.
    #[error(
        "the master key file {} lies on the same volume as the store {}",
        path.display(), store.display()
    )]
    SameVolume {
        /// The file.
        path: PathBuf,
        /// The store's directory.
        store: PathBuf,
    },
    /// It does not hold 64 hexadecimal digits.
    #[error("the master key file {} does not hold 64 hexadecimal digits", path.display())]
    Digits {
        /// The file.
        path: PathBuf,
    },
    /// Not 32 bytes.
    #[error("a master key has 32 bytes, not {bytes}")]
    Length {
        /// How many there were.
        bytes: usize,
    },
    /// All bytes alike.
    #[error("the master key is a placeholder: all its bytes are alike")]
    Placeholder,
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::clock::SystemEntropy;

    struct World {
        dir: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("store")).unwrap();
            Self { dir }
        }

        fn write(&self, name: &str, contents: &[u8], mode: u32) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn read(&self, path: &Path, volume: Volume) -> Result<MasterKey, MasterKeyError> {
            let store = self.dir.path().join("store");
            MasterKey::from_file(MasterKeyFile { path, store: &store, volume })
        }
    }

    #[test]
    fn a_new_master_key_is_read_back_with_its_id() {
        let world = World::new();
        let text = new_master_key(&SystemEntropy);
        for mode in [0o400, 0o600] {
            let path = world.write(&format!("key-{mode}"), text.expose(), mode);
            let key = world.read(&path, Volume::MayBeShared).unwrap();
            assert_eq!(key.id().to_string().len(), 16);
            let again = world.write(&format!("bare-{mode}"), &text.expose()[..64], mode);
            assert_eq!(world.read(&again, Volume::MayBeShared).unwrap().id(), key.id());
        }
    }

    #[test]
    fn the_id_of_a_known_key_is_fixed() {
        let bytes = (0..32).collect();
        let key = MasterKey::new(Secret::new(bytes)).unwrap();
        assert_eq!(key.id().to_string(), "26db4e27179a990a");
    }

    #[test]
    fn a_file_that_others_could_read_or_that_holds_no_key_is_refused() {
        let world = World::new();
        let text = new_master_key(&SystemEntropy);
        for mode in [0o640, 0o644, 0o440, 0o700, 0o4600] {
            let path = world.write("key", text.expose(), mode);
            let error = world.read(&path, Volume::MayBeShared).unwrap_err();
            assert!(matches!(error, MasterKeyError::Mode { mode: m, .. } if m == mode), "{error}");
        }
        let long = [text.expose(), b"00\n"].concat();
        for bad in [&b""[..], &text.expose()[..63], &[b'g'; 64], &[b'a'; 66], &long] {
            let path = world.write("key", bad, 0o600);
            let error = world.read(&path, Volume::MayBeShared).unwrap_err();
            assert!(matches!(error, MasterKeyError::Digits { .. }), "{error}");
        }
        let path = world.write("key", &[b'0'; 64], 0o600);
        let error = world.read(&path, Volume::MayBeShared).unwrap_err();
        assert!(matches!(error, MasterKeyError::Placeholder), "{error}");

        let missing = world.read(&world.dir.path().join("none"), Volume::MayBeShared).unwrap_err();
        assert!(matches!(missing, MasterKeyError::Missing { .. }), "{missing}");
        let directory = world.read(world.dir.path(), Volume::MayBeShared).unwrap_err();
        assert!(matches!(directory, MasterKeyError::NotAFile { .. }), "{directory}");
    }

    #[test]
    fn a_key_beside_what_it_seals_is_refused() {
        let world = World::new();
        let text = new_master_key(&SystemEntropy);
        let inside = world.write("store/key", text.expose(), 0o600);
        let error = world.read(&inside, Volume::MayBeShared).unwrap_err();
        assert!(matches!(error, MasterKeyError::InsideStore { .. }), "{error}");
        let link = world.dir.path().join("link");
        std::os::unix::fs::symlink(&inside, &link).unwrap();
        let error = world.read(&link, Volume::MayBeShared).unwrap_err();
        assert!(matches!(error, MasterKeyError::InsideStore { .. }), "{error}");

        let beside = world.write("key", text.expose(), 0o600);
        let error = world.read(&beside, Volume::Apart).unwrap_err();
        assert!(matches!(error, MasterKeyError::SameVolume { .. }), "{error}");
        let store = world.dir.path().join("not/there/yet");
        let file = MasterKeyFile { path: &beside, store: &store, volume: Volume::Apart };
        let error = MasterKey::from_file(file).unwrap_err();
        assert!(matches!(error, MasterKeyError::SameVolume { .. }), "{error}");
    }
}
