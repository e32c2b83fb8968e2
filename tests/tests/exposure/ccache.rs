//! A ccache whose owner writes another time into it: libkrb5 believes it and asks, so that the
//! KDC and the server must refuse.

use std::{fs, path::Path};

use krb_tests::world::WorldError;

/// Adds an hour to the end of every ticket, as the file says it; the tickets are what they were.
pub fn pretend_it_lives(path: &Path) -> Result<(), WorldError> {
    let mut file = fs::read(path)?;
    let ends = ends(&file).ok_or_else(|| WorldError::new("reading a ccache", path.display()))?;
    for at in ends {
        let end = u32::from_be_bytes(file[at..at + 4].try_into().unwrap_or_default());
        file[at..at + 4].copy_from_slice(&(end + 3_600).to_be_bytes());
    }
    Ok(fs::write(path, file)?)
}

/// The latest end of a ticket, in seconds since 1970.
pub fn latest_end(path: &Path) -> Result<u64, WorldError> {
    let file = fs::read(path)?;
    let read = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap_or_default());
    let latest = ends(&file).and_then(|ends| ends.into_iter().map(read).max());
    let latest = latest.ok_or_else(|| WorldError::new("reading a ccache", path.display()))?;
    Ok(latest.into())
}

/// Where the end of each ticket is in a ccache of version 4; `None` when it is none.
fn ends(file: &[u8]) -> Option<Vec<usize>> {
    let mut reader = Reader { file, at: 0 };
    reader.skip(2)?;
    let header = reader.short()?;
    reader.skip(header)?;
    reader.principal()?;
    let mut ends = Vec::new();
    while reader.at < file.len() {
        reader.principal()?;
        reader.principal()?;
        reader.skip(2)?; // the session key's enctype
        reader.counted()?;
        ends.push(reader.at + 8); // after authtime and starttime
        reader.skip(16 + 1 + 4)?;
        for _ in ["addresses", "authorization data"] {
            for _ in 0..reader.long()? {
                reader.skip(2)?;
                reader.counted()?;
            }
        }
        reader.counted()?;
        reader.counted()?;
    }
    Some(ends)
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count)?;
        (self.at <= self.file.len()).then_some(())
    }

    fn short(&mut self) -> Option<usize> {
        let from = self.at;
        self.skip(2)?;
        Some(u16::from_be_bytes(self.file[from..self.at].try_into().ok()?).into())
    }

    fn long(&mut self) -> Option<usize> {
        let from = self.at;
        self.skip(4)?;
        usize::try_from(u32::from_be_bytes(self.file[from..self.at].try_into().ok()?)).ok()
    }

    fn counted(&mut self) -> Option<()> {
        let count = self.long()?;
        self.skip(count)
    }

    fn principal(&mut self) -> Option<()> {
        self.skip(4)?; // its name type
        let components = self.long()?;
        self.counted()?; // its realm
        (0..components).try_for_each(|_| self.counted())
    }
}
