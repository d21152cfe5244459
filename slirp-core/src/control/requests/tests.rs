//! Lines of clients, and what is made of them.

use super::*;

fn read(line: &str) -> Result<Request, Refusal> {
    parse(line.as_bytes()).1
}

fn ask(execute: &str, arguments: &str) -> Result<Request, Refusal> {
    read(&format!(r#"{{"execute":"{execute}","arguments":{arguments}}}"#))
}

fn refused(execute: &str, arguments: &str) -> String {
    ask(execute, arguments).expect_err(arguments).to_string()
}

fn names(member: Option<u64>, part: Part<NameOrder>) -> Request {
    Request::Names { member: member.map(MemberId), part }
}

#[test]
fn requests_are_read() {
    let member = Some(MemberId(2));
    for (execute, arguments, request) in [
        ("hello", "{}", Request::Hello { label: None, decide: false }),
        (
            "hello",
            r#"{"label":"slirp approve","protocol":1,"decide":true}"#,
            Request::Hello { label: Some("slirp approve".into()), decide: true },
        ),
        ("policy_get", r#"{"member":2}"#, Request::PolicyGet { member, from: 0 }),
        (
            "policy_set",
            r#"{"policy":"allow a.example\n# all\nset mode audit; deny b.example",
                "if_revision":7,"established":"keep","member":2}"#,
            Request::PolicySet {
                member,
                policy: EgressPolicy::parse("allow a.example\nset mode audit\ndeny b.example", "x")
                    .unwrap(),
                replaced: Some(Revision(7)),
                established: Established::Keep,
            },
        ),
        (
            "policy_set",
            r#"{"policy":["allow a.example"]}"#,
            Request::PolicySet {
                member: None,
                policy: EgressPolicy::parse("allow a.example", "x").unwrap(),
                replaced: None,
                established: Established::Cut,
            },
        ),
        (
            "policy_add",
            r#"{"rule":"deny b.example","for":2}"#,
            Request::PolicyAdd {
                member: None,
                rule: "deny b.example".into(),
                limit: Some(Duration::from_secs(2)),
            },
        ),
        (
            "policy_remove",
            r#"{"id":"api:3"}"#,
            Request::PolicyRemove { member: None, which: RuleName::Id("api:3".into()) },
        ),
        (
            "explain",
            r#"{"target":"a.example:443","guest":"10.0.2.100"}"#,
            Request::Explain {
                attempt: Attempt::parse("a.example:443").unwrap(),
                guest: Some([10, 0, 2, 100].into()),
            },
        ),
        ("names", "{}", names(None, Part::Next { from: 0, limit: ROWS_CAP })),
        (
            "names",
            r#"{"sort":"name","member":3,"from":0}"#,
            names(Some(3), Part::First { order: NameOrder::Name, limit: ROWS_CAP }),
        ),
        ("flows", r#"{"from":7,"limit":1}"#, Request::Flows(Part::Next { from: 7, limit: 1 })),
        (
            "flows",
            r#"{"sort":"bytes","limit":100}"#,
            Request::Flows(Part::First { order: FlowOrder::Bytes, limit: 100 }),
        ),
        ("questions", "null", Request::Questions),
        (
            "decide",
            r#"{"question":7,"verdict":"allow","for":600,"ports":"all","names":"parent"}"#,
            Request::Decide {
                question: QuestionId(7),
                decision: Decision {
                    action: Action::Allow,
                    scope: Scope::For(Duration::from_secs(600)),
                    all_ports: true,
                    parent: true,
                },
            },
        ),
        (
            "decide",
            r#"{"question":7,"verdict":"deny","scope":"session"}"#,
            Request::Decide {
                question: QuestionId(7),
                decision: Decision {
                    action: Action::Deny,
                    scope: Scope::Session,
                    all_ports: false,
                    parent: false,
                },
            },
        ),
        ("cut", r#"{"flow":"17.3"}"#, Request::Cut(FlowId { index: 17, generation: 3 })),
        (
            "rate_set",
            r#"{"in":1000000,"out":null,"in_burst":65536}"#,
            Request::RateSet {
                member: None,
                rates: Rates::new(
                    Some(Rate { bits_per_second: 1_000_000, burst: Some(65_536) }),
                    None,
                ),
            },
        ),
        (
            "subscribe",
            r#"{"events":["ask","decision"],"decide":true,"since":41}"#,
            Request::Subscribe {
                kinds: Some(BTreeSet::from(["ask", "decision"])),
                decide: true,
                since: Some(41),
            },
        ),
        ("info", "{}", Request::Info),
        ("log_reopen", "{}", Request::LogReopen),
        ("metrics", "{}", Request::Metrics),
    ] {
        assert_eq!(ask(execute, &arguments.replace('\n', " ")), Ok(request), "{execute}");
    }
}

#[test]
fn wrong_arguments_are_refused_in_words() {
    for (execute, arguments, words) in [
        ("hello", r#"{"label":7}"#, "bad arguments.label: text"),
        (
            "hello",
            r#"{"label":"\u001b[2J"}"#,
            "bad arguments.label: at most 64 bytes of printable ASCII",
        ),
        ("policy_get", r#"{"member":-1}"#, "bad arguments.member: the number of a member"),
        ("policy_get", "[]", "bad arguments: an object is wanted"),
        ("policy_set", "{}", "bad arguments.policy: text, or a list of rules"),
        ("policy_set", r#"{"policy":[7]}"#, "bad arguments.policy: text, or a list of rules"),
        (
            "policy_set",
            r#"{"policy":["allow a.example","permit b.example","allow a..b"]}"#,
            "bad arguments.policy[1]: column 1: \"permit\" is no action: allow, deny or ask\n\
             bad arguments.policy[2]: column 7: a label is empty",
        ),
        (
            "policy_set",
            r#"{"policy":"","established":"reset"}"#,
            "bad arguments.established: cut or keep",
        ),
        (
            "policy_set",
            r#"{"policy":"","establshed":"keep"}"#,
            "bad arguments: policy_set has no \"establshed\"",
        ),
        ("policy_add", "{}", "bad arguments.rule: the text of a rule: allow files.example"),
        (
            "policy_add",
            r#"{"rule":"allow a.example","for":0}"#,
            "bad arguments.for: seconds, from 1 to a year",
        ),
        (
            "policy_remove",
            r#"{"rule":"allow a.example","id":"api:1"}"#,
            "bad arguments.id: either an id or a rule",
        ),
        ("explain", "{}", "bad arguments.target: what is attempted: files.example:443"),
        (
            "explain",
            r#"{"target":"a.example"}"#,
            "bad arguments.target: a.example has no port: write a.example:443, or dns:a.example \
             for its lookup alone",
        ),
        ("explain", r#"{"target":"a.b:1","guest":"me"}"#, "bad arguments.guest: an address"),
        ("flows", r#"{"limit":0}"#, "bad arguments.limit: a number from 1 to 256"),
        ("flows", r#"{"sort":"name"}"#, "bad arguments.sort: bytes, age or idle"),
        ("names", r#"{"sort":"bytes"}"#, "bad arguments.sort: name or flows"),
        (
            "names",
            r#"{"sort":"name","from":1}"#,
            "bad arguments.from: not beside sort, which has the first rows alone",
        ),
        ("flows", r#"{"from":4294967296}"#, "bad arguments.from: a number from 0 on"),
        ("decide", r#"{"verdict":"allow"}"#, "bad arguments.question: the number of a question"),
        ("decide", r#"{"question":7}"#, "bad arguments.verdict: allow or deny"),
        ("decide", r#"{"question":7,"verdict":"ask"}"#, "bad arguments.verdict: allow or deny"),
        (
            "decide",
            r#"{"question":7,"verdict":"deny","scope":"for"}"#,
            "bad arguments.for: seconds, from 1 to a year",
        ),
        (
            "decide",
            r#"{"question":7,"verdict":"deny","scope":"once","for":7}"#,
            "bad arguments.for: only beside the scope \"for\"",
        ),
        ("cut", r#"{"flow":"17"}"#, "bad arguments.flow: the name of a flow: \"17.3\""),
        ("rate_set", r#"{"out_burst":1}"#, "bad arguments.out_burst: only beside a rate"),
        ("rate_set", r#"{"in":"1M"}"#, "bad arguments.in: bits a second, or null for no limit"),
        ("subscribe", r#"{"decide":1}"#, "bad arguments.decide: true or false"),
        ("policy_sett", "{}", "unknown request"),
    ] {
        assert_eq!(refused(execute, arguments), words, "{execute} {arguments}");
    }
    assert!(refused("subscribe", r#"{"events":["asks"]}"#).starts_with("bad arguments.events: "));
}

#[test]
fn lines_that_are_no_requests_are_refused() {
    for (line, refusal) in [
        ("", Refusal::NotObject),
        ("policy_get", Refusal::NotObject),
        ("[1]", Refusal::NotObject),
        (r#"{"execute":"info"} {"execute":"info"}"#, Refusal::NotObject),
        (r#"{"id":1}"#, Refusal::NoExecute),
        (r#"{"execute":7}"#, Refusal::NoExecute),
        (r#"{"id":[1],"execute":"info"}"#, Refusal::Id),
        (r#"{"id":1.5,"execute":"info"}"#, Refusal::Id),
        (r#"{"execute":"info","argument":{}}"#, Refusal::UnknownKey("argument".into())),
    ] {
        assert_eq!(read(line), Err(refusal), "{line}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(read(&deep), Err(Refusal::NotObject));
}

#[test]
fn replies_have_the_id_of_the_request() {
    for (line, shown) in [
        (r#"{"id":7,"execute":"x"}"#, r#"{"error":{"desc":"unknown request"},"id":7}"#),
        (r#"{"id":"a","execute":"x"}"#, r#"{"error":{"desc":"unknown request"},"id":"a"}"#),
        (r#"{"execute":"x"}"#, r#"{"error":{"desc":"unknown request"}}"#),
    ] {
        let (id, request) = parse(line.as_bytes());
        assert_eq!(request.unwrap_err().reply(id.as_ref()).to_string(), shown);
    }
    assert_eq!(reply(None, "return", json!({})).to_string(), r#"{"return":{}}"#);
}
