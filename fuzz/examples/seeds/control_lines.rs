//! Seeds of the target `control_line`.

/// A name, a request and its arguments.
const SEEDS: [(&str, &str, &str); 17] = [
    ("hello", "hello", r#"{"label":"a","protocol":1,"decide":true}"#),
    ("policy_get", "policy_get", r#"{"member":2,"from":7}"#),
    ("policy_set", "policy_set", r#"{"policy":"allow a.example; deny b\nask c","if_revision":1}"#),
    ("policy_set_keep", "policy_set", r#"{"policy":["allow any"],"established":"keep"}"#),
    ("policy_set_errors", "policy_set", r#"{"policy":["permit a","allow a..b"]}"#),
    ("policy_add", "policy_add", r#"{"rule":"allow a.example:22","for":60,"member":null}"#),
    ("policy_remove", "policy_remove", r#"{"id":"api:3"}"#),
    ("explain", "explain", r#"{"target":"udp:[2001:db8::1]:53","guest":"10.0.2.100"}"#),
    ("flows", "flows", r#"{"from":256,"limit":1}"#),
    ("names", "names", r#"{"from":0,"limit":256,"member":1}"#),
    ("decide", "decide", r#"{"question":7,"verdict":"allow","scope":"for","for":600}"#),
    ("decide_all", "decide", r#"{"question":7,"verdict":"deny","ports":"all","names":"parent"}"#),
    ("cut", "cut", r#"{"flow":"17.3"}"#),
    ("rate_set", "rate_set", r#"{"in":1000000,"out":null,"in_burst":65536}"#),
    ("subscribe", "subscribe", r#"{"events":["ask","lost"],"decide":true,"since":4}"#),
    ("info", "info", r#"null"#),
    ("odd", "log_reopen", r#"[]"#),
];

pub(crate) fn seeds() -> impl Iterator<Item = (&'static str, String)> {
    SEEDS.into_iter().map(|(name, execute, arguments)| {
        let line = format!(r#"{{"id":1,"execute":"{execute}","arguments":{arguments}}}"#);
        (name, line)
    })
}
