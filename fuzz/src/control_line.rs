//! The target `control_line`: a line of a client of the control socket. The input is the line.

use serde_json::Value;
use slirp_core::internals::control::refusal_of;

use crate::INPUT_CAP;

/// Reads one line. Panics when a promise is broken.
pub fn control_line(data: &[u8]) {
    let line = &data[..data.len().min(INPUT_CAP)];
    let Some(reply) = refusal_of(line) else { return };
    assert!(!reply.contains('\n'), "{reply:?} is one line");
    // A message repeats little of what it is about, and there are at most 20 of them.
    assert!(reply.len() < 64 * 1024, "{} bytes", reply.len());
    let reply: Value = serde_json::from_str(&reply).expect("a refusal is JSON");
    let words = reply["error"]["desc"].as_str().expect("a refusal has words");
    assert!(!words.is_empty());
    let asked: Option<Value> = serde_json::from_slice(line).ok();
    let id = asked.as_ref().and_then(|asked| asked.get("id"));
    if let Some(told) = reply.get("id") {
        assert_eq!(Some(told), id, "the reply has the id of its request");
    }
}
