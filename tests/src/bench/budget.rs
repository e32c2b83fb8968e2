//! What was promised, and what was measured.

use std::fmt;

/// One promise of the design, measured.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Its name, which stays.
    pub name: &'static str,
    /// Whether the figure is within it.
    pub met: bool,
    /// What was measured, with its unit.
    pub figure: String,
    /// The limit.
    pub budget: String,
    /// What the rival did in the same run; `none` where there is none.
    pub rival: String,
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, met, figure, budget, rival } = self;
        let word = if *met { "met" } else { "missed" };
        write!(f, "budget {name}: {word} {figure} (budget {budget}, rival {rival})")
    }
}

/// What a part found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Figures that explain, one a line.
    pub lines: Vec<String>,
    /// The promises.
    pub budgets: Vec<Budget>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_one_line_that_a_program_can_read() {
        let budget = Budget {
            name: "driver-start",
            met: false,
            figure: "1.60 times".to_owned(),
            budget: "1.5 times".to_owned(),
            rival: "0.50 ms".to_owned(),
        };
        let line = "budget driver-start: missed 1.60 times (budget 1.5 times, rival 0.50 ms)";
        assert_eq!(budget.to_string(), line);
    }
}
