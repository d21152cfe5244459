//! The control socket as its clients see it, in front of a real instance whose guest is a socket.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde_json::{Value, json};

use super::*;
use crate::egress::EgressPolicy;
use crate::host::link::FrameSocket;
use crate::instance::{Builder, Instance};

/// Longest wait for an event that has to come; only a failing test ever waits that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A path that no other test uses.
fn path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("slirp-control-{}-{number}", std::process::id()))
}

/// An instance with a control socket and this policy, and its guest's end of the link.
fn instance(control: ControlSocket, policy: Option<&str>) -> (Instance, OwnedFd) {
    let (ours, guest) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let builder = Builder::new(FrameSocket::adopt(ours).unwrap()).control(control);
    let builder = match policy {
        Some(policy) => builder.egress(EgressPolicy::parse(policy, "policy.txt").unwrap()),
        None => builder,
    };
    (builder.spawn().unwrap(), guest)
}

/// A client that has read the greeting.
struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { reader: BufReader::new(stream) };
        let greeting = client.read();
        assert_eq!(greeting["protocol"], 1, "{greeting}");
        client
    }

    fn at(path: &Path) -> Self {
        Self::new(UnixStream::connect(path).unwrap())
    }

    fn send(&mut self, line: &str) {
        writeln!(self.reader.get_mut(), "{line}").unwrap();
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }

    fn ask(&mut self, execute: &str, arguments: Value) -> Value {
        self.send(&json!({ "id": 7, "execute": execute, "arguments": arguments }).to_string());
        let reply = self.read();
        assert_eq!(reply["id"], 7, "{reply}");
        reply
    }

    /// The return of a request that is granted.
    fn get(&mut self, execute: &str, arguments: Value) -> Value {
        let reply = self.ask(execute, arguments);
        reply.get("return").unwrap_or_else(|| panic!("{reply}")).clone()
    }

    /// The words of a refusal.
    fn refused(&mut self, execute: &str, arguments: Value) -> String {
        let reply = self.ask(execute, arguments);
        reply["error"]["desc"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    }
}

/// A client of an instance with this policy.
fn client(policy: Option<&str>) -> (Client, Instance, OwnedFd) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    let (instance, guest) = instance(ControlSocket::from_stream(ours.into()).unwrap(), policy);
    (Client::new(theirs), instance, guest)
}

#[test]
fn policy_is_read_exchanged_and_kept_when_the_new_one_is_wrong() {
    let (mut client, _instance, _guest) = client(Some("allow a.example\nask b.example"));
    let policy = client.get("policy_get", json!({}));
    assert_eq!(
        policy,
        json!({
            "text": "allow a.example\nask b.example\n",
            "rules": [
                { "id": "policy.txt:1", "text": "allow a.example" },
                { "id": "policy.txt:2", "text": "ask b.example" },
            ],
            "next": null, "revision": 1, "default": "deny", "mode": "enforce",
            "sources": ["policy.txt"],
        })
    );
    let wrong = client.refused("policy_set", json!({ "policy": "allow c.example\nallow a..b" }));
    assert_eq!(wrong, "bad arguments.policy[1]: column 7: a label is empty");
    let denies = client.refused("policy_set", json!({ "policy": "deny c.example" }));
    assert!(denies.contains("this policy only denies"), "{denies}");
    assert_eq!(client.get("policy_get", json!({})), policy, "it stays");
    let stale = json!({ "policy": "", "if_revision": 7 });
    assert_eq!(client.refused("policy_set", stale), "the policy has changed: its revision is 1");
    let set = json!({ "policy": "allow any\nset mode audit", "if_revision": 1 });
    assert_eq!(client.get("policy_set", set), json!({ "revision": 2, "cut": 0 }));
    let policy = client.get("policy_get", json!({}));
    let fields = ["text", "default", "mode"].map(|field| policy[field].as_str().unwrap());
    assert_eq!(fields, ["allow any\nset mode audit\n", "allow", "audit"]);
    assert_eq!(policy["sources"], json!(["api"]));
    assert_eq!(client.refused("policy_get", json!({ "member": 1 })), "there is no such member");
}

#[test]
fn rules_come_and_go_one_by_one() {
    let (mut client, _instance, _guest) = client(Some("allow a.example"));
    let add = |rule: &str| json!({ "rule": rule });
    let added = client.get("policy_add", add("allow b.example"));
    assert_eq!(added, json!({ "id": "api:1", "revision": 2 }));
    let added = client.get("policy_add", add("deny c.example"));
    assert_eq!(added, json!({ "id": "api:2", "revision": 3 }));
    let removed = client.get("policy_remove", json!({ "id": "api:1" }));
    assert_eq!(removed, json!({ "id": "api:1", "revision": 4 }));
    let removed = client.get("policy_remove", json!({ "rule": "Allow A.Example." }));
    assert_eq!(removed["id"], "policy.txt:1");
    let text = |client: &mut Client| client.get("policy_get", json!({}))["text"].clone();
    assert_eq!(text(&mut client), "deny c.example\n");
    // Numbers are not used again.
    assert_eq!(client.get("policy_add", add("allow d.example"))["id"], "api:3");
    for (rule, words) in [
        ("allow a..b", "bad arguments.rule: column 7: a label is empty"),
        ("allow any", "bad arguments.rule: a rule, neither a setting nor a default"),
        ("set mode audit", "bad arguments.rule: a rule, neither a setting nor a default"),
        ("# nothing", "bad arguments.rule: a rule, neither a setting nor a default"),
    ] {
        assert_eq!(client.refused("policy_add", add(rule)), words);
    }
    for which in [json!({ "id": "api:1" }), add("allow x.example")] {
        assert_eq!(client.refused("policy_remove", which), "no rule has that id or text");
    }
}

#[test]
fn rule_for_some_time_ends() {
    let (mut client, _instance, _guest) = client(Some("allow a.example"));
    let rule = json!({ "rule": "allow b.example", "for": 1 });
    assert_eq!(client.get("policy_add", rule)["id"], "api:1");
    let rules = client.get("policy_get", json!({}))["rules"].clone();
    assert_eq!(rules[1]["text"], "allow b.example");
    assert_eq!(rules[1]["expires_s"], 1);
    let started = Instant::now();
    while client.get("policy_get", json!({}))["text"] != "allow a.example\n" {
        assert!(started.elapsed() < PATIENCE);
    }
    // A policy that is set has none of the rules that it does not repeat.
    for rule in ["allow b.example", "allow c.example"] {
        client.get("policy_add", json!({ "rule": rule, "for": 60 }));
    }
    client.get("policy_set", json!({ "policy": "allow x.example; allow b.example" }));
    let rules = client.get("policy_get", json!({}))["rules"].clone();
    assert_eq!(rules.as_array().unwrap().len(), 2, "{rules}");
    assert_eq!((&rules[1]["id"], &rules[1]["text"]), (&json!("api:2"), &json!("allow b.example")));
    assert!(rules[1]["expires_s"].as_u64().is_some_and(|left| left > 0), "{rules}");
}

#[test]
fn rule_that_ends_does_not_last_because_the_text_around_it_was_edited() {
    let (mut client, _instance, _guest) = client(Some("allow a.example"));
    client.get("policy_add", json!({ "rule": "allow b.example", "for": 3 }));
    let before = client.get("policy_get", json!({}));
    let text = format!("allow c.example\n{}", before["text"].as_str().unwrap());
    let set = json!({ "policy": text, "if_revision": before["revision"] });
    client.get("policy_set", set);
    let started = Instant::now();
    loop {
        let policy = client.get("policy_get", json!({}));
        if policy["text"] == "allow a.example\nallow c.example\n" {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{policy}");
    }
    // A text stands for both of two equal rules, of which one lasts.
    client.get("policy_add", json!({ "rule": "allow b.example", "for": 60 }));
    client.get("policy_add", json!({ "rule": "allow b.example" }));
    let text = client.get("policy_get", json!({}))["text"].clone();
    client.get("policy_set", json!({ "policy": text }));
    let rules = client.get("policy_get", json!({}))["rules"].clone();
    assert_eq!(rules[1], json!({ "id": "api:2", "text": "allow b.example" }), "{rules}");
}

#[test]
fn without_a_policy_one_can_be_brought_but_no_rule_added() {
    let (mut client, _instance, _guest) = client(None);
    let words = "no policy is in force: policy_set brings one";
    assert_eq!(client.refused("policy_get", json!({})), words);
    assert_eq!(client.refused("policy_add", json!({ "rule": "allow a.example" })), words);
    assert_eq!(client.refused("explain", json!({ "target": "a.example:443" })), words);
    assert_eq!(client.get("info", json!({}))["policy"], Value::Null);
    let set = json!({ "policy": ["allow a.example"], "if_revision": 0 });
    assert_eq!(client.get("policy_set", set), json!({ "revision": 1, "cut": 0 }));
    let explained = client.get("explain", json!({ "target": "a.example:443" }));
    assert_eq!((&explained["verdict"], &explained["rule"]), (&json!("allow"), &json!("api:1")));
    let explained = client.get("explain", json!({ "target": "10.0.2.2:80" }));
    assert_eq!((&explained["verdict"], &explained["cause"]), (&json!("deny"), &json!("protected")));
}

#[test]
fn lists_are_empty_at_first_and_info_counts() {
    let (mut client, _instance, _guest) = client(Some("allow a.example"));
    assert_eq!(client.get("names", json!({})), json!({ "names": [], "next": null }));
    assert_eq!(client.get("flows", json!({})), json!({ "flows": [], "next": null }));
    let sorted = client.get("names", json!({ "sort": "flows" }));
    assert_eq!(sorted, json!({ "names": [], "next": null, "left_out": 0 }));
    let sorted = client.get("flows", json!({ "sort": "age" }));
    assert_eq!(sorted, json!({ "flows": [], "next": null, "left_out": 0 }));
    let of_nobody = client.refused("names", json!({ "member": 1 }));
    assert_eq!(of_nobody, "there is no such member");
    assert_eq!(client.get("questions", json!({})), json!({ "questions": [] }));
    assert_eq!(client.refused("cut", json!({ "flow": "0.1" })), "there is no such flow");
    let info = client.get("info", json!({}));
    assert_eq!(
        info["policy"],
        json!({ "revision": 1, "rules": 1, "default": "deny", "mode": "enforce" })
    );
    assert_eq!(info["guest"], "10.0.2.100");
    assert_eq!((&info["approvers"], &info["flows"]), (&json!(0), &json!(0)));
    assert_eq!(client.refused("log_reopen", json!({})), NO_DESCRIPTOR);
}

const NO_DESCRIPTOR: &str = "a descriptor is wanted, sent along with the request (SCM_RIGHTS)";

#[test]
fn only_a_client_that_said_so_decides() {
    let (mut client, _instance, _guest) = client(Some("ask any"));
    let decide = json!({ "question": 1, "verdict": "allow" });
    let words = "this connection does not decide: say \"decide\":true in hello or subscribe";
    assert_eq!(client.refused("decide", decide.clone()), words);
    assert_eq!(client.get("hello", json!({ "label": "test", "decide": true }))["protocol"], 1);
    assert_eq!(client.get("info", json!({}))["approvers"], 1);
    assert_eq!(client.refused("decide", decide), "there is no such question");
}

#[test]
fn clients_that_go_do_not_decide_any_more() {
    let path = path();
    let (_instance, _guest) = instance(ControlSocket::bind(&path).unwrap(), Some("ask any"));
    let mut watcher = Client::at(&path);
    let mut approver = Client::at(&path);
    assert_eq!(approver.get("subscribe", json!({ "decide": true })), json!({ "seq": 0 }));
    assert_eq!(watcher.get("info", json!({}))["approvers"], 1);
    drop(approver);
    let started = Instant::now();
    while watcher.get("info", json!({}))["approvers"] != 0 {
        assert!(started.elapsed() < PATIENCE);
    }
}

#[test]
fn approvers_of_the_program_and_among_the_clients_add_up() {
    let (mut client, instance, _guest) = client(Some("ask any"));
    let handle = instance.handle();
    let approvers = |client: &mut Client| {
        let info = client.get("info", json!({}))["approvers"].clone();
        assert_eq!(info, handle.blocking().stats().unwrap().approvers);
        info
    };
    handle.blocking().set_approvers(2);
    assert_eq!(approvers(&mut client), 2);
    client.get("subscribe", json!({ "decide": true }));
    assert_eq!(approvers(&mut client), 3);
    handle.blocking().set_approvers(0);
    assert_eq!(approvers(&mut client), 1);
}

#[test]
fn stream_without_a_peer_is_refused() {
    let path = path();
    let listener = UnixListener::bind(&path).unwrap();
    let kind = |fd: OwnedFd| ControlSocket::from_stream(fd).map(|_| ()).unwrap_err().kind();
    assert_eq!(kind(listener.into()), io::ErrorKind::NotConnected);
    let alone = nix::sys::socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    );
    assert_eq!(kind(alone.unwrap()), io::ErrorKind::NotConnected);
    fs::remove_file(&path).unwrap();
}

#[test]
fn bad_lines_are_answered_and_a_line_that_is_too_long_ends_the_connection() {
    let (mut client, _instance, _guest) = client(None);
    client.send("");
    client.send("{");
    assert_eq!(client.read(), json!({ "error": { "desc": "a line is a JSON object" } }));
    client.send(r#"{"id":"x","execute":"metrix"}"#);
    assert_eq!(client.read(), json!({ "id": "x", "error": { "desc": "unknown request" } }));
    let stream = client.reader.get_ref().try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        // The server goes before it has read all of it.
        let _ = (&stream).write_all(&vec![b'x'; 2 * 1024 * 1024]);
    });
    assert_eq!(client.read(), json!({ "error": { "desc": "a line has at most 1 MiB" } }));
    writer.join().unwrap();
    // What was not read turns the end into an error.
    let end = client.reader.read_line(&mut String::new());
    assert!(matches!(end, Ok(0)) || end.is_err());
}

#[test]
fn policy_of_ten_thousand_rules_is_set_and_read_in_parts() {
    let (mut client, _instance, _guest) = client(None);
    let rules: Vec<_> =
        (0..10_000).map(|n| format!("allow host{n}.example note=\"{n:050}\"")).collect();
    let set = client.get("policy_set", json!({ "policy": rules.join("\n") }));
    assert_eq!(set["revision"], 1);
    let mut from = json!(0);
    let mut count = 0;
    while !from.is_null() {
        let part = client.get("policy_get", json!({ "from": from }));
        assert!(part.to_string().len() < 1024 * 1024);
        assert_eq!(part["text"], Value::Null, "it does not fit");
        count += part["rules"].as_array().unwrap().len();
        from = part["next"].clone();
    }
    assert_eq!(count, 10_000);
}

#[test]
fn file_is_for_its_owner_alone() {
    let path = path();
    let socket = ControlSocket::bind(&path).unwrap();
    let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(socket);
    assert!(!path.exists());
}

#[test]
fn socket_that_is_served_is_left_alone_and_a_dead_one_replaced() {
    let path = path();
    let first = ControlSocket::bind(&path).unwrap();
    let second = ControlSocket::bind(&path).map(|_| ()).map_err(|error| error.kind());
    assert_eq!(second, Err(io::ErrorKind::AddrInUse));
    // Its process dies: nobody removes the file.
    let Door::Listener { file, listener } = first.door else { panic!("it has a file") };
    std::mem::forget(file);
    drop(listener);
    drop(ControlSocket::bind(&path).unwrap());
    assert!(!path.exists());
    fs::write(&path, "a file of somebody's").unwrap();
    let other = ControlSocket::bind(&path).map(|_| ()).map_err(|error| error.kind());
    assert_eq!(other, Err(io::ErrorKind::AddrInUse));
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file of somebody's");
    fs::remove_file(&path).unwrap();
}

#[test]
fn connection_too_many_is_refused_in_words_and_harms_no_other() {
    let path = path();
    let (_instance, _guest) = instance(ControlSocket::bind(&path).unwrap(), None);
    let mut clients: Vec<_> = (0..CONNECTIONS_CAP).map(|_| Client::at(&path)).collect();
    let mut refused = BufReader::new(UnixStream::connect(&path).unwrap());
    let mut line = String::new();
    refused.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"error\":{\"desc\":\"32 connections are open already\"}}\n");
    assert_eq!(refused.read_line(&mut line).unwrap(), 0);
    for client in &mut clients {
        assert_eq!(client.get("info", json!({}))["flows"], 0);
    }
}

#[test]
fn ended_instance_removes_its_file() {
    let path = path();
    let (instance, _guest) = instance(ControlSocket::bind(&path).unwrap(), None);
    let mut client = Client::at(&path);
    drop(instance);
    assert!(!path.exists());
    assert_eq!(client.reader.read_line(&mut String::new()).unwrap(), 0);
}
