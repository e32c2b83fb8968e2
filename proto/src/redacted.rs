//! Debug for the messages that carry key material: sizes and names, never bytes.

use std::fmt;

use crate::v1::{Keytab, Ticket};

impl fmt::Debug for Keytab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keytab")
            .field("contents", &format_args!("{} bytes", self.contents.len()))
            .field("principals", &self.principals)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("user", &self.user)
            .field("realm", &self.realm)
            .field("contents", &format_args!("{} bytes", self.contents.len()))
            .field("endtime", &self.endtime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_message_shows_no_key() {
        let keytab = Keytab { contents: b"KEYKEYKEY".to_vec(), ..Keytab::default() };
        let ticket = Ticket { contents: b"KEYKEYKEY".to_vec(), ..Ticket::default() };
        let printed = format!("{keytab:?} {ticket:?}");
        assert!(printed.contains("9 bytes"));
        assert!(!printed.contains("KEY") && !printed.contains("75, 69"), "{printed}");
    }
}
