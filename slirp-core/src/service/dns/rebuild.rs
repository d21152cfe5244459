//! The query that goes upstream under an egress policy.
//!
//! Owns what may leave of a guest's query: the bits RD and CD, one question in the guest's
//! spelling, and an OPT record with the guest's UDP size and DO bit. Other records, EDNS options,
//! and bytes behind the message stay here: forwarders pass some of them on, and each could carry
//! data out. RFC 1035 section 4.1, RFC 6891 section 6.1.

use super::message::{
    FLAG_CHECKING_DISABLED, FLAG_RECURSION_DESIRED, HEADER_LEN, QueryShape, append_opt,
};
use super::question::Question;

/// The message for the resolvers that asks `question` of `query`.
pub(super) fn rebuild(query: &[u8], shape: &QueryShape, question: &Question<'_>) -> Vec<u8> {
    let mut rebuilt = vec![0; HEADER_LEN];
    if let Some(header) = query.get(..HEADER_LEN) {
        rebuilt[..2].copy_from_slice(&header[..2]);
        rebuilt[2] = header[2] & FLAG_RECURSION_DESIRED;
        rebuilt[3] = header[3] & FLAG_CHECKING_DISABLED;
    }
    rebuilt[5] = 1;
    rebuilt.extend_from_slice(question.name);
    rebuilt.extend_from_slice(&question.kind.to_be_bytes());
    rebuilt.extend_from_slice(&question.class.to_be_bytes());
    if let Some(edns) = shape.edns {
        append_opt(&mut rebuilt, edns);
    }
    rebuilt
}
