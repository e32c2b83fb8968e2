//! Runs krb-broker on real parts.
