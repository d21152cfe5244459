//! Doors add up, whatever their order, and a policy survives being written and read.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::egress::{Action, EgressPolicy, EgressRule, Mode, RuleErrorKind, RuleErrors};
use crate::policy::Policy;

fn policy(text: &str) -> EgressPolicy {
    EgressPolicy::parse(text, "p").unwrap_or_else(|errors| panic!("{text}: {errors}"))
}

fn option(action: Action, rule: &str, number: u32) -> EgressPolicy {
    EgressPolicy::from_option(action, rule, number).expect(rule)
}

/// The message of whatever has gone wrong.
fn message<T>(outcome: Result<T, RuleErrors>) -> String {
    outcome.err().map_or_else(|| "nothing is wrong".into(), |errors| errors.to_string())
}

#[test]
fn without_rules_everything_is_denied() {
    let none: [&EgressPolicy; 0] = [];
    let list = EgressPolicy::from_list("cni", "policy", []).expect("no entry is wrong");
    let sum = EgressPolicy::merge_all(none).expect("nothing to be wrong");
    for policy in [policy(""), policy(" # nothing\n\r\n\t\n"), list, sum] {
        assert_eq!(policy.default_action(), Action::Deny);
        assert!(policy.rules().is_empty());
        assert_eq!(policy.to_text(), "");
        assert!(policy.check(&Policy::default()).is_ok());
    }
}

#[test]
fn each_door_has_its_place_and_source() {
    assert_eq!(
        message(EgressPolicy::parse("allow\n\n deny privat", "a b.txt")),
        "a b.txt:1:6: a destination is missing\n\
         a b.txt:3:7: \"privat\" is a name of one label; did you mean the set \"private\"? \
         (write privat. for the name)"
    );
    assert_eq!(
        message(EgressPolicy::from_option(Action::Allow, "a..example", 1)),
        "--allow: column 1: a label is empty"
    );
    assert_eq!(
        message(EgressPolicy::from_option(Action::Ask, "  ", 1)),
        "--ask: column 1: a destination is missing"
    );
    assert_eq!(
        message(EgressPolicy::from_list("cni", "policy", ["allow a.example", "set mode", "x"])),
        "policy[1]: column 9: mode is enforce or audit\n\
         policy[2]: column 1: \"x\" is no action: allow, deny or ask",
    );
    assert_eq!(
        message(EgressPolicy::from_list("api", "policy", ["allow a.example # x\nallow any"])),
        "policy[0]: column 20: an entry is one line",
    );
    assert_eq!(
        message(EgressPolicy::from_entry("api", 4, "rule", "allow")),
        "rule: column 6: a destination is missing",
    );
    let list = EgressPolicy::from_list("cni", "policy", ["", "allow a.example"]).expect("right");
    assert_eq!(list.rules()[0].source.to_string(), "cni:2");
    assert_eq!(option(Action::Deny, "in any", 7).rules()[0].source.to_string(), "cli:7");
    assert_eq!(policy("\nallow a.example").rules()[0].source.to_string(), "p:2");
}

#[test]
fn names_of_files_cannot_draw_on_a_terminal() {
    assert_eq!(
        message(EgressPolicy::parse("allow", "a\u{1b}[2J\nb")),
        "a?[2J?b:1:6: a destination is missing"
    );
}

#[test]
fn columns_count_characters() {
    assert_eq!(
        message(EgressPolicy::parse("allow münchen. x", "p")),
        "p:1:7: names are ASCII: write the xn-- form"
    );
    assert_eq!(
        message(EgressPolicy::parse("allow a.example note=\"ü\"", "p")).split(' ').next(),
        Some("p:1:22:")
    );
    assert_eq!(
        message(EgressPolicy::parse("allow a.example \"üü\" b", "p")).split(' ').next(),
        Some("p:1:17:")
    );
}

#[test]
fn an_annotation_is_cut_outside_of_notes_and_comments() {
    let text = "allow a.example; deny b.example note=\"x;y\" ;\nask c.example # no; allow any\n;";
    let entries: Vec<&str> = EgressPolicy::entries(text).map(str::trim).collect();
    let expected = [
        "allow a.example",
        "deny b.example note=\"x;y\"",
        "",
        "ask c.example # no; allow any",
        "",
        "",
    ];
    assert_eq!(entries, expected);
    let policy = EgressPolicy::from_list("oci", "org.slirp.policy", entries).expect("right");
    assert_eq!(policy.rules().len(), 3);
}

#[test]
fn what_is_given_twice_differently_names_both_places() {
    let file = policy("allow any\nset mode audit");
    assert_eq!(
        message(EgressPolicy::parse("allow any\n deny any", "FILE")),
        "FILE:2:2: the default was already given at FILE:1: allow"
    );
    assert_eq!(
        message(file.merge(&option(Action::Deny, "any", 3))),
        "--deny: column 1: the default was already given at p:1: allow"
    );
    let list = EgressPolicy::from_list("cni", "policy", ["set mode enforce"]).expect("right");
    assert_eq!(
        message(file.merge(&list)),
        "policy[0]: column 1: mode was already given at p:2: audit"
    );
    assert_eq!(
        message(EgressPolicy::parse(
            "set placeholder 10.0.0.0/24\nset placeholder 10.0.1.0/24",
            "p"
        )),
        "p:2:1: placeholder was already given at p:1: 10.0.0.0/24"
    );
    let sum = file.merge(&file).expect("the same twice");
    assert_eq!(sum, file);
    assert_eq!((sum.default_action(), sum.settings().mode), (Action::Allow, Some(Mode::Audit)));
}

#[test]
fn a_policy_that_only_denies_says_so() {
    let check = |policy: &EgressPolicy| message(policy.check(&Policy::default()));
    let hint = "this policy only denies: add \"allow any\" for a deny list";
    let denials = policy("deny a.example");
    assert_eq!(check(&denials), hint);
    assert_eq!(check(&policy("deny any:25")), hint);
    for more in ["allow any", "deny any", "allow b.example", "ask b.example"] {
        let sum = denials.merge(&policy(more)).expect("no conflict");
        assert!(sum.check(&Policy::default()).is_ok(), "{more}");
    }
}

#[test]
fn switches_make_some_rules_impossible() {
    let switches = Policy { allow_host_loopback: false, ..Policy::default() };
    let rules = "allow host-loopback:80\nallow 127.0.0.1\nask [::1]\ndeny host-loopback\n\
                 allow in 127.0.0.1\nallow host\nallow a.example\nallow 10.0.0.0/8";
    assert_eq!(
        message(policy(rules).check(&switches)),
        "p:1: the host's loopback is disabled\np:2: the host's loopback is disabled\n\
         p:3: the host's loopback is disabled"
    );
    let switches = Policy { dns_service: false, ..Policy::default() };
    assert_eq!(
        message(policy("allow dns\ndeny a.example\nallow any:53\nallow in any").check(&switches)),
        "p:1: a rule for a name needs the DNS service, which is disabled\n\
         p:2: a rule for a name needs the DNS service, which is disabled"
    );
}

#[test]
fn rules_that_are_in_order_may_warn() {
    for (text, warning) in [
        (
            "allow 2001:db8::1:443",
            "p:1: 2001:db8::1:443 is one address without a port; write [2001:db8::1]:443 for a \
             port",
        ),
        ("allow *.github.io", "p:1: anybody can have a name below github.io"),
        ("ask .s3.amazonaws.com:443", "p:1: anybody can have a name below s3.amazonaws.com"),
        (
            "allow udp:a.example:443",
            "p:1: the names in QUIC are not verified: this opens UDP to all hosts at the addresses \
             of a.example",
        ),
        ("deny any log=no", "p:1: this denies everything, whatever else is allowed"),
        (
            "allow any",
            "a list of denials stops honest programs only; a boundary needs a list of what is \
             allowed",
        ),
    ] {
        let warnings: Vec<String> = policy(text).warnings().map(|it| it.to_string()).collect();
        assert_eq!(warnings, [warning], "{text}");
    }
    for text in [
        "allow [2001:db8::1:443]",
        "allow 2001:db8::10",
        "deny *.github.io",
        "allow me.github.io",
        "allow udp:a.example:123",
        "deny udp:a.example",
        "ask any",
        "deny any",
    ] {
        assert_eq!(policy(text).warnings().count(), 0, "{text}");
    }
}

#[test]
fn caps_hold() {
    let lines = |count: usize| "deny 10.0.0.1\n".repeat(count);
    let full = policy(&lines(10_000));
    assert_eq!(full.rules().len(), 10_000);
    assert_eq!(full.to_text(), "deny 10.0.0.1\n");
    assert_eq!(
        message(EgressPolicy::parse(&lines(10_002), "p")),
        "p:10001:1: a policy has at most 10,000 rules"
    );
    assert_eq!(
        message(full.merge(&policy("allow a.example"))),
        "p:1: a policy has at most 10,000 rules"
    );
    assert_eq!(
        message(EgressPolicy::parse(&"#".repeat(1024 * 1024 + 1), "p")),
        "p:1:1: a policy has at most 1 MiB"
    );
    assert_eq!(
        message(EgressPolicy::from_list("cni", "policy", [&*"#".repeat(1 << 21)])),
        "policy[0]: column 1: a policy has at most 1 MiB"
    );
    let errors = EgressPolicy::parse(&"allow\n".repeat(100), "p").expect_err("no destinations");
    assert_eq!(errors.iter().count(), 20);
    let hosted = policy(&"allow *.github.io\n".repeat(50));
    assert_eq!(hosted.warnings().count(), 20);
    assert_eq!(hosted.merge(&hosted).expect("the same twice").warnings().count(), 20);
    let long = |name: &str| message(EgressPolicy::parse(&format!("allow {name}"), "p"));
    let label = "a".repeat(63);
    let name = |last: usize| format!("{label}.{label}.{label}.{}", "b".repeat(last));
    assert_eq!(long(&name(61)), "nothing is wrong");
    assert_eq!(long(&name(62)), "p:1:7: a name has at most 253 bytes");
    assert_eq!(long(&format!("{label}a.example")), "p:1:7: a label has at most 63 bytes");
    let note = |len| long(&format!("a.example note=\"{}\"", "x".repeat(len)));
    assert_eq!(note(120), "nothing is wrong");
    assert!(note(121).starts_with("p:1:22: note is printable ASCII"));
    assert_eq!(long(&"\u{1}".repeat(1000)).len(), 7 + 2 + 80 * 5 + 3 + 33);
}

/// A shape that took quadratic time would take minutes here.
#[test]
fn a_hostile_text_takes_linear_time() {
    const LEN: usize = 256 * 1024;
    for part in [
        "allow ",
        "allow a.example log=no ",
        "a.",
        ".",
        "*",
        "1:",
        "80,",
        "\"",
        "#",
        "[",
        "/",
        "ü",
        " ",
        "\n",
        "allow\n",
        "set mode audit\n",
        "a.example:1-",
        "https://",
        "x=\"\" ",
        "allow any\n",
        "allow a.example\n",
    ] {
        let text = part.repeat(LEN / part.len());
        for text in [text.clone(), format!("allow {}", &text[..text.len() - part.len().max(6)])] {
            if let Ok(policy) = EgressPolicy::parse(&text, "p") {
                assert_eq!(policy, self::policy(&policy.to_text()));
            }
        }
    }
}

/// Texts of rules that are in order.
fn rule_text() -> impl Strategy<Value = String> {
    let name = "[a-z0-9_]{1,8}(-[a-z0-9]{1,4})?\\.[a-z][a-z0-9]{0,5}\\.?";
    let destination = prop_oneof![
        name,
        (select(vec!["*.", "**.", "."]), name).prop_map(|(front, name)| front.to_owned() + &name),
        any::<[u8; 4]>().prop_map(|address| core::net::Ipv4Addr::from(address).to_string()),
        any::<[u8; 2]>().prop_map(|[a, b]| format!("{a}.{b}.0.0/16")),
        any::<[u16; 8]>().prop_map(|part| format!("[{}]", core::net::Ipv6Addr::from(part))),
        any::<u16>().prop_map(|part| format!("[{part:x}:1::/32]")),
        select(vec!["any", "host", "private", "gateway", "internet", "metadata"])
            .prop_map(str::to_owned),
    ];
    let item = prop_oneof![
        (1..=u16::MAX).prop_map(|port| port.to_string()),
        (1..1000_u16, 0..1000_u16).prop_map(|(first, more)| format!("{first}-{}", first + more)),
    ];
    let ports = prop_oneof![
        Just(String::new()),
        Just(":*".to_owned()),
        vec(item, 1..=16).prop_map(|items| ":".to_owned() + &items.join(",")),
    ];
    let options = ["verify=off", "log=no", "note=\"a #;=b\"", "private=yes", "wide=yes"];
    let options = subsequence(options.to_vec(), 0..=options.len()).prop_shuffle();
    let action = select(vec!["allow", "ask", "Deny"]);
    let front = select(vec!["", "tcp:", "udp:", "in "]);
    (action, front, destination, ports, options).prop_map(|(action, front, to, ports, options)| {
        let rule = format!("{action} {front}{to}{ports} {}", options.join("\t"));
        // What does not fit together, or states a default, is made as short as a rule can be.
        match EgressPolicy::parse(&rule, "") {
            Ok(policy) if !policy.rules().is_empty() => rule,
            Ok(_) | Err(_) => format!("{action} tcp:{to}"),
        }
    })
}

fn without_sources(policy: &EgressPolicy) -> Vec<EgressRule> {
    let source = option(Action::Deny, "in any", 1).rules()[0].source.clone();
    let rules = policy.rules().iter().map(|rule| {
        let mut rule = rule.clone();
        rule.source = source.clone();
        rule
    });
    rules.collect()
}

proptest! {
    #[test]
    fn what_is_written_reads_as_it_was(lines in vec(rule_text(), 0..20)) {
        let policy = policy(&lines.join("\n"));
        let again = self::policy(&policy.to_text());
        prop_assert_eq!(&again.to_text(), &policy.to_text());
        let (before, after) = (without_sources(&policy), without_sources(&again));
        prop_assert!(before.iter().all(|rule| after.contains(rule)));
        prop_assert!(after.iter().all(|rule| before.contains(rule)));
    }

    #[test]
    fn neither_lines_nor_doors_have_an_order(
        lines in vec(rule_text(), 1..12).prop_shuffle(),
        cut in 0..12_usize,
    ) {
        let whole = policy(&lines.join("\n"));
        let (front, back) = lines.split_at(cut.min(lines.len()));
        let (front, back) = (policy(&front.join("\n")), policy(&back.join("\r\n")));
        prop_assert_eq!(&back.merge(&front).expect("no defaults"), &whole);
        prop_assert_eq!(&whole.merge(&front).expect("no defaults"), &whole);
        let list = EgressPolicy::from_list("cni", "policy", lines.iter().rev().map(|line| &**line));
        prop_assert_eq!(&list.expect("the same"), &whole);
    }

    #[test]
    fn errors_point_into_the_text(
        words in vec(
            prop_oneof![rule_text(), "\\PC{0,9}", "[ \t\n\r#\":/.*,=-]", "[a-z.]{0,9}"],
            0..20,
        ),
    ) {
        let text = words.concat();
        let Err(errors) = EgressPolicy::parse(&text, "p") else {
            return Ok(());
        };
        prop_assert!((1..=20).contains(&errors.iter().count()));
        for error in &errors {
            let (line, column) = (error.line().expect("a file"), error.column().expect("a file"));
            let line = text.lines().nth(line as usize - 1).expect("the line exists");
            prop_assert!((1..=line.chars().count() + 1).contains(&(column as usize)), "{}", error);
            prop_assert!(error.to_string().bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert!(*error.kind() != RuleErrorKind::OnlyDenies);
        }
    }
}

#[test]
fn rules_for_lookups_alone_tell_no_hosts_apart() {
    for (text, names_hosts) in [
        ("", false),
        ("allow 10.9.8.7", false),
        ("allow dns:a.example\ndeny dns:*.b.example\nallow dns:any", false),
        ("allow a.example", true),
        ("allow any\ndeny .a.example:22", true),
        ("allow dns:any\nask udp:a.example:7", true),
    ] {
        assert_eq!(policy(text).names_hosts(), names_hosts, "{text}");
    }
}

#[test]
fn host_loopback_is_open_where_a_rule_names_it() {
    let gateways = ["10.0.2.2", "fd00::2"].map(|gateway| gateway.parse().unwrap());
    for (text, opens) in [
        ("", false),
        ("allow any", false),
        ("allow internet\nallow private", false),
        ("deny host-loopback\nallow in 127.0.0.1", false),
        ("allow 10.0.2.0/24\nallow 0.0.0.0/1", false),
        ("allow host-loopback:80", true),
        ("ask host:80", true),
        ("allow 127.0.0.1:80", true),
        ("allow [::1]:80", true),
        ("allow gateway:80", true),
        ("allow 10.0.2.2:80", true),
        ("allow [fd00::2]:80", true),
    ] {
        assert_eq!(policy(text).opens_host_loopback(&gateways), opens, "{text}");
    }
}
