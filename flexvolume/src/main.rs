//! The flexvolume driver.

fn main() {}
