//! The target `client_hello`: what a client of TLS sends, ciphertext included.

use slirp_core::egress::Cause;
use slirp_core::internals::egress::Verification;

use super::{Way, reference_tls};
use crate::INPUT_CAP;

/// Feeds one input to verifiers of port 443. Panics when a promise is broken.
pub fn client_hello(data: &[u8]) {
    let stream = &data[..data.len().min(INPUT_CAP)];
    for may_hide_name in [false, true] {
        let way = Way { verification: Verification::Tls, port: 443, may_hide_name };
        let outcome = way.verify_cut(stream);
        assert_eq!(outcome, reference_tls::outcome(stream, may_hide_name), "the second parser");
        let sniffed = Way { verification: Verification::Sniff, ..way }.verify_cut(stream);
        if outcome.refused != Some(Cause::NoTls) && outcome.refused != Some(Cause::Hello) {
            assert_eq!(sniffed, outcome, "guessed");
        }
        let lenient = Way { verification: Verification::SniffDenied, ..way }.verify_cut(stream);
        if matches!(outcome.refused, Some(Cause::Name | Cause::Ech)) {
            assert_eq!(lenient, outcome, "guessed, a denied name");
        }
    }
}
