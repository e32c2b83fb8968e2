//! What the demo prints: numbered steps, commands, and their output, indented.
//!
//! No line is wider than [`WIDTH`]; a longer one goes on in the next. Headings are bold on a
//! terminal; anywhere else there is text alone. A reader that is gone ends the demo.

use std::io::{self, IsTerminal as _, Write as _};

use crate::world::WorldError;

/// Columns.
const WIDTH: usize = 110;
/// Before the output of a command.
const INDENT: &str = "      ";
/// Lines of each log that a failure shows.
const TAIL: usize = 15;

/// The demo's output.
pub struct Screen {
    out: io::Stdout,
    bold: bool,
    steps: u32,
    /// Long names and what is printed in their place.
    short: Vec<(String, &'static str)>,
}

impl Screen {
    /// Standard output.
    pub fn new() -> Self {
        let out = io::stdout();
        let bold = out.is_terminal();
        Self { out, bold, steps: 0, short: Vec::new() }
    }

    /// Prints `short` wherever `long` is in a text from now on.
    pub fn shorten(&mut self, long: String, short: &'static str) {
        self.short.push((long, short));
    }

    /// The first lines.
    pub fn title(&mut self) -> Result<(), WorldError> {
        self.heading(
            "krb-broker: Kerberos keytabs and tickets for pods, as leases with a holder and an end",
        )?;
        self.plain(
            "Real parts, small times: what takes seconds here takes minutes or hours in a cluster.",
        )
    }

    /// Begins a step: what is done, and why in plain words.
    pub fn step(&mut self, title: &str, why: &str) -> Result<(), WorldError> {
        self.steps += 1;
        let title = format!("{:2}. {title}", self.steps);
        writeln!(self.out)?;
        self.heading(&title)?;
        self.wrapped("    ", why)
    }

    /// A command as one would type it.
    pub fn command(&mut self, command: &str) -> Result<(), WorldError> {
        self.folded("    $ ", command)
    }

    /// A command as one would type it in a pod or on a node of this name.
    pub fn command_in(&mut self, place: &str, command: &str) -> Result<(), WorldError> {
        self.folded(&format!("    {place}$ "), command)
    }

    /// More about a step, in plain words.
    pub fn note(&mut self, text: &str) -> Result<(), WorldError> {
        self.wrapped("    ", text)
    }

    /// What a command printed.
    pub fn output(&mut self, text: impl AsRef<[u8]>) -> Result<(), WorldError> {
        for line in String::from_utf8_lossy(text.as_ref()).lines() {
            self.folded(INDENT, line)?;
        }
        Ok(())
    }

    /// What was seen, in plain words.
    pub fn seen(&mut self, text: &str) -> Result<(), WorldError> {
        self.wrapped("    => ", text)
    }

    /// A line of its own, to the left.
    pub fn plain(&mut self, text: &str) -> Result<(), WorldError> {
        self.wrapped("", text)
    }

    /// A heading after an empty line.
    pub fn chapter(&mut self, text: &str) -> Result<(), WorldError> {
        writeln!(self.out)?;
        self.heading(text)
    }

    /// What failed, and the tail of the logs.
    pub fn failure(
        &mut self,
        error: &WorldError,
        logs: Vec<(String, String)>,
    ) -> Result<(), WorldError> {
        self.chapter(&format!("THE DEMO FAILED in step {}", self.steps))?;
        self.output(error.to_string())?;
        for (name, log) in logs {
            self.chapter(&format!("the last lines of {name}"))?;
            let lines: Vec<&str> = log.lines().collect();
            self.output(lines[lines.len().saturating_sub(TAIL)..].join("\n"))?;
        }
        Ok(())
    }

    fn heading(&mut self, text: &str) -> Result<(), WorldError> {
        let text = self.shortened(text);
        let (on, off) = if self.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        writeln!(self.out, "{on}{text}{off}")?;
        Ok(())
    }

    fn shortened(&self, text: &str) -> String {
        self.short.iter().fold(text.to_owned(), |text, (long, short)| text.replace(long, short))
    }

    /// Prose: broken between words.
    fn wrapped(&mut self, before: &str, text: &str) -> Result<(), WorldError> {
        let text = self.shortened(text);
        let mut line = before.to_owned();
        let mut empty = true;
        for word in text.split(' ') {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                writeln!(self.out, "{line}")?;
                line = " ".repeat(before.len());
                empty = true;
            }
            line += if empty { "" } else { " " };
            line += word;
            empty = false;
        }
        writeln!(self.out, "{line}")?;
        Ok(())
    }

    /// Output: broken at a blank where there is one near the end, the rest further in.
    fn folded(&mut self, before: &str, text: &str) -> Result<(), WorldError> {
        let text: Vec<char> = self.shortened(text).trim_end().chars().collect();
        let (mut rest, mut before) = (text.as_slice(), before.to_owned());
        while !rest.is_empty() {
            let (line, after) = rest.split_at(fold_at(rest, WIDTH - before.chars().count()));
            writeln!(self.out, "{}", format!("{before}{}", String::from_iter(line)).trim_end())?;
            before = format!("{INDENT}    ");
            rest = after;
        }
        Ok(()) // commands print empty lines; here they would only take room
    }
}

/// How many characters go into a line of this width.
fn fold_at(text: &[char], width: usize) -> usize {
    if text.len() <= width {
        return text.len();
    }
    let blank = text[..width].iter().rposition(|c| *c == ' ');
    blank.filter(|at| at * 2 > width).map_or(width, |at| at + 1)
}
