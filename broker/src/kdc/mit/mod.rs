//! MIT.
