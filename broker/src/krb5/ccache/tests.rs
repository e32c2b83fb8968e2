//! Stories of this module.
