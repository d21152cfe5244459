//! The target `http_head`: what a client of HTTP/1 sends, request after request.

use slirp_core::egress::Cause;
use slirp_core::internals::egress::Verification;

use super::{Way, reference_http};
use crate::INPUT_CAP;

/// Feeds one input to verifiers of ports 80 and 8080. Panics when a promise is broken.
pub fn http_head(data: &[u8]) {
    let stream = &data[..data.len().min(INPUT_CAP)];
    for port in [80, 8080] {
        let way = Way { verification: Verification::Http, port, may_hide_name: true };
        let outcome = way.verify_cut(stream);
        assert_eq!(outcome, reference_http::outcome(stream, port), "the second parser");
        let sniffed = Way { verification: Verification::Sniff, ..way }.verify_cut(stream);
        if outcome.left > 0 || matches!(outcome.refused, Some(Cause::Name)) {
            assert_eq!(sniffed, outcome, "guessed");
        }
        let lenient = Way { verification: Verification::SniffDenied, ..way }.verify_cut(stream);
        if matches!(outcome.refused, Some(Cause::Name)) {
            assert_eq!(lenient, outcome, "guessed, a denied name");
        }
    }
}
